"""What is to go on a vehicle: networks with cards, engines with manifests, measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from airside_perception.card import ModelCard, find_card
from airside_perception.card.find import card_file
from airside_perception.deploy.checklist.evidence import Evidence, find_evidence
from airside_perception.deploy.doctor.host import Host
from airside_perception.deploy.doctor.needs import Needs, read_needs
from airside_perception.engine import ENGINE_SUFFIXES
from airside_perception.engine.manifest import Manifest
from airside_perception.errors import ConfigError, EngineError, PerceptionError
from airside_perception.resources import resource


@dataclass(frozen=True)
class Network:
    """A network and its card.

    Attributes:
        path: .onnx.
        model: `onnx.ModelProto`; None where it cannot be read.
        card: None where there is none, or a broken one.
        problem: why; empty: nothing is wrong.
    """

    path: Path
    model: Any
    card: ModelCard | None
    problem: str = ''

    @property
    def about(self) -> Mapping[str, Any]:
        """What the card says beyond what detectors need."""
        return self.card.about if self.card is not None else {}


@dataclass(frozen=True)
class Engine:
    """An engine and its manifest.

    Attributes:
        path: the engine.
        manifest: None where there is none, or a broken one.
        problem: why; empty: nothing is wrong.
    """

    path: Path
    manifest: Manifest | None
    problem: str = ''


@dataclass(frozen=True)
class Deployment:
    """Everything that the checklist looks at.

    Attributes:
        networks, engines: in order of their names.
        evidence: what was measured before.
        needs: what the parameters name.
        host: how this machine is looked at.
        sm: architecture of the vehicle's GPU.
        budget_ms: longest latency that is safe; 0: nobody has said.
        triton: a model repository; None: not given.
        reopen: opens an engine in a process of its own; empty, or why it cannot.
    """

    networks: tuple[Network, ...]
    engines: tuple[Engine, ...]
    evidence: tuple[Evidence, ...]
    needs: Needs
    host: Host
    sm: str
    budget_ms: float
    triton: Path | None
    reopen: Callable[[Path], str]
    folders: tuple[Path, ...] = field(default=())

    def of(self, network: Network) -> Iterator[tuple[Path, Manifest]]:
        """The engines that were built from a network, as their manifests say."""
        for path, manifest in self.manifests():
            if manifest.onnx_path(path).resolve() == network.path.resolve() or (
                Path(manifest.onnx).name == network.path.name
            ):
                yield path, manifest

    def manifests(self) -> Iterator[tuple[Path, Manifest]]:
        """Engines with a manifest."""
        for engine in self.engines:
            if engine.manifest is not None:
                yield engine.path, engine.manifest

    @property
    def no_engines(self) -> str:
        """Why nothing can be said about engines; empty: there are some."""
        if self.engines:
            return ''
        return f'there is no engine in {" or ".join(map(str, self.folders))}'


def read_deployment(
    models: str | Path = '',
    engines: str | Path = '',
    evidence: str | Path = '',
    params: str | Path | None = None,
    *,
    sm: str = 'sm_87',
    budget_ms: float = 0.0,
    triton: str | Path = '',
    host: Host | None = None,
    reopen: Callable[[Path], str],
) -> Deployment:
    """Reads the folders of a deployment.

    Args:
        models: .onnx with their cards; empty: the shipped ones.
        engines: engines with their manifests; empty: those beside the networks.
        evidence: JSON of measurements; empty: beside the engines.
        params: ROS parameter file; None: the shipped one.
        sm, budget_ms, host, reopen: see `Deployment`.
        triton: model repository; empty: none.

    Raises:
        ConfigError: a folder is missing, there are no networks in it, or the parameters cannot be
            read.
    """
    models = Path(models) if models else resource('models')
    engines = Path(engines) if engines else models
    folders = tuple(dict.fromkeys((models, engines)))
    given = (Path(evidence),) if evidence else ()
    for folder in (*folders, *given, *((Path(triton),) if triton else ())):
        if not folder.is_dir():
            raise ConfigError(f'{folder}: no such folder')
    networks = tuple(map(read_network, sorted(models.glob('*.onnx'))))
    if not networks:
        raise ConfigError(f'{models}: no network (.onnx) in this folder')
    paths = [path for path in sorted(engines.iterdir()) if path.suffix in ENGINE_SUFFIXES]
    return Deployment(
        networks=networks,
        engines=tuple(map(_engine, paths)),
        evidence=find_evidence(*folders, *given),
        needs=read_needs(params),
        host=host or Host(),
        sm=sm,
        budget_ms=budget_ms,
        triton=Path(triton) if triton else None,
        reopen=reopen,
        folders=folders,
    )


def read_network(path: Path) -> Network:
    """A network with its card; what is wrong with either is said in it."""
    try:
        model = onnx.load(str(path))
    except Exception as error:  # noqa: BLE001  protobuf and onnx raise anything
        return Network(path, None, None, f'{path.name}: not a readable network: {error}')
    if not card_file(path).is_file():
        return Network(path, model, None, f'{path.name}: no model card beside it')
    try:
        return Network(path, model, find_card(path))
    except PerceptionError as error:
        return Network(path, model, None, str(error))


def _engine(path: Path) -> Engine:
    try:
        return Engine(path, Manifest.read(path))
    except EngineError as error:
        return Engine(path, None, str(error))

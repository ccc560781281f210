"""A model repository of Triton, made and checked before it is put in its place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, FusionConfig, LidarConfig
from airside_perception.deploy.triton import configs as make
from airside_perception.deploy.triton import heads, model, postprocess
from airside_perception.deploy.triton.check import CONFIG, FILES, missing_files, parse, problems
from airside_perception.deploy.triton.configs import Config, Deployed
from airside_perception.deploy.triton.pbtxt import text_of
from airside_perception.deploy.triton.source import Source, read_source
from airside_perception.engine.base import TensorSpec
from airside_perception.errors import ConfigError, RefusalError
from airside_perception.params import ParameterFile, read_parameters
from airside_perception.resources import resource

VERSION = '1'
SHIPPED = ('config', 'perception.yaml')
PLACES = {'': -1, '_dla0': 0, '_dla1': 1}
"""{end of a camera model's name: its DLA core}"""


@dataclass(frozen=True)
class Request:
    """What the repository is to hold.

    Attributes:
        out: its folder.
        lidar: .onnx or engine.
        camera: .onnx or engine for the GPU; empty: only on DLA cores.
        camera_dla0, camera_dla1: engines for these cores; empty: none.
        cameras: their names; empty: those of the parameters.
        params: ROS parameter file of the nodes; empty: the shipped one.
        camera_card, lidar_card: model cards; empty: beside the networks.
        prefix: before the name of every model.
        most_batch: largest batch of a .onnx whose batch varies.
        on_cpu: ONNX networks take no GPU.
        link: link to networks in place of copies.
        force: replace models of these names.
    """

    out: str | Path
    lidar: str | Path
    camera: str | Path = ''
    camera_dla0: str | Path = ''
    camera_dla1: str | Path = ''
    cameras: tuple[str, ...] = ()
    params: str | Path = ''
    camera_card: str = ''
    lidar_card: str = ''
    prefix: str = ''
    most_batch: int = 8
    on_cpu: bool = False
    link: bool = False
    force: bool = False


@dataclass(frozen=True)
class Repository:
    """A repository that was written.

    Attributes:
        path: its folder.
        configs: {model: configuration}.
        cameras: {camera: model that serves it}.
        validated: whether Triton's protobuf took every configuration; False: it is not here.
        notes: what its user has to know.
    """

    path: Path
    configs: Mapping[str, Config]
    cameras: Mapping[str, str]
    validated: bool
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            'repository': str(self.path),
            'models': dict(self.configs),
            'cameras': dict(self.cameras),
            'validated': self.validated,
            'notes': list(self.notes),
        }


def make_repository(request: Request) -> Repository:
    """Makes a repository: the networks, `postprocess`, and the ensemble `perception`.

    It is complete or not there: models are put together beside their place and then renamed.

    Raises:
        ConfigError: contradictory options, or models of these names are there already.
        EngineError, CardError: a network or card that cannot be used.
        RefusalError: Triton could not serve it.
    """
    parameters = read_parameters(request.params or resource(*SHIPPED))
    lidar, cameras, spare = _sources(request)
    names = request.cameras or _cameras_of(parameters)
    on = {name: cameras[place % len(cameras)] for place, name in enumerate(names)}
    found = _configs(request, lidar, on, [*cameras, *spare])
    wrong = problems(found)
    if wrong:
        raise RefusalError(f'{request.out}: {"; ".join(wrong)}')
    texts = {name: text_of(config) for name, config in found.items()}
    validated = all([parse(text) is not None for text in texts.values()])  # noqa: C419  all are parsed
    notes = [note for served in (lidar, *cameras, *spare) for note in served.source.notes]
    notes += [
        f'{served.model} is in the repository and not in the ensemble: the cameras are on the DLA'
        for served in spare
    ]
    if not validated:
        notes.append("not checked by Triton's own protobuf: pip install tritonclient protobuf")
    _write(request, parameters, lidar, on, [*cameras, *spare], texts)
    assigned = {name: served.model for name, served in on.items()}
    return Repository(Path(request.out), found, assigned, validated, tuple(notes))


def describe_repository(found: Repository) -> str:
    """A repository as text."""
    lines = [str(found.path)]
    for name, config in found.configs.items():
        kind = config.get('platform') or config['backend']
        group = (config.get('instance_group') or [{}])[0]
        places = [str(group.get('kind', 'ensemble'))]
        places += [f'{d["kind"]} {d["device_id"]}' for d in group.get('secondary_devices', ())]
        batch = config['max_batch_size']
        size = f'batches up to {batch}' if batch else 'batch fixed'
        lines.append(f'  {name:<18} {kind:<17} {", ".join(places)}; {size}')
    lines += [f'    camera {camera:<10} on {model}' for camera, model in found.cameras.items()]
    lines.append(
        "  checked            by Triton's protobuf and for consistency"
        if found.validated
        else '  checked            for consistency'
    )
    return '\n'.join([*lines, *(f'  note               {note}' for note in found.notes)])


def _sources(request: Request) -> tuple[Deployed, list[Deployed], list[Deployed]]:
    """The lidar's network, those of the cameras, and those that no camera of the ensemble uses."""
    given = {'': request.camera, '_dla0': request.camera_dla0, '_dla1': request.camera_dla1}
    found: dict[str, Deployed] = {}
    for end, path in given.items():
        if path:
            source = read_source(path, request.camera_card, request.most_batch, PLACES[end])
            _require(source, CameraCard)
            found[end] = _served(request, f'camera{end}', source)
    if not found:
        raise ConfigError('no camera network: name one with --camera or --camera-dla0')
    cards = {item.source.card.name: item.source.card for item in found.values()}
    if len(cards) > 1:
        raise ConfigError(f'cameras with networks of different cards: {", ".join(cards)}')
    source = read_source(request.lidar, request.lidar_card, request.most_batch)
    _require(source, LidarCard)
    lidar = _served(request, 'lidar', source)
    on_dla = [item for end, item in found.items() if end]
    spare = [found['']] if on_dla and '' in found else []
    return lidar, on_dla or [found['']], spare


def _served(request: Request, name: str, source: Source) -> Deployed:
    return Deployed(f'{request.prefix}{name}', source, request.on_cpu and source.dla_core < 0)


def _require(source: Source, kind: type[CameraCard | LidarCard]) -> None:
    """Refuses a network of the other kind, or one that is not that of its card."""
    served = heads.Served(str(source.path), source.inputs, source.outputs)
    card = source.card
    if not isinstance(card, kind):
        raise ConfigError(f'{source.path}: {card.path} is no {kind.__name__}')
    if isinstance(card, CameraCard):
        heads.CameraHead(served, card, CameraConfig())
    else:
        heads.LidarHead(served, card, LidarConfig())


def _cameras_of(parameters: ParameterFile) -> tuple[str, ...]:
    listed = parameters.for_node(postprocess.FUSION_NODE).get('cameras', FusionConfig().cameras)
    names = tuple(filter(None, listed))
    if not names:
        raise ConfigError(f'{parameters.path}: no cameras; name them with --cameras front,left')
    return names


def _configs(
    request: Request,
    lidar: Deployed,
    cameras: Mapping[str, Deployed],
    networks: Sequence[Deployed],
) -> dict[str, Config]:
    last, whole = f'{request.prefix}postprocess', f'{request.prefix}perception'
    made = [make.network_config(served) for served in (*networks, lidar)]
    made.append(make.postprocess_config(last, lidar, cameras))
    made.append(make.ensemble_config(whole, last, lidar, cameras))
    return {config['name']: config for config in made}


def _write(
    request: Request,
    parameters: ParameterFile,
    lidar: Deployed,
    cameras: Mapping[str, Deployed],
    networks: Sequence[Deployed],
    texts: Mapping[str, str],
) -> None:
    """Puts the models together in a hidden folder, checks that, and moves them to their place."""
    out = Path(request.out)
    there = [name for name in texts if (out / name).exists()]
    if there and not request.force:
        raise ConfigError(
            f'{out / there[0]}: is there already; --force replaces {", ".join(texts)}'
        )
    building = out / f'.building.{os.getpid()}'
    try:
        for name, text in texts.items():
            (building / name / VERSION).mkdir(parents=True)
            (building / name / CONFIG).write_text(text, encoding='utf-8')
        for served in (*networks, lidar):
            target = building / served.model / VERSION / FILES[served.source.platform]
            _place(served.source.path, target, request.link)
        folder = building / f'{request.prefix}postprocess' / VERSION
        shutil.copyfile(str(model.__file__), folder / 'model.py')
        shutil.copyfile(parameters.path, folder / postprocess.PARAMETERS)
        shutil.copyfile(lidar.source.card.path, folder / postprocess.LIDAR_CARD)
        shutil.copyfile(networks[0].source.card.path, folder / postprocess.CAMERA_CARD)
        described = {
            'lidar': _described(lidar.source),
            'cameras': {name: _described(served.source) for name, served in cameras.items()},
        }
        text = json.dumps(described, indent=2)
        (folder / postprocess.MODELS).write_text(text, encoding='utf-8')
        postprocess.Postprocess(folder)  # it can be loaded
        missing = missing_files(building, {name: _kind(text) for name, text in texts.items()})
        if missing:
            raise ConfigError('; '.join(missing))
        _move(building, out, list(texts))
    except OSError as error:
        raise ConfigError(f'{out}: cannot be written: {error.strerror or error}') from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        with suppress(OSError):
            out.rmdir()  # only where nothing came into it


def _kind(text: str) -> Config:
    """Platform and backend in the text of a configuration."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(': ')
        if key in ('platform', 'backend'):
            found[key] = value.strip('"')
    return found


def _place(source: Path, target: Path, link: bool) -> None:
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)


def _move(building: Path, out: Path, names: Sequence[str]) -> None:
    """Each model takes the place of one of its name; if that fails, the old ones come back."""
    moved: list[tuple[Path, Path | None]] = []
    try:
        for name in names:
            target, old = out / name, None
            if target.exists():
                old = building / f'.old.{name}'
                target.rename(old)
            moved.append((target, old))
            (building / name).rename(target)
    except BaseException:
        for target, old in reversed(moved):
            if target.exists():
                shutil.rmtree(target, ignore_errors=True)
            if old is not None:
                old.rename(target)
        raise


def _described(source: Source) -> dict[str, Any]:
    """Inputs and outputs of a network, of which `postprocess` gets one item at a time."""
    return {'inputs': _ports(source.used_inputs), 'outputs': _ports(source.used_outputs)}


def _ports(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [
        {'name': item.name, 'shape': list(item.shape), 'dtype': item.dtype.name} for item in specs
    ]

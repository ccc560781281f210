"""Which network a detector runs: its settings, its files, and how it is opened or built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from airside_perception.card import ModelCard, find_card
from airside_perception.config import EngineConfig
from airside_perception.engine import ENGINE_SUFFIXES, Engine, open_engine
from airside_perception.errors import ConfigError, EngineError
from airside_perception.parameter import from_values
from airside_perception.resources import model_file

Config = TypeVar('Config', bound=EngineConfig)
Card = TypeVar('Card', bound=ModelCard)
Progress = Callable[[str, float], None]

BUILT = re.compile(r'(?P<name>.+)\.(?P<precision>fp32|fp16|int8)\.(?P<device>gpu|dla[01])')
"""Names that the builder gives to engines, without the ending."""


@dataclass(frozen=True)
class Network(Generic[Config, Card]):
    """What a detector runs: its settings, complete with those of the classes, and its files."""

    config: Config
    card: Card
    path: Path

    def open(self) -> Engine:
        """Opens the network.

        Raises:
            EngineError: as `open_engine`; not built; or not wholly on its DLA core, and
                `dla_strict` asks for that.
        """
        config = self.config
        if self.path.suffix in ENGINE_SUFFIXES and not self.path.is_file():
            raise EngineError(f'{self.path}: no such engine; {self._how_to_build()}')
        engine = open_engine(
            self.path,
            config.dla_core,
            config.precision,
            config.threads,
            allow_host_code=config.allow_host_code,
        )
        share = engine.info.dla_layer_pct
        if config.dla_strict and share is not None and share < 100.0:
            engine.close()
            raise EngineError(
                f'{self.path}: {share:.1f} % of its layers are on DLA core {config.dla_core}, the '
                'rest on the GPU, and dla_strict asks for all: change the network, or set '
                'dla_strict to false'
            )
        return engine

    def why_build(self) -> str:
        """Why the engine must be built before it can be opened, where `engine_build` allows it.

        Returns:
            The reason; empty where there is nothing to build.

        Raises:
            ConfigError: the name of the engine contradicts precision or dla_core, or there is no
                ONNX to build it from.
        """
        if self.config.engine_build != 'missing' or self.path.suffix not in ENGINE_SUFFIXES:
            return ''
        reason = self._differences() if self.path.is_file() else 'there is no such file'
        if reason:
            self._wishes()
            if not self.source.is_file():
                raise ConfigError(
                    f'{self.path}: {reason}, and no {self.source.name} beside it to build it from'
                )
        return reason

    def build(self, progress: Progress) -> None:
        """Builds the engine from the ONNX beside it, in minutes.

        Args:
            progress: called with the step and its share that is done; what it raises ends the
                build.

        Raises:
            EngineError, ConfigError: as `build_engine`.
        """
        from airside_perception.engine.build import BuildSettings, build_engine

        precision, device = self._wishes()
        settings = BuildSettings(
            precision=precision, device=device, dla_strict=self.config.dla_strict
        )
        build_engine(self.source, self.path, settings, progress)

    def _differences(self) -> str:
        """What keeps an engine from this machine; one without a manifest is not ours to touch."""
        from airside_perception.cuda import runtime
        from airside_perception.engine.capabilities import family_of, load_tensorrt
        from airside_perception.engine.manifest import Machine, Manifest, manifest_path

        if not manifest_path(self.path).is_file():
            return ''
        manifest = Manifest.read(self.path)
        device = runtime.use_device()
        tensorrt = load_tensorrt(family_of(manifest.flavor))
        machine = Machine(
            device.name,
            device.sm,
            tensorrt.version_text,
            tensorrt.flavor,
            self.config.dla_core,
            self.config.precision,
        )
        return '; '.join(manifest.check(self.path, machine))

    @property
    def source(self) -> Path:
        """The ONNX of an engine: beside it, with the name that is left of the engine's."""
        return self.path.with_name(f'{_plain_name(self.path)}.onnx')

    def _wishes(self) -> tuple[str, str]:
        """Precision and device to build for, from the name of the engine and the settings."""
        config = self.config
        precision = '' if config.precision == 'auto' else config.precision
        device = 'gpu' if config.dla_core < 0 else f'dla{config.dla_core}'
        named = BUILT.fullmatch(self.path.stem)
        if named is None:
            if not precision:
                raise ConfigError(
                    f'{self.path}: neither its name (NAME.fp16.gpu.engine) nor the parameter '
                    'precision says what to build; set precision to fp32, fp16 or int8'
                )
            return precision, device
        if precision and precision != named['precision']:
            raise ConfigError(
                f'precision = {precision!r}, but engine_path names an engine in '
                f'{named["precision"]}: {self.path.name}'
            )
        if device != named['device']:
            raise ConfigError(
                f'dla_core = {config.dla_core}, but engine_path names an engine for '
                f'{named["device"]}: {self.path.name}'
            )
        return named['precision'], device

    def _how_to_build(self) -> str:
        if not self.source.is_file():
            return f'nor is there a {self.source.name} beside it to build it from'
        try:
            precision, device = self._wishes()
        except ConfigError as error:
            return str(error)
        return (
            f'build it: python -m airside_perception.deploy build {self.source} '
            f'--precision {precision} --device {device} --out {self.path}, or set engine_build '
            'to missing'
        )


def find_network(
    kind: type[Config], card_type: type[Card], values: Mapping[str, Any]
) -> Network[Config, Card]:
    """The network that flat parameter values name, with its card and its settings.

    Args:
        kind: `CameraConfig` or `LidarConfig`.
        card_type: what its cards are.
        values: {parameter: value}; the classes of the card add `score_thresholds.CLASS`.

    Raises:
        ConfigError: unknown parameter, wrong value, no network, or a card of another kind.
    """
    plain = from_values(kind, {k: v for k, v in values.items() if '.' not in k})
    path = _locate(plain.engine_path)
    card = find_card(path, str(_card_path(path, plain.card_path)))
    if not isinstance(card, card_type):
        raise ConfigError(
            f'{card.path}: architecture {card.architecture} is no {card_type.__name__}'
        )
    thresholds = {name: card.thresholds.get(name, 0.0) for name in card.published}
    return Network(from_values(kind, values, {'score_thresholds': thresholds}), card, path)


def with_threads(network: Network[Config, Card], threads: int) -> Network[Config, Card]:
    """The same network on a fixed number of CPU threads, unless its settings fix one already."""
    if network.config.threads:
        return network
    return replace(network, config=replace(network.config, threads=threads))


def _locate(name: str) -> Path:
    """The file of a network. An engine may be missing: then it belongs beside its ONNX."""
    try:
        return model_file(name)
    except ConfigError:
        path = Path(name)
        if path.suffix not in ENGINE_SUFFIXES:
            raise
        source = path.with_name(f'{_plain_name(path)}.onnx')
        return model_file(str(source)).with_name(path.name)


def _plain_name(path: Path) -> str:
    """`apron` of both `apron.engine` and `apron.fp16.gpu.engine`."""
    named = BUILT.fullmatch(path.stem)
    return named['name'] if named else path.stem


def _card_path(path: Path, card_path: str) -> Path:
    if card_path:
        return model_file(card_path)
    own = path.with_suffix('.yaml')
    return own if own.exists() else path.with_name(f'{_plain_name(path)}.yaml')

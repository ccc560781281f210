"""Which network a detector runs: its settings, its files, and how it is opened or built."""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airside_perception.card import ModelCard, find_card
from airside_perception.card.find import BUILT, card_file, onnx_beside
from airside_perception.config import EngineConfig
from airside_perception.engine import ENGINE_SUFFIXES, Engine, open_engine
from airside_perception.errors import ConfigError, DeviceError, EngineError
from airside_perception.parameter import from_values
from airside_perception.resources import is_model, model_file

if TYPE_CHECKING:
    from airside_perception.engine.build_settings import BuildSettings
    from airside_perception.engine.manifest import Manifest

Config = TypeVar('Config', bound=EngineConfig)
Card = TypeVar('Card', bound=ModelCard)
Progress = Callable[[str, float], None]

WAITING = 'waiting'
"""The step of a build that waits for another one."""
WAIT_S = 0.5


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
            DeviceError: there is no GPU to build it for.
        """
        if self.config.engine_build != 'missing' or self.path.suffix not in ENGINE_SUFFIXES:
            return ''
        reason = self._differences() if self.path.is_file() else 'there is no such file'
        if reason:
            self._settings()
            if not self.source.is_file():
                raise ConfigError(
                    f'{self.path}: {reason}, and no {self.source.name} beside it to build it from'
                )
            _require_gpu(f'{self.path}: {reason}')
        return reason

    def build(self, progress: Progress) -> None:
        """Builds the engine from the ONNX beside it, in minutes, one in a folder at a time.

        Cameras that share an engine wait for the first of them; kernels that are tried while
        others are tried beside them would be timed wrong.

        Args:
            progress: called with the step and its share that is done; what it raises ends the
                build.

        Raises:
            EngineError, ConfigError: as `build_engine`.
        """
        from airside_perception.engine.build import build_engine

        with _alone(self.path.parent, progress):
            if self.why_build():
                build_engine(self.source, self.path, self._settings(), progress)

    def _differences(self) -> str:
        """What keeps an engine from this machine; one without a manifest is not ours to touch."""
        from airside_perception.cuda import runtime
        from airside_perception.engine.capabilities import family_of, load_tensorrt
        from airside_perception.engine.manifest import Machine

        manifest = self._manifest
        if manifest is None:
            return ''
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
        """The ONNX of an engine: as its manifest says, else beside it, with the plain name."""
        return _source(self.path)

    @property
    def _manifest(self) -> Manifest | None:
        return _manifest(self.path)

    def _settings(self) -> BuildSettings:
        """As it was built before, if it was, for the precision and device that are wanted now."""
        from airside_perception.engine.build_settings import POOLS, BuildSettings
        from airside_perception.engine.formats import fast_formats
        from airside_perception.engine.rebuild import UNKNOWN

        manifest = self._manifest
        known = manifest is not None and manifest.precision != UNKNOWN
        precision, device = self._wishes(manifest.precision if manifest and known else '')
        record = dict(manifest.settings) if manifest else {}
        kind = str(record.get('device'))[:3]  # both DLA cores are alike
        if (record.get('precision'), kind) != (precision, device[:3]):
            # layouts and scales are for the precision and device that they were chosen for
            formats = fast_formats(self.card, precision, device)
            record.update(io_formats=formats, io_precision='fp32')
            if precision != 'int8':
                record.update(calibration='')
        if device == 'gpu':
            record.update(dict.fromkeys(POOLS, 0))
        strict = self.config.dla_strict and device != 'gpu'
        # a node runs the engine at once, so it needs its weights
        wanted = {'precision': precision, 'device': device, 'dla_strict': strict, 'strip': False}
        return BuildSettings.of_record({**record, **wanted})

    def _wishes(self, precision: str = '') -> tuple[str, str]:
        """Precision and device to build for, from the name of the engine and the settings.

        Args:
            precision: of an engine that is built again.
        """
        config = self.config
        if config.precision != 'auto':
            precision = config.precision
        device = 'gpu' if config.dla_core < 0 else f'dla{config.dla_core}'
        named = BUILT.search(self.path.stem)
        if named is None:
            if not precision:
                raise ConfigError(
                    f'{self.path}: neither its name (NAME.fp16.gpu.engine) nor the parameter '
                    'precision says what to build; set precision to fp32, fp16 or int8'
                )
            return precision, device
        precision, place = named.groups()
        if config.precision not in ('auto', precision):
            raise ConfigError(
                f'precision = {config.precision!r}, but engine_path names an engine in '
                f'{precision}: {self.path.name}'
            )
        if device != place:
            raise ConfigError(
                f'dla_core = {config.dla_core}, but engine_path names an engine for {place}: '
                f'{self.path.name}'
            )
        return precision, device

    def _how_to_build(self) -> str:
        if not self.source.is_file():
            return f'nor is there a {self.source.name} beside it to build it from'
        from airside_perception.engine.rebuild import command

        try:
            options = self._settings().options()
        except ConfigError as error:
            return str(error)
        words = ['build', str(self.source), *options, '--out', str(self.path)]
        return f'build it: {command()} {shlex.join(words)}, or set engine_build to missing'


def find_network(
    kind: type[Config], card_type: type[Card], values: Mapping[str, Any]
) -> Network[Config, Card]:
    """The network that flat parameter values name, with its card and its settings.

    Args:
        kind: `CameraConfig` or `LidarConfig`.
        card_type: what its cards are.
        values: {parameter: value}; the classes of the card add `score_thresholds.CLASS`.

    Raises:
        ConfigError: unknown parameter, wrong value, no network, a card of another kind, or an
            engine of a network for the CPU.
    """
    plain = from_values(kind, {k: v for k, v in values.items() if '.' not in k})
    path = _locate(plain.engine_path)
    card = _find_card(path, plain)
    if not isinstance(card, card_type):
        raise ConfigError(
            f'{card.path}: architecture {card.architecture} is no {card_type.__name__}'
        )
    if path.suffix in ENGINE_SUFFIXES and card.only_cpu:  # now, not after minutes of building
        raise ConfigError(f'{path}: {card.name} {card.only_cpu}: set engine_path to its .onnx')
    thresholds = {name: card.thresholds.get(name, 0.0) for name in card.published}
    return Network(from_values(kind, values, {'score_thresholds': thresholds}), card, path)


def with_threads(network: Network[Config, Card], threads: int) -> Network[Config, Card]:
    """The same network on a fixed number of CPU threads, unless its settings fix one already."""
    if network.config.threads:
        return network
    return replace(network, config=replace(network.config, threads=threads))


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Holds the folder, against every process that builds in it."""
    with ExitStack() as held:
        with suppress(OSError):  # there is no such folder, or it cannot be locked: go on
            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    progress(WAITING, 0.0)
                    time.sleep(WAIT_S)
        yield


def _require_gpu(what: str) -> None:
    from airside_perception.cuda import runtime

    reason = runtime.unavailable()
    if reason:
        raise DeviceError(f'{what}, and it is built on the GPU that it is for: {reason}')


def _locate(name: str) -> Path:
    """The file of a network. An engine may be missing: then it belongs beside its ONNX."""
    given = Path(name)
    if name == given.name and given.suffix in ENGINE_SUFFIXES and is_model(onnx_beside(name).name):
        return model_file(onnx_beside(name).name).with_name(name)
    try:
        path = model_file(name)
    except ConfigError:
        if given.suffix not in ENGINE_SUFFIXES:
            raise
        return _beside_onnx(given)
    if path.suffix not in ENGINE_SUFFIXES and not path.is_file():
        raise ConfigError(f'{path}: no such network; engine_path names a .onnx file or an engine')
    if not (path.is_file() or _source(path).is_file() or card_file(path).is_file()):
        raise ConfigError(
            f'{path}: no such engine, nor is there a {_source(path).name} beside it to build it '
            'from'
        )
    return path


def _beside_onnx(engine: Path) -> Path:
    """The place of an engine that is in no folder yet where a relative path is looked up."""
    source = onnx_beside(engine)
    try:
        return model_file(str(source)).with_name(engine.name)
    except ConfigError as error:
        raise ConfigError(f'{engine}: no such engine, nor its network: {error}') from error


def _manifest(engine: Path) -> Manifest | None:
    from airside_perception.engine.manifest import Manifest, manifest_path

    return Manifest.read(engine) if manifest_path(engine).is_file() else None


def _source(engine: Path) -> Path:
    try:
        manifest = _manifest(engine)
    except EngineError:  # told where the engine is opened
        manifest = None
    if manifest is not None and manifest.onnx_path(engine).is_file():
        return manifest.onnx_path(engine)
    return onnx_beside(engine)


def _find_card(path: Path, config: EngineConfig) -> ModelCard:
    """The card; that of the ONNX where an engine is built from it, however old the engine is."""
    card_path = str(model_file(config.card_path)) if config.card_path else ''
    if config.engine_build == 'never' or path.suffix not in ENGINE_SUFFIXES:
        return find_card(path, card_path)
    own, source = path.with_suffix('.yaml'), _source(path)
    if not card_path and own.is_file():
        card_path = str(own)
    return find_card(source if source.is_file() else path, card_path)

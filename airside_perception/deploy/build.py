"""A network as a TensorRT engine with its manifest, from the options of a command line."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from airside_perception.card import ModelCard
from airside_perception.deploy.cards import card_beside
from airside_perception.deploy.verb import progress
from airside_perception.engine import ENGINE_SUFFIXES
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import BuildSettings, read_profile
from airside_perception.engine.formats import fast_formats
from airside_perception.engine.manifest import Manifest, manifest_path
from airside_perception.engine.typed import read_network
from airside_perception.errors import CardError, ConfigError, EngineError, RefusalError

MIB = 1 << 20


def build(options: argparse.Namespace) -> tuple[Path, Manifest]:
    """Builds what the options say; the engine's file and its manifest.

    Raises:
        ConfigError: options that contradict one another or the network.
        RefusalError: it cannot be built here.
        EngineError: no such network.
    """
    read_network(options.model)  # what is wrong with the input is told apart from the build
    settings = settings_of(options)
    if settings.calibration and not Path(settings.calibration).is_file():
        raise ConfigError(f'{settings.calibration}: no such calibration')
    target = target_of(options.model, options.out, settings)
    try:
        with progress() as bar:
            return target, build_engine(options.model, target, settings, bar)
    except EngineError as error:
        raise RefusalError(str(error)) from error


def settings_of(options: argparse.Namespace) -> BuildSettings:
    """The settings that options of the command line say.

    Raises:
        ConfigError: options that are malformed or contradict one another.
    """
    formats = {}
    for text in options.io_format:
        name, layout = _pair('--io-format', text, 'TENSOR:LAYOUT, e.g. canvas:hwc8')
        formats[name] = layout
    finer = dict(_pair('--layer-precision', text, 'NODE:fp32') for text in options.layer_precision)
    if not formats and options.io_precision is None:
        formats = fast_formats(_card(options.model), options.precision, options.device)
    same = ('precision', 'device', 'workspace_mb', 'opt_level', 'timing_cache', 'dla_strict',
            'version_compatible', 'hardware_compatible', 'calibration', 'tf32')  # fmt: skip
    return BuildSettings(
        profiles=tuple(map(read_profile, options.profile)),
        io_formats=formats,
        layer_precision=finer,
        io_precision=options.io_precision or BuildSettings().io_precision,
        tactic_sources=tuple(filter(None, options.tactic_sources.split(','))),
        **{name: getattr(options, name) for name in same},
    )


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    name, colon, value = text.rpartition(':')
    if not colon:
        raise ConfigError(f'{option} {text!r}: expected {form}')
    return name, value


def _card(model: str) -> ModelCard | None:
    """That of the network, if it has one; a card that cannot be used keeps no engine away."""
    try:
        return card_beside(Path(model), '')
    except CardError:
        return None


def target_of(model: str | Path, out: str, settings: BuildSettings) -> Path:
    """Where the engine goes: beside the network, into a folder, or where `out` says."""
    if not out:
        return Path(model).with_name(settings.file_name(model))
    if Path(out).suffix in ENGINE_SUFFIXES and not Path(out).is_dir():
        return Path(out)
    return Path(out) / settings.file_name(model)


def as_dict(target: Path, manifest: Manifest) -> dict[str, Any]:
    """What was built, for JSON."""
    paths = {'engine': str(target), 'manifest': str(manifest_path(target))}
    return {**paths, **dataclasses.asdict(manifest)}


def describe_build(target: Path, manifest: Manifest) -> str:
    """What was built, as text."""
    place = manifest.gpu or 'any GPU of its kind'
    lines = [
        f'{target}: {target.stat().st_size / MIB:.1f} MiB in {manifest.build_seconds:.1f} s',
        f'  built by    TensorRT {manifest.flavor} {manifest.tensorrt}',
        f'  for         {place}' + (f' ({manifest.sm})' if manifest.sm else ''),
        f'  precision   {manifest.precision}',
        *(f'  input       {_port(item)}' for item in manifest.inputs),
        *(f'  output      {_port(item)}' for item in manifest.outputs),
    ]
    if manifest.dla_layer_pct is not None:
        rest = ', '.join(manifest.not_on_dla[:5]) or 'none'
        lines.append(
            f'  DLA {manifest.dla_core}       {manifest.dla_layer_pct:.1f} % of the layers; on '
            f'the GPU: {rest}'
        )
    return '\n'.join([*lines, *(f'  note        {note}' for note in manifest.notes)])


def _port(item: Any) -> str:
    shape = ', '.join('?' if n < 0 else str(n) for n in item['shape'])
    layout = '' if item['layout'] == 'linear' else f' {item["layout"]}'
    return f'{item["name"]}: {item["dtype"]} [{shape}]{layout}'

"""A network as a TensorRT engine with its manifest, from the options of a command line."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from airside_perception.card import ModelCard
from airside_perception.deploy.cards import card_beside
from airside_perception.deploy.interrupt import Progress, interruptible
from airside_perception.deploy.verb import progress
from airside_perception.engine import ENGINE_SUFFIXES
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import POOLS, BuildSettings, read_profile
from airside_perception.engine.formats import fast_formats
from airside_perception.engine.manifest import Manifest, manifest_path
from airside_perception.engine.sizes import read_size
from airside_perception.engine.typed import NetworkError, read_network
from airside_perception.engine.written import FileError
from airside_perception.errors import CardError, ConfigError, EngineError, RefusalError

MIB = 1 << 20
SPARSITY = ('disable', 'enable')


def build(options: argparse.Namespace) -> tuple[Path, Manifest]:
    """Builds what the options say; the engine's file and its manifest.

    Raises:
        ConfigError: options that contradict one another or the network.
        RefusalError: it cannot be built here.
        EngineError: no such network, or TensorRT does not take it; files cannot be written.
    """
    read_network(options.model)  # what is wrong with the input is told apart from the build
    settings = settings_of(options)
    target = target_of(options.model, options.out, settings)
    with progress() as bar, interruptible(bar) as step:
        return target, build_network(options.model, target, settings, step)


def build_network(
    model: str | Path, target: str | Path, settings: BuildSettings, step: Progress
) -> Manifest:
    """Builds one engine, and tells what is wrong with the input from what this machine lacks.

    Raises:
        ConfigError: settings that contradict the network, or there is no such calibration.
        RefusalError: it cannot be built here.
        EngineError: no such network, or TensorRT does not take it; files cannot be written.
    """
    if settings.calibration and not Path(settings.calibration).is_file():
        raise ConfigError(f'{settings.calibration}: no such calibration')
    try:
        return build_engine(model, target, settings, step)
    except (NetworkError, FileError):
        raise
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
        formats = usual_formats(options.model, options.precision, options.device)
    same = ('precision', 'device', 'opt_level', 'timing_cache', 'dla_strict', 'version_compatible',
            'hardware_compatible', 'calibration', 'tf32', 'refit', 'strip',
            'layer_info')  # fmt: skip
    workspace = options.workspace_mb
    if options.workspace is not None:
        workspace = whole_mib(options.workspace, '--workspace')
    pools: dict[str, Any] = {
        name: read_size(getattr(options, name), f'--{name.replace("_", "-")}') for name in POOLS
    }
    return BuildSettings(
        profiles=tuple(map(read_profile, options.profile)),
        io_formats=formats,
        layer_precision=finer,
        io_precision=options.io_precision or BuildSettings().io_precision,
        tactic_sources=tuple(filter(None, options.tactic_sources.split(','))),
        workspace_mb=workspace,
        sparsity=sparse(options.sparsity),
        **pools,
        **{name: getattr(options, name) for name in same},
    )


def whole_mib(text: str, what: str) -> int:
    """MiB of a size of the working memory; 0 is 0: all there is.

    Raises:
        ConfigError: no size, or none of whole MiB.
    """
    count = read_size(text, what)
    if count % MIB:
        hint = f'; {text}M are {text} MiB' if str(text).isdigit() else ''
        raise ConfigError(f'{what} {text}: expected whole MiB, 1M at least, e.g. 512M or 4G{hint}')
    return count // MIB


def sparse(text: str) -> bool:
    """Whether sparse kernels may be taken.

    Raises:
        ConfigError: `force`, or no such choice.
    """
    if text == 'force':
        raise ConfigError(
            '--sparsity force: that overwrites weights with zeros, so the engine would be fast '
            'and wrong (trtexec has it to measure times); train the network with 2:4 sparsity, '
            'then --sparsity enable'
        )
    if text not in SPARSITY:
        raise ConfigError(f'--sparsity {text!r}: not one of {", ".join(SPARSITY)}')
    return text == 'enable'


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    name, colon, value = text.rpartition(':')
    if not colon:
        raise ConfigError(f'{option} {text!r}: expected {form}')
    return name, value


def usual_formats(model: str | Path, precision: str, device: str) -> dict[str, str]:
    """{input or output: layout} where nobody says another, by the card of the network."""
    return fast_formats(_card(model), precision, device)


def _card(model: str | Path) -> ModelCard | None:
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
    if manifest.refittable:
        lines.append(f'  weights     {len(manifest.weights)} can be changed: engine refit')
    if manifest.stripped:
        lines.append(f'  to run it   {manifest.how_to_fill(target)}')
    return '\n'.join([*lines, *(f'  note        {note}' for note in manifest.notes)])


def _port(item: Any) -> str:
    shape = ', '.join('?' if n < 0 else str(n) for n in item['shape'])
    layout = '' if item['layout'] == 'linear' else f' {item["layout"]}'
    return f'{item["name"]}: {item["dtype"]} [{shape}]{layout}'

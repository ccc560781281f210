"""`engine build`: a network as a TensorRT engine with its manifest."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from airside_perception.card import ModelCard
from airside_perception.deploy.cards import card_beside
from airside_perception.engine import ENGINE_SUFFIXES
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import (
    DEVICES,
    FORMATS,
    HARDWARE,
    LEVELS,
    PRECISIONS,
    BuildSettings,
    read_profile,
)
from airside_perception.engine.formats import fast_formats
from airside_perception.engine.manifest import Manifest, manifest_path
from airside_perception.engine.typed import read_network
from airside_perception.errors import CardError, ConfigError, EngineError

PERIOD_S = 0.1
MIB = 1 << 20

EPILOG = """\
examples:
  engine build models/apron_pointpillars.onnx
  engine build models/apron_pointpillars.onnx --io-precision fp32 --version-compatible
  engine build models/apron_yolox.onnx --precision int8 --calibration scales.json --device dla0
  engine build net.onnx --profile images:1x3x384x640:1x3x384x640:8x3x384x640 --out engines/

exit status: 0 built, 1 TensorRT or this machine cannot build it, 2 bad input
"""


def add_build(verbs: Any, run: Callable[[argparse.Namespace], int]) -> None:
    """Adds the verb to a command line; `run` is called with its options."""
    verb = verbs.add_parser(
        'build',
        help='a TensorRT engine for this machine from a network',
        description='Builds a TensorRT engine for this machine, and its manifest beside it.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = verb.add_argument
    plain = BuildSettings()
    add('model', metavar='MODEL', help='network, .onnx')
    add('--precision', choices=PRECISIONS, default=plain.precision, help='%(default)s')
    add('--device', choices=DEVICES, default=plain.device, help='%(default)s')
    add(
        '--out', default='', metavar='PATH',
        help='engine or folder; default: MODEL.PRECISION.DEVICE.engine beside the network',
    )  # fmt: skip
    add(
        '--profile', action='append', default=[], metavar='INPUT:MIN:OPT:MAX',
        help='shapes, as 1x3x64x96, of an input that varies; several inputs by comma, several '
        'profiles by repeating the option',
    )  # fmt: skip
    add(
        '--calibration', default=plain.calibration, metavar='FILE',
        help='scales for int8: JSON {tensor: scale}, or a calibration cache of TensorRT; not for '
        'networks that have Q/DQ nodes',
    )  # fmt: skip
    add('--dla-strict', action='store_true', help='fail where a layer cannot run on the DLA core')
    add(
        '--io-format', action='append', default=[], metavar='TENSOR:LAYOUT',
        help=f'layout of an input or output, as fp16: {", ".join(FORMATS[1:])}; may be repeated; '
        'default: hwc8 for all of a lidar network with a card, in fp16 for the GPU, else linear',
    )  # fmt: skip
    add(
        '--io-precision', choices=('fp32', 'fp16'),
        help=f'of linear inputs and outputs, {plain.io_precision}; without --io-format, all are '
        'linear then',
    )  # fmt: skip
    add('--workspace-mb', type=int, default=plain.workspace_mb, metavar='MIB',
        help='most working memory, 0: all there is')  # fmt: skip
    add('--opt-level', type=int, choices=LEVELS, help='how long TensorRT tries; default: its own')
    add(
        '--timing-cache', default=plain.timing_cache, metavar='FILE',
        help='kernel timings kept from build to build; default: a file for this GPU and TensorRT '
        "in the cache folder; '': none",
    )  # fmt: skip
    add('--tactic-sources', default='', metavar='NAME,NAME',
        help='the only libraries to take kernels from, e.g. '
        'edge_mask_convolutions,jit_convolutions')  # fmt: skip
    add('--version-compatible', action='store_true',
        help='later TensorRT runs it too; the engine then carries host code')  # fmt: skip
    add('--hardware-compatible', choices=HARDWARE, default=plain.hardware_compatible,
        help='other GPUs run it too, more slowly')  # fmt: skip
    add('--tf32', action='store_true', help='fp32 convolutions may be rounded to TF32')
    add('--json', action='store_true', help='print the manifest as JSON instead of text')
    verb.set_defaults(run=run)


class BuildError(EngineError):
    """TensorRT or this machine cannot build what is asked for, which is well-formed."""


def build(options: argparse.Namespace) -> tuple[Path, Manifest]:
    """Builds what the options say; the engine's file and its manifest.

    Raises:
        ConfigError: options that contradict one another or the network.
        BuildError: it cannot be built here.
        EngineError: no such network.
    """
    read_network(options.model)  # what is wrong with the input is told apart from the build
    settings = settings_of(options)
    if settings.calibration and not Path(settings.calibration).is_file():
        raise ConfigError(f'{settings.calibration}: no such calibration')
    target = target_of(options.model, options.out, settings)
    bar = Bar(sys.stderr)
    try:
        return target, build_engine(options.model, target, settings, bar)
    except EngineError as error:
        raise BuildError(str(error)) from error
    finally:
        bar.close()


def settings_of(options: argparse.Namespace) -> BuildSettings:
    """The settings that options of the command line say.

    Raises:
        ConfigError: options that are malformed or contradict one another.
    """
    formats = {}
    for text in options.io_format:
        name, colon, layout = text.rpartition(':')
        if not colon:
            raise ConfigError(f'--io-format {text!r}: expected TENSOR:LAYOUT, e.g. canvas:hwc8')
        formats[name] = layout
    if not formats and options.io_precision is None:
        formats = fast_formats(_card(options.model), options.precision, options.device)
    same = ('precision', 'device', 'workspace_mb', 'opt_level', 'timing_cache', 'dla_strict',
            'version_compatible', 'hardware_compatible', 'calibration', 'tf32')  # fmt: skip
    return BuildSettings(
        profiles=tuple(map(read_profile, options.profile)),
        io_formats=formats,
        io_precision=options.io_precision or BuildSettings().io_precision,
        tactic_sources=tuple(filter(None, options.tactic_sources.split(','))),
        **{name: getattr(options, name) for name in same},
    )


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


class Bar:
    """Progress of a build on a terminal, nothing elsewhere.

    The share is a bar with its percentage; while it stays the same, because TensorRT does not say
    how far it is, a block wanders along the bar. The seconds run on in both cases.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on = stream.isatty()
        self._started = self._shown = time.monotonic()
        self._moved = self._started
        self._share = -1.0
        self._beat = 0

    def __call__(self, step: str, share: float) -> None:
        now = time.monotonic()
        if share != self._share:
            self._share, self._moved = share, now
        if not self._on or (now - self._shown < PERIOD_S and share < 1.0):
            return
        self._shown = now
        width = max(10, min(40, shutil.get_terminal_size().columns - 36))
        filled = int(width * share)
        if now - self._moved > 1.0:
            self._beat = (self._beat + 1) % (width - 2)
            cells, said = ' ' * self._beat + '===', '   '
        else:
            cells, said = '=' * filled, f'{100 * share:2.0f} %'
        line = f'{step:9} [{cells:{width}}] {said}  {now - self._started:.0f} s '
        self._stream.write(f'\r{line}\033[K')
        self._stream.flush()

    def close(self) -> None:
        """Leaves the line; may be called again."""
        if self._on:
            self._stream.write('\r\033[K')
            self._stream.flush()
            self._on = False

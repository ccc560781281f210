"""`engine build`: a network as a TensorRT engine with its manifest."""

from __future__ import annotations

import argparse

from airside_perception.deploy.build import SPARSITY, as_dict, build, describe_build
from airside_perception.deploy.build_all import build_all, describe_outcomes, outcomes_as_dict
from airside_perception.deploy.interrupt import interruptible
from airside_perception.deploy.matrix import read_matrix
from airside_perception.deploy.verb import Answer, progress
from airside_perception.engine.build_settings import (
    DEVICES,
    FORMATS,
    HARDWARE,
    LEVELS,
    PRECISIONS,
    BuildSettings,
)
from airside_perception.errors import ConfigError

DESCRIPTION = """\
Builds a TensorRT engine for this machine, and its manifest beside it; or with --all every engine
of a matrix of networks, precisions and devices that is not there yet as it should be.
Exit status 1: TensorRT or this machine cannot build it, or with --all one of them."""
EXAMPLES = """\
engine build models/apron_centerpoint.onnx
engine build models/apron_centerpoint.onnx --io-precision fp32 --version-compatible
engine build models/apron_yolox.onnx --precision int8 --calibration scales.json --device dla0
engine build net.onnx --profile images:1x3x384x640:1x3x384x640:8x3x384x640 --out engines/
engine build net.onnx --device dla0 --dla-sram 512K --dla-local-dram 256M --workspace 2G
engine build net.onnx --refit --layer-info layers.json
engine build --all config/engines.yaml --dry-run
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    plain = BuildSettings()
    add('model', metavar='MODEL', nargs='?', help='network, .onnx')
    add(
        '--all',
        default='',
        metavar='YAML',
        help='build what this file lists, as far as need be; all settings stand in it',
    )
    add('--dry-run', action='store_true', help='with --all: only say what would be built, and why')
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
    add(
        '--layer-precision', action='append', default=[], metavar='NODE:PRECISION',
        help='a node, or a pattern with *, that is computed in fp32 or fp16, more finely than the '
        'rest; may be repeated',
    )  # fmt: skip
    working = parser.add_mutually_exclusive_group()
    working.add_argument(
        '--workspace', metavar='SIZE',
        help='most working memory, with K, M or G, e.g. 2G; 0: all there is',
    )  # fmt: skip
    working.add_argument(
        '--workspace-mb', type=int, default=plain.workspace_mb, metavar='MIB', help='the same, MiB'
    )
    for name, what in (
        ('sram', 'SRAM'), ('local-dram', 'RAM for intermediate tensors'),
        ('global-dram', 'RAM for weights'),
    ):  # fmt: skip
        add(
            f'--dla-{name}',
            default='0',
            metavar='SIZE',
            help=f'{what} for each subgraph on a DLA core, a power of 2 with K, M or G',
        )
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
    add(
        '--refit',
        action='store_true',
        help='other weights can be put into the engine later (engine refit)',
    )
    add(
        '--strip',
        action='store_true',
        help='leave out the weights; engine refit puts them in before it runs: without --refit '
        'only the same ones',
    )
    add(
        '--sparsity',
        nargs='?',
        const='enable',
        default=SPARSITY[0],
        metavar='|'.join(SPARSITY),
        help='enable: take kernels for weights with two zeros in every four, where there are such',
    )
    add(
        '--layer-info',
        default=plain.layer_info,
        metavar='FILE',
        help='write what the engine says of its layers, JSON; needs its GPU',
    )


def run(options: argparse.Namespace) -> Answer:
    """Builds; the engine's file and its manifest."""
    if options.all:
        return _run_all(options)
    if options.model is None or options.dry_run:
        raise ConfigError('name a network to build, or --all with a matrix of them (--dry-run)')
    target, manifest = build(options)
    return Answer(describe_build(target, manifest), as_dict(target, manifest))


def _run_all(options: argparse.Namespace) -> Answer:
    """Builds a matrix. Its file has the settings, so those of the command line are refused."""
    plain = argparse.ArgumentParser(add_help=False)
    add_options(plain)
    defaults = vars(plain.parse_args([]))
    own = ('all', 'dry_run')
    other = [n for n, value in defaults.items() if n not in own and getattr(options, n) != value]
    if other:
        raise ConfigError(
            f'--all with {other[0].replace("_", "-")}: settings stand in {options.all}'
        )
    matrix = read_matrix(options.all)
    with progress() as bar, interruptible(bar) as step:
        outcomes = build_all(matrix, options.dry_run, step)
    table = outcomes_as_dict(options.all, outcomes)
    return Answer(describe_outcomes(options.all, outcomes), table, not table['failed'])

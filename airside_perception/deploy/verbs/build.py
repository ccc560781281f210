"""`engine build`: a network as a TensorRT engine with its manifest."""

from __future__ import annotations

import argparse

from airside_perception.deploy.build import as_dict, build, describe_build
from airside_perception.deploy.verb import Answer
from airside_perception.engine.build_settings import (
    DEVICES,
    FORMATS,
    HARDWARE,
    LEVELS,
    PRECISIONS,
    BuildSettings,
)

DESCRIPTION = """\
Builds a TensorRT engine for this machine, and its manifest beside it.
Exit status 1: TensorRT or this machine cannot build it."""
EXAMPLES = """\
engine build models/apron_pointpillars.onnx
engine build models/apron_pointpillars.onnx --io-precision fp32 --version-compatible
engine build models/apron_yolox.onnx --precision int8 --calibration scales.json --device dla0
engine build net.onnx --profile images:1x3x384x640:1x3x384x640:8x3x384x640 --out engines/
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
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
    add(
        '--layer-precision', action='append', default=[], metavar='NODE:PRECISION',
        help='a node, or a pattern with *, that is computed in fp32 or fp16, more finely than the '
        'rest; may be repeated',
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


def run(options: argparse.Namespace) -> Answer:
    """Builds; the engine's file and its manifest."""
    target, manifest = build(options)
    return Answer(describe_build(target, manifest), as_dict(target, manifest))

"""`engine sanitize`: a network made fit for what follows, with the same outputs."""

from __future__ import annotations

import argparse
import json

from airside_perception.deploy.agreement import read_sizes
from airside_perception.deploy.options import add_comparison, add_external_data, add_shape
from airside_perception.deploy.sanitize import (
    SIZE_LIMIT_MB,
    TOLERANCE,
    Settings,
    describe,
    sanitize_file,
)
from airside_perception.deploy.shapes import read_shapes
from airside_perception.deploy.verb import Answer, progress
from airside_perception.files import write_whole

DESCRIPTION = """\
Folds constants, infers shapes, removes dead nodes and unused weights, repairs names, and checks.
The outputs before and after are compared on random inputs of several sizes.
Exit status 1: they differ; nothing is written then."""
EXAMPLES = """\
engine sanitize net.onnx --out clean.onnx
engine sanitize net.onnx --out clean.onnx --shape images:1x3x384x640 --report clean.json
engine sanitize net.onnx --out clean.onnx --size batch=1,4 --external-data clean.weights --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='MODEL', help='network, .onnx')
    add('--out', required=True, metavar='ONNX', help='network to write')
    add('--no-fold', action='store_true', help='leave constants as they are computed')
    add(
        '--size-limit', type=float, default=SIZE_LIMIT_MB, metavar='MIB',
        help='store no folded constant larger than this; %(default)g',
    )  # fmt: skip
    add_shape(parser, 'fix the shape of an input, ? for a size that stays as it is')
    add('--merge-weights', action='store_true', help='store equal weights once')
    add_external_data(parser)
    add('--report', default='', metavar='JSON', help='write what changed to this file, too')
    add_comparison(
        parser,
        'sizes at which a dimension that varies is compared; default: 1, 2, 3, for height and '
        'width of images 64, 128, 192',
        TOLERANCE,
    )


def run(options: argparse.Namespace) -> Answer:
    """Writes the network; what changed."""
    settings = Settings(
        fold=not options.no_fold,
        size_limit_mb=options.size_limit,
        input_shapes=read_shapes(options.shape),
        merge=options.merge_weights,
        sizes=read_sizes(options.size),
        seed=options.seed,
        tolerance=options.tolerance,
    )
    with progress() as bar:
        made, files = sanitize_file(
            options.model, options.out, settings, options.external_data, bar
        )
    table = {
        'model': options.model,
        'files': [str(path) for path in files],
        **made.report.as_dict(),
    }
    if options.report:
        write_whole(options.report, json.dumps(table, indent=2) + '\n')
    return Answer(describe(made.report, files), table)

"""`engine rewrite`: exact rewrites that make a network legal for the DLA."""

from __future__ import annotations

import argparse

from airside_perception.deploy.options import add_shape
from airside_perception.deploy.verb import Answer, progress

DESCRIPTION = """\
Rewrites a network so that the DLA can run it, without changing what it computes: every pass is
proven on ONNX Runtime, before against after, on random inputs, before it is kept.
Passes: shapes, constants, batch, activations, opset, batch-norm, focus, max-pool, mean, resize,
deconvolution, linear, leaky, arithmetic, head.
Exit status 1: something illegal is left, or a pass was dropped because it was not equal."""
EXAMPLES = """\
engine rewrite yolox_nano.onnx --target dla --jetpack 6.2 --out yolox_nano_dla.onnx
engine rewrite net.onnx --target dla --shape images:1x3x416x416 --out net_dla.onnx
engine rewrite net.onnx --target dla --only focus,max-pool --out net_dla.onnx --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='MODEL', help='network, .onnx')
    add('--target', choices=('dla',), default='dla', help='%(default)s')
    add('--jetpack', default='6.2', help='e.g. 5.1, 6.0, 6.2, 7.2.2; %(default)s')
    add('--out', required=True, metavar='NEW.onnx',
        help='network to write; a card beside MODEL goes along')  # fmt: skip
    add('--batch', type=int, metavar='N',
        help='batch size: where it varies (default: 1), and in place of a fixed one')  # fmt: skip
    add_shape(parser, 'of an input that varies')
    add('--only', default='', metavar='PASS,...', help='only these passes')


def run(options: argparse.Namespace) -> Answer:
    """Rewrites, and says what was done."""
    from airside_perception.deploy.rewrite import rewrite_file
    from airside_perception.deploy.rewrite_report import as_dict, describe
    from airside_perception.deploy.shapes import read_shapes

    only = [name for name in options.only.split(',') if name]
    with progress() as bar:
        done, note = rewrite_file(
            options.model,
            options.out,
            options.target,
            options.jetpack,
            options.batch,
            read_shapes(options.shape),
            only,
            bar,
        )
    title = f'{options.model} -> {options.out}: {options.target}, JetPack {options.jetpack}'
    table = {'model': options.model, 'out': options.out, **as_dict(done), 'note': note}
    return Answer(describe(done, title, note), table, done.good)

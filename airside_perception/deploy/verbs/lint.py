"""`engine lint`: every node of a network against the rules of its target."""

from __future__ import annotations

import argparse

from airside_perception.deploy.verb import Answer

DESCRIPTION = """\
Every node against the rules of a target: runs, conditional, falls back or refused, with the limit
that is violated, the value, the fix and the source; the predicted share on DLA, its subgraphs and
the transfers. Exit status 1: something falls back or is refused."""
EXAMPLES = """\
engine lint models/apron_yolox.onnx --target dla --jetpack 6.2
engine lint yolox_nano.onnx --target dla --jetpack 6.2 --html lint.html
engine lint models/apron_centerpoint.onnx --target gpu --jetpack 7.2 --precision int8 --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='MODEL', help='network, .onnx')
    add('--target', choices=['dla', 'gpu'], required=True, help='what it is meant to run on')
    add('--jetpack', required=True, metavar='VERSION', help='5.1, 6.0, 6.2, 7.2 or 7.2.2')
    add('--batch', type=int, default=1, metavar='N', help='size of a free batch; default: 1')
    add('--precision', choices=['fp32', 'fp16', 'int8'], default='fp16', help='default: fp16')
    add('--html', default='', metavar='FILE', help='report with a picture of the graph')


def run(options: argparse.Namespace) -> Answer:
    """Judges a network."""
    from airside_perception.deploy.lint.report import describe
    from airside_perception.deploy.lint.run import lint_file

    found = lint_file(
        options.model, options.target, options.jetpack, options.batch, options.precision,
        options.html,
    )  # fmt: skip
    text = describe(found, options.model)
    if options.html:
        text += f'\n\nreport: {options.html}'
    return Answer(text, {'model': options.model, **found.as_dict()}, found.good)

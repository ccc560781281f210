"""`engine profile`: how long each layer of a network or engine takes."""

from __future__ import annotations

import argparse

from airside_perception.deploy.verb import Answer, progress
from airside_perception.deploy.verbs.bench import add_input_options, input_settings
from airside_perception.errors import ConfigError

DESCRIPTION = """\
Times every layer of a network (ONNX Runtime) or engine (TensorRT), with its kind, device and
precision, and the share of those that only bring data into another layout, copy it, or carry it
between GPU and DLA.
Exit status 1: an engine, and no GPU or TensorRT here."""
EXAMPLES = """\
engine profile models/apron_centerpoint.onnx --top 10
engine profile pointpillars.fp16.gpu.engine --html layers.html
engine profile yolox.int8.dla0.engine --iterations 200 --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='ENGINE_OR_ONNX', help='.engine, .plan or .onnx')
    add('--iterations', type=int, default=50, metavar='N', help='runs that count, %(default)s')
    add('--html', default='', metavar='FILE', help='write a page with bars')
    add('--top', type=int, default=20, metavar='N',
        help='layers that are printed, the longest, %(default)s; 0: all')  # fmt: skip
    add_input_options(parser)


def run(options: argparse.Namespace) -> Answer:
    """Profiles what the options name."""
    from airside_perception.deploy.profile.page import page
    from airside_perception.deploy.profile.report import describe
    from airside_perception.deploy.profile.run import profile
    from airside_perception.files import write_whole

    if options.top < 0:
        raise ConfigError(f'top = {options.top}: expected 0 or more')
    with progress() as bar:
        found = profile(options.model, options.iterations, input_settings(options), bar)
    text = describe(found, options.top)
    if options.html:
        write_whole(options.html, page(found), ConfigError)
        text += f'\n\n{options.html}: all layers with bars'
    return Answer(text, found.as_dict())

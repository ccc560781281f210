"""`engine inspect`: what is in a network or engine, and whether it fits its card and machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airside_perception.deploy.inspect import describe, inspect_network
from airside_perception.deploy.inspect_engine import (
    describe_engine,
    inspect_engine,
    write_manifest,
)
from airside_perception.deploy.verb import Answer
from airside_perception.engine import ENGINE_SUFFIXES

DESCRIPTION = """\
What is in a network or engine: inputs, outputs, operators or layers, versions, its card.
Exit status 1: it does not fit its card, its manifest or this machine."""
EXAMPLES = """\
engine inspect models/apron_pointpillars.onnx
engine inspect yolox_nano.onnx --card config/cards/yolox_nano_coco.yaml --json
engine inspect models/apron_pointpillars.fp16.gpu.engine
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='MODEL', help='network or engine: .onnx, .engine, .plan')
    add(
        '--card', default='', metavar='YAML',
        help='model card; default: beside the network, same name, .yaml',
    )  # fmt: skip
    add('--allow-host-code', action='store_true', help='open an engine that brings host code')
    add(
        '--write-manifest', default='', metavar='ONNX',
        help='first say of an engine without a manifest that it belongs here, and was built from '
        'this network',
    )  # fmt: skip
    add('--dla-core', type=int, default=-1, help='with --write-manifest: core it was built for')


def run(options: argparse.Namespace) -> Answer:
    """Looks into a network or engine."""
    if Path(options.model).suffix not in ENGINE_SUFFIXES:
        found = inspect_network(options.model, options.card)
        return Answer(describe(found), found.as_dict(), not found.problem)
    if options.write_manifest:
        written, _ = write_manifest(options.model, options.write_manifest, options.dla_core)
        print(f'{written}: says that this engine belongs to this machine', file=sys.stderr)
    engine = inspect_engine(options.model, options.card, options.allow_host_code)
    return Answer(describe_engine(engine), engine.as_dict(), not engine.problem)

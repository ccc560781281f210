"""`engine inspect`: what is in a network, engine or manifest, and whether that fits here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airside_perception.deploy.inspect import describe, inspect_network
from airside_perception.deploy.inspect_engine import (
    inspect_engine,
    inspect_manifest,
    write_manifest,
)
from airside_perception.deploy.inspect_text import describe_engine
from airside_perception.deploy.options import add_card
from airside_perception.deploy.verb import Answer
from airside_perception.engine import ENGINE_SUFFIXES

DESCRIPTION = """\
What is in a network, engine or manifest: inputs, outputs, profiles, operators or layers with their
device and precision, memory, versions, its card.
Exit status 1: it does not fit its card, its manifest or this machine."""
EXAMPLES = """\
engine inspect models/apron_centerpoint.onnx
engine inspect yolox_nano.onnx --card config/cards/yolox_nano_coco.yaml --json
engine inspect models/apron_centerpoint.fp16.gpu.engine --layers
engine inspect models/apron_centerpoint.fp16.gpu.engine.json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add(
        'model',
        metavar='MODEL',
        help='network, engine or manifest: .onnx, .engine, .plan, .engine.json',
    )
    add_card(parser)
    add('--layers', action='store_true', help='list all layers, or nodes of a network')
    add('--allow-host-code', action='store_true', help='open an engine that brings host code')
    add(
        '--write-manifest', default='', metavar='ONNX',
        help='first say of an engine without a manifest that it belongs here, and was built from '
        'this network',
    )  # fmt: skip
    add('--dla-core', type=int, default=-1, metavar='N',
        help='with --write-manifest: core it was built for')  # fmt: skip


def run(options: argparse.Namespace) -> Answer:
    """Looks into a network, engine or manifest."""
    if Path(options.model).suffix == '.json':
        engine = inspect_manifest(options.model, options.card, options.allow_host_code)
        text = describe_engine(engine, options.layers)
        return Answer(text, engine.as_dict(), not engine.problem)
    if Path(options.model).suffix not in ENGINE_SUFFIXES:
        found = inspect_network(options.model, options.card, options.layers)
        return Answer(describe(found), found.as_dict(), not found.problem)
    if options.write_manifest:
        written, _ = write_manifest(options.model, options.write_manifest, options.dla_core)
        print(f'{written}: says that this engine belongs to this machine', file=sys.stderr)
    engine = inspect_engine(options.model, options.card, options.allow_host_code)
    return Answer(describe_engine(engine, options.layers), engine.as_dict(), not engine.problem)

"""`engine`: what is in a network, and whether it fits its model card."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from airside_perception.deploy.build import (
    BuildError,
    add_build,
    as_dict,
    build,
    describe_build,
)
from airside_perception.deploy.encoder import as_yaml, fold_encoder
from airside_perception.deploy.inspect import describe, inspect_network
from airside_perception.deploy.inspect_engine import (
    describe_engine,
    inspect_engine,
    write_manifest,
)
from airside_perception.deploy.resize import resize_network
from airside_perception.engine import ENGINE_SUFFIXES
from airside_perception.errors import PerceptionError

FAILED = 1
BAD_INPUT = 2

EPILOG = """\
examples:
  engine build models/apron_pointpillars.onnx --precision fp16
  engine inspect models/apron_pointpillars.onnx
  engine inspect yolox_nano.onnx --card config/cards/yolox_nano_coco.yaml --json
  engine resize yolox_nano.onnx wide.onnx --height 384 --width 1248
  engine encoder pts_voxel_encoder_centerpoint.onnx >> pts_backbone_neck_head_centerpoint.yaml

exit status: 0 fine, 1 network or engine does not fit its card or
this machine, or cannot be built here, 2 bad input
"""


def main(args: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    options = _parser().parse_args(args)
    try:
        return int(options.run(options))
    except PerceptionError as error:
        print(f'engine: {error}', file=sys.stderr)
        return BAD_INPUT


def _inspect(options: argparse.Namespace) -> int:
    if Path(options.model).suffix in ENGINE_SUFFIXES:
        if options.write_manifest:
            written, _ = write_manifest(options.model, options.write_manifest, options.dla_core)
            print(f'{written}: says that this engine belongs to this machine', file=sys.stderr)
        engine = inspect_engine(options.model, options.card, options.allow_host_code)
        text, problem, table = describe_engine(engine), engine.problem, engine.as_dict()
    else:
        found = inspect_network(options.model, options.card)
        text, problem, table = describe(found), found.problem, found.as_dict()
    print(json.dumps(table, indent=2, default=str) if options.json else text)
    return FAILED if problem else 0


def _resize(options: argparse.Namespace) -> int:
    resize_network(options.model, options.out, options.height, options.width, options.card)
    print(f'{options.out}: input {options.height} x {options.width} (height x width)')
    return 0


def _build(options: argparse.Namespace) -> int:
    try:
        target, manifest = build(options)
    except BuildError as error:
        print(f'engine: {error}', file=sys.stderr)
        return FAILED
    table = as_dict(target, manifest)
    print(json.dumps(table, indent=2) if options.json else describe_build(target, manifest))
    return 0


def _encoder(options: argparse.Namespace) -> int:
    print(as_yaml(fold_encoder(options.model)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='engine',
        description='Looks into networks and prepares them for the detectors.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title='verbs', metavar='VERB', required=True)
    add_build(verbs, _build)
    card_help = 'model card; default: beside the network, same name, .yaml'

    verb = verbs.add_parser('inspect', help='what is in a network or engine, and whether it fits')
    verb.add_argument('model', metavar='MODEL', help='network or engine: .onnx, .engine, .plan')
    verb.add_argument('--card', default='', metavar='YAML', help=card_help)
    verb.add_argument('--json', action='store_true', help='print JSON instead of text')
    verb.add_argument(
        '--allow-host-code', action='store_true', help='open an engine that brings host code'
    )
    verb.add_argument(
        '--write-manifest', default='', metavar='ONNX',
        help='first say of an engine without a manifest that it belongs here, and was built from '
        'this network',
    )  # fmt: skip
    verb.add_argument(
        '--dla-core', type=int, default=-1, help='with --write-manifest: core it was built for'
    )
    verb.set_defaults(run=_inspect)

    verb = verbs.add_parser('resize', help='another input size for a fully convolutional network')
    verb.add_argument('model', metavar='MODEL', help='network, .onnx')
    verb.add_argument('out', metavar='OUT', help='network to write; its card goes beside it')
    verb.add_argument('--height', type=int, required=True, help='pixels')
    verb.add_argument('--width', type=int, required=True, help='pixels')
    verb.add_argument('--card', default='', metavar='YAML', help=card_help)
    verb.set_defaults(run=_resize)

    verb = verbs.add_parser('encoder', help='weights of a pillar feature net, for a model card')
    verb.add_argument('model', metavar='MODEL', help='[pillars, points, features] in, .onnx')
    verb.set_defaults(run=_encoder)
    return parser


if __name__ == '__main__':
    sys.exit(main())

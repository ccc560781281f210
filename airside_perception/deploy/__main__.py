"""`engine`: what is in a network, and whether it fits its model card."""

from __future__ import annotations

import argparse
import json
import sys

from airside_perception.deploy.encoder import as_yaml, fold_encoder
from airside_perception.deploy.inspect import describe, inspect_network
from airside_perception.deploy.resize import resize_network
from airside_perception.errors import PerceptionError

FAILED = 1
BAD_INPUT = 2

EPILOG = """\
examples:
  engine inspect models/apron_pointpillars.onnx
  engine inspect yolox_nano.onnx --card config/cards/yolox_nano_coco.yaml --json
  engine resize yolox_nano.onnx wide.onnx --height 384 --width 1248
  engine encoder pts_voxel_encoder_centerpoint.onnx >> pts_backbone_neck_head_centerpoint.yaml

exit status: 0 fine, 1 card and network contradict each other, 2 bad input
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
    found = inspect_network(options.model, options.card)
    print(json.dumps(found.as_dict(), indent=2, default=str) if options.json else describe(found))
    return FAILED if found.card_problem else 0


def _resize(options: argparse.Namespace) -> int:
    resize_network(options.model, options.out, options.height, options.width, options.card)
    print(f'{options.out}: input {options.height} x {options.width} (height x width)')
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
    card_help = 'model card; default: beside the network, same name, .yaml'

    verb = verbs.add_parser('inspect', help='inputs, outputs, operators, parameters, model card')
    verb.add_argument('model', metavar='MODEL', help='network, .onnx')
    verb.add_argument('--card', default='', metavar='YAML', help=card_help)
    verb.add_argument('--json', action='store_true', help='print JSON instead of text')
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

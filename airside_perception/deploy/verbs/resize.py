"""`engine resize`: another input size for a fully convolutional network."""

from __future__ import annotations

import argparse

from airside_perception.deploy.options import add_card
from airside_perception.deploy.resize import resize_network
from airside_perception.deploy.verb import Answer

DESCRIPTION = 'Gives a fully convolutional network another input size; its card goes with it.'
EXAMPLES = 'engine resize yolox_nano.onnx wide.onnx --height 384 --width 1248'


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='MODEL', help='network, .onnx')
    add('out', metavar='OUT', help='network to write; its card goes beside it')
    add('--height', type=int, required=True, help='pixels')
    add('--width', type=int, required=True, help='pixels')
    add_card(parser)


def run(options: argparse.Namespace) -> Answer:
    """Writes the network with its new size."""
    height, width = options.height, options.width
    resize_network(options.model, options.out, height, width, options.card)
    return Answer(
        f'{options.out}: input {height} x {width} (height x width)',
        {'model': options.out, 'height': height, 'width': width},
    )

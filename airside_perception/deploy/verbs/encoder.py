"""`engine encoder`: the weights of a pillar feature net, for a model card."""

from __future__ import annotations

import argparse

from airside_perception.deploy.encoder import as_yaml, fold_encoder
from airside_perception.deploy.verb import Answer

DESCRIPTION = 'Prints the weights of a pillar feature net as YAML for a model card.'
EXAMPLES = """\
engine encoder pts_voxel_encoder_centerpoint.onnx >> pts_backbone_neck_head_centerpoint.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    parser.add_argument('model', metavar='MODEL', help='[pillars, points, features] in, .onnx')


def run(options: argparse.Namespace) -> Answer:
    """Reads the network."""
    net = fold_encoder(options.model)
    table = {'weight': net.weight.tolist(), 'bias': net.bias.tolist()}
    return Answer(as_yaml(net), table)

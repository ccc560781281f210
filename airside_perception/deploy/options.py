"""Options that several verbs have: of real data, model cards, shapes, engines, comparisons."""

from __future__ import annotations

import argparse

SOURCE = (
    'folder of images or clouds, recording, .npz with arrays named as the inputs, or a .txt that '
    'names files'
)


def add_card(parser: argparse.ArgumentParser) -> None:
    """Adds `--card`."""
    parser.add_argument(
        '--card', default='', metavar='YAML',
        help='model card; default: beside the network, same name, .yaml',
    )  # fmt: skip


def add_frames(parser: argparse.ArgumentParser, default: int) -> None:
    """Adds `--frames`."""
    parser.add_argument(
        '--frames', type=int, default=default, metavar='N',
        help='so many, evenly spaced; 0: all; %(default)s',
    )  # fmt: skip


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Adds how frames of the data are read and seen, beside the network's card."""
    add = parser.add_argument
    add_card(parser)
    add('--topic', default='', help='of a recording; default: the only one of a fitting type')
    add('--height', type=float, default=0.0, metavar='M',
        help='of the lidar above the ground, where the data have no transform')  # fmt: skip
    add('--intensity-scale', type=float, default=1.0, metavar='FACTOR',
        help='brings the intensity of the lidar to 0..1')  # fmt: skip
    add('--fixed-frame', default='odom', metavar='FRAME',
        help='through which a recording moves past sweeps, as in the lidar node; '
        '%(default)s')  # fmt: skip


def add_shape(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Adds `--shape`; `deploy.shapes.read_shapes` reads it."""
    parser.add_argument(
        '--shape', action='append', default=[], metavar='INPUT:SHAPE',
        help=f'{help_text}, as images:1x3x384x640; several by comma, or repeated',
    )  # fmt: skip


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds how engines are opened."""
    add = parser.add_argument
    add('--dla-core', type=int, metavar='N',
        help='that engines run on, -1: none; default: as their manifests say')  # fmt: skip
    add('--allow-host-code', action='store_true', help='open engines that bring host code')


def add_comparison(parser: argparse.ArgumentParser, size_help: str, tolerance: float) -> None:
    """Adds how the outputs of a network before and after are compared."""
    add = parser.add_argument
    add('--size', action='append', default=[], metavar='NAME=N,N', help=size_help)
    add('--seed', type=int, default=0, metavar='N', help='of the random inputs; %(default)s')
    add(
        '--tolerance', type=float, default=tolerance, metavar='SHARE',
        help='largest difference of an output, of its largest value; %(default)g',
    )  # fmt: skip


def add_external_data(parser: argparse.ArgumentParser) -> None:
    """Adds `--external-data`; `deploy.external.data_file` reads it."""
    parser.add_argument(
        '--external-data', default='auto', metavar='auto|inline|FILE',
        help='weights in a file beside the network: only where it has 2 GB or more (auto), never, '
        'or in this file; %(default)s',
    )  # fmt: skip

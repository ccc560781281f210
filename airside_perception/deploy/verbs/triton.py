"""`engine triton`: a model repository for the Triton inference server."""

from __future__ import annotations

import argparse

from airside_perception.deploy.triton.repository import (
    Request,
    describe_repository,
    make_repository,
)
from airside_perception.deploy.verb import Answer

DESCRIPTION = """\
Writes a Triton model repository: the camera networks, the lidar network, a Python model
`postprocess` that decodes, suppresses, lifts and fuses as the nodes do, and the ensemble
`perception` of all. The airside_perception package must be importable where Triton runs.
Exit status 1: Triton could not serve it (layout, family or device of an engine)."""
EXAMPLES = """\
engine triton --camera models/apron_yolox.onnx --lidar models/apron_centerpoint.onnx --out repo
engine triton --camera-dla0 yolox.fp16.dla0.engine --camera-dla1 yolox.fp16.dla1.engine \
--lidar pillars.fp16.gpu.engine --out /opt/triton/models --cameras front,rear --link
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    plain = Request('', '')
    add('--camera', default='', metavar='FILE', help='engine or .onnx of the cameras, on the GPU')
    for core in (0, 1):
        add(
            f'--camera-dla{core}', default='', metavar='ENGINE',
            help=f'engine of the cameras for DLA core {core}: they then share the DLA cores',
        )  # fmt: skip
    add('--lidar', required=True, metavar='FILE', help='engine or .onnx of the lidar')
    add('--out', required=True, metavar='REPO', help='folder; other models in it stay')
    add('--cameras', default='', metavar='NAME,NAME', help='default: those of the parameters')
    add(
        '--params', default='', metavar='YAML',
        help='parameters of the nodes, with thresholds and fusion; default: the shipped',
    )  # fmt: skip
    add('--camera-card', default='', metavar='YAML', help='model card; default: of the network')
    add('--lidar-card', default='', metavar='YAML', help='likewise')
    add('--name-prefix', default='', metavar='TEXT', help='before the name of every model')
    add('--max-batch', type=int, default=plain.most_batch, metavar='N',
        help='of a .onnx whose batch varies: %(default)s')  # fmt: skip
    add('--cpu', action='store_true', help='ONNX networks run on the CPU')
    add('--link', action='store_true', help='link to networks and engines in place of copies')
    add('--force', action='store_true', help='replace models of these names')


def run(options: argparse.Namespace) -> Answer:
    """Writes the repository."""
    found = make_repository(
        Request(
            out=options.out,
            lidar=options.lidar,
            camera=options.camera,
            camera_dla0=options.camera_dla0,
            camera_dla1=options.camera_dla1,
            cameras=tuple(filter(None, options.cameras.split(','))),
            params=options.params,
            camera_card=options.camera_card,
            lidar_card=options.lidar_card,
            prefix=options.name_prefix,
            most_batch=options.max_batch,
            on_cpu=options.cpu,
            link=options.link,
            force=options.force,
        )
    )
    return Answer(describe_repository(found), found.as_dict())

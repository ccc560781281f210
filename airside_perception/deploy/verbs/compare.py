"""`engine compare`: two networks, engines or precisions on the same inputs."""

from __future__ import annotations

import argparse

from airside_perception.deploy.options import SOURCE, add_engine, add_frames, add_preprocessing
from airside_perception.deploy.verb import Answer, progress
from airside_perception.errors import ConfigError

DESCRIPTION = """\
Compares B with A, the reference, on the same inputs: every output, and on demand every tensor
between (--layers) and the boxes of the whole detector (--accuracy-gate). Networks (.onnx) run on
ONNX Runtime, engines on TensorRT. With one network, --as names the precision to compare it with.
Tolerances by the coarser precision: fp32 1e-3 of the largest value and cosine 0.99999, fp16 0.2
and 0.999, int8 1.5 and 0.93. Whether boxes stay is for the gate to say.
Exit status 1: an output is beyond the tolerance, a gate fails, or an engine cannot run here."""
EXAMPLES = """\
engine compare models/apron_centerpoint.onnx --as fp16 --data velodyne/ --height 1.73
engine compare net.onnx net.fp16.gpu.engine --data drive.mcap --topic /points --json
engine compare net.onnx --as fp16 --layers --random 4 --html layers.html
engine compare net.onnx --as fp16 --layer-precision '/head/*:fp32' --layers --data frames.npz
engine compare net.onnx net.int8.onnx --accuracy-gate --max-drop 0.05 --data images/
engine compare net.onnx --as int8 --scales scales.json --accuracy-gate --labels kitti/
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    precisions = ('auto', 'fp32', 'fp16', 'int8')
    add('a', metavar='A', help='the reference: .onnx, .engine or .plan')
    add('b', metavar='B', nargs='?', default='', help='default: A, with another --as')
    add('--precision-a', choices=precisions, default='auto', help='of A; auto: as its file is')
    add(
        '--precision-b', '--as', choices=precisions, default='auto',
        help='of B: a network in fp32 is converted; of an engine, what it must have',
    )  # fmt: skip
    add(
        '--scales', default='', metavar='FILE',
        help='for int8 of a network without Q/DQ: JSON {tensor: scale} or a calibration cache',
    )  # fmt: skip
    add(
        '--layer-precision', action='append', default=[], metavar='NODE:PRECISION',
        help='a node of B, or a pattern with *, that stays in fp32 or fp16; may be repeated',
    )  # fmt: skip
    add('--data', default='', metavar='SOURCE', help=SOURCE)
    add_frames(parser, 10)
    add_preprocessing(parser)
    add(
        '--random',
        type=int,
        default=0,
        metavar='N',
        help='random inputs instead; 4 without --data',
    )
    add('--max-rel', type=float, metavar='X', help='tolerance: part of the largest value of A')
    add('--min-cosine', type=float, metavar='X', help='tolerance: least cosine')
    add_engine(parser)
    add('--layers', action='store_true', help='every tensor; where they part, where fp16 ends')
    add(
        '--accuracy-gate', action='store_true',
        help='run the detector of the card with both: on --data the boxes of A are the truth, on '
        '--labels the labels',
    )  # fmt: skip
    add('--labels', default='', metavar='FOLDER', help="labelled frames in KITTI's layout")
    add('--max-drop', type=float, default=0.02, metavar='X',
        help='of average precision, in one curve or by class; %(default)s')  # fmt: skip
    add('--iou', type=float, default=0.5, metavar='X',
        help='least overlap of a hit, in the image or of footprints; %(default)s')  # fmt: skip
    add('--html', default='', metavar='FILE', help='report to write')


def run(options: argparse.Namespace) -> Answer:
    """Compares."""
    from airside_perception.deploy.compare.comparison import Request, compare
    from airside_perception.deploy.compare.report import describe, page
    from airside_perception.files import write_whole

    if not options.b and options.precision_a == options.precision_b:
        raise ConfigError(
            f'{options.a}: nothing to compare it with: name B, or --as fp16 or --as int8'
        )
    request = Request(
        a=options.a,
        b=options.b or options.a,
        precision_a=options.precision_a,
        precision_b=options.precision_b,
        scales=options.scales,
        layer_precision=dict(map(_pair, options.layer_precision)),
        data=options.data,
        frames=options.frames,
        random=options.random,
        card=options.card,
        topic=options.topic,
        height=options.height,
        intensity_scale=options.intensity_scale,
        fixed_frame=options.fixed_frame,
        layers=options.layers,
        gate=options.accuracy_gate,
        labels=options.labels,
        max_drop=options.max_drop,
        iou=options.iou,
        max_rel=options.max_rel,
        cosine=options.min_cosine,
        dla_core=options.dla_core,
        allow_host_code=options.allow_host_code,
    )
    with progress() as bar:
        found = compare(request, bar)
    if options.html:
        write_whole(options.html, page(found))
    return Answer(describe(found), found.as_dict(), found.good)


def _pair(text: str) -> tuple[str, str]:
    name, colon, kind = text.rpartition(':')
    if not colon:
        raise ConfigError(f'--layer-precision {text!r}: expected NODE:fp32')
    return name, kind

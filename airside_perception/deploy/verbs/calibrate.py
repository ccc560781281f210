"""`engine calibrate`: scales for INT8 from real inputs, as JSON, Q/DQ ONNX or TensorRT's cache."""

from __future__ import annotations

import argparse
from pathlib import Path

from airside_perception.deploy.calibrate import (
    ALGORITHM,
    ALGORITHMS,
    METHODS,
    PERCENTILE,
    calibrate,
    check_model,
    check_paths,
    read_for,
    read_version,
    state_path,
    write_cache,
    write_qdq,
)
from airside_perception.deploy.calibrate.report import Report
from airside_perception.deploy.cards import card_beside
from airside_perception.deploy.feeds import Feeds, open_feeds
from airside_perception.deploy.options import SOURCE, add_frames, add_preprocessing
from airside_perception.deploy.verb import Answer, progress
from airside_perception.errors import ConfigError

DESCRIPTION = """\
Finds the scales of all tensors of a network for INT8, from real images, clouds or a recording as
the nodes' own preprocessing has them. They are stored once, as JSON {tensor: scale}, and from that
file come the network with Q/DQ nodes (GPU) and TensorRT's calibration cache (DLA up to 10.7).

A pass that is interrupted goes on where it stopped when the same command is given again. Another
method on the same frames needs no second pass."""
EXAMPLES = """\
engine calibrate models/apron_yolox.onnx --data drive_bag --topic /camera/front/image
engine calibrate models/apron_pointpillars.onnx --data scans/ --height 1.73 --first-half 2 --emit-qdq int8.onnx
engine calibrate yolox_nano.onnx --card yolox_nano_coco.yaml --data images/ --method minmax
engine calibrate yolox_nano.onnx --scales yolox_nano.scales.json --emit-cache yolox.cache --tensorrt 10.3.0
"""  # noqa: E501  command lines


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='MODEL', help='network in fp32 without Q/DQ, .onnx')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--data', metavar='SOURCE', help=SOURCE,
    )  # fmt: skip
    source.add_argument(
        '--scales', metavar='FILE',
        help='no calibration: take stored scales, or a calibration cache of TensorRT',
    )  # fmt: skip
    add_frames(parser, 0)
    add_preprocessing(parser)
    add('--method', choices=METHODS, default='entropy', help='%(default)s')
    add('--percentile', type=float, default=PERCENTILE, metavar='P',
        help='for that method: of |x|, %(default)s')  # fmt: skip
    add(
        '--dla', action='store_true',
        help='one scale for tensors that a DLA core wants alike (pooling, concatenation, sums)',
    )  # fmt: skip
    add('--out', default='', metavar='FILE', help='scales; default: MODEL.scales.json')
    add('--emit-qdq', default='', metavar='NEW.onnx', help='network with Q/DQ nodes')
    add('--emit-cache', default='', metavar='NAME.cache', help='calibration cache of TensorRT')
    add(
        '--tensorrt', default='8.6.0', metavar='X.Y.Z',
        help='version that will read the cache; it takes no cache of another one: %(default)s',
    )  # fmt: skip
    add('--cache-header', choices=ALGORITHMS,
        help='calibrator that will read the cache; default: by the method. engine build and '
        f'trtexec take {ALGORITHM} only')  # fmt: skip
    add('--exclude', default='', metavar='NODE,NODE',
        help='nodes that get no Q/DQ: they stay in floating point')  # fmt: skip
    add('--first-half', type=int, default=0, metavar='N',
        help='so many of the first convolutions get no Q/DQ')  # fmt: skip
    add('--depthwise-half', action='store_true',
        help='depthwise convolutions get no Q/DQ')  # fmt: skip
    add(
        '--correct-biases', type=int, default=0, metavar='N',
        help='correct biases for what rounding adds, on N of the frames (one pass a convolution)',
    )  # fmt: skip
    add('--restart', action='store_true', help='begin anew, whatever an earlier pass has left')
    add('--threads', type=int, default=0, metavar='N', help='of ONNX Runtime, 0: all cores')


def run(options: argparse.Namespace) -> Answer:
    """Calibrates, stores, and writes what else was asked for."""
    version = read_version(options.tensorrt)
    if options.correct_biases and not options.data:
        raise ConfigError('--correct-biases needs --data: it looks at means over frames')
    out = Path(options.scales or options.out or Path(options.model).with_suffix('.scales.json'))
    check_paths(options.model, out, options.emit_qdq, options.emit_cache)
    report = Report(options.model, str(out))
    if options.data:
        check_model(options.model)
        with _feeds(options, options.frames) as feeds:
            _calibrate(options, feeds, out, report)
    known, notes = read_for(options.model, out)  # what was stored is what is written
    report.tensors, report.notes = len(known), [*report.notes, *notes]
    if options.emit_qdq:
        exclude = [name for name in options.exclude.split(',') if name]
        fed = _feeds(options, options.correct_biases) if options.correct_biases else ()
        report.operators = write_qdq(
            options.model, known, options.emit_qdq, exclude, options.first_half,
            options.depthwise_half, fed,
        )  # fmt: skip
        report.qdq = options.emit_qdq
    if options.emit_cache:
        algorithm = options.cache_header or ALGORITHMS[options.method == 'minmax']
        report.cache = options.emit_cache
        report.header = write_cache(known, options.emit_cache, version, algorithm)
    return Answer(report.text(), report.table())


def _feeds(options: argparse.Namespace, most: int) -> Feeds:
    card = card_beside(Path(options.model), options.card)
    return open_feeds(
        options.data, options.model, card, most, options.topic, options.height,
        options.intensity_scale, options.fixed_frame,
    )  # fmt: skip


def _calibrate(options: argparse.Namespace, feeds: Feeds, out: Path, report: Report) -> None:
    state = state_path(out)
    with progress() as bar:
        made, note = calibrate(
            options.model, feeds, state, options.method, options.percentile, options.dla,
            options.restart, options.threads, bar,
        )  # fmt: skip
    made.write(out)
    report.calibration, report.state = made, str(state)
    report.notes += [item for item in (note, feeds.note) if item]
    report.warnings += made.warnings

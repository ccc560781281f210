"""`engine search-precision`: which nodes may be INT8 within an accuracy budget."""

from __future__ import annotations

import argparse

from airside_perception.deploy.options import SOURCE, add_frames, add_preprocessing
from airside_perception.deploy.verb import Answer, progress

DESCRIPTION = """\
Runs a network with each convolution and matrix product alone in INT8, then adds them greedily, the
cheapest loss for the time saved first, within a budget. Metric boxes: 1 - AP50 of the detector's
boxes against those of fp32; output: relative error of the outputs (root mean square). The table
holds accuracy against the share of FLOPs in INT8, bytes of weights and a time, the last three
predicted by a model of a Jetson AGX Orin and not measured. --out writes the chosen network with
Q/DQ nodes for `engine build --precision int8`, which makes the rest fp16.
The budget is on what INT8 adds to the loss of fp16. Exit status 1: no node can be
INT8 within it."""
EXAMPLES = """\
engine search-precision net.onnx --data scans/ --height 1.73 --scales scales.json --out mixed.onnx
engine search-precision net.onnx --data drive.mcap --topic /points --budget 0.01 --html search.html
engine search-precision net.onnx --data images/ --metric output --budget 0.05 --table points.csv
engine search-precision net.onnx --data images/ --frames 8 --store scores.json --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('model', metavar='MODEL', help='network in fp32, .onnx')
    add('--data', required=True, metavar='SOURCE', help=SOURCE)
    add_frames(parser, 4)
    add_preprocessing(parser)
    add('--scales', default='', metavar='FILE',
        help='JSON {tensor: scale} of `engine calibrate`, or a calibration cache; default: made '
        'from the data')  # fmt: skip
    add('--calibration-frames', type=int, default=16, metavar='N',
        help='frames for that; %(default)s')  # fmt: skip
    add('--method', default='percentile', choices=('minmax', 'entropy', 'percentile'),
        help='for that; %(default)s')  # fmt: skip
    add('--correct', type=int, default=4, metavar='N',
        help='frames that biases are corrected on, against the shift of means by rounding; 0: '
        'none; %(default)s')  # fmt: skip
    add('--metric', choices=('output', 'boxes'), default='',
        help='boxes where there is a model card, else output')  # fmt: skip
    add('--budget', type=float, metavar='DROP', help='most that may be lost; 0.02')
    add('--iou', type=float, default=0.5, metavar='X',
        help='least overlap of a box with that of fp32; %(default)s')  # fmt: skip
    add('--store', default='', metavar='FILE',
        help='scores are kept in it: an interrupted search goes on where it was')  # fmt: skip
    add('--out', default='', metavar='ONNX', help='network to write; its card goes beside it')
    add('--html', default='', metavar='FILE', help='report to write')
    add('--table', default='', metavar='CSV', help='table to write')


def run(options: argparse.Namespace) -> Answer:
    """Searches."""
    from airside_perception.deploy.search.report import describe, page, table
    from airside_perception.deploy.search.run import SearchRequest, search_precision, write_mixed
    from airside_perception.files import write_whole

    request = SearchRequest(
        model=options.model,
        data=options.data,
        frames=options.frames,
        scales=options.scales,
        calibration_frames=options.calibration_frames,
        method=options.method,
        metric=options.metric,
        budget=options.budget,
        card=options.card,
        topic=options.topic,
        height=options.height,
        intensity_scale=options.intensity_scale,
        fixed_frame=options.fixed_frame,
        iou=options.iou,
        correct=options.correct,
        store=options.store,
    )
    with progress() as bar:
        found = search_precision(request, bar)
    if options.out:
        write_mixed(found, options.model, options.out)
    if options.html:
        write_whole(options.html, page(found, options.model))
    if options.table:
        write_whole(options.table, table(found.search))
    content = {
        **found.search.as_dict(),
        'build_options': list(found.options),
        'written': options.out,
        'note': found.note,
    }
    return Answer(describe(found), content, found.search.good)

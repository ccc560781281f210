"""Command lines of the verbs that judge, and the kinds of values that all verbs take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from airside_perception.evaluate.fit import METHODS
from airside_perception.replay.calibrate import FLOOR
from airside_perception.replay.evaluate import Options
from airside_perception.replay.settings import THREADS

Run = Callable[[argparse.Namespace], int]


def add_evaluate(verbs: Any, bag_help: str, run: Run) -> None:
    """`replay evaluate`."""
    plain = Options(())
    verb = verbs.add_parser(
        'evaluate', help='how good detections are, on bags that hold the ground truth'
    )
    verb.add_argument('bags', nargs='+', type=Path, metavar='BAG', help=bag_help)
    verb.add_argument(
        '--results', type=Path, metavar='FILE.jsonl',
        help='results of `replay run` on the bag; default: it is run here. Where none of their '
        'parameters lie beside them, --params tells which cameras are rectified',
    )  # fmt: skip
    verb.add_argument('--topic', action='append', help='judge this one only; may be repeated')
    verb.add_argument(
        '--params', type=Path, metavar='YAML',
        help='ROS parameter file; default: the shipped configuration',
    )  # fmt: skip
    verb.add_argument(
        '--classes', nargs='+', metavar='CLASS', help='default: all that the networks publish'
    )
    verb.add_argument(
        '--alias', nargs='+', type=pair, metavar='TRUTH=CLASS',
        help='a class of the truth that the networks call CLASS, beside what their cards say',
    )  # fmt: skip
    verb.add_argument(
        '--max-range', type=positive, default=plain.max_range, metavar='M',
        help=f'objects farther away are not asked for; default: {plain.max_range:g}',
    )  # fmt: skip
    verb.add_argument(
        '--ranges', type=ranges, default=plain.ranges, metavar='A,B,...',
        help=f'edges of the range bins, m; default: {",".join(f"{r:g}" for r in plain.ranges)}',
    )  # fmt: skip
    verb.add_argument(
        '--floor', type=score, metavar='SCORE',
        help='detectors answer from this score up, so that curves are whole; recall and '
        'precision stay those at the thresholds. Default: the thresholds themselves',
    )  # fmt: skip
    verb.add_argument(
        '--uncalibrated', action='store_true',
        help='leave the curves of the cards out: the detectors find the same, chosen by '
        'probabilities (thresholds and --floor), with the scores of the networks, which are then '
        'fused',
    )  # fmt: skip
    verb.add_argument(
        '--threads', type=positive_int, default=THREADS, metavar='N',
        help=f'CPU threads of a network, where the parameters fix none; default: {THREADS}',
    )  # fmt: skip
    verb.add_argument('--html', type=Path, metavar='FILE', help='write a report with plots')
    verb.add_argument('--json', action='store_true', help='print JSON instead of text')
    verb.set_defaults(run=run)


def add_calibrate(verbs: Any, bag_help: str, run: Run) -> None:
    """`replay calibrate-scores`."""
    verb = verbs.add_parser(
        'calibrate-scores',
        help='fit curves from scores to probabilities on bags that hold the ground truth',
    )
    verb.add_argument('bags', nargs='+', type=Path, metavar='BAG', help=bag_help)
    verb.add_argument(
        '--card', type=Path, required=True, metavar='YAML',
        help='model card of a network that the parameters run',
    )  # fmt: skip
    verb.add_argument(
        '--out', type=Path, required=True, metavar='YAML', help='card to write; may be the same'
    )
    verb.add_argument(
        '--params', type=Path, metavar='YAML',
        help='ROS parameter file; default: the shipped configuration',
    )  # fmt: skip
    verb.add_argument(
        '--method', choices=METHODS, default=METHODS[0],
        help='default: auto: of both the better, by halves; temperature where hits are few',
    )  # fmt: skip
    verb.add_argument(
        '--floor', type=score, default=FLOOR, metavar='SCORE',
        help='lowest score of the network that is looked at; both calibration errors, before and '
        f'after, are of the detections from it up; default: {FLOOR:g}',
    )  # fmt: skip
    thresholds = verb.add_mutually_exclusive_group()
    thresholds.add_argument(
        '--choose-thresholds', action='store_true',
        help='thresholds of the best F1 on these bags, instead of those of the card',
    )  # fmt: skip
    thresholds.add_argument(
        '--threshold', type=score, metavar='P',
        help='publish every class from this probability up, instead of by those of the card',
    )  # fmt: skip
    verb.add_argument(
        '--threads', type=positive_int, default=THREADS, metavar='N',
        help=f'CPU threads of a network, where the parameters fix none; default: {THREADS}',
    )  # fmt: skip
    verb.set_defaults(run=run)


def pair(text: str) -> tuple[str, str]:
    """TRUTH=CLASS."""
    name, mark, value = text.partition('=')
    if not (name and mark and value):
        raise argparse.ArgumentTypeError(f'{text} is not TRUTH=CLASS')
    return name, value


def score(text: str) -> float:
    """A number from 0 to 1."""
    value = positive(text)
    if value > 1.0:
        raise argparse.ArgumentTypeError(f'{text} is no score, 0 to 1')
    return value


def ranges(text: str) -> tuple[float, ...]:
    """Ascending numbers between commas."""
    edges = tuple(positive(part) for part in text.split(','))
    if len(edges) < 2 or any(b <= a for a, b in pairwise(edges)):
        raise argparse.ArgumentTypeError(f'{text} is not two or more ascending numbers')
    return edges


def positive(text: str) -> float:
    """A number from 0 up."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text} is not a number from 0 up')
    return value


def rate(text: str) -> float:
    """A number above 0."""
    value = positive(text)
    if value == 0.0:
        raise argparse.ArgumentTypeError('0 would never end')
    return value


def positive_int(text: str) -> int:
    """An integer from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not an integer from 1 up')
    return int(text)

"""`replay`: bags in, detections out, without ROS; and `play` for a live graph."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from airside_perception.errors import BagError, ConfigError, PerceptionError
from airside_perception.evaluate.fit import METHODS
from airside_perception.replay.bag import STORAGES, BagReader
from airside_perception.replay.calibrate import (
    FLOOR,
    calibrate,
    calibrated_text,
    write_calibrated,
)
from airside_perception.replay.compare import Thresholds, Tolerances, compare
from airside_perception.replay.evaluate import Options, evaluate_bags
from airside_perception.replay.evaluate_html import evaluation_page
from airside_perception.replay.evaluate_text import evaluation_json, evaluation_text
from airside_perception.replay.importer import import_kitti
from airside_perception.replay.report import (
    Progress,
    comparison_text,
    provenance,
    run_json,
    run_text,
    write_meta,
)
from airside_perception.replay.runner import Runner
from airside_perception.replay.settings import THREADS, load_settings
from airside_perception.results import ResultWriter, meta_path, read_results, write_text

DIFFERENT = 1
BAD_INPUT = 2
INTERRUPTED = 130

EPILOG = """\
examples:
  replay import-kitti kitti/training --out kitti.bag
  replay run --bag kitti.bag --out before.jsonl
  replay run --bag kitti.bag --params tuned.yaml --out after.jsonl
  replay compare before.jsonl after.jsonl
  replay evaluate drive.bag --html report.html
  replay calibrate-scores BAG... --card models/NAME.yaml --out models/NAME.yaml
  replay play --bag kitti.bag --loop

exit status: 0 fine (compare: the same), 1 compare: different, 2 bad input, 130 interrupted
"""


def main(args: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    options = _parser().parse_args(args)
    try:
        return int(options.run(options))
    except PerceptionError as error:
        print(f'replay: {error}', file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print('replay: interrupted; nothing was written', file=sys.stderr)
        return INTERRUPTED


def _import(options: argparse.Namespace) -> int:
    progress = Progress('import', sys.stderr)
    try:
        counts = import_kitti(
            options.folder, options.out, options.storage, options.force, progress
        )
    finally:
        progress.close()
    print(options.out)
    for topic in sorted(counts):
        print(f'  {counts[topic]:>6}  {topic}')
    return 0


def _run(options: argparse.Namespace) -> int:
    progress = Progress('replay', sys.stderr)
    with BagReader(options.bag) as reader:
        settings = load_settings(reader.topics, options.params, options.threads)
        with ResultWriter(options.out) as results:
            with Runner(reader, settings, results.write) as runner:
                try:
                    summary = runner.run(progress)
                finally:
                    progress.close()
                meta = provenance(reader, settings, runner.engines)
            if not summary.messages:
                causes = '; '.join(summary.causes.values())
                raise BagError(f'{options.bag}: no message gave a result: {causes or "none came"}')
    write_meta(options.out, meta)
    if options.json:
        print(json.dumps(run_json(summary, settings), indent=2))
    else:
        print(options.out)
        print(run_text(summary, settings))
    return 0


def _compare(options: argparse.Namespace) -> int:
    tolerances = Tolerances(
        options.position, options.size, options.yaw_deg, options.score, options.pixels,
        options.margin, tuple(options.symmetric),
    )  # fmt: skip
    found = compare(
        read_results(options.a), read_results(options.b), tolerances, _thresholds(options)
    )
    if options.json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        print(comparison_text(found, (options.a, options.b)))
    return 0 if found.same else DIFFERENT


def _evaluate(options: argparse.Namespace) -> int:
    progress = Progress('evaluate', sys.stderr)
    given = Options(
        bags=tuple(options.bags), results=options.results, topics=tuple(options.topic or ()),
        params=options.params, classes=tuple(options.classes or ()),
        aliases=dict(options.alias or ()), max_range=options.max_range, ranges=options.ranges,
        floor=options.floor, uncalibrated=options.uncalibrated, threads=options.threads,
    )  # fmt: skip
    try:
        found = evaluate_bags(given, progress)
    finally:
        progress.close()
    if options.html is not None:
        names = ', '.join(path.name for path in given.bags[:3])
        more = f' and {len(given.bags) - 3} more' if len(given.bags) > 3 else ''
        write_text(options.html, evaluation_page(found, f'Evaluation of {names}{more}'))
    if options.json:
        print(json.dumps(evaluation_json(found), indent=2, allow_nan=False))
    else:
        print(evaluation_text(found))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    progress = Progress('calibrate', sys.stderr)
    try:
        found = calibrate(
            options.bags, options.card, options.params, options.method, options.floor,
            options.threads, progress,
        )  # fmt: skip
    finally:
        progress.close()
    write_calibrated(found, options.card, options.out)
    print(options.out)
    print(calibrated_text(found))
    return 0


def _play(options: argparse.Namespace) -> int:
    try:
        from airside_perception.nodes.player import play
    except ImportError as error:
        raise ConfigError(
            f'play needs ROS 2 in this shell ({error}): source /opt/ros/$ROS_DISTRO/setup.bash, '
            'or the environment that `make setup` prepares'
        ) from error
    with BagReader(options.bag) as reader:
        topics = reader.topics
        unknown = [name for name in options.topics or () if name not in topics]
        if unknown:
            raise BagError(f'{options.bag}: no topic {unknown[0]!r}; it has {", ".join(topics)}')
        chosen = {name: topics[name] for name in options.topics or topics}
        play(
            lambda: reader.records(chosen),
            {name: (topic.type, topic.latched) for name, topic in chosen.items()},
            rate=options.rate,
            loop=options.loop,
            wait_s=options.wait_for_subscribers,
        )
    return 0


def _thresholds(options: argparse.Namespace) -> Thresholds:
    """Of the detectors that wrote A, from the file beside it; empty where there is none."""
    path = meta_path(options.a)
    try:
        found: Any = json.loads(path.read_text(encoding='utf-8'))['thresholds']
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BagError(f'{path}: not readable as the provenance of a replay: {error!r}') from error
    return dict(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='replay',
        description='Runs the perception of the vehicle on recordings, the same every time.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title='verbs', metavar='VERB', required=True)
    bag_help = 'folder with metadata.yaml, .mcap or .db3'
    limits = Tolerances()

    verb = verbs.add_parser('import-kitti', help='write a KITTI folder as a bag')
    verb.add_argument(
        'folder', metavar='FOLDER', help='object layout (image_2, ...) or drive (image_02, ...)'
    )
    verb.add_argument('--out', required=True, metavar='BAG', help='folder to make')
    verb.add_argument('--storage', choices=tuple(STORAGES), default='mcap', help='default: mcap')
    verb.add_argument('--force', action='store_true', help='replace a bag of that name')
    verb.set_defaults(run=_import)

    verb = verbs.add_parser('run', help='detect and fuse over a bag, write JSON lines')
    verb.add_argument('--bag', required=True, help=bag_help)
    verb.add_argument(
        '--params', metavar='YAML', help='ROS parameter file; default: the shipped configuration'
    )
    verb.add_argument('--out', required=True, metavar='FILE.jsonl', help='results to write')
    verb.add_argument(
        '--threads', type=_positive_int, default=THREADS, metavar='N',
        help=f'CPU threads of a network, where the parameters fix none; default: {THREADS}',
    )  # fmt: skip
    verb.add_argument('--json', action='store_true', help='print the summary as JSON')
    verb.set_defaults(run=_run)

    verb = verbs.add_parser('compare', help='two result files, detection by detection')
    verb.add_argument('a', metavar='A', help='results, .jsonl')
    verb.add_argument('b', metavar='B', help='results, .jsonl')
    for name, default, text in (
        ('position', limits.position, 'largest distance of two centres, m'),
        ('size', limits.size, 'largest difference of length, width or height, m'),
        ('yaw-deg', limits.yaw_deg, 'largest difference of yaw, degrees'),
        ('score', limits.score, 'largest difference of scores'),
        ('pixels', limits.pixels, 'largest difference of an edge in an image, px'),
        ('margin', limits.margin, 'forgive what comes or goes this near above its threshold'),
    ):
        verb.add_argument(
            f'--{name}', type=_positive, default=default, metavar='X',
            help=f'{text}; default: {default:g}',
        )  # fmt: skip
    verb.add_argument(
        '--symmetric', nargs='*', default=limits.symmetric, metavar='CLASS',
        help=f'yaw counts modulo 180 degrees; default: {" ".join(limits.symmetric)}',
    )  # fmt: skip
    verb.add_argument('--json', action='store_true', help='print JSON instead of text')
    verb.set_defaults(run=_compare)

    _add_evaluate(verbs, bag_help)
    _add_calibrate(verbs, bag_help)

    verb = verbs.add_parser(
        'play', help='publish a bag with /clock for a live graph (needs ROS 2)'
    )
    verb.add_argument('--bag', required=True, help=bag_help)
    verb.add_argument('--rate', type=_rate, default=1.0, help='times real time; default: 1')
    verb.add_argument(
        '--loop', action='store_true', help='again from the start, until interrupted'
    )
    verb.add_argument('--topics', nargs='+', metavar='TOPIC', help='only these; default: all')
    verb.add_argument(
        '--wait-for-subscribers', type=_positive, default=0.0, metavar='S',
        help='start when every topic has one, or after S seconds; default: at once',
    )  # fmt: skip
    verb.set_defaults(run=_play)
    return parser


def _add_evaluate(verbs: Any, bag_help: str) -> None:
    plain = Options(())
    verb = verbs.add_parser(
        'evaluate', help='how good detections are, on bags that hold the ground truth'
    )
    verb.add_argument('bags', nargs='+', type=Path, metavar='BAG', help=bag_help)
    verb.add_argument(
        '--results', type=Path, metavar='FILE.jsonl',
        help='results of `replay run` on the bag; default: it is run here',
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
        '--alias', nargs='+', type=_pair, metavar='TRUTH=CLASS',
        help='a class of the truth that the networks call CLASS, beside what their cards say',
    )  # fmt: skip
    verb.add_argument(
        '--max-range', type=_positive, default=plain.max_range, metavar='M',
        help=f'objects farther away are not asked for; default: {plain.max_range:g}',
    )  # fmt: skip
    verb.add_argument(
        '--ranges', type=_ranges, default=plain.ranges, metavar='A,B,...',
        help=f'edges of the range bins, m; default: {",".join(f"{r:g}" for r in plain.ranges)}',
    )  # fmt: skip
    verb.add_argument(
        '--floor', type=_score, metavar='SCORE',
        help='detectors answer from this score up, so that curves are whole; recall and '
        'precision stay those at the thresholds. Default: the thresholds themselves',
    )  # fmt: skip
    verb.add_argument(
        '--uncalibrated', action='store_true',
        help='leave the curves of the cards out: the same detections with scores of the networks',
    )  # fmt: skip
    verb.add_argument(
        '--threads', type=_positive_int, default=THREADS, metavar='N',
        help=f'CPU threads of a network, where the parameters fix none; default: {THREADS}',
    )  # fmt: skip
    verb.add_argument('--html', type=Path, metavar='FILE', help='write a report with plots')
    verb.add_argument('--json', action='store_true', help='print JSON instead of text')
    verb.set_defaults(run=_evaluate)


def _add_calibrate(verbs: Any, bag_help: str) -> None:
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
        '--floor', type=_score, default=FLOOR, metavar='SCORE',
        help=f'lowest score of the network that is looked at; default: {FLOOR:g}',
    )  # fmt: skip
    verb.add_argument(
        '--threads', type=_positive_int, default=THREADS, metavar='N',
        help=f'CPU threads of a network, where the parameters fix none; default: {THREADS}',
    )  # fmt: skip
    verb.set_defaults(run=_calibrate)


def _pair(text: str) -> tuple[str, str]:
    name, mark, value = text.partition('=')
    if not (name and mark and value):
        raise argparse.ArgumentTypeError(f'{text} is not TRUTH=CLASS')
    return name, value


def _score(text: str) -> float:
    value = _positive(text)
    if value > 1.0:
        raise argparse.ArgumentTypeError(f'{text} is no score, 0 to 1')
    return value


def _ranges(text: str) -> tuple[float, ...]:
    edges = tuple(_positive(part) for part in text.split(','))
    if len(edges) < 2 or any(b <= a for a, b in pairwise(edges)):
        raise argparse.ArgumentTypeError(f'{text} is not two or more ascending numbers')
    return edges


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text} is not a number from 0 up')
    return value


def _rate(text: str) -> float:
    value = _positive(text)
    if value == 0.0:
        raise argparse.ArgumentTypeError('0 would never end')
    return value


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not an integer from 1 up')
    return int(text)


if __name__ == '__main__':
    sys.exit(main())

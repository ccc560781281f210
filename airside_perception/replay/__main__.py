"""`replay`: bags in, detections out, without ROS; and `play` for a live graph."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from airside_perception.errors import INTERRUPTED, BagError, ConfigError, PerceptionError
from airside_perception.replay.arguments import (
    add_calibrate,
    add_evaluate,
    positive,
    positive_int,
    rate,
)
from airside_perception.replay.bag import STORAGES, BagReader
from airside_perception.replay.calibrate import calibrate, calibrated_text, write_calibrated
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
        options.velocity, options.margin, tuple(options.symmetric),
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
            options.threads, progress, options.choose_thresholds, options.threshold,
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
        '--threads', type=positive_int, default=THREADS, metavar='N',
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
        ('velocity', limits.velocity, 'largest difference of two velocities, m/s'),
        ('margin', limits.margin, 'forgive what comes or goes this near above its threshold'),
    ):
        verb.add_argument(
            f'--{name}', type=positive, default=default, metavar='X',
            help=f'{text}; default: {default:g}',
        )  # fmt: skip
    verb.add_argument(
        '--symmetric', nargs='*', default=limits.symmetric, metavar='CLASS',
        help=f'yaw counts modulo 180 degrees; default: {" ".join(limits.symmetric)}',
    )  # fmt: skip
    verb.add_argument('--json', action='store_true', help='print JSON instead of text')
    verb.set_defaults(run=_compare)

    add_evaluate(verbs, bag_help, _evaluate)
    add_calibrate(verbs, bag_help, _calibrate)

    verb = verbs.add_parser(
        'play', help='publish a bag with /clock for a live graph (needs ROS 2)'
    )
    verb.add_argument('--bag', required=True, help=bag_help)
    verb.add_argument('--rate', type=rate, default=1.0, help='times real time; default: 1')
    verb.add_argument(
        '--loop', action='store_true', help='again from the start, until interrupted'
    )
    verb.add_argument('--topics', nargs='+', metavar='TOPIC', help='only these; default: all')
    verb.add_argument(
        '--wait-for-subscribers', type=positive, default=0.0, metavar='S',
        help='start when every topic has one, or after S seconds; default: at once',
    )  # fmt: skip
    verb.set_defaults(run=_play)
    return parser


if __name__ == '__main__':
    sys.exit(main())

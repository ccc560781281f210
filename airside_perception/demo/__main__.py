"""`make demo`: the whole graph, launched, on a generated apron drive.

Makes the drive once, launches `full.launch.py` on it, and prints what came out: messages, rates,
latencies, objects, and how many of those that are really there were found. Leaves a picture from
above, one of each camera, and an animation of the drive. The accuracy that it prints is that on a
simulated drive.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import yaml

from airside_perception.config.fusion import FusionConfig
from airside_perception.demo.gallery import FILM, gallery
from airside_perception.demo.gif import can_write
from airside_perception.demo.moments import OBJECTS
from airside_perception.demo.report import answered, recall_table, topic_table
from airside_perception.errors import INTERRUPTED, PerceptionError
from airside_perception.live import run_live
from airside_perception.parameter import specs
from airside_perception.replay.report import Progress
from airside_perception.resources import resource
from airside_perception.results import read_results
from airside_perception.sim.apron import apron
from airside_perception.sim.drive import write_drive
from airside_perception.sim.rig import Rig, load_rig

SEED = 11142
"""Of an apron on which much goes on around the vehicle; networks are trained on other seeds."""


def main(args: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog='python -m airside_perception.demo', description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('build/demo'), help='default: build/demo')
    parser.add_argument('--seed', type=int, default=SEED, help=f'of the apron; default: {SEED}')
    parser.add_argument('--seconds', type=_positive, default=4.0, help='of the drive; default: 4')
    parser.add_argument(
        '--rate', type=_positive, default=0.08, help='times real time; default: 0.08'
    )
    parser.add_argument(
        '--pictures', type=Path, help='folder for the pictures of the README, to renew them'
    )
    options = parser.parse_args(args)
    if options.pictures is not None and not options.pictures.is_dir():
        parser.error(f'--pictures: {options.pictures} is no folder')
    try:
        rig = load_rig(resource('config', 'rig.yaml'))
        bag = _drive(rig, options.out, options.seed, options.seconds)
        play, record = _topics(tuple(rig.lenses))
        print(f'launching full.launch.py on {bag} at {options.rate:g} x real time', flush=True)
        settings = {'params_file': str(_settings(options.out, options.rate))}
        run = run_live(bag, options.out, play, record, settings, options.rate)
        results = read_results(run.results)
        print(topic_table(results, run))
        if not any(result.topic == OBJECTS for result in results):
            raise PerceptionError(
                f'nothing came on {OBJECTS}; what the graph said is in {run.log}'
            )
        print(recall_table(results, bag))
        used, scans = answered(results, bag)
        if used < scans:
            print(
                f'{scans - used} of {scans} scans came too late for the fusion: this computer is '
                f'too busy for {options.rate:g} x real time; see --rate\n'
            )
        for path in gallery(results, bag, rig, options.out, options.pictures):
            print(path, flush=True)
        if not can_write():
            print(f'no {FILM}: OpenCV {cv2.__version__} writes no animations (4.12 and later do)')
    except PerceptionError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return INTERRUPTED
    print(f'the graph ended {run.end_s:.1f} s after SIGINT with exit status {run.exit_status}')
    return run.exit_status


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return value


def _drive(rig: Rig, out: Path, seed: int, seconds: float) -> Path:
    """The bag of the drive, made where it is not there yet."""
    bag = out / f'apron_{seed}_{seconds:g}s'
    if not (bag / 'metadata.yaml').is_file():
        progress = Progress('making the drive', sys.stderr)
        try:
            write_drive(
                apron(seed), rig, seconds, seed, bag, overwrite=True, progress=progress,
                processes=None,
            )  # fmt: skip
        finally:
            progress.close()
    return bag


def _settings(out: Path, rate: float) -> Path:
    """The shipped parameters, but the player publishes reliably, so that no cloud is lost on the
    way, and where it plays slowly, the fusion has the same patience in the drive's time.
    """
    shipped = resource('config', 'perception.yaml')
    content = yaml.safe_load(shipped.read_text(encoding='utf-8'))
    for node in ('lidar_detector', 'camera_detector'):
        content[node]['ros__parameters']['input_qos'] = 'reliable'
    fusion = content['bev_fusion']['ros__parameters']
    known = {spec.name: spec for spec in specs(FusionConfig)}
    for name in ('deadline_ms', 'silence_ms'):
        wait = fusion.get(name, known[name].default) / min(rate, 1.0)
        fusion[name] = min(wait, known[name].high or wait)
    path = out / 'params.yaml'
    path.write_text(yaml.safe_dump(content), encoding='utf-8')
    return path


def _topics(cameras: Sequence[str]) -> tuple[list[str], list[str]]:
    """Topics of the bag to play, and topics of the graph to record."""
    play = ['/sensing/lidar/points', '/tf', '/tf_static']
    record = [OBJECTS, '/perception/lidar/detections']
    for name in cameras:
        play += [f'/sensing/camera/{name}/{kind}' for kind in ('image', 'camera_info')]
        record += [f'/perception/camera/{name}/{kind}' for kind in ('detections', 'detections_2d')]
    return play, record


if __name__ == '__main__':
    sys.exit(main())

"""`python -m benchmarks.velocity`: what past sweeps are worth, to detections and to velocities.

Simulated drives of held-out seeds and layouts; the vehicle drives as well, and its odometry is
that of the recording. Of every drive the last frame is judged, which has as many sweeps before it
as the network takes. Beside each other, on the same frames: the network of one sweep; that of
several with the past kept from it (`past_sweeps: 0`), as after a start or without odometry; and
that with its past.

mAP by the distance of centres, 0.5 to 4 m, of all within 80 m, whole curves, with its standard
error over seeds (`benchmarks.error_spread`), and cut at the thresholds; people to 30 m.
Velocities: mean error in m/s of what is found at the thresholds with its centre within 2 m, of
what moves (0.3 m/s and more), beside that of the answer that nothing moves, and of what stands.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.card import LidarCard, load_card
from airside_perception.errors import PerceptionError
from airside_perception.evaluate.breakdown import people
from airside_perception.evaluate.errors import REACH
from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import centre_nearness, match
from airside_perception.replay.bag import BagReader
from airside_perception.replay.evaluate import every_network
from airside_perception.replay.report import thresholds
from airside_perception.replay.runner import LIDAR_TOPIC, read_transforms
from airside_perception.replay.settings import load_settings
from airside_perception.replay.truth import read_truth
from airside_perception.resources import model_file
from airside_perception.types import Float64
from benchmarks.drives import add_options, fingerprint, make, write_figures
from benchmarks.error_analysis import lidar_frames, with_model
from benchmarks.error_figures import above
from benchmarks.error_spread import error, jackknifed, mean_ap
from benchmarks.fusion_gain import FLOOR

SINGLE, SEVERAL = 'apron_centerpoint.onnx', 'apron_centerpoint_velocity.onnx'
WAYS = {
    'one sweep': (SINGLE, None),
    'several, no past': (SEVERAL, 0),
    'several': (SEVERAL, None),
}
"""{name: network, most past sweeps, None: those of its card}."""
MOVING = 0.3
"""Metres a second from which an object counts as moving."""
Found = tuple[Frame, dict[str, float]]


def last_frame(bag: Path, model: str, past: int | None) -> Found:
    """The last frame of a bag beside the truth, down to FLOOR, and the thresholds of the classes.

    Args:
        past: most past sweeps; None: those of the card.
    """
    with BagReader(bag) as reader:
        plain = with_model(load_settings(reader.topics, None, 1), model)
        if past is not None:
            plain = every_network(
                plain, lambda item: replace(item, config=replace(item.config, past_sweeps=past))
            )
        frames = lidar_frames(reader, plain, read_truth(reader), read_transforms(reader))
        return frames[-1], dict(thresholds(plain)[LIDAR_TOPIC])


def last_frames(
    folder: Path, model: str, past: int | None, count: int, given: argparse.Namespace
) -> tuple[list[Found], list[int]]:
    """`last_frame` of all drives of the options, `count` frames long, and the seed of each.

    Drives and what a network made of them are kept in the folder.
    """
    path = model_file(model, here_first=True)
    network = fingerprint([path, path.with_suffix('.yaml')])
    found, seeds = [], []
    for seed in given.seeds:
        for condition in given.conditions:
            bag = make(folder, seed, condition, given.family, count)
            kept = bag.with_name(f'{bag.name}_last_{network}_{past}.pickle')
            if not kept.is_file():
                kept.write_bytes(pickle.dumps(last_frame(bag, model, past)))
            found.append(pickle.loads(kept.read_bytes()))
            seeds.append(seed)
    return found, seeds


def speeds(frames: Sequence[Frame], names: Sequence[str]) -> dict[str, Float64]:
    """{class: velocities found and true, [N, 4]} of what is found within REACH."""
    found = {}
    for name in names:
        item = match(frames, name, centre_nearness, -REACH)
        places = np.flatnonzero(item.hits).tolist()
        pairs = [
            np.concatenate([
                np.asarray(frames[item.frames[place]].found.velocities)[item.rows[place]],
                np.asarray(frames[item.frames[place]].truth.velocities)[item.objects[place]],
            ])
            for place in places
        ]  # fmt: skip
        found[name] = np.array(pairs, np.float64).reshape(-1, 4)
    return found


def speed_errors(pairs: Float64) -> dict[str, float]:
    """Mean errors in m/s of [N, 4]: of what moves, if all stood still, of what stands; counts."""
    moving = np.hypot(pairs[:, 2], pairs[:, 3]) >= MOVING
    off = np.hypot(pairs[:, 0] - pairs[:, 2], pairs[:, 1] - pairs[:, 3])
    speed = np.hypot(pairs[:, 2], pairs[:, 3])

    def mean(values: Float64) -> float:
        return float(values.mean()) if len(values) else float('nan')

    return {
        'moving': int(moving.sum()), 'error': mean(off[moving]), 'nothing moves': mean(
            speed[moving]
        ), 'median error': float(np.median(off[moving])) if moving.any() else float('nan'),
        'standing': int((~moving).sum()), 'error standing': mean(off[~moving]),
    }  # fmt: skip


def figures(found: Sequence[Found], seeds: Sequence[int]) -> dict[str, Any]:
    """All figures of one network over the frames of all drives."""
    frames, lowest = [frame for frame, _ in found], found[0][1]
    names = tuple(lowest)
    published = [above(frame, lowest) for frame in frames]
    values: dict[str, Any] = {
        'frames': len(frames),
        'map': mean_ap(frames, names, False),
        'error of map': error(jackknifed(frames, seeds, names, False)),
        'at the thresholds': mean_ap(published, names, False),
        'people to 30 m': {key: asdict(item) for key, item in people(frames).items()},
    }
    pairs = speeds(published, names)
    if any(np.isfinite(item).all(axis=1).any() for item in pairs.values()):
        values['velocity'] = {'all': speed_errors(np.concatenate(list(pairs.values())))}
        values['velocity'] |= {name: speed_errors(item) for name, item in pairs.items()}
    return values


def text(name: str, values: dict[str, Any]) -> str:
    """The figures of one network, to be read."""
    lines = [
        f'{name}: {values["frames"]} frames, mAP {100 * values["map"]:.1f} '
        f'+- {100 * values["error of map"]:.1f}, at the thresholds '
        f'{100 * values["at the thresholds"]:.1f}'
    ]
    for key, item in values['people to 30 m'].items():
        lines.append(f'  people to 30 m, {key}: ' + ', '.join(
            f'{what} {value:.3f}' if isinstance(value, float) else f'{what} {value}'
            for what, value in item.items()
        ))  # fmt: skip
    for key, item in values.get('velocity', {}).items():
        if item['moving']:
            lines.append(
                f'  {key:16} {item["moving"]:4} moving: error {item["error"]:.2f} m/s (median '
                f'{item["median error"]:.2f}), if nothing moved {item["nothing moves"]:.2f}; '
                f'{item["standing"]:4} standing: {item["error standing"]:.2f}'
            )
    return '\n'.join(lines)


def main() -> int:
    """Makes and runs what is not there yet, then prints the figures."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.velocity', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_options(parser)
    given = parser.parse_args()
    answer: dict[str, Any] = {}
    curves: dict[str, Float64] = {}
    try:
        several = load_card(model_file(SEVERAL, here_first=True).with_suffix('.yaml'))
        past = several.past_sweeps if isinstance(several, LidarCard) else 0
        count = max(given.frames, 1 + past)
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.cache or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            for way, (model, most) in WAYS.items():
                found, seeds = last_frames(folder, model, most, count, given)
                frames, names = [frame for frame, _ in found], tuple(found[0][1])
                answer[way] = {'model': model, **figures(found, seeds)}
                curves[way] = jackknifed(frames, seeds, names, False)
                print(text(f'{way} ({model})', answer[way]), flush=True)
    except PerceptionError as problem:
        print(f'error: {problem}', file=sys.stderr)
        return 2
    for way in ('several, no past', 'several'):
        gain = answer[way]['map'] - answer['one sweep']['map']
        off = error(curves[way] - curves['one sweep'])
        answer[way]['gain'] = {'map': gain, 'error': off}
        print(f'{way} less one sweep: {100 * gain:+.1f} +- {100 * off:.1f} points of mAP')
    asked = {'conditions': given.conditions, 'frames of a drive': count, 'floor': FLOOR}
    write_figures(given, {**asked, **answer})
    return 0


if __name__ == '__main__':
    sys.exit(main())

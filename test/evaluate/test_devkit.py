"""The formulas against nuScenes' own development kit, which runs in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airside_perception.evaluate.errors import class_errors
from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.matching import centre_nearness, match
from airside_perception.evaluate.precision import nuscenes_ap

NAMES = ('car', 'truck', 'bus', 'pedestrian')  # names that the kit knows
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope='module')
def python() -> str:
    named = os.environ.get('AIRSIDE_NUSCENES_PYTHON', '')
    default = HERE.parents[1] / '.venv-nuscenes' / 'bin' / 'python'
    path = named or str(default)
    if not Path(path).is_file():
        pytest.skip(f'no nuscenes-devkit: {path} is not there (.ci/test.sh installs it)')
    return path


def world(seed: int) -> list[Frame]:
    """Objects, detections of most of them with errors, and false alarms."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(12):
        count = int(rng.integers(0, 12))
        boxes = np.column_stack([
            rng.uniform(-40, 40, (count, 2)), rng.uniform(0, 2, count),
            rng.uniform(0.5, 8, (count, 3)), rng.uniform(-np.pi, np.pi, count),
        ])  # fmt: skip
        names = tuple(rng.choice(NAMES[: 3 if seed else 4], count).tolist())
        speeds = rng.normal(0, 3, (count, 2))
        seen = np.flatnonzero(rng.random(count) < 0.8)
        near = boxes[seen] + rng.normal(0, 1, (len(seen), 7)) * [0.7, 0.7, 0.1, 0, 0, 0, 0.3]
        near[:, 3:6] *= np.exp(rng.normal(0, 0.1, (len(seen), 3)))
        extra = int(rng.integers(0, 5))
        false = np.column_stack([rng.uniform(-40, 40, (extra, 2)), np.ones((extra, 5))])
        classes = [names[i] for i in seen] + rng.choice(NAMES, extra).tolist()
        found = Found(
            tuple(classes),
            np.concatenate([near, false]),
            np.concatenate([rng.beta(5, 2, len(seen)), rng.beta(2, 4, extra)]),
            np.concatenate([speeds[seen] + rng.normal(0, 0.5, (len(seen), 2)),
                            np.zeros((extra, 2))]),
        )  # fmt: skip
        frames.append(Frame(Truth(names, boxes, speeds), found))
    return frames


def as_json(frames: list[Frame]) -> str:
    def rows(item: Any, scores: Any) -> list[dict[str, Any]]:
        return [
            {'class': name, 'box': item.boxes[row].tolist(),
             'velocity': item.velocities[row].tolist(), 'score': float(scores[row])}
            for row, name in enumerate(item.classes)
        ]  # fmt: skip

    return json.dumps({
        'classes': NAMES,
        'frames': [
            {'truth': rows(frame.truth, -np.ones(len(frame.truth))),
             'found': rows(frame.found, frame.found.scores)}
            for frame in frames
        ],
    })  # fmt: skip


def kits(python: str, frames: list[Frame]) -> dict[str, dict[str, float]]:
    """What the kit computes, by class."""
    environment = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'PYTHONHOME')}
    done = subprocess.run(
        [python, str(HERE / 'devkit.py')], input=as_json(frames), capture_output=True, text=True,
        check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, dict[str, float]] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_kit_says_the_same(python: str, seed: int) -> None:
    frames = world(seed)
    kit = kits(python, frames)
    for name in NAMES:
        for reach in (0.5, 1.0, 2.0, 4.0):
            found = match(frames, name, centre_nearness, -reach, inclusive=False)
            ours = nuscenes_ap(found)
            if not found.asked:  # the kit calls that 0
                assert np.isnan(ours)
                continue
            assert ours == pytest.approx(kit[name][str(reach)], abs=1e-12)
        found = match(frames, name, centre_nearness, -2.0, inclusive=False)
        if found.asked:
            errors = class_errors(frames, found)
            wanted = [kit[name][m] for m in ('trans_err', 'scale_err', 'orient_err', 'vel_err')]
            assert list(vars(errors).values()) == pytest.approx(wanted, abs=1e-9)


def test_what_is_not_asked_for_is_no_truth_to_the_kit(python: str) -> None:
    """The kit says the same of frames without those objects and without what they excuse."""
    rng = np.random.default_rng(5)
    frames = [
        replace(one, truth=replace(one.truth, asked=rng.random(len(one.truth)) < 0.6))
        for one in world(1)
    ]
    reach = 2.0
    found = {name: match(frames, name, centre_nearness, -reach, inclusive=False) for name in NAMES}
    without = []
    for number, one in enumerate(frames):
        rows = np.concatenate([item.rows[item.frames == number] for item in found.values()])
        asked = np.asarray(one.truth.asked)
        without.append(Frame(one.truth.select(asked), one.found.select(np.sort(rows))))
    plain = kits(python, [replace(one, truth=one.truth.select(one.truth.asked)) for one in frames])
    kit = kits(python, without)
    for name in NAMES[:3]:
        ours = nuscenes_ap(found[name])
        assert ours == pytest.approx(kit[name][str(reach)], abs=1e-12)
        assert ours > plain[name][str(reach)]  # there, what finds one is a false alarm

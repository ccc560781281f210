"""The benchmark of the fusion's gain: what it gives to the fusion, and what it counts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('open3d', reason='the benchmark makes drives with the simulator')

from airside_perception.config import CameraConfig, FusionConfig
from airside_perception.evaluate.frames import Truth
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Boxes2D
from benchmarks import fusion_gain
from benchmarks.fusion_gain import Moments, gain_error, judge, rows, text

NAMES = ('car', 'person')


def moment(rig, seed, condition, lidar, camera, truth) -> Moments:
    """A frame of a rig with one camera; boxes are (class, x, y, yaw, score)."""
    pose = rig.camera2base()
    lens = replace(rig.lens(), frame_id='front_optical')
    transforms = TransformBuffer()
    transforms.set_static(rig.FRAME, 'front_optical', pose)
    there, seen = rig.boxes(*truth), rig.seen_by(rig.boxes(*camera), pose).boxes
    seen = replace(seen, scores=np.array([row[4] for row in camera]))
    boxes = {'lidar': rig.boxes(*lidar), 'front': seen}
    halved = {name: replace(own, scores=own.scores / 2) for name, own in boxes.items()}
    lowest = {name: dict.fromkeys(NAMES, 0.3) for name in boxes}
    perfect = {'front': rig.seen_by(there, pose, score=0.99).boxes}
    lenses = {'front': lens}
    return Moments(
        seed, condition, rig.STAMP, halved, boxes, lowest, perfect, lenses, transforms,
        Truth(there.classes, there.boxes), FusionConfig(cameras=('front',)),
    )  # fmt: skip


@pytest.fixture
def drive(rig) -> list[Moments]:
    """Two frames a condition; the lidar misses what only the camera sees near, in every second."""
    car, person = ('car', 20, 3, 0.0, 0.9), ('person', 9, 0, 0.0, 0.8)
    faint = ('car', 30, -5, 0.0, 0.1)
    return [
        moment(rig, seed, condition, [car, faint], [person], [car[:4], person[:4]])
        for seed in (0, 1)
        for condition in ('clear', 'fog')
    ]


def test_thresholds_are_those_of_what_is_published(drive) -> None:
    item = drive[0]
    shown = item.shipped(item.published)
    assert {name: len(own) for name, own in shown.items()} == {'lidar': 1, 'front': 1}
    assert len(item.shipped(item.published, 0.05)['lidar']) == 2
    network = item.shipped(item.network)  # chosen by what is published, with other scores
    assert network['lidar'].scores.tolist() == [0.45]


def test_perfect_cameras_see_only_what_must_be_seen(rig, monkeypatch) -> None:
    flat = rig.rectangles(rig.boxes(('car', 20, 3), ('car', 40, 3)), rig.lens(), rig.camera2base())
    seen = Boxes2D(rig.STAMP, 'camera_optical', flat, [1.0, 0.0], ('car', 'car'))
    monkeypatch.setattr(fusion_gain, 'read_image_truth', lambda reader, name: {rig.STAMP: seen})
    card = SimpleNamespace(published=('car',), sizes=rig.SIZES)
    network = SimpleNamespace(card=card, config=CameraConfig(ground_frame=rig.FRAME))
    settings = SimpleNamespace(cameras=(SimpleNamespace(name='front', network=network),))
    transforms = TransformBuffer()
    transforms.set_static(rig.FRAME, 'camera_optical', rig.camera2base())
    found = fusion_gain._perfect(None, settings, {'front': rig.lens()}, transforms, {})
    boxes = found[rig.STAMP]['front']
    assert len(boxes) == 1
    assert boxes.boxes[0, 0] == pytest.approx(20, abs=1.0)


def test_rows_are_what_their_names_say(drive) -> None:
    table = {row: judge(*pair, NAMES) for row, pair in rows(drive).items()}
    # the lidar has the cars and no person: AP 1 and 0
    assert table['lidar']['map'] == pytest.approx(0.5)
    assert table['lidar']['classes']['car']['ap'] == pytest.approx(1.0)
    assert table['lidar']['gain'] == 0.0
    # the camera has the people and no car
    assert table['camera']['classes']['car']['ap'] == 0.0
    assert table['camera']['classes']['person']['ap'] > 0.7
    assert table['fused']['gain'] == pytest.approx(table['camera']['classes']['person']['ap'] / 2)
    assert table['fused']['ranges']['15-30 m']['map'] == pytest.approx(1.0)
    # half of the cars are lost, and with them the higher recalls
    half = table['lidar every second']
    assert 0.4 < half['classes']['car']['ap'] < 0.5
    assert half['gain'] == pytest.approx(half['classes']['person']['ap'] / 2)
    assert table['without the lidar']['map'] == table['without the lidar']['gain']
    assert table['without one camera']['map'] == pytest.approx(0.5)
    assert table['perfect cameras']['gain'] > 0.4


def test_the_error_of_a_gain_is_that_of_its_groups(drive) -> None:
    """Two seeds, of which one gains g: ten groups, of which eight leave nothing out."""
    variants, base = rows(drive)['fused']
    seeds = [item.seed for item in drive]
    mixed = [own if seed == 0 else other
             for seed, own, other in zip(seeds, variants[0], base, strict=True)]  # fmt: skip

    def gain(kept) -> float:
        chosen = [[part[n] for n in kept] for part in (mixed, base)]
        return judge(chosen[:1], chosen[1], NAMES)['gain']

    one, other = ([n for n, seed in enumerate(seeds) if seed == which] for which in (0, 1))
    gains = np.array([gain(other), gain(one), *[gain(range(len(seeds)))] * 8])
    assert gains[0] == 0.0
    assert gains[1] > gains[2] > 0.1
    expected = np.sqrt(9 / 10 * ((gains - gains.mean()) ** 2).sum())
    assert gain_error(seeds, mixed, base, NAMES) == pytest.approx(expected)
    assert gain_error(seeds, base, base, NAMES) == 0.0


def test_the_table_can_be_read(drive) -> None:
    names = {}
    for row, pair in rows(drive).items():
        names[row] = {**judge(*pair, NAMES), 'conditions': {}}
    shown = text(names).splitlines()
    assert shown[1].split() == ['lidar', '50.0', '+0.0']
    assert any(line.startswith('person') for line in shown)

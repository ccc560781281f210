"""Networks that see several sweeps get them of a recording, in every tool that feeds networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.card import LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.deploy import __main__ as command
from airside_perception.deploy import joined
from airside_perception.deploy.compare.comparison import Request, compare
from airside_perception.deploy.feeds import Feeds, open_feeds
from airside_perception.deploy.search.report import describe, page
from airside_perception.deploy.search.run import SearchRequest, search_precision
from airside_perception.engine import open_engine
from airside_perception.errors import BagError
from airside_perception.geometry import from_quaternion, rotation_z, transform
from airside_perception.messages import point_cloud_message, transform_message
from airside_perception.network import find_network
from airside_perception.pipeline import LidarPipeline
from airside_perception.replay.bag import BagReader, BagWriter
from airside_perception.replay.runner import read_transforms
from airside_perception.types import Boxes3D, PointCloud

MS = 1_000_000
T0 = 1_700_000_000_000 * MS
STAMPS = tuple(T0 + offset * MS for offset in (0, 100, 210, 300, 400, 500, 600))
MOUNT = transform(from_quaternion(0.0, 0.0, np.sin(0.2), np.cos(0.2)), np.array([1.0, 0.5, 1.7]))
CELL = 0.5
INPUT = 'spatial_features'


def base2odom(stamp_ns: int) -> np.ndarray:
    """A vehicle on a curve at 8 m/s, 500 m from the origin of odom."""
    t = (stamp_ns - T0) / 1e9
    place = [500 + 16 * np.sin(0.5 * t), -300 - 16 * np.cos(0.5 * t), 0.1]
    return transform(rotation_z(0.5 * t), np.array(place))


def points(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    low, high = (0.0, -18.0, -2.5, 0.0), (36.0, 18.0, 1.0, 1.0)
    return rng.uniform(low, high, (300, 4)).astype(np.float32)


def record(
    path: Path, odometry: Sequence[int] = STAMPS, damaged: int = -1, count: int = len(STAMPS),
    fixed: str = 'odom',
) -> Path:  # fmt: skip
    """Clouds of a turned lidar on a mast of a moving vehicle, and its poses at some stamps."""
    with BagWriter(path) as writer:
        message = writer.types('tf2_msgs/msg/TFMessage')
        item = transform_message('base_link', 'lidar', T0, MOUNT, writer.types)
        writer.write('/tf_static', message(transforms=[item]), T0)
        for index, stamp in enumerate(STAMPS[:count]):
            if stamp in odometry:
                pose = base2odom(stamp)
                item = transform_message(fixed, 'base_link', stamp, pose, writer.types)
                writer.write('/tf', message(transforms=[item]), stamp)
            cloud = point_cloud_message(PointCloud(stamp, 'lidar', points(index)), writer.types)
            if index == damaged:
                cut = bytes([0, 1, 0, 0, *[255] * 40])
                writer.write_raw('/points', 'sensor_msgs/msg/PointCloud2', cut, stamp)
            else:
                writer.write('/points', cloud, stamp)
    return path


def expected(index: int, past: int) -> np.ndarray:
    """x, y, z, age of a frame and so many before it, the newest first, point by point."""
    rows = []
    now = np.linalg.inv(base2odom(STAMPS[index]))
    for other in range(index, max(-1, index - past - 1), -1):
        age = (STAMPS[index] - STAMPS[other]) / 1e9
        for x, y, z, _ in points(other).astype(np.float64):
            place = MOUNT @ np.array([x, y, z, 1.0])
            if other != index:
                place = now @ base2odom(STAMPS[other]) @ place
            rows.append([*place[:3], age])
    return np.array(rows)


class Listening:
    """An engine that keeps what it is fed."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.fed = engine, []
        self.inputs, self.outputs, self.info = engine.inputs, engine.outputs, engine.info

    def infer(self, feeds: Any) -> Any:
        self.fed.append(feeds[INPUT].copy())
        return self.engine.infer(feeds)

    def close(self) -> None:
        self.engine.close()


def as_on_the_vehicle(bag: Path, model: Path) -> tuple[list[np.ndarray], list[Boxes3D]]:
    """Canvases and boxes of all clouds, one after another."""
    network = find_network(LidarConfig, LidarCard, {'engine_path': str(model)})
    listening: Any = Listening(network.open())
    pipeline = LidarPipeline(network, listening)
    with BagReader(bag) as reader:
        transforms = read_transforms(reader)
    boxes = [
        pipeline.detect(PointCloud(stamp, 'lidar', points(index)), transforms)
        for index, stamp in enumerate(STAMPS)
    ]
    pipeline.close()
    return listening.fed, boxes


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return record(tmp_path / 'bag')


def opened(bag: Path, model: Path, most: int = 0) -> Feeds:
    return open_feeds(bag, model, find_card(model), most)


def clouds(feeds: Feeds) -> list[PointCloud]:
    found = []
    for index in range(len(feeds)):
        raw = feeds.raw(index)
        assert isinstance(raw, PointCloud)
        found.append(raw)
    return found


@pytest.mark.parametrize('past', [1, 2, 3])
@pytest.mark.parametrize('half', [False, True])
def test_frames_are_those_of_the_lidar_node(
    bag: Path, tmp_path: Path, tiny_models: Any, past: int, half: bool
) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, half, past_sweeps=past)
    with opened(bag, model) as feeds:
        fed, _ = as_on_the_vehicle(bag, model)
        assert len(feeds) == len(fed) == len(STAMPS)
        for found, wanted in zip(feeds, fed, strict=True):
            assert_array_equal(found[INPUT], wanted)
        for index in (6, 0, 3, 2, 2, 5, 1, 4):  # back and forth
            raw = feeds.raw(index)
            assert isinstance(raw, PointCloud)
            assert raw.fields == ('x', 'y', 'z', 'time_lag')
            assert (raw.stamp_ns, raw.frame_id) == (STAMPS[index], 'base_link')
            assert_allclose(raw.points, expected(index, past), atol=2e-5)
            assert feeds.name(index) == f'{bag} /points {STAMPS[index]} ns'
            assert_array_equal(feeds[index][INPUT], fed[index])
        assert feeds.note == (
            f'{past} of 7 frames have fewer past sweeps than the {past} that the network sees: '
            'no cloud before this one'
        )


def test_the_canvas_shows_where_past_points_are_now(
    bag: Path, tmp_path: Path, tiny_models: Any
) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    x0, y0, z0, x1, y1, z1 = tiny_models.RANGE
    with opened(bag, model) as feeds:
        occupied, oldest = feeds[4][INPUT][0, :2]
    ages: dict[tuple[int, int], float] = {}
    unclear = set()
    for x, y, z, age in expected(4, 2):
        if not (x0 <= x < x1 and y0 <= y < y1 and z0 <= z < z1):
            continue
        cell = int((y - y0) // CELL), int((x - x0) // CELL)
        ages[cell] = max(ages.get(cell, 0.0), age)
        margin = [value % CELL for value in (x, y)] + [abs(z - z0), abs(z - z1)]
        if min(margin) < 1e-4 or max(margin[:2]) > CELL - 1e-4:
            unclear |= {(cell[0] + i, cell[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert len(set(ages.values())) == 3
    assert len(unclear) < 20 < 500 < len(ages)
    for row, column in np.ndindex(occupied.shape):
        if (row, column) not in unclear:
            assert occupied[row, column] == ((row, column) in ages)
            assert oldest[row, column] == pytest.approx(ages.get((row, column), 0.0))


def test_frames_far_apart_have_their_neighbours(
    bag: Path, tmp_path: Path, tiny_models: Any
) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    fed, _ = as_on_the_vehicle(bag, model)
    for most, chosen in ((1, [2]), (2, [2, 4]), (3, [2, 3, 5]), (6, [1, 2, 3, 4, 5, 6])):
        with opened(bag, model, most) as feeds:
            assert feeds.total == 7
            for index, frame in enumerate(chosen):
                assert_array_equal(feeds[index][INPUT], fed[frame])
                assert feeds.name(index).endswith(f' {STAMPS[frame]} ns')
            assert (feeds.note == '') == (most < 6)
    short = record(tmp_path / 'short', count=1)
    with opened(short, model, 1) as feeds:
        assert_allclose(clouds(feeds)[0].points, expected(0, 2), atol=2e-5)
        assert feeds.note.startswith('1 of 1 frames have fewer past sweeps')


def test_one_sweep_stays_one(bag: Path, tmp_path: Path, tiny_models: Any) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=0)
    for most, chosen in ((1, [0]), (2, [0, 3]), (0, range(7))):
        with opened(bag, model, most) as feeds:
            assert [len(cloud) for cloud in clouds(feeds)] == [300] * len(chosen)
            assert [cloud.stamp_ns for cloud in clouds(feeds)] == [STAMPS[i] for i in chosen]
            assert clouds(feeds)[0].fields == ('x', 'y', 'z')
            assert feeds.note == ''


def test_a_recording_without_odometry(tmp_path: Path, tiny_models: Any) -> None:
    bag = record(tmp_path / 'bag', odometry=())
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    with opened(bag, model, 3) as feeds:
        assert feeds.note == ''  # nothing was read yet
        for index, frame in enumerate((2, 3, 5)):
            assert_allclose(clouds(feeds)[index].points, expected(frame, 0), atol=2e-5)
        assert feeds.note.startswith('3 of 3 frames have fewer past sweeps than the 2 that')
        assert "unknown frame 'odom'" in feeds.note
        assert '\n' not in feeds.note


def test_a_vehicle_with_another_fixed_frame(
    bag: Path, tmp_path: Path, tiny_models: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    mapped = record(tmp_path / 'mapped', fixed='map')
    verbs = {
        'calibrate': f'--frames 2 --method minmax --out {tmp_path}/scales.json',
        'compare': '--frames 2 --as fp16 --accuracy-gate',
        'search-precision': '--frames 2 --method minmax --metric output --correct 0 --budget 1 '
        f'--out {tmp_path}/mixed.onnx',
        'bench': '--warm-up 0 --duration 0 --iterations 2',
    }
    for verb, options in verbs.items():
        for frame, said in (('odom', True), ('map', False)):
            words = (*options.split(), '--data', mapped, '--fixed-frame', frame)
            status, text = engine(capsys, verb, model, *words)
            assert status == 0
            assert ('past sweeps' in text) == said, (verb, frame)
    card = find_card(model)
    with (
        open_feeds(mapped, model, card, fixed_frame='map') as through,
        opened(bag, model) as usual,
    ):
        for found, wanted in zip(clouds(through), clouds(usual), strict=True):
            assert_array_equal(found.points, wanted.points)


def test_a_gap_of_the_odometry(tmp_path: Path, tiny_models: Any) -> None:
    bag = record(tmp_path / 'bag', odometry=STAMPS[2:])
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    with opened(bag, model) as feeds:
        counts = [len(cloud) // 300 for cloud in clouds(feeds)]
        assert counts == [1, 1, 1, 2, 3, 3, 3]
        assert feeds.note.startswith('4 of 7 frames have fewer')
        assert f'is known from {STAMPS[2]} to {STAMPS[-1]} ns' in feeds.note


def test_a_damaged_cloud_is_no_past_sweep(tmp_path: Path, tiny_models: Any) -> None:
    bag = record(tmp_path / 'bag', damaged=3)
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    with opened(bag, model) as feeds:
        for index in (4, 5, 6, 2):
            raw = feeds.raw(index)
            assert isinstance(raw, PointCloud)
            wanted = expected(index, 2)
            if index in (4, 5):
                gone = (STAMPS[index] - STAMPS[3]) / 1e9
                wanted = wanted[wanted[:, 3] != gone]
                assert len(wanted) == 600
            assert_allclose(raw.points, wanted, atol=2e-5)
        assert feeds.note.startswith('2 of 4 frames have fewer past sweeps than the 2')
        assert 'is no sensor_msgs/msg/PointCloud2' in feeds.note
        with pytest.raises(BagError, match='is no sensor_msgs/msg/PointCloud2'):
            feeds.raw(3)


def test_fingerprints_tell_how_sweeps_are_joined(
    bag: Path, tmp_path: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mark(past: int, **changes: Any) -> str:
        monkeypatch.setattr(joined, 'LidarConfig', partial(LidarConfig, **changes))
        model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=past)
        with opened(bag, model) as feeds:
            return feeds.fingerprint()

    assert mark(1) == mark(1)

    def through(frame: str, past: int) -> str:
        model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=past)
        with open_feeds(bag, model, find_card(model), fixed_frame=frame) as feeds:
            return feeds.fingerprint()

    assert mark(0) == through('map', 0)
    marks = [mark(0), mark(1), mark(2), mark(1, max_sweep_age=0.2), through('map', 1)]
    assert len(set(marks)) == 5


def engine(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str]:
    status = command.main([str(word) for word in words])
    return status, capsys.readouterr().out


def test_calibration_sees_what_moves(
    bag: Path, tmp_path: Path, tiny_models: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    silent = record(tmp_path / 'silent', odometry=())
    out = tmp_path / 'velocity.scales.json'
    fastest, texts = [], []
    for source in (bag, silent):
        status, text = engine(
            capsys, 'calibrate', model, '--data', source, '--frames', 5, '--method', 'minmax',
            '--out', out,
        )  # fmt: skip
        assert status == 0
        fastest.append(json.loads(out.read_text())['vel'] * 127)
        texts.append(text)
    # a moving point has 10 times its age as vx; what is newest has vy only
    assert fastest == pytest.approx([10 * 0.21, 0.25], rel=1e-5)
    assert 'past sweeps' not in texts[0]
    assert texts[1].count('5 of 5 frames have fewer past sweeps than the 2') == 1
    assert texts[1].count("unknown frame 'odom'") == 1


def test_the_gate_compares_detections_of_joined_clouds(
    bag: Path, tmp_path: Path, tiny_models: Any
) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    _, boxes = as_on_the_vehicle(bag, model)
    silent = record(tmp_path / 'silent', odometry=())
    kept = []
    for source in (bag, silent):
        found = compare(
            Request(model, model, precision_b='fp16', data=str(source), frames=2, gate=True)
        )
        assert found.good
        kept.append(found.gates[0].kept)
        odometry = [note for note in found.notes if 'past sweeps' in note]
        assert len(odometry) == (source == silent)
    assert kept[0] == len(boxes[2]) + len(boxes[4])
    assert kept[1] < kept[0]


@pytest.mark.parametrize('verb', ['bench', 'profile'])
def test_timed_networks_see_a_frame_with_its_past(
    bag: Path, tmp_path: Path, tiny_models: Any, capsys: pytest.CaptureFixture[str], verb: str,
) -> None:  # fmt: skip
    from airside_perception.deploy.bench.feeds import load_data
    from airside_perception.deploy.bench.settings import InputSettings

    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    loaded, note = load_data(InputSettings(data=str(bag)), model)
    assert loaded is not None
    assert loaded[INPUT][0, 1].max() == pytest.approx(0.21)
    assert note == ''
    silent = record(tmp_path / 'silent', odometry=())
    short = {'bench': ('--warm-up', 0, '--duration', 0, '--iterations', 2)}
    words = (verb, model, *short.get(verb, ('--iterations', 2)), '--data')
    for source, said in ((bag, 0), (silent, 1)):
        status, text = engine(capsys, *words, source)
        assert status == 0
        assert text.count('1 of 1 frames have fewer past sweeps than the 2') == said


def test_a_search_says_what_its_frames_lack(bag: Path, tmp_path: Path, tiny_models: Any) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    silent = record(tmp_path / 'silent', odometry=())
    for source, said in ((bag, 0), (silent, 1)):
        found = search_precision(
            SearchRequest(
                model, str(source), frames=2, calibration_frames=2, correct=0, method='minmax',
                metric='output', budget=1.0,
            )
        )  # fmt: skip
        for text in (describe(found), page(found, str(model))):
            assert text.count('2 of 2 frames have fewer past sweeps than the 2') == said


def test_an_engine_opens_what_the_feeds_hold(bag: Path, tmp_path: Path, tiny_models: Any) -> None:
    """Velocities come out of a feed as they are: 10 times the age, for the oldest in a cell."""
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    with opened(bag, model, 1) as feeds, open_engine(model) as network:
        found = np.unique(network.infer(feeds[0])['vel'][0, 0].round(4))
    assert found.tolist() == pytest.approx([0.0, 1.1, 2.1])

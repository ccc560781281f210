"""The table of precisions: its frames, accuracy, networks, predictions and verdicts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import load_card
from airside_perception.engine import open_engine
from airside_perception.errors import ConfigError
from airside_perception.evaluate.frames import Truth
from airside_perception.evaluate.images import flat
from airside_perception.types import Image, PointCloud
from benchmarks import precision_frames, precision_networks, precision_table
from benchmarks.precision_accuracy import Answers, answers, difference
from benchmarks.precision_frames import STEP, Shot, condition_of, load, save, shots
from benchmarks.precision_gpu import Plan, build_all, current, plan_of
from benchmarks.precision_networks import FP16, FP32, MIXED, PTQ, QAT, QAT_FP32, networks
from benchmarks.precision_orin import predict
from benchmarks.precision_table import Row, as_dict, rows_on_cpu, text

FIELDS = ('x', 'y', 'z', 'intensity')
CELL = 32
"""Of the tiny camera network, pixels."""


def shot(seed: int, cars: list[tuple[float, float]], people: list[tuple[float, float]]) -> Shot:
    """A frame in which the tiny networks find every car and person, and a car that none sees.

    Args:
        cars, people: middles of cells of the tiny lidar network, metres.
    """
    places = [*((x, y, 0.5, 1.0) for x, y in cars), *((x, y, 0.5, 0.0) for x, y in people)]
    sizes = [*[(4.0, 2.0, 1.5)] * len(cars), *[(0.6, 0.6, 1.8)] * len(people)]
    boxes = [(x, y, size[2] / 2, *size, 0.0) for (x, y, _, _), size in
             zip(places, sizes, strict=True)]  # fmt: skip
    boxes.append((35.5, 15.5, 0.75, 4.0, 2.0, 1.5, 0.0))
    names = (*('car',) * len(cars), *('person',) * len(people), 'car')
    hits = np.array([*[1] * len(places), 0])
    pixels = np.zeros((2 * CELL, 3 * CELL, 3), np.uint8)
    pixels[:CELL, CELL : 2 * CELL] = 255
    visible = Truth(('car',), flat(np.array([[CELL, 0.0, 2 * CELL, CELL]])))
    return Shot(
        seed,
        condition_of(seed)[0],
        PointCloud(0, 'base_link', np.array(places, np.float32), FIELDS),
        {'front': Image(0, 'camera_front_optical', pixels)},
        Truth(names, np.array(boxes), points=hits),
        {'front': visible},
    )


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    """Ten frames, one of every fold; the first has fewer cars."""
    random = np.random.default_rng(3)
    found = []
    for seed in range(10):
        cells = 6 * random.permutation(5)[:4] + 3.5  # none overlaps another
        cars = [(float(x), -5.5) for x in cells[: 2 if seed else 1]]
        path = tmp_path / 'frames' / f'{seed}_{condition_of(seed)[0]}.npz'
        save(shot(seed, cars, [(float(x), 2.5) for x in cells[2:]]), path)
        found.append(path)
    return found


def test_a_frame_reads_as_it_was_written(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    points = np.column_stack([random.uniform(-100, 100, (500, 3)), random.random(500)])
    points[7, 0] = 200.0  # beyond int16
    given = replace(
        shot(7001, [(10.5, 0.5)], []),
        cloud=PointCloud(0, 'base_link', points.astype(np.float32), FIELDS),
    )
    save(given, tmp_path / 'one.npz')
    read = load(tmp_path / 'one.npz')
    kept = np.delete(points, 7, axis=0)
    np.testing.assert_allclose(read.cloud.points[:, :3], kept[:, :3], atol=STEP / 2 + 1e-5)
    np.testing.assert_allclose(read.cloud.points[:, 3], kept[:, 3], atol=0.5 / 255 + 1e-6)
    assert (read.seed, read.condition, read.cloud.frame_id) == (7001, 'fog', 'base_link')
    assert read.objects.classes == given.objects.classes
    np.testing.assert_array_equal(read.objects.boxes, given.objects.boxes)
    np.testing.assert_array_equal(read.objects.points, given.objects.points)
    np.testing.assert_array_equal(read.visible['front'].boxes, given.visible['front'].boxes)
    apart = read.images['front'].data.astype(int) - given.images['front'].data
    assert np.abs(apart).mean() < 1.0
    assert read.images['front'].frame_id == 'camera_front_optical'


def test_no_frame_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / 'other.npz', x=np.zeros(3))
    with pytest.raises(ConfigError, match=r'other\.npz'):
        load(tmp_path / 'other.npz')
    with pytest.raises(ConfigError, match='no frame shall be made'):
        shots(tmp_path, [7], make=False)


def test_a_frame_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def shoot(seed: int, condition: tuple[str, str, str]) -> Shot:
        made.append((seed, condition[0]))
        return shot(seed, [(10.5, 0.5)], [])

    monkeypatch.setattr(precision_frames, 'shoot', shoot)
    first = shots(tmp_path, [4, 5])
    assert shots(tmp_path, [5, 4]) == first[::-1]
    assert made == [(4, 'clear'), (5, 'fog')]
    assert [path.name for path in first] == ['4_clear.npz', '5_fog.npz']
    every = shots(tmp_path, [4], every=True)
    assert [path.name for path in every] == [
        '4_clear.npz', '4_fog.npz', '4_rain.npz', '4_night.npz',
    ]  # fmt: skip
    assert made[2:] == [(4, 'fog'), (4, 'rain'), (4, 'night')]


def test_the_simulator_gives_a_frame_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('open3d', reason='the simulator casts rays with it')
    from airside_perception.sim import frames

    seen, drive = [], frames.drive

    def watched(*given: object) -> object:
        for frame in drive(*given):
            seen.append(frame)
            yield frame

    monkeypatch.setattr(frames, 'drive', watched)
    made = precision_frames.shoot(7003)
    for name, boxes in seen[0].objects2d.items():  # what need not be found is not asked for
        assert len(made.visible[name]) == (boxes.scores == 1.0).sum()
    assert any((boxes.scores == 0.0).any() for boxes in seen[0].objects2d.values())
    assert made.condition == 'night'
    assert len(made.cloud) > 10_000
    assert made.cloud.points[:, 2].min() > -3.0  # in base_link, the ground is at 0
    assert set(made.images) == set(made.visible) == {'front', 'left', 'right', 'rear'}
    points = np.asarray(made.objects.points)
    assert (points > 0).any()
    assert (points == 0).any()


def test_the_tiny_lidar_network_is_perfect(tiny_models, frames: list[Path]) -> None:
    model = tiny_models.tiny_lidar_model(frames[0].parent)
    with open_engine(model) as engine:
        found = answers(engine, load_card(model.with_suffix('.yaml')), frames)
    # the car without a point is not asked for
    assert found.by_class == {'car': pytest.approx(100.0), 'person': pytest.approx(100.0)}
    assert found.points == pytest.approx(100.0)
    assert difference(found, found) == (0.0, 0.0)


def test_the_tiny_camera_network_is_perfect(tiny_models, frames: list[Path]) -> None:
    model = tiny_models.tiny_camera_model(frames[0].parent)
    with open_engine(model) as engine:
        found = answers(engine, load_card(model.with_suffix('.yaml')), frames)
    assert found.images
    assert found.by_class['car'] == pytest.approx(100.0)
    assert found.points == pytest.approx(100.0)


def test_the_error_is_that_of_the_folds(tiny_models, frames: list[Path]) -> None:
    model = tiny_models.tiny_lidar_model(frames[0].parent)
    with open_engine(model) as engine:
        base = answers(engine, load_card(model.with_suffix('.yaml')), frames)
    lost = [replace(frame, found=frame.found.select(frame.found.scores > 2))
            if number == 4 else frame for number, frame in enumerate(base.frames)]  # fmt: skip
    one = replace(base, frames=tuple(lost))
    gain, error = difference(one, base)
    assert gain < -1.0
    # without the fold that lost everything nothing is lost
    assert one.folds[4] == pytest.approx(100.0)
    gains = np.array(one.folds) - base.folds
    assert error == pytest.approx(math.sqrt(9 * np.var(gains)))  # 9 / 10 of ten squares


def test_without_frames_there_are_no_points() -> None:
    assert math.isnan(Answers((), (), ('car',), images=False).points)


def one_convolution(path: Path) -> Path:
    """x [1, 16, 8, 8] to y [1, 32, 8, 8] by 3 x 3."""
    weight = np.zeros((32, 16, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node('Conv', ['x', 'w'], ['y'], 'conv', pads=[1, 1, 1, 1])],
        'one',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 16, 8, 8])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 32, 8, 8])],
        [numpy_helper.from_array(weight, 'w')],
    )
    opsets = [helper.make_opsetid('', 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ('precision', 'int8', 'rate', 'weight_bytes', 'input_bytes', 'output_bytes'),
    [
        ('fp32', (), 5.3e12, 4, 4, 4),
        ('fp16', (), 42.5e12, 2, 2, 2),
        ('int8', ('conv',), 85e12, 1, 1, 2),  # an output is read outside, in fp16
        ('int8', (), 42.5e12, 2, 2, 2),
    ],
)
def test_peak_of_the_orin_by_hand(
    tmp_path: Path,
    precision: str,
    int8: tuple[str, ...],
    rate: float,
    weight_bytes: int,
    input_bytes: int,
    output_bytes: int,
) -> None:
    found = predict(one_convolution(tmp_path / 'one.onnx'), precision, int8)
    operations = 2 * 9 * 16 * 32 * 8 * 8
    weights = 9 * 16 * 32 * weight_bytes
    moved = weights + 16 * 64 * input_bytes + 32 * 64 * output_bytes
    assert found.peak_ms == pytest.approx(1e3 * (operations / rate + moved / 204.8e9))
    assert found.weight_mb == pytest.approx(weights / 1e6)
    assert found.int8_share == (1.0 if int8 else 0.0)
    assert found.fitted_ms > found.peak_ms


def row(gain: float, error: float = 0.05, name: str = PTQ, failed: str = '') -> Row:
    orin = precision_table.Prediction(1.0, 2.0, 1.0, 0.5)
    return Row(name, 'how', 60.0 + gain, gain, error, {'car': math.nan}, math.nan, orin, failed)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (row(0.1), 'yes'),
        (row(-0.1), 'yes'),
        (row(-0.2), 'yes?'),  # down to -0.3 it may be
        (row(-0.3), 'no?'),
        (row(-0.4), 'no'),
        (row(0.0, name=FP32), ''),
        (replace(row(0.0), points=0.0), ''),  # nothing to lose
        (row(math.nan), ''),
        (row(0.0, failed='no engine'), ''),
    ],
)
def test_the_verdict_knows_what_the_frames_can_tell(given: Row, expected: str) -> None:
    assert given.verdict == expected


def test_what_is_not_known_is_no_number() -> None:
    given = row(-0.4)
    values = json.loads(json.dumps(as_dict(given), allow_nan=False))
    assert values['gpu_ms'] is None
    assert values['classes'] == {'car': None}
    assert values['within goal'] == 'no'
    line = text('net', [given], 'mAP').splitlines()[-1].split()
    assert line[:7] == ['int8', 'PTQ', '59.60', '-0.40', '0.05', 'no', '-']
    assert 'no engine here' in text('net', [row(0.0, failed='no engine here')], 'mAP')


def test_networks_of_all_rows(
    tiny_models, frames: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_models.tiny_lidar_model(tmp_path)
    kept, calibration = tmp_path / 'networks', (frames[0].parent, range(10))
    found = networks(source, kept, calibration, tmp_path / 'no_training')
    assert tuple(found) == (FP32, FP16, PTQ, MIXED)
    assert len(found[PTQ].int8) == 3  # all convolutions
    assert found[FP32].int8 == ()
    assert set(found[MIXED].int8) <= set(found[PTQ].int8)
    table = rows_on_cpu(found, frames)
    assert [item.row for item in table] == list(found)
    assert all(not item.failed for item in table)
    (stored,) = kept.glob('tiny_lidar.*.search.json')
    assert json.loads(stored.read_text(encoding='utf-8'))['scores']
    assert table[0].points == pytest.approx(100.0)
    assert table[1].gain == pytest.approx(0.0, abs=0.01)  # a sigmoid of 10 bears fp16
    assert table[2].orin.peak_ms < table[1].orin.peak_ms < table[0].orin.peak_ms

    def again(*_: object, **__: object) -> None:
        raise AssertionError('calibrates again')

    with monkeypatch.context() as patch:
        patch.setattr(precision_networks, 'calibrate', again)
        patch.setattr(precision_networks, 'search_precision', again)
        assert networks(source, kept, calibration)[PTQ] == found[PTQ]
        with pytest.raises(AssertionError, match='calibrates again'):  # other frames
            networks(source, kept, (frames[0].parent, range(9)))


def test_what_training_left(tiny_models, frames: list[Path], tmp_path: Path) -> None:
    source, trained = tiny_models.tiny_lidar_model(tmp_path), tmp_path / 'trained'
    trained.mkdir()
    made = networks(source, tmp_path / 'networks', (frames[0].parent, range(10)), rows=(PTQ,))
    for suffix in ('.onnx', '.yaml'):
        content = made[PTQ].path.with_suffix(suffix).read_bytes()
        (trained / f'tiny_lidar_qdq{suffix}').write_bytes(content)
        (trained / f'tiny_lidar{suffix}').write_bytes(source.with_suffix(suffix).read_bytes())
    found = networks(source, tmp_path, (tmp_path, ()), trained, (FP32, QAT, QAT_FP32))
    assert tuple(found) == (FP32, QAT, QAT_FP32)
    assert found[QAT].int8 == made[PTQ].int8
    assert found[QAT_FP32].path == found[QAT].plain == trained / 'tiny_lidar.onnx'
    assert [item.points for item in rows_on_cpu(found, frames)][::2] == [pytest.approx(100.0)] * 2


def test_a_network_that_fails_is_a_row_that_says_so(
    tiny_models, frames: list[Path], tmp_path: Path
) -> None:
    source = tiny_models.tiny_lidar_model(tmp_path)
    found = networks(source, tmp_path, (tmp_path, ()), rows=(FP32, FP16))
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(source.read_bytes())
    broken.with_suffix('.yaml').write_bytes(source.with_suffix('.yaml').read_bytes())
    found[FP16] = replace(found[FP16], path=broken)
    table = precision_table._rows(
        found, frames, {FP32: found[FP32].open, FP16: found[FP16].open}, {}, {FP16: 'not built'}
    )
    assert table[1].failed == 'not built'
    assert math.isnan(table[1].points)
    assert table[1].verdict == ''
    assert not table[0].failed


def test_the_command(tiny_models, frames: list[Path], tmp_path: Path, capsys) -> None:
    tiny_models.tiny_lidar_model(tmp_path)
    given = ['--models', str(tmp_path), '--networks', 'tiny_lidar', 'absent', '--cache',
             str(frames[0].parent.parent), '--seeds', '0:10', '--calibration', '0:10',
             '--rows', 'fp16', '--json', str(tmp_path / 'table.json')]  # fmt: skip
    assert precision_table.main(given) == 0
    said = capsys.readouterr()
    assert 'absent.onnx is not there' in said.err
    assert 'simulated' in said.out
    assert 'predictions' in said.out
    report = json.loads((tmp_path / 'table.json').read_text(encoding='utf-8'))
    lines = report['networks']['tiny_lidar']
    assert [line['row'] for line in lines] == ['fp32', 'fp16']
    assert lines[0]['points'] == pytest.approx(100.0)
    assert precision_table.main([*given[:2], '--networks', 'absent', *given[5:]]) == 1


def test_engines_have_names_of_their_own(tiny_models, tmp_path: Path) -> None:
    source = tiny_models.tiny_lidar_model(tmp_path)
    found = networks(source, tmp_path, (tmp_path, ()), rows=(FP32, FP16))
    plans = [plan_of(network, tmp_path) for network in found.values()]
    assert [plan.target.name for plan in plans] == [
        'tiny_lidar.fp32.engine', 'tiny_lidar.fp16.engine',
    ]  # fmt: skip
    assert not any(map(current, plans))


def test_an_engine_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    absent = Plan(tmp_path / 'absent.onnx', tmp_path / 'absent.engine', 'fp16')
    why = build_all([absent], 1, 1)
    assert set(why) == {absent.target}
    assert why[absent.target]
    assert build_all([], 1, 1) == {}

"""`replay evaluate`: a street whose truth is in the bag, from the command line to the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airside_perception.evaluate.images import evaluate_images
from airside_perception.evaluate.question import Question
from airside_perception.messages import detections2d, detections3d, transform_message
from airside_perception.replay.__main__ import main
from airside_perception.replay.bag import BagReader
from airside_perception.replay.evaluate import Options, evaluate_bags
from airside_perception.replay.judge import judge, judge_images
from airside_perception.replay.truth import DETAILS_TOPIC, read_truth
from airside_perception.results import IMAGE, Result, read_results
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Boxes2D, Boxes3D

Capture = pytest.CaptureFixture[str]
Parameters = Callable[..., Path]
LIDAR, FUSED = '/perception/lidar/detections', '/perception/objects'
FRONT = '/perception/camera/front/detections'
CAR = [7.5, 0.5, 0.75, 4.0, 2.0, 1.5, 0.0]
"""Where the tiny lidar network finds the street's car, in base_link."""
TRUTH: list[dict[str, Any]] = [
    {'class': 'car', 'box': CAR, 'velocity': [1.0, 0.0], 'points': 2, 'pixels': 900,
     'visibility': 0.9, 'camera_visibility': 1.0},
    {'class': 'walker', 'box': [20.0, 5.0, 0.9, 0.6, 0.6, 1.8, 0.0], 'points': 0, 'pixels': 50,
     'visibility': 0.3, 'camera_visibility': None},
    {'class': 'person', 'box': [-9.0, 0.0, 0.9, 0.6, 0.6, 1.8, 0.0], 'points': 0, 'pixels': 0},
]  # fmt: skip


def boxes(items: list[dict[str, Any]], stamp_ns: int) -> Boxes3D:
    return Boxes3D(
        stamp_ns, 'base_link', np.array([item['box'] for item in items]), np.ones(len(items)),
        tuple(item['class'] for item in items), np.zeros((len(items), 4, 4)),
    )  # fmt: skip


@pytest.fixture
def with_truth(street: Any) -> Callable[..., Path]:
    """Writes a street with its truth, with details and truth of the images where asked for."""

    def write(details: bool = True, images: bool = True, truth: Any = TRUTH) -> Path:
        plain, numbers = type(street)._frame, iter(range(100))

        def frame(stamp_ns: int) -> Any:
            yield from plain(street, stamp_ns)
            types = street._types
            yield '/ground_truth/objects', detections3d(boxes(truth[:2], stamp_ns), types)
            if images:
                seen = Boxes2D(stamp_ns, 'c', np.array([[32, 0, 64, 32.0]]), [1.0], ('car',))
                yield '/ground_truth/camera/front/objects', detections2d(seen, types)
            if details:
                light = ('day', 'night')[next(numbers) % 2]
                content = {
                    'stamp_ns': stamp_ns, 'objects': truth[:2], 'small': truth[2:],
                    'conditions': {'light': light, 'weather': 'rain', 'visibility': 900.0},
                }  # fmt: skip
                text = json.dumps(content)
                yield DETAILS_TOPIC, types('std_msgs/msg/String')(data=text)

        street._frame = frame
        return Path(street.write())

    return write


def test_truth_with_and_without_details(with_truth: Callable[..., Path]) -> None:
    with BagReader(with_truth(details=True)) as reader:
        moments = read_truth(reader)
    assert len(moments) == 4
    first = moments[0]
    assert first.truth.classes == ('car', 'walker', 'person')
    assert first.truth.asked.tolist() == [True, True, False]
    assert first.truth.points.tolist() == [2, 0, 0]
    np.testing.assert_array_equal(first.truth.visibility, [0.9, 0.3, np.nan])
    np.testing.assert_array_equal(first.truth.velocities[:2], [[1, 0], [np.nan, np.nan]])
    np.testing.assert_array_equal(first.in_cameras, [1.0, np.nan, np.nan])
    assert first.conditions == {'light': 'day', 'weather': 'rain'}
    with BagReader(with_truth(details=False)) as reader:
        plain = read_truth(reader)[0]
    assert plain.truth.classes == ('car', 'walker')
    assert plain.truth.points.tolist() == [-1, -1]
    assert np.isnan(plain.truth.visibility).all()
    assert plain.conditions == {}
    np.testing.assert_allclose(plain.truth.boxes[0], CAR, atol=1e-6)


def test_figures_of_a_street(with_truth: Callable[..., Path], parameters: Parameters) -> None:
    """The lidar finds the car, 0.5 of 1 m away at most; the walker is found by nobody."""
    options = Options((with_truth(),), params=parameters(), aliases={'walker': 'person'})
    found = evaluate_bags(options)
    assert list(found.figures) == [FUSED, LIDAR, FRONT]
    lidar = found.figures[LIDAR]
    assert [item.name for item in lidar.classes] == ['car', 'person']
    car, person = lidar.classes
    assert (car.counts.asked, car.counts.hits, car.counts.alarms) == (4, 4, 0)
    assert car.ap == pytest.approx(1.0)
    assert car.errors.translation == pytest.approx(0.0, abs=1e-4)
    assert (person.counts.asked, person.counts.hits) == (4, 0)
    assert lidar.mean_ap == pytest.approx(0.5)
    assert [c.name for c in lidar.conditions['light']] == ['day (2 frames)', 'night (2 frames)']
    assert lidar.visibility[0].counts.asked == lidar.visibility[1].counts.asked == 4
    assert (lidar.people['all'].asked, lidar.people['all'].recall) == (4, 0.0)
    # the camera looks ahead: it is asked for both, not for what is behind
    assert found.figures[FRONT].counts.asked == 8
    images = found.images['/perception/camera/front/detections_2d']
    assert (images.classes[0].name, images.classes[0].ap50) == ('car', pytest.approx(1.0))
    assert found.times['lidar.engine']
    assert found.unknown == {}


@pytest.fixture
def odometry(street: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a vehicle that stands still into the recordings."""
    plain = type(street)._frame

    def frame(street: Any, stamp_ns: int) -> Any:
        types = street._types
        still = transform_message('odom', 'base_link', stamp_ns, np.eye(4), types)
        yield '/tf', types('tf2_msgs/msg/TFMessage')(transforms=[still])
        yield from plain(street, stamp_ns)

    monkeypatch.setattr(type(street), '_frame', frame)


def test_velocities_of_a_network_that_sees_two_sweeps(
    odometry: None, with_truth: Callable[..., Path], parameters: Parameters, tiny_models: Any,
    tmp_path: Path, capsys: Capture,
) -> None:  # fmt: skip
    """The network takes ten times the age of the last cloud for vx, and 0.25 m/s for vy."""
    network = tiny_models.tiny_velocity_model(tmp_path)
    params = parameters(lidar_detector={'engine_path': str(network)})
    bag, out, page = with_truth(), tmp_path / 'a.jsonl', tmp_path / 'report.html'
    found = evaluate_bags(Options((bag,), params=params, topics=(LIDAR,)))
    speeds = [frame.found.velocities.tolist() for frame in found.frames[LIDAR]]
    assert np.isnan(speeds[0]).all()  # of the first cloud, which has no past
    assert speeds[1:] == [[[1.0, 0.25]]] * 3
    (car,) = (item for item in found.figures[LIDAR].classes if item.name == 'car')
    assert car.errors.velocity == pytest.approx(0.25)  # the truth is (1, 0)
    assert found.times['lidar.sweeps']

    assert main(['run', '--bag', str(bag), '--params', str(params), '--out', str(out)]) == 0
    assert 'past sweeps' not in capsys.readouterr().out
    lidar = [item for item in read_results(out) if item.topic == LIDAR]
    assert 'vx' not in lidar[0].detections[0]
    speeds = [(item.detections[0]['vx'], item.detections[0]['vy']) for item in lidar[1:]]
    assert speeds == [(1.0, 0.25)] * 3
    assert not any('vx' in one for item in read_results(out) for one in item.detections
                   if item.topic != LIDAR)  # fmt: skip
    args = ['evaluate', str(bag), '--results', str(out), '--topic', LIDAR, '--html', str(page)]
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith('  car ')).split()[-1] == '0.250'
    assert '>0.25<' in page.read_text()


def test_without_odometry_a_replay_goes_on_with_one_sweep(
    with_truth: Callable[..., Path], parameters: Parameters, tiny_models: Any, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    network = tiny_models.tiny_velocity_model(tmp_path)
    params = parameters(lidar_detector={'engine_path': str(network)})
    bag, out = with_truth(), tmp_path / 'a.jsonl'
    assert main(['run', '--bag', str(bag), '--params', str(params), '--out', str(out)]) == 0
    told = capsys.readouterr().out
    assert 'dropped: 0, of these 0 for transforms\nwith less than they should have: ' in told
    assert f'3 x {LIDAR} (past sweeps): TransformError: ' in told
    lidar = [item for item in read_results(out) if item.topic == LIDAR]
    assert len(lidar) == 4
    assert not any('vx' in item.detections[0] for item in lidar)


def test_classes_that_no_network_knows_are_told(
    with_truth: Callable[..., Path], parameters: Parameters
) -> None:
    found = evaluate_bags(Options((with_truth(),), params=parameters(), topics=(LIDAR,)))
    assert list(found.figures) == [LIDAR]
    assert found.images == {}
    assert found.unknown == {'walker': 4}
    assert [item.name for item in found.figures[LIDAR].classes] == ['car']


def test_results_of_an_earlier_run_give_the_same_figures(
    with_truth: Callable[..., Path], parameters: Parameters, tmp_path: Path, capsys: Capture
) -> None:
    bag, params, out = with_truth(), parameters(), tmp_path / 'a.jsonl'
    assert main(['run', '--bag', str(bag), '--params', str(params), '--out', str(out)]) == 0
    capsys.readouterr()
    tables = []
    for more in (['--params', str(params)], ['--results', str(out)]):
        assert main(['evaluate', str(bag), *more, '--alias', 'walker=person', '--json']) == 0
        tables.append(json.loads(capsys.readouterr().out))
    assert tables[1]['times_ms'] == {}
    for table in tables:
        del table['times_ms']
        for part in ('topics', 'images', 'questions'):  # cards list classes in another order
            for item in table[part].values():
                item['classes'] = sorted(item['classes'], key=str)
    assert tables[0] == tables[1]


def test_two_bags_and_a_floor(
    with_truth: Callable[..., Path], parameters: Parameters, street: Any
) -> None:
    """The lidar's car scores 0.88: below a threshold of 0.95, above a floor."""
    bags = (with_truth(), with_truth(details=False))
    params = parameters(lidar_detector={'score_threshold': 0.95})
    shut = evaluate_bags(Options(bags, params=params, topics=(LIDAR,))).figures[LIDAR]
    assert shut.counts.hits == 0
    assert shut.mean_ap == 0.0
    found = evaluate_bags(Options(bags, params=params, topics=(LIDAR,), floor=0.05))
    opened = found.figures[LIDAR]
    assert (opened.counts.asked, opened.counts.hits) == (8, 0)
    assert opened.mean_ap == pytest.approx(1.0)
    assert [place.bag for place in found.places[LIDAR]] == [bags[0]] * 4 + [bags[1]] * 4


def test_messages_that_are_missing_or_astray(with_truth: Callable[..., Path]) -> None:
    with BagReader(with_truth(details=False)) as reader:
        moments = read_truth(reader)
    car = {'class': 'car', 'score': 0.9, **dict(zip('xyzlwh', CAR, strict=False)), 'yaw': 0.0}
    first = moments[0].stamp_ns
    results = [
        Result(first + 20_000_000, '/a', 'base_link', (car,)),
        Result(first + 900_000_000, '/a', 'base_link', (car,)),
    ]
    buffer = TransformBuffer()
    odometry = np.eye(4)
    for stamp_ns, moved in ((first, 0.0), (first + 20_000_000, 0.4)):
        odometry = np.eye(4)
        odometry[0, 3] = moved
        buffer.add('odom', 'base_link', stamp_ns, odometry)
    judged = judge(moments, results, buffer, {}, {})['/a']
    assert (len(judged.frames), judged.silent, judged.strays) == (4, 3, 1)
    # the vehicle went 0.4 m in between: seen from where it was, the car is farther
    assert judged.frames[0].found.boxes[0, 0] == pytest.approx(CAR[0] + 0.4)
    assert len(judged.frames[1].found) == 0
    unknown = judge(moments, results, TransformBuffer(), {}, {})['/a']
    assert unknown.strays == 2


def test_what_barely_shows_in_an_image_is_neither_missed_nor_a_false_alarm() -> None:
    corners = np.array([[0.0, 0, 40, 40], [60, 0, 64, 4], [80, 0, 84, 4]])
    seen = Boxes2D(7, 'c', corners, [1.0, 0.0, 0.0], ('car',) * 3)
    for found, expected in (((0, 1), (1, 1, 0)), ((1,), (1, 0, 0)), ((0, 0), (1, 1, 1))):
        items = [
            {'class': 'car', 'score': 0.9, **dict(zip(IMAGE, corners[row], strict=True))}
            for row in found
        ]
        judged = judge_images({7: seen}, [Result(7, '/a_2d', 'c', tuple(items))], {})
        counts = evaluate_images(judged.frames, Question(('car',))).counts
        assert (counts.asked, counts.hits, counts.alarms) == expected


def test_the_text_and_the_page(
    with_truth: Callable[..., Path], parameters: Parameters, tmp_path: Path, capsys: Capture,
    browser: Any,
) -> None:  # fmt: skip
    bag, page = with_truth(), tmp_path / 'report.html'
    args = ['evaluate', str(bag), '--params', str(parameters()), '--alias', 'walker=person']
    assert main([*args, '--html', str(page), '--ranges', '0,10,40', '--max-range', '40']) == 0
    text = capsys.readouterr().out
    assert '0-10 m' in text
    assert 'light' in text
    assert 'lidar.engine' in text
    assert 'people to 30 m within 1 m' in text
    assert 'detections_2d, boxes in 4 images' in text
    content = page.read_text()
    assert content.count('<figure>') == 1  # four frames of one second
    assert 'missed 1 person' in content
    assert 'data:image/png;base64' in content
    assert browser.open_page(page, tmp_path / 'page.png') == []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (['--results', 'none.jsonl'], 'not readable as results'),
        (['--topic', '/elsewhere'], 'no detections on /elsewhere'),
        (['--params', 'none.yaml'], 'none.yaml'),
    ],
    ids=str,
)
def test_what_cannot_be_judged(
    with_truth: Callable[..., Path], parameters: Parameters, capsys: Capture,
    change: list[str], message: str,
) -> None:  # fmt: skip
    bag = with_truth()
    assert main(['evaluate', str(bag), '--params', str(parameters()), *change]) == 2
    assert message in capsys.readouterr().err


def test_bags_without_truth_or_with_damaged_truth(
    street: Any, with_truth: Callable[..., Path], parameters: Parameters, capsys: Capture
) -> None:
    params = ['--params', str(parameters())]
    assert main(['evaluate', str(street.write()), *params]) == 2
    assert 'no ground truth on /ground_truth/objects' in capsys.readouterr().err
    bag = with_truth(truth=[TRUTH[0], {**TRUTH[1], 'visibility': 'much'}])
    assert main(['evaluate', str(bag), *params]) == 2
    assert '/ground_truth/details' in capsys.readouterr().err
    assert main(['evaluate', str(bag), str(bag), '--results', 'a.jsonl']) == 2
    assert 'is of one bag' in capsys.readouterr().err
    for wrong in (['--ranges', '5,5'], ['--floor', '2'], ['--alias', 'a']):
        with pytest.raises(SystemExit):
            main(['evaluate', str(bag), *wrong])


@pytest.mark.open3d
def test_the_truth_of_the_simulator(repository: Path, tmp_path: Path) -> None:
    """The bag of a simulated drive, read by what the simulator itself reads it with."""
    pytest.importorskip('open3d')
    from airside_perception.sim import truth as simulated
    from airside_perception.sim.apron import apron
    from airside_perception.sim.conditions import conditions
    from airside_perception.sim.drive import write_drive
    from airside_perception.sim.lidar import even
    from airside_perception.sim.rig import load_rig

    rig = load_rig(repository / 'config' / 'rig.yaml')
    spec = replace(rig.spec, elevations=even(16, -20, 10), azimuths=256)
    rig = replace(rig, spec=spec, lenses={})
    rain = conditions(3, 'night', 'rain')
    write_drive(apron(3), rig, 0.2, 3, tmp_path / 'drive', conditions=rain)
    with BagReader(tmp_path / 'drive') as reader:
        moments = read_truth(reader)
    wanted = list(simulated.read_truth(tmp_path / 'drive'))
    assert len(moments) == len(wanted) == 2
    for moment, one in zip(moments, wanted, strict=True):
        assert moment.conditions == {'light': 'night', 'weather': 'rain'}
        for name in ('boxes', 'velocities', 'visibility', 'points', 'asked'):
            both = np.concatenate([getattr(one.objects, name), getattr(one.small, name)])
            np.testing.assert_array_equal(getattr(moment.truth, name), both)
        assert moment.truth.classes == (*one.objects.classes, *one.small.classes)
        assert np.asarray(moment.truth.asked).any()

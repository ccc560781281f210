"""Labels of a part of one camera's image: what lies elsewhere is no false alarm."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches
from airside_perception.evaluate.question import Counts, counts_of, reached
from airside_perception.geometry import corners
from airside_perception.messages import detections2d, detections3d
from airside_perception.replay.__main__ import main
from airside_perception.replay.bag import BagReader
from airside_perception.replay.evaluate import Options, evaluate_bags
from airside_perception.replay.importer import import_kitti
from airside_perception.replay.judge import judge, judge_images
from airside_perception.replay.kitti import START_NS, read_folder
from airside_perception.replay.runner import read_transforms
from airside_perception.replay.truth import DETAILS_TOPIC, Labelled, read_truth
from airside_perception.replay.view import lenses
from airside_perception.results import IMAGE, SPACE, Result
from airside_perception.types import Boxes2D, Boxes3D, Float64

Capture = pytest.CaptureFixture[str]
LIDAR = '/perception/lidar/detections'
DEPTH = 20.0
"""Of the objects here, metres before the camera, which is 0.3 m before base_link."""
PIXEL = DEPTH / 700
"""Metres of a pixel there."""


def result(boxes: Float64, names: Sequence[str], stamp_ns: int = START_NS) -> Result:
    """Detections in base_link, the best first."""
    scores = np.linspace(0.9, 0.1, len(boxes))
    items = [
        {'class': name, 'score': float(score), **dict(zip(SPACE, map(float, box), strict=True))}
        for name, score, box in zip(names, scores, boxes, strict=True)
    ]
    return Result(stamp_ns, LIDAR, 'base_link', tuple(items))


def judged(bag: Path, results: Sequence[Result]) -> list[Frame]:
    with BagReader(bag) as reader:
        transforms = read_transforms(reader)
        views = lenses(reader, transforms)
        return judge(read_truth(reader), results, transforms, {}, views)[LIDAR].frames


def seen_at(u: float, v: float, width: float, height: float) -> list[float]:
    """A thin box of so many pixels around a pixel of the folder's images, in base_link."""
    y, z = -(u - 40) * PIXEL, 1.65 - (v - 20) * PIXEL
    return [DEPTH + 0.3, y, z, 0.01, width * PIXEL, height * PIXEL, 0.0]


def counted(frames: Sequence[Frame], name: str) -> tuple[int, int, int]:
    counts: Counts = counts_of(reached(frames, name), 0.0)
    return counts.asked, counts.hits, counts.alarms


@pytest.fixture
def folder(object_folder: Path) -> Path:
    """Two frames with a van in the middle of the image and a region without labels."""
    text = (
        'Van 0.00 0 0.0 30 10 50 30 1.6 1.6 4.0 0.0 1.6 20.0 0.0\n'
        'DontCare -1 -1 -10 60 0 75 40 -1 -1 -1 -1000 -1000 -1000 -10\n'
    )
    for name in ('000003', '000007'):
        (object_folder / 'label_2' / f'{name}.txt').write_text(text)
        calib = object_folder / 'calib' / f'{name}.txt'
        lines = calib.read_text().splitlines()
        lines[1] = 'P2: 700 0 40 0 0 700 20 0 0 0 1 0'
        calib.write_text('\n'.join(lines))
    return object_folder


@pytest.mark.parametrize(
    ('box', 'alarm'),
    [
        (seen_at(20, 20, 8, 8), True),  # in the image, where nothing is
        (seen_at(40, 8, 8, 8), False),  # not far from the van: a hit, as there is no other
        (seen_at(65, 20, 8, 8), False),  # in the region without labels
        (seen_at(75.5, 20, 8, 8), True),  # the smaller half of it is there
        (seen_at(74.5, 20, 8, 8), False),  # the larger half
        (seen_at(77.5, 20, 35, 8), False),  # the larger half of what is in the image
        (seen_at(82, 20, 8, 8), False),  # its centre is not in the image
        (seen_at(20, 44, 8, 8), False),
        ([-10.0, 0.0, 1.0, 4.0, 2.0, 1.5, 0.0], False),
    ],
)
def test_what_is_a_false_alarm(folder: Path, tmp_path: Path, box: Any, alarm: bool) -> None:
    import_kitti(folder, tmp_path / 'bag')
    frames = judged(tmp_path / 'bag', [result(np.array([box]), ['car'])])
    assert counts_of(reached(frames, 'car', 0.5), 0.0).alarms == alarm


def test_an_object_is_found_wherever_it_is(folder: Path, tmp_path: Path) -> None:
    """The van is in the region without labels, and in the second frame beside the image."""
    for name, place in (('000003', '0.7 1.6 20.0'), ('000007', '2.0 1.6 20.0')):
        file = folder / 'label_2' / f'{name}.txt'
        file.write_text(file.read_text().replace('0.0 1.6 20.0', place))
    import_kitti(folder, tmp_path / 'bag')
    found = [
        result(np.array([seen_at(40 + at / PIXEL, 20, 8, 8)] * 2), ['car', 'truck'], stamp_ns)
        for at, stamp_ns in ((0.7, START_NS), (2.0, START_NS + 1_000_000_000))
    ]
    frames = judged(tmp_path / 'bag', found)
    assert counted(frames, 'car') == (2, 2, 0)
    assert counted(frames, 'truck') == (0, 0, 0)  # a van may be called so


def test_each_frame_is_judged_with_its_own_lens(folder: Path, tmp_path: Path) -> None:
    """The second camera sees twice as wide: what is beside its image is another thing."""
    file = folder / 'calib' / '000007.txt'
    file.write_text(file.read_text().replace('P2: 700 0 40 0 0 700', 'P2: 350 0 40 0 0 350'))
    import_kitti(folder, tmp_path / 'bag')
    box = np.array([seen_at(-20, 20, 4, 4)])
    stamps = (START_NS, START_NS + 1_000_000_000)
    frames = judged(tmp_path / 'bag', [result(box, ['bus'], stamp_ns) for stamp_ns in stamps])
    assert [counted([frame], 'bus')[2] for frame in frames] == [0, 1]


def test_regions_of_an_image() -> None:
    seen = Boxes2D(7, 'c', np.array([[0.0, 0, 20, 20]]), [1.0], ('car',))
    where = {7: Labelled('front', np.array([[50.0, 0, 60, 40], [60, 0, 70, 40]]))}
    found = np.array([[0.0, 0, 20, 20], [46, 0, 56, 10], [45, 0, 55, 10], [52, 0, 68, 10]])
    items = [
        {'class': 'car', 'score': 0.9, **dict(zip(IMAGE, map(float, box), strict=True))}
        for box in found
    ]
    results = [Result(7, '/a_2d', 'c', tuple(items))]
    (frame,) = judge_images({7: seen}, results, {}, '', where).frames
    # each half of the last one is in another region: of neither more than a half
    assert np.asarray(frame.found.labelled).tolist() == [True, False, True, True]


@pytest.fixture
def partly(street: Any) -> Callable[..., Path]:
    """Writes a street in which the networks see a car that nobody labelled."""

    def write(ignored: list[list[float]], camera: str = 'front') -> Path:
        plain = type(street)._frame

        def frame(stamp_ns: int) -> Any:
            yield from plain(street, stamp_ns)
            types = street._types
            nothing = Boxes3D.empty(stamp_ns, 'base_link')
            yield '/ground_truth/objects', detections3d(nothing, types)
            seen = Boxes2D(stamp_ns, 'c', np.empty((0, 4)), [], ())
            yield '/ground_truth/camera/front/objects', detections2d(seen, types)
            labelled = {'camera': camera, 'ignored': ignored}
            text = json.dumps({'stamp_ns': stamp_ns, 'objects': [], 'labelled': labelled})
            yield DETAILS_TOPIC, types('std_msgs/msg/String')(data=text)

        street._frame = frame
        return Path(street.write())

    return write


@pytest.mark.parametrize(('ignored', 'alarms'), [([], 4), ([[0.0, 0.0, 96.0, 64.0]], 0)])
def test_evaluation_and_calibration_ask_for_labels(
    partly: Callable[..., Path], parameters: Callable[..., Path], tmp_path: Path,
    capsys: Capture, ignored: list[list[float]], alarms: int,
) -> None:  # fmt: skip
    bag, params = partly(ignored), parameters()
    assert main(['evaluate', str(bag), '--params', str(params)]) == 0
    said = f'{LIDAR}: 4 detections beyond the labels: no false alarms'
    assert (said in capsys.readouterr().out) == (not alarms)
    found = evaluate_bags(Options((bag,), params=params))
    assert {topic: item.counts.alarms for topic, item in found.figures.items()} == {
        '/perception/objects': alarms, LIDAR: alarms, '/perception/camera/front/detections': alarms
    }  # fmt: skip
    assert found.images['/perception/camera/front/detections_2d'].counts.alarms == alarms
    for card in ('tiny_lidar', 'tiny_camera'):
        arguments = ['--card', str(tmp_path / 'networks' / f'{card}.yaml'), '--out', 'none.yaml']
        assert main(['calibrate-scores', str(bag), *arguments, '--params', str(params)]) == 2
        error = capsys.readouterr().err
        assert '15 of both are the least' in error
        assert ('0 hits and 0 false alarms' in error) == (not alarms)


@pytest.mark.parametrize('rectified', [False, True])
def test_a_rectified_image_is_seen_by_the_rectified_camera(
    partly: Callable[..., Path], street: Any, parameters: Callable[..., Path], tmp_path: Path,
    capsys: Capture, rectified: bool,
) -> None:  # fmt: skip
    """The unlabelled car is in the image by K, and far beside it by P."""

    def aside(topic: str, index: int, message: Any) -> Any:
        if topic.endswith('camera_info'):
            message.p = np.array([60.0, 0, 900, 0, 0, 60.0, 16, 0, 0, 0, 1, 0])
        return message

    street.change = aside
    bag, params = partly([]), parameters(camera_front={'rectified': rectified})
    out, alone = tmp_path / 'a.jsonl', tmp_path / 'alone.jsonl'
    assert main(['run', '--bag', str(bag), '--params', str(params), '--out', str(out)]) == 0
    alone.write_bytes(out.read_bytes())  # as a live graph leaves it, without its parameters
    for options in (
        Options((bag,), params=params),
        Options((bag,), results=out),
        Options((bag,), results=alone, params=params),
    ):
        alarms = evaluate_bags(options).figures[LIDAR].counts.alarms
        assert alarms == (0 if rectified else 4), options
    assert evaluate_bags(Options((bag,), results=alone)).figures[LIDAR].counts.alarms == 4
    card = ['--card', str(tmp_path / 'networks' / 'tiny_lidar.yaml'), '--out', 'none.yaml']
    capsys.readouterr()
    assert main(['calibrate-scores', str(bag), *card, '--params', str(params)]) == 2
    assert ('0 hits and 0 false alarms' in capsys.readouterr().err) == rectified


def test_a_camera_that_is_not_there(
    partly: Callable[..., Path], parameters: Callable[..., Path], capsys: Capture
) -> None:
    bag = partly([], camera='rear')
    assert main(['evaluate', str(bag), '--params', str(parameters())]) == 2
    assert "camera 'rear', which has no camera_info" in capsys.readouterr().err
    assert main(['evaluate', str(partly([[1.0]])), '--params', str(parameters())]) == 2
    assert 'is no truth' in capsys.readouterr().err


def test_alarms_among_real_labels_are_those_of_a_count_by_hand(
    shared_data: Path, tmp_path: Path
) -> None:
    """Cars on a grid all around, in the frames of the data set: counted with the files alone."""
    folder = shared_data / 'labelled'
    import_kitti(folder, tmp_path / 'bag')
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(-50, 50, 2.5), np.arange(-50, 50, 2.5)))
    grid = np.column_stack([x, y, *np.full((len(x), 4), [0.8, 4.0, 1.7, 1.6]).T, x])
    frames = read_folder(folder)
    found = judged(
        tmp_path / 'bag', [result(grid, ['car'] * len(grid), frame.stamp_ns) for frame in frames]
    )
    matches: Matches = reached(found, 'car', 2.0)
    total = 0
    for number, frame in enumerate(frames):
        expected = set(np.flatnonzero(expected_alarms(folder, frame.name, grid)).tolist())
        mine = matches.frames == number
        hits = set(matches.rows[mine & matches.hits].tolist())
        assert set(matches.rows[mine & ~matches.hits].tolist()) == expected - hits
        total += len(expected)
    assert 500 < total < 0.3 * len(frames) * len(grid)


def expected_alarms(folder: Path, name: str, grid: Float64) -> list[bool]:
    """One box after the other, with the matrices of the files."""
    lines = (line.split() for line in (folder / f'calib/{name}.txt').read_text().splitlines())
    calib = {words[0]: np.array(words[1:], np.float64) for words in lines if words}
    rectify, lidar2camera = np.eye(4), np.eye(4)
    rectify[:3, :3] = calib['R0_rect:'].reshape(3, 3)
    lidar2camera[:3] = calib['Tr_velo_to_cam:'].reshape(3, 4)
    base2image = calib['P2:'].reshape(3, 4) @ rectify @ lidar2camera
    rows = [line.split() for line in (folder / f'label_2/{name}.txt').read_text().splitlines()]
    ignored = [list(map(float, row[4:8])) for row in rows if row[0] == 'DontCare']
    size = read_size(folder / f'image_2/{name}.png')
    answers = []
    for box in grid:
        points = np.vstack([box[:3], corners(box[None])[0]])
        points[:, 2] -= 1.73
        pixels = np.column_stack([points, np.ones(9)]) @ base2image.T
        pixels, depth = pixels[:, :2] / pixels[:, 2:], pixels[:, 2]
        if depth[0] <= 0 or (pixels[0] < 0).any() or (pixels[0] >= size).any():
            answers.append(False)
            continue
        assert depth.min() > 0, 'a box that reaches behind the camera has no corners there'
        low, high = np.clip(pixels[1:].min(0), 0, size), np.clip(pixels[1:].max(0), 0, size)
        area = float(np.prod(high - low))
        shares = [
            max(min(high[0], r) - max(low[0], left), 0) * max(min(high[1], b) - max(low[1], t), 0)
            for left, t, r, b in ignored
        ]
        answers.append(not any(share > 0.5 * area for share in shares))
    return answers


def read_size(path: Path) -> tuple[int, int]:
    """Width and height, from the head of a .png."""
    head = path.read_bytes()[16:24]
    return int.from_bytes(head[:4], 'big'), int.from_bytes(head[4:], 'big')

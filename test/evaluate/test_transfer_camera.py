"""Camera networks on real images; see `python -m benchmarks.transfer_camera`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

camera = pytest.importorskip('benchmarks.transfer_camera', reason='run from the source tree')

LINES = """\
Car 0.00 0 0.1 100 100 180 160 1.5 1.6 4.0 1.0 1.5 12.0 0.1
Car 0.00 2 0.1 300 100 340 140 1.5 1.6 4.0 5.0 1.5 20.0 0.1
Van 0.00 1 0.1 400 100 480 160 2.0 1.8 4.5 3.0 1.5 18.0 0.1
Car 0.00 0 0.1 500 100 520 110 1.5 1.6 4.0 9.0 1.5 45.0 0.1
Cyclist 0.00 0 0.1 560 90 590 160 1.7 0.6 1.8 2.0 1.5 11.0 0.1
Misc 0.00 0 0.1 600 90 680 160 1.7 0.6 1.8 2.0 1.5 11.0 0.1
DontCare -1 -1 -10 700 100 800 150 -1 -1 -1 -1000 -1000 -1000 -10
"""


@pytest.fixture
def sight(tmp_path: Path) -> Any:
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((200, 900, 3), np.uint8))
    (tmp_path / 'a.txt').write_text(LINES, encoding='utf-8')
    return camera.kitti(tmp_path / 'a.png', tmp_path / 'a.txt')


def seen(*items: tuple[str, float, tuple[float, ...]]) -> Any:
    boxes = np.array([box for _, _, box in items], float).reshape(-1, 4)
    return camera.Seen(tuple(n for n, _, _ in items), np.array([s for _, s, _ in items]), boxes)


def test_what_is_asked_for(sight: Any) -> None:
    assert sight.asked.tolist() == [True, False, True, False, False, False]
    assert sight.names[2] == ('car', 'truck')
    assert sight.names[4] == ('person',)
    assert sight.unlabelled.tolist() == [[700, 100, 800, 150]]


def test_what_need_not_be_found_is_no_false_alarm(sight: Any) -> None:
    answer = seen(
        ('car', 0.9, (100, 100, 180, 160)),  # asked for
        ('car', 0.8, (300, 100, 340, 140)),  # largely occluded
        ('truck', 0.8, (400, 100, 480, 160)),  # a van may be called so
        ('car', 0.8, (500, 100, 520, 110)),  # too far
        ('person', 0.8, (560, 90, 590, 160)),  # rides
        ('bus', 0.8, (600, 90, 680, 160)),  # nobody knows
        ('car', 0.8, (705, 105, 760, 140)),  # where nobody labelled
        ('stairs', 0.8, (0, 0, 90, 90)),  # not judged
    )
    table = camera.figures([camera.frame(sight, answer)])
    assert (table['car']['objects'], table['truck']['objects']) == (2, 0)
    assert table['person']['objects'] == 0
    assert table['car']['ap'] == pytest.approx(51 / 101)  # COCO's recalls up to 0.5, no alarm
    alarm = seen(*zip(answer.classes, answer.scores, answer.boxes, strict=True),
                 ('car', 0.99, (10, 10, 60, 60)))  # fmt: skip
    assert camera.figures([camera.frame(sight, alarm)])['car']['ap'] == pytest.approx(51 / 202)


class Fake:
    """Finds the bright squares of an image; the card is that of a square network."""

    class card:  # noqa: N801  (an attribute of the detector)
        width, height = 64, 64

    def __init__(self) -> None:
        self.widths: list[int] = []

    def detect(self, image: Any) -> Any:
        self.widths.append(image.data.shape[1])
        _, _, stats, _ = cv2.connectedComponentsWithStats(image.data[..., 0])
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]], float)

        class Found:
            classes = ('car',) * len(corners)
            scores = np.full(len(corners), 0.5)
            xyxy = corners.reshape(-1, 4)

        return Found


def test_tiles_cover_the_image_and_give_its_own_pixels_once() -> None:
    image = np.zeros((100, 330, 3), np.uint8)
    squares = [(5, 10, 25, 30), (120, 40, 140, 60), (170, 5, 200, 25), (300, 70, 325, 95)]
    for x1, y1, x2, y2 in squares:
        image[y1:y2, x1:x2] = 255
    fake = Fake()
    found = camera.tiled(fake, image)
    assert set(fake.widths) == {100}
    assert len(fake.widths) == 6  # at most half a tile apart
    # tiles begin at 0, 46, 92, 138, 184 and 230: two squares are cut by an edge of one
    assert sorted(map(tuple, found.boxes.tolist())) == squares


def test_an_image_narrower_than_the_network_is_one_tile() -> None:
    fake = Fake()
    camera.tiled(fake, np.zeros((100, 80, 3), np.uint8))
    assert fake.widths == [80]


def test_nuscenes_boxes_and_points(shared_data: Path) -> None:
    """84 boxes in six images; the nearest truck is asked for, and lies within its image."""
    sights = camera.nuscenes(shared_data / 'nuscenes')
    assert [len(sight.boxes) for sight in sights] == [47, 18, 2, 10, 2, 5]
    asked = [
        (sight.names[row][0], sight.boxes[row])
        for sight in sights
        for row in np.flatnonzero(sight.asked)
    ]
    assert {name for name, _ in asked} == {'car', 'truck', 'person'}
    for _, (x1, y1, x2, y2) in asked:
        assert 0 <= x1 < x2 <= 1600
        assert 0 <= y1 < y2 <= 900


def test_the_reference_does_well_on_kitti(shared_data: Path) -> None:
    network = camera.reference(shared_data)
    sights = [camera.kitti(image, label) for image, label, _ in camera.frames_in(shared_data)]
    answers = [camera.frame(sight, camera.whole(network, sight.pixels)) for sight in sights]
    table = camera.figures(answers)
    assert table['car']['objects'] >= 5
    assert table['car']['ap'] > 0.9
    assert table['person']['recall'] > 0.7


def test_a_network_agrees_with_itself(shared_data: Path) -> None:
    network = camera.reference(shared_data)
    image = sorted((shared_data / 'drive' / 'image_02').glob('*.*'))[0]
    sight = camera.agreed(network, image)
    assert sight.asked.any()
    table = camera.figures([camera.frame(sight, camera.whole(network, sight.pixels))])
    assert table['car']['ap'] == pytest.approx(1.0)


def test_a_lidar_network_is_no_camera_network(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Path(__file__).parents[2] / 'models' / 'apron_pointpillars.onnx'
    line = ['camera', '--network', f'a={network}', '--data', str(shared_data)]
    monkeypatch.setattr(sys, 'argv', line)
    with pytest.raises(SystemExit):
        camera.main()
    assert 'no camera network' in capsys.readouterr().err

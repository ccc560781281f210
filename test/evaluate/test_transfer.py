"""Real scans as an evaluation takes them; see `python -m benchmarks.transfer`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

transfer = pytest.importorskip('benchmarks.transfer', reason='run from the source tree')


def found(*items: tuple[str, float, float, float]) -> object:
    boxes = np.array([[x, y, 0.8, 4, 2, 1.6, 0] for _, x, y, _ in items]).reshape(-1, 7)
    names = tuple(name for name, _, _, _ in items)
    return transfer.Found(names, np.array([score for *_, score in items]), boxes)


def test_a_van_may_be_a_truck_and_few_points_are_not_asked_for() -> None:
    places = [(10, 0), (15, 5), (20, -5), (12, 9), (40, 0)]
    boxes = np.array([[x, y, 0.8, 4, 2, 1.6, 0] for x, y in places], float)
    names = (('car',), ('car', 'truck'), ('person',), (), ('car',))
    truth = transfer_truth(names, boxes, [9, 9, 4, 9, 9])
    scan = transfer.Frame('scan', np.zeros((0, 4), np.float32), truth, None)
    answer = found(
        ('car', 10, 0, 0.9), ('bus', 15, 5, 0.8), ('person', 20, -5, 0.7), ('car', 40, 0, 0.6),
        ('car', 25, 0, 0.5), ('cyclist', 5, 5, 0.9),
    )  # fmt: skip
    table = transfer.figures([transfer.frame(scan, answer)])
    # two cars within 30 m: one found; the van was called a bus, which is no false alarm
    assert table['car']['objects'] == 2
    assert table['car']['recall'] == pytest.approx(0.5)
    assert table['truck']['objects'] == 0
    assert table['person']['objects'] == 0
    assert table['car']['error'] == pytest.approx(0.0)


def transfer_truth(names: object, boxes: np.ndarray, points: list[int]) -> object:
    from benchmarks.lidar_frames import Truth

    return Truth(names, boxes, np.array(points, np.int64))


def test_recorded_predictions_of_kitti_networks(shared_data: Path) -> None:
    """They were trained on such scans: all six cars, near their places, at one false alarm."""
    scans, recorded = transfer.recorded(shared_data)['KITTI, six frames']
    (predictions,) = recorded.values()
    frames = [transfer.frame(s, p) for s, p in zip(scans, predictions, strict=True)]
    cars = transfer.figures(frames)['car']
    assert (cars['objects'], cars['recall']) == (6, 1.0)
    assert cars['error'] < 0.3
    assert cars['ap'] > 0.95


def test_what_is_on_aprons_only_is_switched_off() -> None:
    class Card:
        published = ('person', 'car', 'baggage_tractor', 'bus', 'aircraft')

    off = transfer.apron_off(Card(), {'car': 0.02, 'baggage_tractor': 0.02})
    assert off == {
        'person': 0.0, 'car': 0.02, 'baggage_tractor': 1.0, 'bus': 0.0, 'aircraft': 1.0,
    }  # fmt: skip

"""What fp16 does to the shipped lidar network, by rounding alone: no GPU takes part.

Greedy suppression, thresholds and the choice of a label are yes or no, so two nearly equal scores
may swap by rounding, and a box with them. Where these decisions are settled, it stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from airside_perception.card import LidarCard, load_card
from airside_perception.config import LidarConfig
from airside_perception.engine import Engine, open_engine
from airside_perception.engine.precision import to_half
from airside_perception.engine.rounding import rounded_half
from airside_perception.lidar.detector import LidarDetector
from airside_perception.types import Boxes3D, PointCloud

settled = pytest.importorskip('benchmarks.settled', reason='run from the source tree')

HEIGHT, THRESHOLD_MARGIN, REACH = 1.73, 0.02, 0.05


class Unoptimised:
    """An ONNX network without graph optimisation, behind the inputs and outputs of an engine."""

    def __init__(self, engine: Engine, model: Any) -> None:
        options = onnxruntime.SessionOptions()
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=['CPUExecutionProvider']
        )
        self._engine = engine
        self.last: dict[str, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def infer(self, feeds: Any) -> dict[str, np.ndarray]:
        names = [spec.name for spec in self._engine.outputs]
        self.last = dict(zip(names, self._session.run(names, feeds), strict=True))
        return self.last


def found_again(wanted: Boxes3D, given: Boxes3D, rows: list[int]) -> list[bool]:
    """Whether each of these boxes of `wanted` has one of its own of its class within reach."""
    taken: set[int] = set()
    again = []
    for row in rows:
        apart = np.linalg.norm(given.boxes[:, :3] - wanted.boxes[row, :3], axis=1)
        apart[np.array(given.classes) != wanted.classes[row]] = np.inf
        apart[list(taken)] = np.inf
        again.append(bool(len(apart)) and bool(apart.min() <= REACH))
        if again[-1]:
            taken.add(int(apart.argmin()))
    return again


def scores_of(outputs: dict[str, np.ndarray], card: LidarCard) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-outputs[card.score_output].astype(np.float64)))


@pytest.mark.slow
def test_rounding_moves_no_settled_box(repository: Path, shared_data: Path) -> None:
    network = repository / 'models' / 'apron_pointpillars.onnx'
    card, config = load_card(network.with_suffix('.yaml')), LidarConfig()
    assert isinstance(card, LidarCard)
    model = onnx.load(str(network))
    decisions = settled.Decisions(card, config)
    clear = firm = again = both = 0
    largest = 0.0
    with open_engine(network) as engine:
        exact = Unoptimised(engine, model)
        rounded = Unoptimised(engine, rounded_half(to_half(model, keep_io=True)))
        detectors = [LidarDetector(one, card, config) for one in (exact, rounded)]
        for path in sorted((shared_data / 'drive' / 'velodyne').glob('*.bin')):
            points = np.fromfile(path, np.float32).reshape(-1, 4)
            points[:, 2] += HEIGHT
            scan = PointCloud(1, 'base_link', points)
            wanted, given = (detector.detect(scan) for detector in detectors)
            scores = scores_of(exact.last, card)
            moved = np.abs(scores - scores_of(rounded.last, card))
            largest = max(largest, float(moved[scores > 0.2].max()))
            least = np.array([card.thresholds[name] for name in wanted.classes])
            rows = np.flatnonzero(wanted.scores > least + THRESHOLD_MARGIN)
            is_firm = decisions.settled(exact.last, wanted)[rows]
            is_there = np.array(found_again(wanted, given, rows.tolist()))
            clear, firm, again = clear + len(rows), firm + is_firm.sum(), again + is_there.sum()
            both += (is_firm & is_there).sum()
    assert largest < settled.SCORE_MARGIN
    assert both == firm > 0.5 * clear > 500
    assert 0.98 * clear < again < clear  # some do swap: no fp16 engine can give them all


def test_three_values_of_suppression() -> None:
    """A chain of boxes along x, each over its neighbours; scores say what is settled."""
    at = np.arange(4.0)
    iou = np.where(np.abs(at[:, None] - at) <= 1, 0.5, 0.0)
    same, sure = np.ones((4, 4), bool), np.ones(4, bool)

    def stage(*scores: float, limit: float = 0.3, **changes: Any) -> list[int]:
        values = np.array(scores)
        return settled._stage(
            iou, values, changes.get('sure', sure), same, limit, 0.05, changes.get('possible')
        ).tolist()

    kept, gone, unknown = settled.KEPT, settled.SUPPRESSED, settled.UNKNOWN
    assert stage(0.9, 0.8, 0.7, 0.6) == [kept, gone, kept, gone]
    assert stage(0.9, 0.88, 0.7, 0.6) == [unknown] * 4  # everything hangs on the first two
    assert stage(0.9, 0.8, 0.7, 0.68) == [kept, gone, unknown, unknown]
    assert stage(0.9, 0.8, 0.7, 0.6, limit=0.49) == [kept, unknown, unknown, unknown]
    assert stage(0.9, 0.8, 0.7, 0.6, limit=0.6) == [kept] * 4
    doubtful = np.array([False, True, True, True])
    assert stage(0.9, 0.8, 0.7, 0.6, sure=doubtful)[:2] == [unknown, unknown]
    assert stage(0.9, 0.8, 0.7, 0.6, possible=~doubtful | (at > 1))[1:] == [gone, kept, gone]

"""Mixed fp16 and INT8 under an accuracy budget.

As in "Mixed Precision PointPillars for Efficient 3D Object Detection with TensorRT"
(arXiv:2601.12638): every node alone in INT8 says how sensitive it is; the most sensitive ones stay
in floating point, and combinations are searched greedily. Here the greedy search adds nodes to
INT8, first the ones that lose least for the time they are predicted to save, and keeps each that
leaves the sum within the budget. Beside it are the networks whose k most sensitive nodes stay
fp16, down to none, so that the front reaches to all INT8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airside_perception.deploy.search.costs import Cost, CostModel
from airside_perception.deploy.search.evaluate import Evaluator, Score
from airside_perception.engine.precision import to_half
from airside_perception.engine.rounding import rounded_half
from airside_perception.errors import ConfigError

METRICS = ('output', 'boxes')
BUDGETS = {'output': 0.02, 'boxes': 0.02}
GREEDY, KEPT, ALL, HALF = 'greedy', 'kept', 'int8', 'fp16'
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Sensitivity:
    """One node alone in INT8.

    Attributes:
        node, operator: which.
        share: of the operations of all candidates, 0..1.
        saved: predicted milliseconds.
        score: what is lost.
    """

    node: str
    operator: str
    share: float
    saved: float
    score: Score


@dataclass(frozen=True)
class Point:
    """One assignment of precisions.

    Attributes:
        name: what it is.
        kind: `fp16`, `greedy`, `kept` (the most sensitive stay fp16) or `int8` (all).
        int8: names of the nodes in INT8.
        score: what is lost.
        cost: predicted.
        within: the budget.
        front: no other point loses less and is faster.
    """

    name: str
    kind: str
    int8: tuple[str, ...]
    score: Score
    cost: Cost
    within: bool
    front: bool = False


@dataclass(frozen=True)
class Search:
    """What was found.

    Attributes:
        metric, budget: what was held.
        frames: how many were looked at.
        machine: whose times are predicted.
        nodes: sensitivities, the largest first.
        points: by predicted time, slowest first.
        model: the chosen one, fp32 with Q/DQ.
        chosen: the fastest point that was found within the budget as it is written.
        half: what fp16 itself loses, without INT8. Scores of points are with the rest in fp32:
            what INT8 adds to that.
        checked: the chosen one again as it is written: its biases corrected for good, and the
            rest in fp16.
        in_vain: faster points that were within the budget, and beyond it as they are written.
    """

    metric: str
    budget: float
    frames: int
    machine: str
    nodes: tuple[Sensitivity, ...]
    points: tuple[Point, ...]
    chosen: Point
    half: Score
    checked: Score
    model: Any
    in_vain: int = 0

    @property
    def good(self) -> bool:
        """Whether any node can be INT8 within the budget."""
        return bool(self.chosen.int8)

    @property
    def added(self) -> float:
        """What INT8 adds to the loss of fp16, in the chosen network."""
        return self.checked.of(self.metric) - self.half.of(self.metric)

    @property
    def finer(self) -> tuple[str, ...]:
        """Nodes that stay fp16 in the chosen network."""
        return tuple(item.node for item in self.nodes if item.node not in self.chosen.int8)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'metric': self.metric,
            'budget': self.budget,
            'frames': self.frames,
            'machine': self.machine,
            'good': self.good,
            'sensitivity': [
                {
                    'node': item.node, 'operator': item.operator, 'share': item.share,
                    'predicted_saved_ms': item.saved, **score_dict(item.score),
                }
                for item in self.nodes
            ],
            'points': [point_dict(item) for item in self.points],
            'chosen': point_dict(self.chosen),
            'fp16_alone': score_dict(self.half),
            'chosen_with_fp16_rest': score_dict(self.checked),
            'faster_beyond_budget_as_written': self.in_vain,
            'fp16_nodes': list(self.finer),
        }  # fmt: skip


def search(
    evaluator: Evaluator,
    metric: str,
    budget: float,
    frames: int,
    progress: Progress = lambda step, share: None,
) -> Search:
    """Searches; every network that is tried is one run over the frames of the evaluator.

    Raises:
        ConfigError: unknown metric, boxes without a detector, or a negative budget.
        EngineError: a network does not run.
    """
    _check(evaluator, metric, budget)
    nodes = evaluator.nodes
    costs = CostModel(evaluator.model, nodes)
    total = 2 * len(nodes) + len(_kept(len(nodes))) + 2
    done = 0

    def score(int8: tuple[str, ...]) -> Score:
        nonlocal done
        progress('search', min(done / total, 1.0))
        done += 1
        return evaluator.score(int8)

    alone = _sensitivities(evaluator.model, nodes, costs, score)
    half = evaluator.measure(in_half(evaluator.model))
    points = [_point('all fp16', HALF, (), evaluator.score(()), costs, metric, budget)]
    points += _greedy(alone, score, costs, metric, budget)
    worst_first = _by_loss(alone, metric)
    for kept in _kept(len(nodes)):
        int8 = tuple(item.node for item in worst_first[kept:])
        name = f'{kept} most sensitive in fp16' if kept else 'all INT8'
        kind = KEPT if kept else ALL
        points.append(_point(name, kind, int8, score(int8), costs, metric, budget))
    points = _front(points, metric)
    chosen, model, checked, in_vain = _chosen(evaluator, points, half, metric, budget)
    progress('search', 1.0)
    return Search(
        metric, budget, frames, costs.machine.name, tuple(worst_first), tuple(points), chosen,
        half, checked, model, in_vain,
    )  # fmt: skip


def _chosen(
    evaluator: Evaluator, points: list[Point], half: Score, metric: str, budget: float
) -> tuple[Point, Any, Score, int]:
    """The fastest point that is found to keep to the budget as it is written.

    Points within the budget are finished from the fastest on, in steps that grow (0, 1, 3, 7, ...)
    until one keeps to it, as all fp16, the last, does; then halfway back, until its next faster
    neighbour is known not to.

    Returns:
        The point, its network with its score, and how many faster ones were finished in vain.
    """
    fastest = sorted((item for item in points if item.within), key=lambda p: p.cost.milliseconds)
    tried = 0

    def finish(place: int) -> tuple[Point, Any, Score] | None:
        nonlocal tried
        tried += 1
        point = fastest[place]
        model, score = _finished(evaluator, point.int8, metric)
        keeps = not point.int8 or score.of(metric) - half.of(metric) <= budget
        return (point, model, score) if keeps else None

    failed, place, step = -1, 0, 1
    while (best := finish(place)) is None:
        failed, place, step = place, min(place + step, len(fastest) - 1), 2 * step
    kept = 1
    while place - failed > 1:
        middle = (failed + place) // 2
        found = finish(middle)
        if found is None:
            failed = middle
        else:
            best, place, kept = found, middle, kept + 1
    return *best, tried - kept


def _finished(evaluator: Evaluator, int8: tuple[str, ...], metric: str) -> tuple[Any, Score]:
    """The network that is written, with its score: the better one of two corrections of biases.

    Layer by layer takes out more, and goes wrong where scales cut much off.
    """
    if not int8:
        return evaluator.model, evaluator.measure(in_half(evaluator.model))
    models = [evaluator.variant(int8), evaluator.final(int8)]
    scores = [evaluator.measure(in_half(model)) for model in models]
    best = min((0, 1), key=lambda place: (scores[place].of(metric), scores[place].error))
    return models[best], scores[best]


def in_half(model: Any) -> Any:
    """A network with what is not INT8 in fp16, rounded after every node."""
    return rounded_half(to_half(model, True))


def score_dict(score: Score) -> dict[str, float | None]:
    """For JSON, which knows neither NaN nor infinity."""
    return {
        'output_error': score.error if math.isfinite(score.error) else None,
        'box_drop': score.drop if math.isfinite(score.drop) else None,
    }


def point_dict(point: Point) -> dict[str, Any]:
    """For JSON."""
    return {
        'name': point.name, 'kind': point.kind, **score_dict(point.score),
        'int8_flops': point.cost.share, 'int8_nodes': list(point.int8),
        'weight_bytes': point.cost.weight_bytes, 'predicted_ms': point.cost.milliseconds,
        'within': point.within, 'front': point.front,
    }  # fmt: skip


def _sensitivities(
    model: Any, nodes: list[str], costs: CostModel, score: Callable[[tuple[str, ...]], Score]
) -> list[Sensitivity]:
    kinds = {node.name: node.op_type for node in model.graph.node}
    plain, operations = costs.cost(()).milliseconds, costs.operations
    total = sum(operations.values()) or 1
    return [
        Sensitivity(
            name,
            kinds[name],
            operations.get(name, 0) / total,
            plain - costs.cost((name,)).milliseconds,
            score((name,)),
        )
        for name in nodes
    ]


def _greedy(
    alone: list[Sensitivity],
    score: Callable[[tuple[str, ...]], Score],
    costs: CostModel,
    metric: str,
    budget: float,
) -> list[Point]:
    """Nodes one after the other; a point for each that is kept."""
    points: list[Point] = []
    chosen: tuple[str, ...] = ()
    for item in sorted(alone, key=lambda item: _price(item, metric)):
        more = (*chosen, item.node)
        found = score(more)
        if found.of(metric) <= budget:
            chosen = more
            name = f'{len(chosen)} in INT8'
            points.append(_point(name, GREEDY, chosen, found, costs, metric, budget))
    return points


def _price(item: Sensitivity, metric: str) -> tuple[float, float]:
    """What a node loses for a predicted millisecond; the outputs decide between equals."""
    saved = max(item.saved, 1e-6)
    return max(item.score.of(metric), 0.0) / saved, item.score.error / saved


def _by_loss(alone: list[Sensitivity], metric: str) -> list[Sensitivity]:
    return sorted(alone, key=lambda item: (-item.score.of(metric), -item.score.error))


def _kept(count: int) -> list[int]:
    """How many nodes stay fp16: more and more apart."""
    found, step = [0, 1, 2, 3, 4], 6
    while step < count:
        found.append(step)
        step = math.ceil(step * 1.5)
    return [number for number in found if number < count]


def _point(
    name: str,
    kind: str,
    int8: tuple[str, ...],
    score: Score,
    costs: CostModel,
    metric: str,
    budget: float,
) -> Point:
    return Point(name, kind, int8, score, costs.cost(int8), score.of(metric) <= budget)


def _front(points: list[Point], metric: str) -> list[Point]:
    """The same points by predicted time, slowest first, those marked that none is better than."""

    def beaten(point: Point) -> bool:
        loss, time = point.score.of(metric), point.cost.milliseconds
        return any(
            other.score.of(metric) <= loss
            and other.cost.milliseconds <= time
            and (other.score.of(metric), other.cost.milliseconds) != (loss, time)
            for other in points
        )

    marked = [
        Point(p.name, p.kind, p.int8, p.score, p.cost, p.within, not beaten(p)) for p in points
    ]
    return sorted(marked, key=lambda item: -item.cost.milliseconds)


def _check(evaluator: Evaluator, metric: str, budget: float) -> None:
    if metric not in METRICS:
        raise ConfigError(f'metric {metric!r} is not one of {", ".join(METRICS)}')
    if metric == 'boxes' and evaluator.card is None:
        raise ConfigError('metric boxes needs a model card and images or clouds')
    if not budget >= 0.0:
        raise ConfigError(f'budget {budget}: expected 0 or more')

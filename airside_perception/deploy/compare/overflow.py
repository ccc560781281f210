"""Values that fp16 does not hold: where they come from, and which nodes must stay in fp32."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from airside_perception.deploy.compare.layers import LayerRow, first_lost, readers
from airside_perception.deploy.compare.outputs import Frames, OutputRow, Tolerance, Worst
from airside_perception.deploy.compare.sides import Side, convert
from airside_perception.deploy.outputs import OnnxRunner, compare_outputs
from airside_perception.engine.graph import has_qdq, is_half
from airside_perception.engine.precision import LARGEST_HALF
from airside_perception.engine.rounding import rounded_half

Progress = Callable[[str, float], None]
NEAR = 0.25
"""Tensors with values beyond this part of 65504 may overflow on other inputs."""
MOST_ROUNDS = 8


@dataclass(frozen=True)
class Cure:
    """Nodes that must stay in fp32, and what the network does with them so.

    Attributes:
        nodes: names, in topological order: what makes the values, and what reads them, since a
            value that is cast to fp16 on its way to the next node is lost there.
        proven: with them no output holds a NaN or infinity that A has not, on the same frames.
        outputs: how far outputs are then from A.
    """

    nodes: tuple[str, ...]
    proven: bool
    outputs: tuple[OutputRow, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Options of `engine build` and `engine compare`."""
        return tuple(f'--layer-precision {name}:fp32' for name in self.nodes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'nodes': list(self.nodes),
            'options': list(self.lines),
            'proven': self.proven,
            'outputs': [row.as_dict() for row in self.outputs],
        }


def near_overflow(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Tensors whose largest value comes near to what fp16 holds, or is beyond it."""
    return [row for row in rows if row.largest > NEAR * LARGEST_HALF]


def find_cure(
    a: Any,
    b: Side,
    rows: Sequence[LayerRow],
    frames: Callable[[], Frames],
    tolerance: Tolerance,
    progress: Progress = lambda step, share: None,
) -> Cure | None:
    """The fp32 nodes that bring B's numbers back, found by the ranges of A and tried.

    Every tensor beyond 65504 keeps the node that makes it and those that read it in fp32. Where
    that is not enough, as where a node overflows inside, the first node whose result is still lost
    is kept as well, and so on. Where B came as an fp16 or int8 file, it is A that is converted.

    Args:
        a: fp32 network, the reference.
        b: fp16 or int8.
        rows: of both, by `compare_layers`.

    Returns:
        None where B has lost nothing.
    """
    if first_lost(rows) is None:
        return None
    plain, precision, scales = a, 'fp16', dict[str, float]()
    if not is_half(b.plain) and not has_qdq(b.plain):
        plain, precision, scales = b.plain, b.precision, dict(b.scales)
    kept: set[str] = set()
    for row in rows:
        if row.largest > LARGEST_HALF:
            kept |= {row.node, *readers(plain, row.tensor)}
    order = [node.name for node in plain.graph.node]
    for attempt in range(MOST_ROUNDS):
        progress('cure', attempt / MOST_ROUNDS)
        nodes = tuple(name for name in order if name in kept)
        layers = {**b.layers, **dict.fromkeys(nodes, 'fp32')}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)  # said where B was converted
            model = rounded_half(convert(plain, precision, scales, layers))
        outputs, lost = _try(a, model, frames, tolerance)
        more = _more(a, model, rows, frames) - kept if lost else set()
        kept |= more
        if not more:
            break
    progress('cure', 1.0)
    return Cure(nodes, not lost, tuple(outputs))


def _try(
    a: Any, model: Any, frames: Callable[[], Frames], tolerance: Tolerance
) -> tuple[list[OutputRow], bool]:
    """Outputs with the nodes kept, and whether numbers are lost in them still."""
    first, second, worst = OnnxRunner(a), OnnxRunner(model), Worst()
    for frame, feed in frames():
        for name, found in compare_outputs(first.run(feed), second.run(feed)).items():
            worst.add(name, frame, found)
    outputs = worst.rows(tolerance)
    return outputs, any(row.difference.nan or row.difference.inf for row in outputs)


def _more(a: Any, model: Any, rows: Sequence[LayerRow], frames: Callable[[], Frames]) -> set[str]:
    """What makes and reads the first tensor that is still lost."""
    there = {name for node in model.graph.node for name in node.output}
    names = [row.tensor for row in rows if row.tensor in there]
    first, second = (OnnxRunner(item, names, optimise=False) for item in (a, model))
    lost: set[str] = set()
    for _, feed in frames():
        one, other = first.run(feed), second.run(feed)
        lost |= {
            name for name in names if np.any(np.isfinite(one[name]) & ~np.isfinite(other[name]))
        }
    row = next((row for row in rows if row.tensor in lost), None)
    return {row.node, *readers(a, row.tensor)} if row else set()

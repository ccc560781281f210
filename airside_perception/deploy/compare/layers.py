"""Every tensor of two networks on the same inputs: where they part, and where fp16 overflows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.compare.outputs import Frames, Tolerance, Worst
from airside_perception.deploy.outputs import Difference, OnnxRunner, difference
from airside_perception.engine.graph import inferred
from airside_perception.errors import ConfigError

Progress = Callable[[str, float], None]
CHUNK_BYTES = 192 << 20
"""Tensors that are looked at in one pass take so much memory at most, in each network."""
UNKNOWN_BYTES = 16 << 20
"""Taken for tensors whose shape does not follow from the graph."""
ITEM = 4
LEAST_CHANGE = 1e-6
"""Relative error below which its growth is rounding only."""


@dataclass(frozen=True)
class LayerRow:
    """One tensor in both networks.

    Attributes:
        tensor, node, operator: the tensor and what makes it.
        difference: the worst of every number over all frames.
        frame: the worst.
        low, high: smallest and largest finite value of A.
        growth: relative error divided by the worst among what the node reads: how much this node
            adds. 0 where nothing is known of its inputs.
        good: within the tolerance.
        lost: values that are NaN or infinite in B only.
    """

    tensor: str
    node: str
    operator: str
    difference: Difference
    frame: str
    low: float
    high: float
    growth: float
    good: bool

    @property
    def lost(self) -> int:
        return self.difference.nan + self.difference.inf

    @property
    def largest(self) -> float:
        """Largest absolute value of A."""
        return max(abs(self.low), abs(self.high))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'tensor': self.tensor, 'node': self.node, 'operator': self.operator,
            **asdict(self.difference), 'worst_frame': self.frame, 'low': self.low,
            'high': self.high, 'growth': self.growth, 'good': self.good,
        }  # fmt: skip


def compare_layers(
    a: Any,
    b: Any,
    frames: Callable[[], Frames],
    count: int,
    tolerance: Tolerance,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress = lambda step, share: None,
) -> list[LayerRow]:
    """All tensors that both networks have by the same name, in topological order of A.

    The graphs run as they are, without fusions. A pass over the frames looks at as many tensors as
    `chunk_bytes` allow.

    Args:
        a, b: `onnx.ModelProto`; B was made from A, so that tensors keep their names.
        frames: gives the frames anew for every pass.
        count: of frames.

    Raises:
        ConfigError: they have no tensor in common.
        EngineError: a network does not run.
    """
    a = inferred(a)
    makers = _makers(a)
    there = {name for node in b.graph.node for name in node.output}
    common = [name for name in makers if name in there]
    if not common:
        raise ConfigError(
            'the two networks have no tensor in common, so layers cannot be compared: give one '
            'network and --as fp16, or a network that was made from it'
        )
    worst, ranges = Worst(), dict[str, tuple[float, float]]()
    chunks = list(_chunks(common, _sizes(a), chunk_bytes))
    passes, done = len(chunks) * max(count, 1), 0
    for chunk in chunks:
        first = OnnxRunner(a, chunk, optimise=False)
        second = OnnxRunner(b, chunk, optimise=False)
        for frame, feed in frames():
            progress('layers', min(done / passes, 1.0))
            one, other = first.run(feed), second.run(feed)
            for name in chunk:
                if one[name].dtype.kind in 'fiu':
                    worst.add(name, Path(frame).name, difference(one[name], other[name]))
                    ranges[name] = _range(one[name], ranges.get(name))
            done += 1
    progress('layers', 1.0)
    return _rows(worst, ranges, makers, tolerance)


def first_divergent(rows: Sequence[LayerRow]) -> LayerRow | None:
    """The first tensor in topological order that is out of tolerance."""
    return next((row for row in rows if not row.good), None)


def first_lost(rows: Sequence[LayerRow]) -> LayerRow | None:
    """The first tensor that is NaN or infinite in B only."""
    return next((row for row in rows if row.lost), None)


def readers(model: Any, tensor: str) -> list[str]:
    """Names of the nodes that read a tensor."""
    return [node.name for node in model.graph.node if tensor in node.input]


def _rows(
    worst: Worst,
    ranges: Mapping[str, tuple[float, float]],
    makers: Mapping[str, Any],
    tolerance: Tolerance,
) -> list[LayerRow]:
    found = {row.name: row for row in worst.rows(tolerance)}
    rows = []
    for name, node in makers.items():
        if name not in found:
            continue
        row = found[name]
        before = [found[item].difference.max_rel for item in node.input if item in found]
        error, worst_before = row.difference.max_rel, max(before, default=0.0)
        growth = error / worst_before if worst_before > LEAST_CHANGE else 0.0
        low, high = ranges[name]
        rows.append(
            LayerRow(
                name, node.name, node.op_type, row.difference, row.frame, low, high, growth,
                row.good,
            )
        )  # fmt: skip
    return rows


def _makers(model: Any) -> dict[str, Any]:
    """{tensor: node that makes it}, in topological order: ONNX asks for it of every graph."""
    return {name: node for node in model.graph.node for name in node.output if name}


def _chunks(
    names: Sequence[str], sizes: Mapping[str, int], most: int
) -> Iterator[tuple[str, ...]]:
    chunk: list[str] = []
    total = 0
    for name in names:
        size = sizes.get(name, UNKNOWN_BYTES)
        if chunk and total + size > most:
            yield tuple(chunk)
            chunk, total = [], 0
        chunk.append(name)
        total += size
    yield tuple(chunk)


def _sizes(model: Any) -> dict[str, int]:
    """Bytes of tensors whose shape is known."""
    found: dict[str, int] = {}
    for value in (*model.graph.value_info, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.WhichOneof('value') == 'dim_value' for dim in dims):
            found[value.name] = ITEM * math.prod(dim.dim_value for dim in dims)
    return found


def _range(value: NDArray[Any], known: tuple[float, float] | None) -> tuple[float, float]:
    finite = value[np.isfinite(value)]
    if not finite.size:
        return known or (0.0, 0.0)
    low, high = float(finite.min()), float(finite.max())
    return (min(low, known[0]), max(high, known[1])) if known else (low, high)

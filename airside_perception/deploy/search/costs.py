"""What a network costs in mixed precision, by a model of the machine: a prediction, no timing.

A node takes its operations divided by the rate of its precision, and its bytes divided by the
bandwidth, one after the other. Rates and bandwidth were fitted by hand to three layers of
PointPillars that were published for Jetson AGX Orin (arXiv:2601.12638): a convolution of 64
channels with stride 2 (fp16 0.561 ms, INT8 0.376 ms; predicted 0.72 and 0.28), one of 128 channels
(0.494 and 0.175 ms; predicted 0.54 and 0.19), and a deconvolution (0.711 and 0.572 ms; predicted
0.54 and 0.25, so INT8 deconvolutions are slower than this says). It is for ratios between
precisions of one network; times are as wrong as those three are.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from airside_perception.deploy.lint.facts import Subject
from airside_perception.deploy.lint.flops import flops
from airside_perception.deploy.lint.network import Network, Node

FUSED = frozenset((
    'Clip', 'HardSigmoid', 'HardSwish', 'LeakyRelu', 'Relu', 'Sigmoid', 'BatchNormalization',
))  # fmt: skip
"""They cost nothing beside the convolution before them."""
HALF, BYTE = 2, 1


@dataclass(frozen=True)
class Machine:
    """What a device reaches in convolutions.

    Attributes:
        fp16, int8: operations in a second.
        bandwidth: bytes in a second.
    """

    name: str
    fp16: float
    int8: float
    bandwidth: float


ORIN = Machine('Jetson AGX Orin', 8e12, 24e12, 150e9)


@dataclass(frozen=True)
class Cost:
    """Of one assignment of precisions.

    Attributes:
        share: operations in INT8, of all in nodes that can be quantised, 0..1.
        weight_bytes: weights as they are stored.
        milliseconds: predicted.
    """

    share: float
    weight_bytes: int
    milliseconds: float


@dataclass(frozen=True)
class _Work:
    """A node: operations, elements of its weights, tensors with their elements."""

    name: str
    operations: int
    weights: int
    reads: tuple[tuple[str, int], ...]
    writes: tuple[tuple[str, int], ...]
    fused: bool


class CostModel:
    """Costs of a network whose nodes are INT8 or fp16.

    Args:
        model: fp32; its shapes should be fixed: free dimensions count as 1.
        candidates: names of nodes that may be INT8.
        machine: that is predicted.

    Raises:
        EngineError: shapes that contradict one another.
    """

    def __init__(self, model: Any, candidates: Collection[str], machine: Machine = ORIN) -> None:
        network = Network(model)
        self.machine = machine
        self.candidates = frozenset(candidates)
        self._work = [_work(network, node) for node in network.layers]
        self._readers = _real_readers(network)
        self._total = sum(w.operations for w in self._work if w.name in self.candidates)

    @property
    def operations(self) -> dict[str, int]:
        """{candidate: operations}."""
        return {w.name: w.operations for w in self._work if w.name in self.candidates}

    def cost(self, int8: Collection[str]) -> Cost:
        """With these nodes in INT8 and the rest in fp16.

        A tensor is stored in INT8 where all nodes that read it are INT8, activations fused.
        """
        chosen = frozenset(int8)
        seconds, weights, inside = 0.0, 0, 0
        for work in self._work:
            small = work.name in chosen
            weights += work.weights * (BYTE if small else HALF)
            inside += work.operations if small else 0
            if work.fused:
                continue
            rate = self.machine.int8 if small else self.machine.fp16
            moved = work.weights * (BYTE if small else HALF)
            moved += sum(self._bytes(name, n, chosen) for name, n in work.reads + work.writes)
            seconds += work.operations / rate + moved / self.machine.bandwidth
        return Cost(inside / self._total if self._total else 0.0, weights, 1e3 * seconds)

    def _bytes(self, tensor: str, elements: int, chosen: frozenset[str]) -> int:
        readers = self._readers.get(tensor, frozenset())
        return elements * (BYTE if readers and readers <= chosen else HALF)


def _work(network: Network, node: Node) -> _Work:
    reads = tuple(
        (name, _elements(network, name))
        for name in dict.fromkeys(node.inputs)
        if name and not network.is_constant(name)
    )
    stored = [name for name in node.inputs if name and network.is_constant(name)]
    return _Work(
        node.name,
        flops(Subject(network, 'fp16', node)),
        sum(_elements(network, name) for name in stored),
        reads,
        tuple((name, _elements(network, name)) for name in node.outputs if name),
        node.op_type in FUSED,
    )


def _elements(network: Network, tensor: str) -> int:
    shape = network.shape(tensor) or ()
    return math.prod(size if isinstance(size, int) else 1 for size in shape)


def _real_readers(network: Network) -> dict[str, frozenset[str]]:
    """{tensor: names of nodes that read it, or what fused nodes make of it}."""
    found: dict[str, set[str]] = {}
    for node in reversed(network.layers):
        own: set[str] = {node.name}
        if node.op_type in FUSED:
            own = set().union(*(found.get(name, set()) for name in node.outputs)) or own
        for name in node.inputs:
            found.setdefault(name, set()).update(own)
    outputs = set(network.outputs)
    # an output is read outside, in fp16
    return {
        name: frozenset(readers | {''} if name in outputs else readers)
        for name, readers in found.items()
    }

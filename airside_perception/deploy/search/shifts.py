"""Bias correction of each node by itself, once for all variants of a search.

`engine.bias` corrects a quantised network layer by layer, which takes a pass for each layer and
must be done anew for every variant. Here a node's own rounding is looked at only: in the fp32
network, the mean of what it puts out by channel, and the same with its input and weights rounded.
Their difference goes into its bias wherever the node is INT8. What rounding does to the means
behind the next ReLU is left over; the network that is written gets the full correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.outputs import OnnxRunner
from airside_perception.engine.bias import add_to_bias, channel_mean
from airside_perception.engine.graph import copied, drop_unused, weights
from airside_perception.engine.qdq import insert_qdq

CORRECTED = ('Conv',)
Shifts = dict[str, NDArray[np.float32]]


def own_shifts(
    model: Any,
    scales: Mapping[str, float],
    nodes: Sequence[str],
    frames: Sequence[Mapping[str, NDArray[Any]]],
) -> Shifts:
    """{node: what its bias lacks [channels] when it alone is INT8}, for convolutions.

    Args:
        model: fp32, with named nodes.
        nodes: that can be INT8.
        frames: inputs; a few are enough, since means are taken over places too.

    Raises:
        EngineError: the network does not run.
    """
    made = {node.name: node.output[0] for node in model.graph.node if node.op_type in CORRECTED}
    wanted = [name for name in nodes if name in made]
    if not wanted or not frames:
        return {}
    plain = _means(model, [made[name] for name in wanted], frames)
    twins = _twins(model, scales, wanted)
    rounded = _means(twins, [f'{made[name]}/rounded' for name in wanted], frames)
    return {
        name: (one - two).astype(np.float32)
        for name, one, two in zip(wanted, plain, rounded, strict=True)
    }


def add_shifts(model: Any, shifts: Shifts, int8: Sequence[str]) -> Any:
    """A copy of a network with Q/DQ whose INT8 nodes have corrected biases."""
    model = copied(model)
    stored, chosen = weights(model), set(int8)
    for node in model.graph.node:
        if node.name in chosen and node.name in shifts:
            add_to_bias(model.graph, stored, node, shifts[node.name])
    drop_unused(model.graph)
    return model


def _twins(model: Any, scales: Mapping[str, float], nodes: Sequence[str]) -> Any:
    """The fp32 network with a rounded twin beside every node, which reads what the node reads."""
    quantized = insert_qdq(
        model, scales, [node.name for node in model.graph.node if node.name not in nodes]
    )
    chosen, plain = set(nodes), {node.name: node for node in model.graph.node}
    twins = []
    for node in quantized.graph.node:
        if node.name not in chosen:
            continue
        twin = type(node)()
        twin.CopyFrom(node)
        twin.name, twin.output[0] = f'{node.name}/rounded', f'{node.output[0]}/rounded'
        node.CopyFrom(plain[node.name])
        twins.append(twin)
    # all that is not one of them reads the fp32 tensors again
    for node in quantized.graph.node:
        if node.name in plain:
            node.input[:] = plain[node.name].input
    quantized.graph.node.extend(twins)
    return quantized


def _means(
    model: Any, names: Sequence[str], frames: Sequence[Mapping[str, NDArray[Any]]]
) -> list[NDArray[np.float64]]:
    runner = OnnxRunner(model, names)
    sums: list[Any] = [0.0] * len(names)
    for feed in frames:
        found = runner.run(feed)
        sums = [total + channel_mean(found[name]) for total, name in zip(sums, names, strict=True)]
    return [total / len(frames) for total in sums]

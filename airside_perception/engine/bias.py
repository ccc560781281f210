"""Bias correction: a quantised network with the mean outputs of the network that it came from.

Rounding shifts the mean of what a convolution puts out, and where most of an input is the same
(empty ground around a lidar), the shift is the same everywhere and adds up from layer to layer.
It is taken out of the biases, layer by layer, each with those before it already corrected
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
section 4.2, with the means measured on feeds).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from airside_perception.engine.graph import copied, drop_unused, inferred, inputs, store, weights
from airside_perception.errors import EngineError

OPERATORS = ('Conv', 'ConvTranspose')
CHANNEL_AXIS = 1

Feeds = Iterable[Mapping[str, NDArray[Any]]]


def correct_biases(quantized: Any, model: Any, feeds: Feeds) -> Any:
    """A copy of `quantized` with corrected biases of its convolutions.

    Args:
        quantized: from `model`, by Q/DQ nodes; outputs of convolutions have the same names.
        feeds: inputs of the network; a few are enough, since means are taken over places too.

    Raises:
        EngineError: no feeds, or feeds that do not fit.
    """
    kept = [dict(item) for item in feeds]
    if not kept:
        raise EngineError('bias correction needs feeds, there are none')
    quantized, model = copied(quantized), inferred(model)
    nodes = [node for node in quantized.graph.node if node.op_type in OPERATORS]
    names = [node.output[0] for node in nodes]
    stored = weights(quantized)
    for node, wanted in zip(nodes, _means(model, names, kept), strict=True):
        (found,) = _means(inferred(quantized), [node.output[0]], kept)
        add_to_bias(quantized.graph, stored, node, (wanted - found).astype(np.float32))
    drop_unused(quantized.graph)
    return quantized


def _means(model: Any, names: list[str], feeds: list[dict[str, Any]]) -> list[NDArray[np.float64]]:
    """The mean of each tensor by channel, over all feeds and places."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; it is not logged as well
    # rounding must not be optimised away
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    sums: list[Any] = [0.0] * len(names)
    try:
        known = [value.name for value in inputs(model)]
        part = onnx.utils.Extractor(model).extract_model(known, names)
        session = onnxruntime.InferenceSession(
            part.SerializeToString(), options, providers=['CPUExecutionProvider']
        )
        for item in feeds:
            found = session.run(names, item)
            sums = [total + channel_mean(value) for total, value in zip(sums, found, strict=True)]
    except Exception as error:  # what ONNX and ONNX Runtime raise has no nearer common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise EngineError(f'bias correction failed: {reason}') from error
    return [total / len(feeds) for total in sums]


def channel_mean(value: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over all axes but the channels [channels]."""
    others = tuple(axis for axis in range(value.ndim) if axis != CHANNEL_AXIS)
    mean: NDArray[np.float64] = value.mean(axis=others, dtype=np.float64)
    return mean


def add_to_bias(
    graph: Any, stored: Mapping[str, NDArray[Any]], node: Any, shift: NDArray[np.float32]
) -> None:
    """Gives a convolution a bias of its own, as some share one.

    Args:
        graph: that the node is in.
        stored: its weights by name; a bias that is none of them is computed, and stays.
        shift: what is added [channels].
    """
    old = node.input[2] if len(node.input) > 2 else ''
    if old and old not in stored:
        return
    name = f'{node.output[0]}_corrected_bias'
    store(graph, name, stored[old] + shift if old else shift)
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)

"""Quantisation in the graph: Q/DQ nodes from known scales, their scales back, and without them.

Everything here is symmetric: int8 value = round(value / scale), within ±127, as TensorRT has it.
Weights get a scale for every output channel, activations one for the tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from airside_perception.engine.calibration_cache import check_scales
from airside_perception.engine.graph import (
    copied,
    drop_unused,
    has_qdq,
    inferred,
    name_nodes,
    raised,
    replace_nodes,
    store,
    weights,
)
from airside_perception.errors import EngineError

OPERATORS = ('Conv', 'Gemm', 'MatMul')
"""What is quantised: their inputs and weights. Everything between them stays as it is."""
CHANNEL_AXES = {'Conv': 0, 'ConvTranspose': 1, 'Gemm': 1, 'MatMul': -1}
"""Along which axis of their weights the output channels lie."""
LARGEST = 127
PER_CHANNEL_OPSET = 13
"""From this version on Q/DQ have a scale for every channel."""


def insert_qdq(
    model: Any,
    known: Mapping[str, float],
    exclude: Iterable[str] = (),
    operators: Iterable[str] = OPERATORS,
) -> Any:
    """A copy of `model` with Q/DQ nodes before every operator whose input has a scale.

    Args:
        model: fp32 network without Q/DQ.
        known: {tensor: scale}, as `scales` gives them.
        exclude, operators: as for `quantize`.

    Raises:
        EngineError: no scale fits an operator (calibrated for another network?), scales that are
            not positive, unknown operator or node.
    """
    operators, exclude = tuple(operators), tuple(exclude)
    model = ready_for_qdq(model, exclude, operators)
    check_scales(known)
    graph, stored = model.graph, weights(model)
    pairs = _Pairs(graph)
    for node in graph.node:
        names = node.input[:2]
        if node.op_type not in operators or node.name in exclude:
            continue
        if not all(name in known or name in stored for name in names):
            continue
        for name in names:
            if name in stored:
                pairs.weight(name, stored[name], _channel_axis(node, stored[name]))
            else:
                pairs.activation(name, known[name])
    if not pairs.reads:
        raise EngineError(
            f'none of the {len(known)} scales ({", ".join(list(known)[:3])}, ...) belongs to an '
            f'input of {", ".join(operators)}: were they made for another network?'
        )
    pairs.insert()
    return model


def scales(model: Any) -> dict[str, float]:
    """The scale of every activation that a network with Q/DQ quantises, {tensor: scale}.

    Raises:
        EngineError: no Q/DQ, a zero point other than 0, a scale for every channel of an
            activation, or scales that are computed.
    """
    stored = weights(model)
    found: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type != 'QuantizeLinear' or node.input[0] in stored:
            continue
        name, scale = node.input[0], stored.get(node.input[1])
        zero = stored.get(node.input[2]) if len(node.input) > 2 else np.int8(0)
        if scale is None or zero is None or scale.size != 1 or np.any(zero):
            raise EngineError(
                f'tensor {name!r}: TensorRT takes one constant scale with zero point 0, the '
                'network has another kind of quantisation'
            )
        found[name] = float(scale.reshape(()))
    if not found:
        raise EngineError('the network has no Q/DQ nodes for activations: quantize it first')
    return found


def strip_qdq(model: Any) -> Any:
    """A copy of `model` without Q/DQ: as it was before, but for weights stored as int8.

    Raises:
        EngineError: quantised values that are computed, or used otherwise than by
            DequantizeLinear.
    """
    model = copied(model)
    graph, stored = model.graph, weights(model)
    made = {name: node for node in graph.node for name in node.output}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == 'DequantizeLinear':
            source = made.get(node.input[0])
            if source is not None and source.op_type == 'QuantizeLinear':
                name = source.input[0]
                same[node.output[0]] = same.get(name, name)
            else:
                store(graph, node.output[0], _dequantized(node, stored))
        elif node.op_type != 'QuantizeLinear':
            kept.append(node)
    for value in graph.output:  # outputs keep their names
        if value.name in same:
            kept.append(helper.make_node('Identity', [same[value.name]], [value.name]))
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    codes = {node.output[0] for node in graph.node if node.op_type == 'QuantizeLinear'}
    for node in kept:
        if codes & set(node.input):
            raise EngineError(f'node {node.name!r} ({node.op_type}) works on quantised values')
    replace_nodes(graph, kept)
    drop_unused(graph)
    del graph.value_info[:]
    return inferred(model)


def ready_for_qdq(model: Any, exclude: Iterable[str], operators: Iterable[str]) -> Any:
    """A copy with named nodes and an opset that has Q/DQ by channel, after checks.

    Raises:
        EngineError: Q/DQ are there already, or an operator or node is unknown.
    """
    if has_qdq(model):
        raise EngineError('the network has Q/DQ nodes already; strip them to quantize it anew')
    model = raised(copied(model), PER_CHANNEL_OPSET, 'quantisation by channel')
    name_nodes(model.graph)
    names = {node.name for node in model.graph.node}
    unknown = [name for name in exclude if name not in names]
    if unknown:
        raise EngineError(f'exclude names {unknown[0]!r}, which is no node of the network')
    wrong = [name for name in operators if name not in CHANNEL_AXES]
    if wrong:
        raise EngineError(f'operator {wrong[0]!r} is not one of {", ".join(CHANNEL_AXES)}')
    _say_kernel_shapes(model)
    return model


def _say_kernel_shapes(model: Any) -> None:
    """Writes the size of kernels where convolutions leave it to their weights.

    Once these come out of DequantizeLinear, TensorRT 8.6 takes a size that is not said for 1x1.
    """
    stored = weights(model)
    for node in model.graph.node:
        known = any(item.name == 'kernel_shape' for item in node.attribute)
        if node.op_type in ('Conv', 'ConvTranspose') and node.input[1] in stored and not known:
            size = stored[node.input[1]].shape[2:]
            node.attribute.append(helper.make_attribute('kernel_shape', list(size)))


class _Pairs:
    """Q/DQ pairs that are to come into a graph."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.reads: dict[str, str] = {}
        """{tensor: what its readers get instead}"""
        self.stored: list[Any] = []
        self.after: dict[str, list[Any]] = {}

    def activation(self, name: str, scale: float) -> None:
        """A tensor with one scale."""
        if name not in self.reads:
            self.after[name] = self._pair(name, np.float32(scale), None)

    def weight(self, name: str, value: NDArray[Any], axis: int) -> None:
        """An initialiser with a scale for every slice along `axis`."""
        if name not in self.reads:
            others = tuple(place for place in range(value.ndim) if place != axis)
            largest = np.abs(value).max(axis=others)
            steps = np.where(largest > 0.0, largest / np.float32(LARGEST), 1.0)
            self.stored += self._pair(name, steps.astype(np.float32), axis)

    def insert(self) -> None:
        """Puts every pair behind what makes its tensor, and lets all read from it."""
        nodes = list(self.stored)
        for value in self.graph.input:
            nodes += self.after.get(value.name, [])
        for node in self.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = self.reads.get(name, name)
            nodes.append(node)
            for name in node.output:
                nodes += self.after.get(name, [])
        replace_nodes(self.graph, nodes)

    def _pair(self, name: str, scale: Any, axis: int | None) -> list[Any]:
        said: dict[str, Any] = {} if axis is None else {'axis': axis}
        code, self.reads[name] = f'{name}_quantized', f'{name}_dequantized'
        steps = store(self.graph, f'{name}_scale', np.asarray(scale))
        zero = store(self.graph, f'{name}_zero_point', np.zeros(np.shape(scale), np.int8))
        return [
            helper.make_node('QuantizeLinear', [name, steps, zero], [code], f'{code}_q', **said),
            helper.make_node(
                'DequantizeLinear', [code, steps, zero], [self.reads[name]], f'{code}_dq', **said
            ),
        ]


def _channel_axis(node: Any, weight: NDArray[Any]) -> int:
    """Along which axis of the weights the output channels lie."""
    turned = any(item.name == 'transB' and item.i for item in node.attribute)
    return 0 if turned else CHANNEL_AXES[node.op_type] % weight.ndim


def _dequantized(node: Any, stored: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The value of a DequantizeLinear of stored numbers."""
    if any(name and name not in stored for name in node.input):
        raise EngineError(f'node {node.name!r} ({node.op_type}) works on computed values')
    code, scale = stored[node.input[0]].astype(np.float32), stored[node.input[1]]
    zero = stored[node.input[2]] if len(node.input) > 2 else np.zeros_like(scale)
    axis = next((item.i for item in node.attribute if item.name == 'axis'), 1)
    shape = [1] * code.ndim
    if scale.size > 1:
        shape[axis] = -1
    steps = scale.astype(np.float32).reshape(shape)
    value: NDArray[np.float32] = (code - zero.astype(np.float32).reshape(shape)) * steps
    return value

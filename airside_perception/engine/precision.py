"""Half precision through the ONNX file: TensorRT 10 and later take every tensor's type from it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.graph import (
    QDQ,
    copied,
    drop_unused,
    float_tensors,
    has_qdq,
    inferred,
    inputs,
    raised,
    replace_nodes,
)

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
SUFFIX = {FLOAT: '_fp32', HALF: '_fp16'}
LARGEST_HALF = 65504.0
SMALLEST_HALF = 2.0**-24
HALF_QDQ_OPSET = 19
"""From this version on QuantizeLinear and DequantizeLinear have scales in fp16."""


def to_half(model: Any, keep_io: bool | Collection[str], keep: Iterable[str] = ()) -> Any:
    """A copy of `model` with fp16 weights and activations.

    What ONNX defines for fp32 only (NonMaxSuppression, the scales of Resize, ...) stays fp32,
    with casts before and after it.

    Args:
        model: fp32 network, `onnx.ModelProto`.
        keep_io: inputs and outputs stay fp32, with casts; else they become fp16. Or the names of
            those that stay fp32.
        keep: names or operators of nodes that stay fp32.

    Raises:
        EngineError: control flow, or a tensor whose type does not follow from the graph.

    Warns:
        RuntimeWarning: weights beyond ±65504, which fp16 does not hold: they are clipped.
    """
    halver = _Halver(_prepared(model), keep_io, frozenset(keep))
    half = halver.run()
    if halver.clipped:
        warnings.warn(
            f'{", ".join(halver.clipped[:5])}: weights beyond ±{LARGEST_HALF:g} are clipped, '
            'fp16 does not hold them',
            RuntimeWarning,
            stacklevel=2,
        )
    return half


def _prepared(model: Any) -> Any:
    model = copied(model)
    return inferred(raised(model, HALF_QDQ_OPSET, 'fp16 with Q/DQ') if has_qdq(model) else model)


class _Halver:
    """One conversion: in which precision every float tensor is there, and under which name."""

    def __init__(self, model: Any, keep_io: bool | Collection[str], keep: frozenset[str]) -> None:
        self.model, self.graph, self.keep = model, model.graph, keep
        self.versions = {o.domain.replace('ai.onnx', ''): o.version for o in model.opset_import}
        self.floats = float_tensors(model)
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.scales = {node.input[1] for node in self.graph.node if node.op_type in QDQ}
        self.outputs = {value.name for value in self.graph.output}
        ports = {value.name for value in inputs(model)} | self.outputs
        single = (ports if keep_io else ()) if isinstance(keep_io, bool) else keep_io
        self.io = {name: FLOAT if name in single else HALF for name in ports}
        self.there: dict[tuple[str, int], str] = {}
        self.nodes: list[Any] = []
        self.stored: dict[str, Any] = {}
        self.clipped: list[str] = []

    def run(self) -> Any:
        """The converted model."""
        for value in (*inputs(self.model), *self.graph.output):
            if value.name in self.floats:
                value.type.tensor_type.elem_type = self.io[value.name]
        for value in inputs(self.model):
            self.there[value.name, self.io[value.name]] = value.name
        for name in self.outputs & self.floats & set(self.weights):
            self._stored(name, self.io[name])
        for node in self.graph.node:
            takes, gives = self._precisions(node)
            self._read(node, takes)
            self.nodes.append(node)
            self._write(node, gives)
        return self._finished()

    def _read(self, node: Any, takes: list[int]) -> None:
        for place, name in enumerate(node.input):
            if name in self.floats:
                node.input[place] = self._wanted(name, takes[place])
            elif name in self.weights:
                self.stored[name] = self.weights[name]

    def _write(self, node: Any, gives: list[int]) -> None:
        for item in node.attribute:
            if node.op_type == 'Cast' and item.name == 'to' and item.i == FLOAT:
                item.i = gives[0]
        for place, name in enumerate(node.output):
            if name not in self.floats:
                continue
            kind = gives[place]
            if self.io.get(name, kind) != kind:  # outputs keep their names
                node.output[place] = self.there[name, kind] = name + SUFFIX[kind]
                self._cast(node.output[place], name, self.io[name])
                self.there[name, self.io[name]] = name
            else:
                self.there[name, kind] = name

    def _wanted(self, name: str, kind: int) -> str:
        """The name of a float tensor in this precision; it is cast where it is not there yet."""
        if (name, kind) not in self.there:
            if name in self.weights:
                self._stored(name, kind)
            else:
                source = self.there[name, HALF if kind == FLOAT else FLOAT]
                self.there[name, kind] = name + SUFFIX[kind]
                self._cast(source, name + SUFFIX[kind], kind)
        return self.there[name, kind]

    def _cast(self, source: str, target: str, kind: int) -> None:
        node = helper.make_node('Cast', [source], [target], f'{target}_cast', to=kind)
        self.nodes.append(node)

    def _stored(self, name: str, kind: int) -> None:
        """Keeps a weight in this precision: never cast from the other one."""
        value = numpy_helper.to_array(self.weights[name])
        if kind == HALF:
            if np.any(np.isfinite(value) & (np.abs(value) > LARGEST_HALF)):
                self.clipped.append(name)
            value = _half(value)
            if name in self.scales:  # a scale of zero would divide by it
                value = np.maximum(value, np.float16(SMALLEST_HALF))
        target = name if name not in self.stored else name + SUFFIX[kind]
        self.stored[target] = numpy_helper.from_array(value, target)
        self.there[name, kind] = target

    def _precisions(self, node: Any) -> tuple[list[int], list[int]]:
        """What each input and output is to be: fp16 where ONNX allows it, else fp32."""
        single = [FLOAT] * len(node.input), [FLOAT] * len(node.output)
        if node.name in self.keep or node.op_type in self.keep:
            return single
        domain = node.domain.replace('ai.onnx', '')
        try:
            schema = onnx.defs.get_schema(node.op_type, self.versions[domain], domain)
        except (onnx.defs.SchemaError, KeyError):
            return single  # an operator of somebody's own: made for fp32
        if 'dtype' in schema.attributes or node.op_type == 'ConstantOfShape':
            return single  # names the type of what it makes
        return _allowed(schema.inputs, len(node.input)), _allowed(schema.outputs, len(node.output))

    def _finished(self) -> Any:
        replace_nodes(self.graph, self.nodes)
        declared = inputs(self.model)
        del self.graph.initializer[:], self.graph.input[:], self.graph.value_info[:]
        self.graph.initializer.extend(self.stored.values())
        self.graph.input.extend(declared)
        drop_unused(self.graph)
        return inferred(self.model)


def _half(value: NDArray[Any]) -> NDArray[np.float16]:
    """As fp16, rounded to nearest; what is too large becomes the largest, infinity stays."""
    finite = np.clip(value, -LARGEST_HALF, LARGEST_HALF)
    return np.where(np.isinf(value), value, finite).astype(np.float16)


def _allowed(formals: Any, count: int) -> list[int]:
    last = len(formals) - 1  # which may be variadic
    return [
        HALF if 'tensor(float16)' in formals[min(place, last)].types else FLOAT
        for place in range(count)
    ]

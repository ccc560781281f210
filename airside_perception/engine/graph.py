"""What every rewrite of an ONNX graph needs: copies, types, constants, nodes in another order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.base import TensorSpec
from airside_perception.errors import EngineError

QDQ = ('QuantizeLinear', 'DequantizeLinear')
VALUES = {
    'value_float': np.float32, 'value_floats': np.float32,
    'value_int': np.int64, 'value_ints': np.int64,
}  # fmt: skip
FILE_VERSIONS = {19: 9}
"""Version of the file format that goes with an opset."""


def copied(model: Any) -> Any:
    """A copy of `model` whose Constant nodes are initialisers: one kind of weight.

    Raises:
        EngineError: a graph with control flow; the rewrites look at one graph only.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = []
    for node in copy.graph.node:
        if any(item.type == onnx.AttributeProto.GRAPH for item in node.attribute):
            raise EngineError(
                f'node {node.name!r} ({node.op_type}): networks with control flow are not '
                'converted; export it without branches and loops'
            )
        value = _constant(node) if node.op_type == 'Constant' else None
        if value is None:
            kept.append(node)
        else:
            copy.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    replace_nodes(copy.graph, kept)
    return copy


def inferred(model: Any) -> Any:
    """A copy of `model` with the types and shapes of its tensors.

    Raises:
        EngineError: they contradict one another.
    """
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # InferenceError and protobuf's have no nearer common base
        raise EngineError(f'shapes do not follow from the graph: {error}') from error


def float_tensors(model: Any) -> set[str]:
    """Names of the fp32 tensors of a model with inferred types.

    Raises:
        EngineError: the type of a tensor is not known.
    """
    graph = model.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
    for node in graph.node:
        unknown = [name for name in node.output if name and not kinds.get(name)]
        if unknown:
            raise EngineError(
                f'node {node.name!r} ({node.op_type}): the type of {unknown[0]!r} does not follow '
                'from the graph; give it in value_info'
            )
    return {name for name, kind in kinds.items() if kind == TensorProto.FLOAT}


def weights(model: Any) -> dict[str, NDArray[Any]]:
    """Initialisers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def inputs(model: Any) -> list[Any]:
    """Inputs that are fed: old files list their weights among the inputs as well."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def spec(value: Any) -> TensorSpec:
    """Name, shape and dtype of an input or output as the file has it."""
    kind = value.type.tensor_type
    shape = tuple(
        item.dim_value if item.WhichOneof('value') == 'dim_value' else -1
        for item in kind.shape.dim
    )
    return TensorSpec(value.name, shape, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)))


def opset(model: Any) -> int:
    """Version of the standard operators."""
    return max((o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')), default=0)


def raised(model: Any, version: int, why: str) -> Any:
    """`model` with at least this opset; itself where it has it.

    Raises:
        EngineError: an operator has no counterpart there.
    """
    if opset(model) >= version:
        return model
    try:
        newer = onnx.version_converter.convert_version(model, version)
    except Exception as error:  # the converter raises RuntimeError and its own, with no base
        raise EngineError(
            f'opset {opset(model)} cannot be raised to {version}, which {why} needs: {error}'
        ) from error
    newer.ir_version = max(newer.ir_version, FILE_VERSIONS.get(version, 8))
    return newer


def has_qdq(model: Any) -> bool:
    """Whether the network carries its quantisation (Q/DQ nodes)."""
    return any(node.op_type in QDQ for node in model.graph.node)


def name_nodes(graph: Any) -> None:
    """Gives nodes without a name the name OPERATOR_PLACE."""
    for place, node in enumerate(graph.node):
        node.name = node.name or f'{node.op_type}_{place}'


def is_half(model: Any) -> bool:
    """Whether an input, an output or a weight is fp16."""
    graph = model.graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    return TensorProto.FLOAT16 in kinds | {tensor.data_type for tensor in graph.initializer}


def store(graph: Any, name: str, value: NDArray[Any]) -> str:
    """Adds an initialiser; returns its name."""
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def replace_nodes(graph: Any, nodes: Iterable[Any]) -> None:
    """Makes these the nodes of the graph: some of them may be its own."""
    kept = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        kept.append(copy)
    del graph.node[:]
    graph.node.extend(kept)


def drop_unused(graph: Any) -> None:
    """Removes initialisers that no node reads, and inputs of their names."""
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    unused = {tensor.name for tensor in graph.initializer} - used
    for part in (graph.initializer, graph.input):
        kept = [item for item in part if item.name not in unused]
        del part[:]
        part.extend(kept)


def _constant(node: Any) -> NDArray[Any] | None:
    item = node.attribute[0]
    value = helper.get_attribute_value(item)
    if item.name == 'value':
        return np.asarray(numpy_helper.to_array(value))
    return np.array(value, VALUES[item.name]) if item.name in VALUES else None

"""Shapes and constants of a graph: what does not depend on its input is worked out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from airside_perception.deploy import fold
from airside_perception.engine import graph as onnx_graph
from airside_perception.errors import EngineError

Shape = tuple[int | str, ...]
"""A dimension is a number, or the name of what is free: '?' where it has none."""
STANDARD = ('', 'ai.onnx')
RANDOM = {
    'RandomNormal', 'RandomUniform', 'RandomNormalLike', 'RandomUniformLike', 'Bernoulli',
    'Multinomial',
}  # fmt: skip
FOLDED_ELEMENTS = 1 << 16
"""Constants up to this size are computed; larger ones are constants without a known value."""
PASSES = 12
FREE = '?'


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, functions of the model put in the place of their calls."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    flat: onnx.ModelProto = fold.inlined(copy)[0]
    return flat


def free_batch(model: onnx.ModelProto) -> Iterator[str]:
    """The inputs whose first dimension is free, each with its name."""
    for value in onnx_graph.inputs(model):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField('dim_value'):
            yield f'{value.name} [{dims[0].dim_param or FREE}]'


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model itself, its batch a number.

    Args:
        batch: for free first dimensions; a number other than 1 for fixed ones, too.

    Raises:
        EngineError: no such batch, or the network is made for another.
    """
    if batch < 1:
        raise EngineError(f'batch = {batch}: expected 1 or more')
    made_for = ''
    changed = False
    for value in onnx_graph.inputs(model):
        dims = value.type.tensor_type.shape.dim
        if not dims or (dims[0].HasField('dim_value') and batch in (1, dims[0].dim_value)):
            continue
        if dims[0].HasField('dim_value'):
            made_for = f'input {value.name!r} is made for batch {dims[0].dim_value}, not {batch}'
        dims[0].dim_value = batch
        changed = True
    if changed:
        del model.graph.value_info[:]
        for value in model.graph.output:
            for dimension in value.type.tensor_type.shape.dim:
                dimension.ClearField('dim_value')
                dimension.ClearField('dim_param')
    if made_for:
        try:
            onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except Exception as error:  # InferenceError and protobuf's have no nearer common base
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(f'{made_for}: {reason}') from error
    return model


def folded(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]], set[str]]:
    """The model with shapes; {constant: value}; the names of all constants.

    What is folded makes further shapes known, which makes more foldable: repeated until nothing
    is new.
    """
    values = _stored(model.graph)
    constant = {tensor.name for tensor in model.graph.initializer}
    constant |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    for _ in range(PASSES):
        inferred = _inferred(model, values)
        shapes, _ = tensors(inferred.graph)
        before = len(constant), len(values)
        for node in model.graph.node:
            _fold(node, model, shapes, values, constant)
        if (len(constant), len(values)) == before:
            break
    return inferred, values, constant


def _stored(graph: Any) -> dict[str, NDArray[Any]]:
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if int(np.prod(tensor.dims, dtype=np.int64)) <= FOLDED_ELEMENTS
        and tensor.data_type != TensorProto.STRING
    }


def _inferred(model: onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Shapes of the model in which folded nodes' results are initialisers; its own nodes."""
    work = onnx.ModelProto()
    work.CopyFrom(model)
    stored = {tensor.name for tensor in work.graph.initializer}
    kept = [node for node in work.graph.node if not all(o in values for o in node.output if o)]
    for name in values.keys() - stored:
        work.graph.initializer.append(numpy_helper.from_array(np.asarray(values[name]), name))
    onnx_graph.replace_nodes(work.graph, kept)
    try:
        work = onnx.shape_inference.infer_shapes(work, data_prop=True)
    except Exception as error:  # InferenceError and protobuf's have no nearer common base
        reason = str(error).strip().splitlines()[-1]
        raise EngineError(f'shapes do not follow from the graph: {reason}') from error
    del work.graph.node[:]
    work.graph.node.extend(model.graph.node)
    return work


def _fold(
    node: Any,
    model: onnx.ModelProto,
    shapes: Mapping[str, Shape],
    values: dict[str, NDArray[Any]],
    constant: set[str],
) -> None:
    """Adds the outputs of a node that does not depend on the input."""
    outputs = [name for name in node.output if name]
    if node.op_type in RANDOM or node.domain not in STANDARD or outer(node):
        return
    if node.op_type in ('Shape', 'Size') and _is_fixed(shapes.get(node.input[0])):
        shape = np.array(shapes[node.input[0]], np.int64)
        attributes = {item.name: item.i for item in node.attribute}
        part = shape[attributes.get('start', 0) : attributes.get('end')]
        values[outputs[0]] = part if node.op_type == 'Shape' else np.array(shape.prod())
        constant.update(outputs)
        return
    if not all(name in constant for name in node.input if name):
        return
    constant.update(outputs)
    if all(name in values for name in node.input if name) and outputs[0] not in values:
        result = _evaluated(node, model, values)
        if result is not None:
            values.update(
                {n: v for n, v in zip(node.output, result, strict=False)
                 if n and np.size(v) <= FOLDED_ELEMENTS}
            )  # fmt: skip


def _evaluated(
    node: Any, model: onnx.ModelProto, values: Mapping[str, NDArray[Any]]
) -> Sequence[NDArray[Any]] | None:
    """What the operator computes by ONNX's reference; None where that has none."""
    from onnx.reference import ReferenceEvaluator  # slow to import, and rarely needed

    names = [name for name in dict.fromkeys(node.input) if name]
    graph = helper.make_graph(
        [node], 'one',
        [onnx.ValueInfoProto(name=name) for name in names],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )  # fmt: skip
    single = helper.make_model(graph, opset_imports=model.opset_import)
    try:
        found = ReferenceEvaluator(single).run(None, {name: values[name] for name in names})
    except Exception:  # noqa: BLE001  whatever an operator raises: the value stays unknown
        return None
    return [np.asarray(value) for value in found]


def tensors(graph: Any) -> tuple[dict[str, Shape], dict[str, str]]:
    """{tensor: shape} where the rank is known, {tensor: type}."""
    shapes: dict[str, Shape] = {}
    types: dict[str, str] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.WhichOneof('value')
        if kind != 'tensor_type':
            types[value.name] = (kind or '').replace('_type', '')
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type:
            types[value.name] = TensorProto.DataType.Name(tensor.elem_type).lower()
        if tensor.HasField('shape'):
            shapes[value.name] = tuple(
                d.dim_value if d.HasField('dim_value') else d.dim_param or FREE
                for d in tensor.shape.dim
            )
    for stored in graph.initializer:
        shapes[stored.name] = tuple(stored.dims)
        types[stored.name] = TensorProto.DataType.Name(stored.data_type).lower()
    return shapes, types


def outer(node: Any) -> set[str]:
    """The tensors that the graphs inside a node read from outside."""
    found: set[str] = set()
    for item in node.attribute:
        for graph in (*([item.g] if item.HasField('g') else []), *item.graphs):
            own = {tensor.name for tensor in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            read = {name for inner in graph.node for name in (*inner.input, *outer(inner))}
            found |= {name for name in read if name} - own
    return found


def _is_fixed(shape: Shape | None) -> bool:
    return shape is not None and all(isinstance(size, int) for size in shape)

"""An ONNX graph as the rules see it: names, shapes, constants, what becomes a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine import graph as onnx_graph
from airside_perception.errors import EngineError

Shape = tuple[int | str, ...]
"""A dimension is a number, or the name of what is free: '?' where it has none."""
STANDARD = ('', 'ai.onnx')
TRANSPARENT = {'Identity', 'Dropout', 'Constant'}
"""No layer: TensorRT removes them."""
RANDOM = {
    'RandomNormal', 'RandomUniform', 'RandomNormalLike', 'RandomUniformLike', 'Bernoulli',
    'Multinomial',
}  # fmt: skip
FOLDED_ELEMENTS = 1 << 16
"""Constants up to this size are computed; larger ones are constants without a known value."""
PASSES = 12
FREE = '?'


def node_name(node: Any, index: int) -> str:
    """The name of a node; one without gets its operator and its place in the graph."""
    return node.name or f'{node.op_type}_{index}'


def node_names(graph: Any) -> list[str]:
    """The names of all nodes; where two share one, the place in the graph is added."""
    names = [node_name(node, index) for index, node in enumerate(graph.node)]
    seen: set[str] = set()
    for index, name in enumerate(names):
        names[index] = f'{name}_{index}' if name in seen else name
        seen.add(names[index])
    return names


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        name: as `node_names` gives it.
        inputs: names of tensors; '' for one left out. Tensors that a branch or loop body reads
            from outside are there as well.
        attributes: {name: value}, strings as str.
        layer: it computes something: it is not folded into a constant, nor removed.
    """

    index: int
    name: str
    op_type: str
    domain: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: bool


class Network:
    """A graph with inferred shapes.

    Args:
        model: ONNX; it is not changed.
        batch: what a free first dimension of the inputs becomes, and with a number other than 1
            a fixed one too.

    Raises:
        EngineError: an input without a rank, or shapes that contradict one another.
    """

    def __init__(self, model: onnx.ModelProto, batch: int = 1) -> None:
        model = _inlined(model)
        self.opsets = {item.domain: item.version for item in model.opset_import}
        self.opset = onnx_graph.opset(model)
        self.free_batch = tuple(_free_batch(model))
        model = _with_batch(model, batch)
        model, self._values, self._constant = _folded(model)
        graph = model.graph
        self.shapes, self.types = _tensors(graph)
        self.inputs = tuple(value.name for value in onnx_graph.inputs(model))
        self.outputs = tuple(value.name for value in graph.output)
        self.nodes = tuple(self._nodes(graph))
        self._refuse_dynamic_rank()

    def shape(self, tensor: str) -> Shape | None:
        """Of a tensor; None where not even its rank is known."""
        return self.shapes.get(tensor)

    def value(self, tensor: str) -> NDArray[Any] | None:
        """Of a constant, where it is known."""
        return self._values.get(tensor)

    def is_constant(self, tensor: str) -> bool:
        """Whether the tensor does not depend on the input."""
        return tensor in self._constant

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """{tensor: layer that computes it}; through what TensorRT removes."""
        made = {name: node for node in self.nodes for name in node.outputs if name}
        found = {}
        for tensor in made:
            node, name = made[tensor], tensor
            while node.op_type in TRANSPARENT and node.inputs and node.inputs[0] in made:
                name = node.inputs[0]
                node = made[name]
            if node.layer:
                found[tensor] = node
        return found

    @cached_property
    def layers(self) -> tuple[Node, ...]:
        """The nodes that compute something, in topological order."""
        return tuple(node for node in self.nodes if node.layer)

    def sources(self, node: Node) -> Iterator[tuple[str, Node]]:
        """The tensors that a layer reads from other layers, each with its layer."""
        for name in dict.fromkeys(node.inputs):
            if name in self.producers:
                yield name, self.producers[name]

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """{name of a layer: layers that read what it computes}."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.layers}
        for node in self.layers:
            for source in {source.name for _, source in self.sources(node)}:
                found[source].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def _nodes(self, graph: Any) -> Iterator[Node]:
        for index, (proto, name) in enumerate(zip(graph.node, node_names(graph), strict=True)):
            outputs = tuple(proto.output)
            folded = all(tensor in self._constant for tensor in outputs if tensor)
            yield Node(
                index=index,
                name=name,
                op_type=proto.op_type,
                domain=proto.domain,
                attributes={item.name: _attribute(item) for item in proto.attribute},
                inputs=(*proto.input, *sorted(_outer(proto))),
                outputs=outputs,
                layer=not folded and proto.op_type not in TRANSPARENT,
            )

    def _refuse_dynamic_rank(self) -> None:
        for name in self.inputs:
            if name not in self.shapes:
                raise EngineError(
                    f'input {name!r} has no rank; TensorRT needs one: export it with a shape, '
                    'free dimensions named'
                )
        plugin = any(node.domain not in STANDARD or not _known(node) for node in self.nodes)
        for node in self.nodes:
            missing = [name for name in node.outputs if name and name not in self.shapes]
            control = any(isinstance(v, onnx.GraphProto) for v in node.attributes.values())
            if missing and not plugin and not control and self.types.get(missing[0]) != 'sequence':
                raise EngineError(
                    f'node {node.name!r} ({node.op_type}): the rank of {missing[0]!r} does not '
                    'follow from the graph; fix the shapes of the inputs, or fold constants first '
                    '(engine sanitize)'
                )


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, functions of the model put in the place of their calls."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not model.functions:
        return copy
    from onnx import inliner  # rarely needed

    try:
        inlined: onnx.ModelProto = inliner.inline_local_functions(copy)
    except Exception as error:  # the inliner raises RuntimeError and its own, with no base
        raise EngineError(f'functions of the network cannot be resolved: {error}') from error
    return inlined


def _free_batch(model: onnx.ModelProto) -> Iterator[str]:
    for value in onnx_graph.inputs(model):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField('dim_value'):
            yield f'{value.name} [{dims[0].dim_param or FREE}]'


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    if batch < 1:
        raise EngineError(f'batch = {batch}: expected 1 or more')
    changed = False
    for value in onnx_graph.inputs(model):
        dims = value.type.tensor_type.shape.dim
        if dims and (not dims[0].HasField('dim_value') or batch not in (1, dims[0].dim_value)):
            dims[0].dim_value = batch
            changed = True
    if changed:
        del model.graph.value_info[:]
        for value in model.graph.output:
            for dimension in value.type.tensor_type.shape.dim:
                dimension.ClearField('dim_value')
                dimension.ClearField('dim_param')
    return model


def _folded(
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
        shapes, _ = _tensors(inferred.graph)
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
    if node.op_type in RANDOM or node.domain not in STANDARD or _outer(node):
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


def _tensors(graph: Any) -> tuple[dict[str, Shape], dict[str, str]]:
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


def _outer(node: Any) -> set[str]:
    """The tensors that the graphs inside a node read from outside."""
    found: set[str] = set()
    for item in node.attribute:
        for graph in (*([item.g] if item.HasField('g') else []), *item.graphs):
            own = {tensor.name for tensor in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            read = {name for inner in graph.node for name in (*inner.input, *_outer(inner))}
            found |= {name for name in read if name} - own
    return found


def _attribute(item: Any) -> Any:
    value = helper.get_attribute_value(item)
    if isinstance(value, bytes):
        return value.decode(errors='replace')
    if isinstance(value, (list, tuple)) or type(value).__name__.startswith('Repeated'):
        return tuple(value)
    return value


def _is_fixed(shape: Shape | None) -> bool:
    return shape is not None and all(isinstance(size, int) for size in shape)


def _known(node: Node) -> bool:
    return bool(onnx.defs.has(node.op_type))

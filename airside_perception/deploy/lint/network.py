"""An ONNX graph as the rules see it: names, shapes, constants, what becomes a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from airside_perception.deploy.lint.folding import (
    STANDARD,
    Shape,
    folded,
    free_batch,
    inlined,
    outer,
    tensors,
    with_batch,
)
from airside_perception.engine import graph as onnx_graph
from airside_perception.errors import EngineError

TRANSPARENT = {'Identity', 'Dropout', 'Constant'}
"""No layer: TensorRT removes them."""


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
        model = inlined(model)
        self.opsets = {item.domain: item.version for item in model.opset_import}
        self.opset = onnx_graph.opset(model)
        self.free_batch = tuple(free_batch(model))
        model = with_batch(model, batch)
        model, self._values, self._constant = folded(model)
        graph = model.graph
        self.shapes, self.types = tensors(graph)
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
                inputs=(*proto.input, *sorted(outer(proto))),
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
        read = {name for node in self.nodes for name in node.inputs} | set(self.outputs)
        for node in self.nodes:
            missing = [n for n in node.outputs if n in read and n not in self.shapes]
            control = any(isinstance(v, onnx.GraphProto) for v in node.attributes.values())
            if missing and not plugin and not control and self.types.get(missing[0]) != 'sequence':
                raise EngineError(
                    f'node {node.name!r} ({node.op_type}): the rank of {missing[0]!r} does not '
                    'follow from the graph; fix the shapes of the inputs, or fold constants first '
                    '(engine sanitize)'
                )


def _attribute(item: Any) -> Any:
    value = helper.get_attribute_value(item)
    if isinstance(value, bytes):
        return value.decode(errors='replace')
    if isinstance(value, (list, tuple)) or type(value).__name__.startswith('Repeated'):
        return tuple(value)
    return value


def _known(node: Node) -> bool:
    return bool(onnx.defs.has(node.op_type))

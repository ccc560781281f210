"""A network while it is rewritten: who makes and who reads a tensor, shapes, constants, names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from airside_perception.engine.graph import copied, drop_unused, inferred, opset, replace_nodes

Shape = tuple[int, ...]


class Network:
    """A copy of a model that can be changed, and then taken with `model`.

    A tensor that keeps its name keeps its value: what a rewrite puts in between gets new names.

    Args:
        model: `onnx.ModelProto`; it stays as it is.

    Attributes:
        opset: version of the standard operators.
        nodes: in topological order.
        changes: what was changed, a sentence each; filled by the rewrite.

    Raises:
        EngineError: control flow, or shapes that contradict one another.
    """

    def __init__(self, model: Any) -> None:
        self._model = inferred(copied(model))
        graph = self._model.graph
        self.opset = opset(model)
        self.nodes: list[Any] = list(graph.node)
        self.changes: list[str] = []
        self.outputs = {value.name for value in graph.output}
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._dims = {
            value.name: _static(value)
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._kinds = {
            value.name: int(value.type.tensor_type.elem_type)
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._names = {name for node in self.nodes for name in (*node.input, *node.output)}
        self._names |= set(self._stored) | {value.name for value in graph.input}
        self._node_names = {node.name for node in self.nodes}

    def shape(self, name: str) -> Shape | None:
        """Of a tensor; None where it is not known or varies."""
        if name in self._stored:
            return tuple(self._stored[name].dims)
        return self._dims.get(name)

    def is_float(self, name: str) -> bool:
        """Whether a tensor is fp32 or fp16."""
        kind = self._stored[name].data_type if name in self._stored else self._kinds.get(name)
        return kind in (1, 10)

    def dtype(self, name: str) -> np.dtype[Any]:
        """NumPy's type of a tensor; float32 where it is not known."""
        kind = self._stored[name].data_type if name in self._stored else self._kinds.get(name, 1)
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind or 1))

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initialiser; None for all other tensors."""
        tensor = self._stored.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def maker(self, name: str) -> Any:
        """The node that makes a tensor; None where there is none."""
        return next((node for node in self.nodes if name in node.output), None)

    def readers(self, name: str) -> list[Any]:
        """The nodes that read a tensor."""
        return [node for node in self.nodes if name in node.input]

    def only_reader(self, name: str) -> Any:
        """The node that alone reads a tensor; None where others do, or it is an output."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def store(self, name: str, value: NDArray[Any]) -> str:
        """Adds an initialiser; returns its name, which is like `name` and new."""
        name = self.name(name)
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self._stored[name] = tensor
        self._model.graph.initializer.append(tensor)
        return name

    def number(self, value: float, x: str, like: str) -> str:
        """Adds a constant for arithmetic with the tensor `x`: of its type and rank."""
        rank = len(self.shape(x) or ())
        return self.store(like, np.full((1,) * rank, value, self.dtype(x)))

    def name(self, like: str) -> str:
        """A name that no tensor has."""
        return _new(like, self._names)

    def node(
        self, kind: str, inputs: Sequence[str], output: str, name: str = '', **attributes: Any
    ) -> Any:
        """A node that is not in the network yet.

        Args:
            output: taken as it is.
            name: of the node in whose place it comes; empty: a new one.
        """
        name = name or _new(f'{output}_{kind.lower()}', self._node_names)
        return helper.make_node(kind, list(inputs), [output], name=name, **attributes)

    def note(self, name: str, shape: Shape | None, of: str) -> str:
        """Remembers the shape of a new tensor, of the type of the tensor `of`; returns it."""
        self._dims[name] = shape
        self._kinds[name] = self._kinds.get(of, 1)
        return name

    def replace(self, node: Any, new: Iterable[Any]) -> None:
        """Puts nodes in the place of one: they may read all that it could."""
        place = next(index for index, item in enumerate(self.nodes) if item is node)
        self.nodes[place : place + 1] = list(new)

    def model(self) -> tuple[Any, tuple[str, ...]]:
        """The model as it is now, without nodes that nobody needs, and what was changed."""
        graph = self._model.graph
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        replace_nodes(graph, reversed(kept))
        drop_unused(graph)
        made = {name for node in graph.node for name in node.output}
        known = [value for value in graph.value_info if value.name in made]
        del graph.value_info[:]
        graph.value_info.extend(known)
        return inferred(self._model), tuple(self.changes)


def attributes(node: Any) -> dict[str, Any]:
    """Of a node, as Python has them; text is `str`."""
    found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in found.items()
    }


def given(node: Any, index: int) -> str:
    """The name of an input; empty where it is left out."""
    return str(node.input[index]) if len(node.input) > index else ''


def label(node: Any) -> str:
    """How a node is called in a message."""
    return str(node.name or node.output[0])


def reduced_axes(net: Network, node: Any, as_input: int) -> set[int]:
    """Over which axes of [N, C, H, W] a reduction goes; empty where that is not known.

    Args:
        as_input: opset from which on the axes are an input, and no attribute.
    """
    said = attributes(node).get('axes')
    if net.opset >= as_input:
        said = net.constant(given(node, 1))
    return set() if said is None else {int(axis) % 4 for axis in said}


def window(node: Any, size: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]] | None:
    """(begin, end) padding of every spatial axis of a convolution or pool, from its attributes.

    Args:
        size: of the spatial axes of its input.
        kernel: of its window.

    Returns:
        None where `auto_pad` is not known.
    """
    said = attributes(node)
    count = len(kernel)
    strides = said.get('strides', [1] * count)
    dilations = said.get('dilations', [1] * count)
    mode = said.get('auto_pad', 'NOTSET')
    if mode == 'NOTSET':
        pads = said.get('pads', [0] * (2 * count))
        return [(pads[axis], pads[axis + count]) for axis in range(count)]
    if mode == 'VALID':
        return [(0, 0)] * count
    if mode not in ('SAME_UPPER', 'SAME_LOWER'):
        return None
    found = []
    for axis in range(count):
        out = -(-size[axis] // strides[axis])
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        total = max(0, (out - 1) * strides[axis] + reach - size[axis])
        less, more = total // 2, total - total // 2
        found.append((less, more) if mode == 'SAME_UPPER' else (more, less))
    return found


def flat_pads(pads: Sequence[tuple[int, int]]) -> list[int]:
    """As the attribute of a node has it: all begins, then all ends."""
    return [begin for begin, _ in pads] + [end for _, end in pads]


def _static(value: Any) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField('shape'):
        return None
    sizes = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
    fixed = all(dim.HasField('dim_value') for dim in tensor.shape.dim)
    return sizes if fixed and all(size > 0 for size in sizes) else None


def _new(like: str, there: set[str]) -> str:
    name, number = like, 1
    while name in there:
        number += 1
        name = f'{like}_{number}'
    there.add(name)
    return name

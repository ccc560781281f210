"""What two networks share that differ in their weights only."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from airside_perception.engine.graph import inputs

FLOATS = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE,
)  # fmt: skip
"""Kinds of numbers that are learnt. Whole numbers are shapes, axes and indices: structure."""
DIGITS = 16


def structure(model: Any) -> list[str]:
    """A network without its weights, a line a thing: inputs, outputs, nodes, kinds of weights.

    Names, operators, attributes, shapes and the values of whole numbers are in it; the values of
    floats in initialisers and Constant nodes are not.
    """
    graph = model.graph
    lines = [f'opset {item.domain or "ai.onnx"} {item.version}' for item in model.opset_import]
    lines += [f'input {_port(value)}' for value in inputs(model)]
    lines += [f'output {_port(value)}' for value in graph.output]
    lines += [_stored(tensor.name, tensor) for tensor in graph.initializer]
    return sorted(lines) + [_node(node) for node in graph.node]


def structure_sha256(model: Any) -> str:
    """Hash of `structure`."""
    return hashlib.sha256('\n'.join(structure(model)).encode()).hexdigest()


def structure_difference(before: Any, now: Any) -> str:
    """The first thing in which the structures of two networks differ; empty: in nothing."""
    old, new = structure(before), structure(now)
    gone = [line for line in old if line not in set(new)]
    come = [line for line in new if line not in set(old)]
    if not gone and not come:
        return '' if old == new else 'the same nodes in another order'
    return f'{(come or ["nothing"])[0]}, and it was {(gone or ["nothing"])[0]}'


def weight_values(model: Any) -> dict[str, NDArray[Any]]:
    """{weight: value}: initialisers and Constant nodes of floats, by the names TensorRT knows."""
    graph = model.graph
    found = {
        tensor.name: np.asarray(numpy_helper.to_array(tensor))
        for tensor in graph.initializer
        if tensor.data_type in FLOATS
    }
    for node in graph.node:
        for item in node.attribute if node.op_type == 'Constant' else ():
            if item.name == 'value' and item.t.data_type in FLOATS:
                found[node.output[0]] = np.asarray(numpy_helper.to_array(item.t))
            elif item.name in ('value_float', 'value_floats'):
                value = helper.get_attribute_value(item)
                found[node.output[0]] = np.asarray(value, np.float32)
    return found


def weight_hashes(model: Any) -> dict[str, str]:
    """{weight: the first digits of the SHA-256 of its value}."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:DIGITS]
        for name, value in weight_values(model).items()
    }


def _port(value: Any) -> str:
    kind = value.type.tensor_type
    shape = [dim.dim_value or dim.dim_param or '?' for dim in kind.shape.dim]
    return f'{value.name}: {_kind(kind.elem_type)} {shape}'


def _node(node: Any) -> str:
    attributes = ', '.join(sorted(_attribute(item) for item in node.attribute))
    name = f' {node.name!r}' if node.name else ''
    operator = f'{node.domain}::{node.op_type}' if node.domain else node.op_type
    return (
        f'node{name} {operator}({", ".join(node.input)}) -> {", ".join(node.output)}'
        + (f' {{{attributes}}}' if attributes else '')
    )  # fmt: skip


def _attribute(item: Any) -> str:
    value = helper.get_attribute_value(item)
    if item.type == AttributeProto.TENSOR:
        return _stored(item.name, value)
    if item.name in ('value_float', 'value_floats'):
        return f'{item.name}: {len(np.atleast_1d(value))} floats'
    if item.type == AttributeProto.GRAPH:  # a graph: its weights are no weights here
        return f'{item.name}: {hashlib.sha256(value.SerializeToString()).hexdigest()}'
    return f'{item.name}: {list(value) if isinstance(value, (list, tuple)) else value}'


def _stored(name: str, tensor: Any) -> str:
    said = f'weight {name}: {_kind(tensor.data_type)} {list(tensor.dims)}'
    if tensor.data_type in FLOATS:
        return said
    value = np.asarray(numpy_helper.to_array(tensor))
    digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:DIGITS]
    return f'{said} {value.ravel().tolist() if value.size <= DIGITS else digest}'


def _kind(number: int) -> str:
    return str(TensorProto.DataType.Name(number)).lower()

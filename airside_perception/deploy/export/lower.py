"""An older opset for a network: what dynamo writes is newer than many a TensorRT."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

from airside_perception.deploy import tidy
from airside_perception.deploy.large import copy_whole
from airside_perception.deploy.outputs import one_line
from airside_perception.engine.graph import FILE_VERSIONS, opset, replace_nodes
from airside_perception.errors import EngineError

FILE_VERSION = 8
"""What goes with opset 15 to 18."""


def with_opset(model: Any, version: int) -> Any:
    """`model` with this opset, itself where it has it.

    onnx's converter looks for axes and the like in Constant nodes, and leaves attributes that
    the older operator does not have; both are seen to. Whoever calls this compares the outputs.

    Raises:
        EngineError: an operator has no counterpart there.
    """
    if opset(model) == version:
        return model
    changed = copy_whole(model)
    _integers_as_nodes(changed.graph)
    try:
        older = onnx.version_converter.convert_version(changed, version)
    except Exception as error:  # the converter raises RuntimeError and its own, with no base
        raise EngineError(
            f'opset {opset(model)} cannot become {version}: {one_line(error, 160)}'
        ) from error
    older.ir_version = FILE_VERSIONS.get(version, FILE_VERSION)
    _drop_defaults(older, opset(model))
    try:
        tidy.check(older)
    except EngineError as error:
        raise EngineError(f'opset {opset(model)} cannot become {version}: {error}') from error
    return older


def _integers_as_nodes(graph: Any) -> None:
    nodes, kept = [], []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT64:
            nodes.append(helper.make_node('Constant', [], [tensor.name], value=tensor))
        else:
            kept.append(tensor)
    if nodes:
        copies = []
        for tensor in kept:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copies.append(copy)
        del graph.initializer[:]
        graph.initializer.extend(copies)
        replace_nodes(graph, [*nodes, *graph.node])


def _drop_defaults(model: Any, newer: int) -> None:
    """Removes attributes that the older operator does not have, where they say the default."""
    older = opset(model)
    for node in tidy.all_nodes(model):
        if node.domain not in tidy.STANDARD or not onnx.defs.has(node.op_type):
            continue
        known = onnx.defs.get_schema(node.op_type, older).attributes
        later = onnx.defs.get_schema(node.op_type, newer).attributes
        for item in list(node.attribute):
            if item.name in known or item.name not in later:
                continue
            default = later[item.name].default_value
            if default.name and helper.get_attribute_value(item) == helper.get_attribute_value(
                default
            ):
                node.attribute.remove(item)

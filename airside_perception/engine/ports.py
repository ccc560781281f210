"""Inputs and outputs of a network in fp16, whatever is between them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from onnx import TensorProto, helper

from airside_perception.engine.graph import copied, inputs, replace_nodes

WHOLE = '/fp32'
"""Ending of the names inside that inputs and outputs had outside."""


def half_ports(model: Any, names: Collection[str]) -> Any:
    """A copy of `model` in which those of these inputs and outputs that are fp32 are fp16.

    Casts stand between them and the network, which stays as it is: for networks that were given
    their precision by whoever made them, and that a detector feeds in fp16.

    Raises:
        EngineError: control flow.
    """
    model = copied(model)
    graph = model.graph
    given, made = (
        [
            v
            for v in values
            if v.name in names and v.type.tensor_type.elem_type == TensorProto.FLOAT
        ]
        for values in (inputs(model), graph.output)
    )
    whole = {value.name: f'{value.name}{WHOLE}' for value in (*given, *made)}
    for node in graph.node:
        node.input[:] = [whole.get(name, name) for name in node.input]
        node.output[:] = [whole.get(name, name) for name in node.output]
    before = [_cast(v.name, whole[v.name], TensorProto.FLOAT) for v in given]
    after = [_cast(whole[v.name], v.name, TensorProto.FLOAT16) for v in made]
    replace_nodes(graph, [*before, *graph.node, *after])
    for value in (*given, *made):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def _cast(source: str, target: str, kind: int) -> Any:
    return helper.make_node('Cast', [source], [target], name=f'{target}/cast', to=kind)

"""What half precision costs, on a CPU: fp16 with its rounding and its overflow.

ONNX Runtime's CPU provider has few fp16 kernels. It computes such nodes in fp32 and leaves out the
casts between two of them, so an activation of 1e5 passes where a GPU would make it infinite. Here
every node computes in fp32 and what it puts out is rounded to fp16, by casts that are part of the
graph and therefore stay: fp16 storage with fp32 sums, as Tensor Cores have it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.graph import copied, inferred, inputs, replace_nodes

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
EXACT = frozenset((
    'Abs', 'Concat', 'DepthToSpace', 'Expand', 'Flatten', 'Gather', 'Identity', 'Max', 'MaxPool',
    'Min', 'Neg', 'Relu', 'Reshape', 'Slice', 'SpaceToDepth', 'Split', 'Squeeze', 'Tile',
    'Transpose', 'Unsqueeze',
))  # fmt: skip
"""What they put out was put in: nothing to round."""
TYPED = frozenset(('Cast', 'ConstantOfShape', 'EyeLike'))
"""Their type is an attribute: they go on making fp16."""
SINGLE, LONG = '/as_fp32', '/not_rounded'


def rounded_half(model: Any) -> Any:
    """A copy of an fp16 network whose nodes compute in fp32 and round what they put out to fp16.

    Inputs and outputs keep their names and types; tensors between keep their names and are fp32.

    Args:
        model: with fp16 tensors, as `precision.to_half` makes it; others are returned as they are.

    Raises:
        EngineError: control flow, or types that contradict one another.
    """
    model = inferred(copied(model))
    graph = model.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in _values(graph)}
    kinds.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    half = {name for name, kind in kinds.items() if kind == HALF}
    if not half:
        return model
    _widen_weights(graph)
    ports = {value.name for value in (*inputs(model), *graph.output)} & half
    nodes = [_cast(v.name, v.name + SINGLE, FLOAT) for v in inputs(model) if v.name in half]
    for node in graph.node:
        exact = node.op_type in EXACT
        typed = node.op_type in TYPED or any(item.name == 'dtype' for item in node.attribute)
        for place, name in enumerate(node.input):
            node.input[place] = name + SINGLE if name in ports else name
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in half and (typed or not exact or name in ports):
                nodes += _rounding(node, place, name in ports, typed)
    replace_nodes(graph, nodes)
    del graph.value_info[:]
    return inferred(model)


def _rounding(node: Any, place: int, port: bool, typed: bool) -> list[Any]:
    """Casts to fp16 and back after an output of a node, which gets another name."""
    name = node.output[place]
    short, again = (name, name + SINGLE) if port else (f'{name}/fp16', name)
    node.output[place] = short if typed else name + LONG
    casts = [] if typed else [_cast(node.output[place], short, HALF)]
    return [*casts, _cast(short, again, FLOAT)]


def _widen_weights(graph: Any) -> None:
    for tensor in graph.initializer:
        if tensor.data_type == HALF:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _values(graph: Any) -> list[Any]:
    return [*graph.value_info, *graph.input, *graph.output]


def _cast(source: str, target: str, kind: int) -> Any:
    return helper.make_node('Cast', [source], [target], f'{target}/cast', to=kind)

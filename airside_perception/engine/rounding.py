"""What half precision costs, computed in fp32: the network with its tensors rounded to fp16.

An engine multiplies fp16 numbers and adds them up in fp32 or finer, then rounds what it writes. So
an fp32 network whose weights and written tensors are rounded answers as the best fp16 engine
would, whatever kernels a GPU chooses. ONNX Runtime's own fp16 on a CPU is no measure: it joins
operators in fp32 and leaves roundings out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.graph import (
    copied,
    float_tensors,
    inferred,
    inputs,
    name_nodes,
    replace_nodes,
)

JOINED = ('Relu', 'Clip', 'LeakyRelu', 'Sigmoid', 'HardSigmoid', 'Add')
"""Engines compute these with the convolution before them, and write only the result."""
LARGEST_HALF = float(np.finfo(np.float16).max)


def rounded_to_half(model: Any, keep: Collection[str] = (), ports: bool = True) -> Any:
    """A copy of an fp32 network that rounds weights and tensors to fp16, and answers in fp32.

    Run it without graph optimisation: an optimiser may take the roundings for useless casts.

    Args:
        model: fp32 network.
        keep: names of nodes whose weights and results stay fp32.
        ports: inputs and outputs are rounded, too.

    Raises:
        EngineError: control flow, or a tensor whose type does not follow from the graph.
    """
    model = inferred(copied(model))
    graph = model.graph
    name_nodes(graph)
    rounder = _Rounder(graph, float_tensors(model), frozenset(keep))
    if ports:
        for value in inputs(model):
            rounder.round(value.name, f'{value.name}_rounded')
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        rounder.add(node, outputs, ports)
    replace_nodes(graph, rounder.nodes)
    del graph.value_info[:]
    return model


class _Rounder:
    """The nodes of the copy, and what stands for each tensor now."""

    def __init__(self, graph: Any, floats: set[str], keep: frozenset[str]) -> None:
        self.nodes: list[Any] = []
        self._floats, self._keep = floats, keep
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._now: dict[str, str] = {}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def add(self, node: Any, outputs: set[str], ports: bool) -> None:
        """Takes over a node, and rounds what it writes."""
        kept = node.name in self._keep
        if not kept:
            for name in node.input:
                self._round_weight(name)
        for place, name in enumerate(node.input):
            node.input[place] = self._now.get(name, name)
        rounds = []
        for place, name in enumerate(node.output):
            if kept or name not in self._floats or self._joined(node, name):
                continue
            if name in outputs:
                if ports:
                    node.output[place] = f'{name}_exact'
                    rounds.append((f'{name}_exact', name))
            else:
                rounds.append((name, f'{name}_rounded'))
        self.nodes.append(node)
        for source, target in rounds:
            self.round(source, target)

    def round(self, source: str, target: str) -> None:
        """`target` is `source`, rounded; readers of `source` get it from now on."""
        if source not in self._floats and target not in self._floats:
            return
        code = f'{target}_fp16'
        self.nodes.append(helper.make_node('Cast', [source], [code], to=TensorProto.FLOAT16))
        self.nodes.append(helper.make_node('Cast', [code], [target], to=TensorProto.FLOAT))
        if source in self._floats:
            self._now[source] = target

    def _joined(self, node: Any, name: str) -> bool:
        """Whether the result only goes on into an operator that is computed with the node."""
        readers = self._readers.get(name, [])
        alone = len(readers) == 1 and readers[0].op_type in JOINED
        return node.op_type in ('Conv', 'ConvTranspose', 'Gemm', 'Add') and alone

    def _round_weight(self, name: str) -> None:
        tensor = self._stored.get(name)
        if tensor is None or name not in self._floats:
            return
        value = np.clip(numpy_helper.to_array(tensor), -LARGEST_HALF, LARGEST_HALF)
        half = value.astype(np.float16).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(half, name))

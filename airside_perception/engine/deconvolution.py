"""Deconvolutions as convolutions: where INT8 deconvolutions are not to be had."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from airside_perception.engine.graph import (
    copied,
    drop_unused,
    opset,
    replace_nodes,
    store,
    weights,
)

CRD_OPSET = 11
"""DepthToSpace knows the order of channels that is used here from this version on."""


def split_deconvolutions(model: Any, keep: Collection[str] = ()) -> Any:
    """A copy of `model` in which deconvolutions become 1x1 convolutions + DepthToSpace.

    That is exact where the kernel is as large as the stride, since no two inputs meet in an
    output: y[o, k h + i, k w + j] = b[o] + sum over c of W[c, o, i, j] x[c, h, w], a 1x1
    convolution to the channels (o, i, j) and their rearrangement. Others stay as they are:
    padded, grouped, dilated, not square, with computed weights, or of an opset below 11; and so
    do nodes whose names are in `keep`.
    """
    model = copied(model)
    graph, stored, nodes = model.graph, weights(model), []
    for node in graph.node:
        split = opset(model) >= CRD_OPSET and node.name not in keep
        size = _stride(node, stored) if split else 0
        nodes += _split(node, size, graph, stored) if size else [node]
    replace_nodes(graph, nodes)
    drop_unused(graph)
    return model


def _split(node: Any, size: int, graph: Any, stored: dict[str, NDArray[Any]]) -> list[Any]:
    stem = node.name or node.output[0]
    kernel = stored[node.input[1]]  # [c, o, i, j]
    kernel = kernel.transpose(1, 2, 3, 0).reshape(-1, kernel.shape[0], 1, 1)
    names = [node.input[0], store(graph, f'{stem}_weight_1x1', kernel)]
    if len(node.input) > 2 and node.input[2]:
        bias = np.repeat(stored[node.input[2]], size * size)
        names.append(store(graph, f'{stem}_bias_1x1', bias))
    result = node.output[0]
    deep = f'{stem}_channels' if size > 1 else result
    conv = helper.make_node('Conv', names, [deep], f'{stem}_1x1', kernel_shape=[1, 1])
    if size == 1:
        return [conv]
    space = helper.make_node('DepthToSpace', [deep], [result], f'{stem}_space', blocksize=size)
    space.attribute.append(helper.make_attribute('mode', 'CRD'))
    return [conv, space]


def _stride(node: Any, stored: dict[str, NDArray[Any]]) -> int:
    """The stride of a deconvolution that can be split; 0: it cannot."""
    if node.op_type != 'ConvTranspose':
        return 0
    if any(name and name not in stored for name in node.input[1:]):
        return 0
    said = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    size = stored[node.input[1]].shape[2:]
    plain = (
        len(size) == 2
        and size[0] == size[1]
        and tuple(said.get('strides', (1, 1))) == size
        and not any(said.get('pads', ()))
        and not any(said.get('output_padding', ()))
        and 'output_shape' not in said
        and set(said.get('dilations', (1,))) == {1}
        and said.get('group', 1) == 1
        and said.get('auto_pad', b'NOTSET') in (b'NOTSET', b'VALID')
    )
    return int(size[0]) if plain else 0

"""A network with its means in float64: what the rounding of long sums does to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from airside_perception.deploy.rewrites.network import Network

KINDS = ('GlobalAveragePool', 'ReduceMean')
AXES_OPSET = 18
"""The axes of ReduceMean are an input from this version on, and an attribute before."""


def precise_means(model: Any) -> Any | None:
    """A copy whose means over fp32 tensors are computed in float64; None where it has none."""
    net = Network(model)
    for node in list(net.nodes):
        if node.op_type not in KINDS or net.dtype(node.input[0]) != np.float32:
            continue
        x, out = node.input[0], node.output[0]
        wide, mean = net.name(f'{out}_wide'), net.name(f'{out}_mean')
        names = [wide, *node.input[1:]]
        said: dict[str, Any] = {}
        if node.op_type == 'GlobalAveragePool':
            axes = list(range(2, len(net.shape(x) or ())))
            if not axes:
                continue
            if net.opset >= AXES_OPSET:
                names.append(net.store(f'{out}_axes', np.array(axes, np.int64)))
            else:
                said['axes'] = axes
        inner = net.node('ReduceMean', names, mean, **said)
        if node.op_type == 'ReduceMean':
            inner.attribute.extend(node.attribute)
        net.replace(
            node,
            [
                net.node('Cast', [x], wide, to=TensorProto.DOUBLE),
                inner,
                net.node('Cast', [mean], out, to=TensorProto.FLOAT),
            ],
        )
        net.changes.append(out)
    changed, changes = net.model()
    return changed if changes else None

"""LeakyRelu and PRelu in the forms on which sources agree.

PRelu with a constant slope is LeakyRelu with a slope for every channel. PRelu with a slope that is
computed is max(x, 0) + a min(x, 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, attributes, label

SLOPE = 0.01
BROADCAST_OPSET = 8
"""Min takes tensors of different shapes from this version on."""


def leaky_to_prelu(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Makes LeakyRelu a PRelu, and PRelu with a computed slope Relu, Min, Mul and Add.

    Left as they are: LeakyRelu on other than four axes, PRelu with a constant slope.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes) if net.opset >= BROADCAST_OPSET else []:
        if not node.input or not net.is_float(node.input[0]):
            continue
        if node.op_type == 'LeakyRelu':
            _leaky(net, node)
        elif node.op_type == 'PRelu' and net.constant(node.input[1]) is None:
            _computed(net, node)
    return net.model()


def _leaky(net: Network, node: Any) -> None:
    x, out = node.input[0], node.output[0]
    shape = net.shape(x)
    if shape is None or len(shape) != 4:
        return
    slope = float(attributes(node).get('alpha', SLOPE))
    value = np.full((1, shape[1], 1, 1), slope, net.dtype(x))
    name = net.store(f'{out}_slope', value)
    net.replace(node, [net.node('PRelu', [x, name], out, node.name)])
    net.changes.append(f'{label(node)}: LeakyRelu -> PRelu, slope {slope:g}')


def _computed(net: Network, node: Any) -> None:
    (x, slope), out = node.input, node.output[0]
    zero = net.number(0.0, x, f'{out}_zero')
    high, low, scaled = (net.name(f'{out}_{part}') for part in ('high', 'low', 'scaled'))
    new = [
        net.node('Relu', [x], high),
        net.node('Min', [x, zero], low),
        net.node('Mul', [low, slope], scaled),
        net.node('Add', [high, scaled], out, node.name),
    ]
    net.replace(node, new)
    net.changes.append(f'{label(node)}: PRelu with a computed slope -> Relu, Min, Mul, Add')

"""Arithmetic on which sources disagree, by operators that the DLA has for certain.

x / c is x * (1 / c) up to the last bit, -x is x * -1, x^2 is x * x.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, label


def plain_arithmetic(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Makes Div by constants, Neg and squares by Pow multiplications.

    Left as they are: integers, divisors that have no finite reciprocal, other powers.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes):
        if not node.input or not net.is_float(node.input[0]):
            continue
        factor = _factor(net, node)
        if factor is None:
            continue
        x, out = node.input[0], node.output[0]
        net.replace(node, [net.node('Mul', [x, factor], out, node.name)])
        net.changes.append(f'{label(node)}: {node.op_type} -> Mul')
    return net.model()


def _factor(net: Network, node: Any) -> str | None:
    """What to multiply the first input by."""
    x = node.input[0]
    if node.op_type == 'Neg':
        return net.number(-1.0, x, f'{node.output[0]}_sign')
    value = net.constant(node.input[1]) if len(node.input) == 2 else None
    if value is None or net.constant(x) is not None:
        return None
    if node.op_type == 'Pow':
        return str(x) if value.size == 1 and value.ndim < 2 and value.item() == 2 else None
    if node.op_type != 'Div':
        return None
    with np.errstate(all='ignore'):
        inverse = (1 / value.astype(np.float64)).astype(value.dtype)
    tiny = np.finfo(value.dtype).tiny
    if not np.isfinite(inverse).all() or (np.abs(inverse) < tiny).any():
        return None
    rank = len(net.shape(x) or ())
    if inverse.ndim < rank:  # the DLA has no operands of fewer axes
        inverse = inverse.reshape((1,) * (rank - inverse.ndim) + inverse.shape)
    return net.store(f'{node.input[1]}_inverse', inverse)

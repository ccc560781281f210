"""Padded deconvolutions as deconvolutions without padding, cut to size.

Padding of a deconvolution takes rows and columns off its result. Without it they are there, and
a Slice with step 1, which the DLA has, takes them off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, attributes, label

STEPS_OPSET = 10
"""The limits of Slice are inputs from this version on."""


def unpad_deconvolutions(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Gives 2D ConvTranspose nodes with padding none, and a Slice after it.

    Left as they are: automatic padding, a given output shape, output padding beyond the padding,
    computed weights, unknown sizes.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes) if net.opset >= STEPS_OPSET else []:
        if node.op_type == 'ConvTranspose':
            _unpad(net, node)
    return net.model()


def _unpad(net: Network, node: Any) -> None:
    said, weight, shape = attributes(node), net.constant(node.input[1]), net.shape(node.output[0])
    if weight is None or weight.ndim != 4 or shape is None:
        return
    if 'output_shape' in said or said.get('auto_pad', 'NOTSET') != 'NOTSET':
        return
    pads, more = said.get('pads', [0] * 4), said.get('output_padding', [0, 0])
    ends = [pads[axis + 2] - more[axis] for axis in (0, 1)]
    if not any(pads) or min(ends) < 0:
        return
    out = node.output[0]
    whole = net.name(f'{out}_whole')
    kept = {
        name: value
        for name, value in said.items()
        if name not in ('pads', 'output_padding', 'auto_pad')
    }
    new = net.node('ConvTranspose', node.input, whole, **kept)
    limits = {
        'starts': pads[:2],
        'ends': [pads[axis] + shape[axis + 2] for axis in (0, 1)],
        'axes': [2, 3],
    }
    names = [
        net.store(f'{out}_{name}', np.array(value, np.int64)) for name, value in limits.items()
    ]
    net.replace(node, [new, net.node('Slice', [whole, *names], out, node.name)])
    net.changes.append(f'{label(node)}: padding {pads} -> none, and a Slice')

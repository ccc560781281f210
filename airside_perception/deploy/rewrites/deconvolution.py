"""Padded deconvolutions as deconvolutions without padding, cut to size; DepthToSpace as one.

Padding of a deconvolution takes rows and columns off its result. Without it they are there, and
a Slice with step 1, which the DLA has, takes them off. DepthToSpace (PixelShuffle) with blocks of
s x s is a deconvolution with stride s, an s x s kernel and a single 1 for every input channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, attributes, label
from airside_perception.deploy.rewrites.shuffles import channels_to_blocks, shuffle_to

LARGEST_BLOCK = 22
STEPS_OPSET = 10
"""The limits of Slice are inputs from this version on."""


def unpad_deconvolutions(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Gives 2D ConvTranspose nodes with padding none, and a Slice after it; see above.

    Left as they are: automatic padding, a given output shape, output padding beyond the padding,
    computed weights, unknown sizes, blocks above 22.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes):
        if node.op_type == 'ConvTranspose' and net.opset >= STEPS_OPSET:
            _unpad(net, node)
        elif node.op_type == 'DepthToSpace':
            said = attributes(node)
            _spread(net, node, node.input[0], int(said['blocksize']), said.get('mode', 'DCR'))
        elif (shuffle := shuffle_to(net, node)) is not None:
            shape = net.shape(shuffle.source) or ()
            size = shuffle.places.shape[2] // shape[2]
            mode = channels_to_blocks(shuffle, shape, size) if size > 1 else ''
            if mode:
                _spread(net, node, shuffle.source, size, mode)
    return net.model()


def _spread(net: Network, node: Any, x: str, size: int, mode: str) -> None:
    """A deconvolution in the place of DepthToSpace."""
    shape, out = net.shape(x), node.output[0]
    if shape is None or len(shape) != 4 or size > LARGEST_BLOCK or not net.is_float(x):
        return
    channels = shape[1] // (size * size)
    unit = np.eye(shape[1], dtype=net.dtype(x))
    if mode == 'DCR':
        weight = unit.reshape(-1, size, size, channels).transpose(0, 3, 1, 2)
    else:
        weight = unit.reshape(-1, channels, size, size)
    name = net.store(f'{out}_blocks', weight)
    new = net.node(
        'ConvTranspose', [x, name], out, node.name, kernel_shape=[size, size],
        strides=[size, size],
    )  # fmt: skip
    net.replace(node, [new])
    net.changes.append(f'{label(node)}: depth to space -> {size}x{size} deconvolution')


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

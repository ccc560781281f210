"""Batch normalisation as part of the convolution before it.

y = gamma (conv(x) - mean) / sqrt(variance + epsilon) + beta is a convolution with the weights
W gamma / sqrt(variance + epsilon) and the bias (b - mean) gamma / sqrt(variance + epsilon) + beta.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, attributes, given, label

CHANNEL_AXES = {'Conv': 0, 'ConvTranspose': 1}
EPSILON = 1e-5


def fold_batch_norms(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Folds BatchNormalization into the Conv or ConvTranspose that it alone reads.

    Left as they are: in training mode, with computed values, after a convolution that somebody
    else reads or that is an output, after grouped deconvolutions.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes):
        if node.op_type == 'BatchNormalization':
            _fold(net, node)
    return net.model()


def _fold(net: Network, node: Any) -> None:
    conv = net.maker(node.input[0])
    if conv is None or conv.op_type not in CHANNEL_AXES:
        return
    said = attributes(node)
    training = said.get('training_mode', 0) or any(node.output[1:])
    if training or net.only_reader(conv.output[0]) is not node:
        return
    if conv.op_type == 'ConvTranspose' and attributes(conv).get('group', 1) != 1:
        return
    weight, old = net.constant(conv.input[1]), net.constant(given(conv, 2))
    values = [net.constant(name) for name in node.input[1:5]]
    if weight is None or (old is None and given(conv, 2)):
        return
    if any(value is None for value in values):
        return
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(variance + said.get('epsilon', EPSILON))
    bias = ((0.0 if old is None else old.astype(np.float64)) - mean) * scale + beta
    along = [1] * weight.ndim
    along[CHANNEL_AXES[conv.op_type]] = -1
    folded = (weight * scale.reshape(along)).astype(weight.dtype)
    out = node.output[0]
    names = [
        conv.input[0],
        net.store(f'{conv.input[1]}_folded', folded),
        net.store(f'{out}_bias', bias.astype(weight.dtype)),
    ]
    new = net.node(conv.op_type, names, out, conv.name)
    new.attribute.extend(conv.attribute)
    net.replace(node, [new])
    net.replace(conv, [])
    net.changes.append(f'{label(node)}: folded into {label(conv)}')

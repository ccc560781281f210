"""Floating-point operations of a node: two for every multiply-accumulate."""

from __future__ import annotations

import math

from airside_perception.deploy.lint.facts import Subject, Unknown
from airside_perception.deploy.lint.facts.windows import kernel

NO_ARITHMETIC = {
    'Cast', 'CastLike', 'Concat', 'Constant', 'ConstantOfShape', 'DepthToSpace', 'Dropout',
    'Expand', 'Flatten', 'Gather', 'GatherElements', 'GatherND', 'Identity', 'Pad', 'Reshape',
    'ScatterElements', 'ScatterND', 'Shape', 'Size', 'Slice', 'SpaceToDepth', 'Split', 'Squeeze',
    'Tile', 'Transpose', 'Unsqueeze', 'Where',
}  # fmt: skip
PER_ELEMENT = {
    'BatchNormalization': 2, 'Softmax': 3, 'LogSoftmax': 3, 'LRN': 3,
    'InstanceNormalization': 5, 'LayerNormalization': 5, 'GroupNormalization': 5,
}  # fmt: skip
"""Operations for each element of the output; 1 for every other pointwise operator."""
GATES = {'LSTM': 4, 'GRU': 3, 'RNN': 1}


def flops(subject: Subject) -> int:
    """Operations of one run of a node at the batch of the network.

    Convolution: 2 x output elements x input channels of a group x kernel cells. Deconvolution:
    2 x input elements x output channels of a group x kernel cells. Gemm and MatMul: 2 x output
    elements x inner dimension. Pools and reductions: one for each element that is read. Linear
    resize: 2 for each of the 4 neighbours. Recurrent: 2 x steps x batch x gates x hidden x (input
    + hidden), for each direction. Anything else: `PER_ELEMENT`. Biases and what only moves data
    count nothing. Activations count for themselves (1 an element) although TensorRT fuses them.
    """
    node = subject.at
    if not node.layer or node.op_type in NO_ARITHMETIC or not node.outputs:
        return 0
    try:
        return _count(subject)
    except Unknown:
        return 0


def _count(s: Subject) -> int:
    kind = s.at.op_type
    out = math.prod(s.fixed(output=True))
    if kind == 'Conv':
        return 2 * out * math.prod(s.fixed(1)[1:])
    if kind == 'ConvTranspose':
        return 2 * math.prod(s.fixed()) * math.prod(s.fixed(1)[1:])
    if kind == 'MatMul':
        return 2 * out * s.fixed()[-1]
    if kind == 'Gemm':
        return 2 * out * s.fixed()[0 if s.attribute('transA', 0) else 1]
    if kind in ('MaxPool', 'AveragePool', 'LpPool'):
        return out * math.prod(kernel(s))
    if kind.startswith(('Global', 'Reduce', 'Arg')):
        return math.prod(s.fixed())
    if kind in ('Resize', 'Upsample'):
        return 8 * out if s.attribute('mode', 'nearest') == 'linear' else 0
    if kind in GATES:
        steps, batch, width = s.fixed()
        directions, hidden = s.fixed(1)[0], s.attribute('hidden_size')
        return int(2 * steps * batch * directions * GATES[kind] * hidden * (width + hidden))
    return out * PER_ELEMENT.get(kind, 1)

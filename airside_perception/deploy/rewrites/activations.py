"""Activations that TensorRT builds from layers the DLA lacks, written with those that it has.

SiLU is x * Sigmoid(x) already where PyTorch exported it; newer operators are taken apart:
Swish: x * Sigmoid(a x); HardSigmoid: Clip(a x + b, 0, 1); HardSwish: x times that with a = 1/6,
b = 1/2; Mish: x * tanh(ln(1 + e^x)), which with s = Sigmoid(x) and q = Sigmoid(-x), no small
difference of large numbers anywhere, is x * s * (1 + q) / (1 + q^2). a x + b is a depthwise
convolution where x has four axes: the DLA has no constant operands for certain. Clip is there from
0 to 1 ... 127; other limits are Relu, Max and Min.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, attributes, given, label

CLIP_OPSET = 11
"""The limits of Clip are inputs from this version on, and attributes before."""
CLIP_HIGH = (1.0, 127.0)
LARGEST_CHANNELS = 8192


def split_activations(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Writes Swish, QuickGelu, HardSigmoid, HardSwish, Mish and Clip with what the DLA has.

    Mish may be x * Tanh(Softplus(x)), as older exporters write it. Left as they are: Clip with
    computed limits, integers.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes):
        make = FORMS.get(node.op_type)
        if make is None or node.domain not in ('', 'ai.onnx', 'com.microsoft'):
            continue
        if not net.is_float(node.input[0]):
            continue
        write = _Writer(net, node)
        make(write, attributes(node))
        if write.nodes:
            net.replace(node, write.nodes)
            kinds = ', '.join(item.op_type for item in write.nodes)
            net.changes.append(f'{label(node)}: {node.op_type} -> {kinds}')
    return net.model()


class _Writer:
    """Writes the nodes that come in the place of one; the last takes its output."""

    def __init__(self, net: Network, node: Any) -> None:
        self.net = net
        self.node = node
        self.x = str(node.input[0])
        self.nodes: list[Any] = []

    def __call__(self, kind: str, *names: str, last: bool = False, **said: Any) -> str:
        """One node; returns what it makes."""
        out = str(self.node.output[0])
        if not last:
            out = self.net.name(f'{out}_{kind.lower()}')
        name = self.node.name if last else ''
        self.nodes.append(self.net.node(kind, names, out, name, **said))
        return out

    def number(self, value: float) -> str:
        """A constant for arithmetic with x."""
        return self.net.number(value, self.x, f'{self.node.output[0]}_number')

    def line(self, name: str, slope: float, offset: float = 0.0) -> str:
        """slope * tensor + offset, for a tensor of the shape of x."""
        shape = self.net.shape(self.x)
        if shape is None or len(shape) != 4 or shape[1] > LARGEST_CHANNELS:
            out = self('Mul', name, self.number(slope))
            return self('Add', out, self.number(offset)) if offset else out
        kind, channels = self.net.dtype(self.x), shape[1]
        like = f'{self.node.output[0]}_line'
        names = [name, self.net.store(f'{like}_slope', np.full((channels, 1, 1, 1), slope, kind))]
        if offset:
            names.append(self.net.store(f'{like}_offset', np.full(channels, offset, kind)))
        return self('Conv', *names, kernel_shape=[1, 1], group=channels)

    def unit_clip(self, name: str, last: bool) -> str:
        """Clip to 0 ... 1."""
        if self.net.opset < CLIP_OPSET:
            return self('Clip', name, last=last, min=0.0, max=1.0)
        kind = self.net.dtype(self.x)
        limits = [
            self.net.store(f'{self.node.output[0]}_{which}', np.array(value, kind))
            for which, value in (('min', 0), ('max', 1))
        ]
        return self('Clip', name, *limits, last=last)


def _swish(write: _Writer, said: dict[str, Any]) -> None:
    alpha = float(said.get('alpha', 1.702 if write.node.op_type == 'QuickGelu' else 1.0))
    inner = write.x if alpha == 1.0 else write.line(write.x, alpha)
    write('Mul', write.x, write('Sigmoid', inner), last=True)


def _hard_sigmoid(write: _Writer, said: dict[str, Any]) -> None:
    slope, offset = float(said.get('alpha', 0.2)), float(said.get('beta', 0.5))
    write.unit_clip(write.line(write.x, slope, offset), last=True)


def _hard_swish(write: _Writer, said: dict[str, Any]) -> None:
    share = write.unit_clip(write.line(write.x, 1 / 6, 0.5), last=False)
    write('Mul', write.x, share, last=True)


def _mish(write: _Writer, said: dict[str, Any]) -> None:
    write('Mul', write.x, _mish_share(write, last=False), last=True)


def _tanh_of_softplus(write: _Writer, said: dict[str, Any]) -> None:
    before = write.net.maker(write.x)
    if before is not None and before.op_type == 'Softplus':
        write.x = str(before.input[0])
        _mish_share(write, last=True)


def _mish_share(write: _Writer, last: bool) -> str:
    """tanh(ln(1 + e^x))."""
    s, q = write('Sigmoid', write.x), write('Sigmoid', write.line(write.x, -1.0))
    above = write('Mul', s, write.line(q, 1.0, 1.0))
    below = write.line(write('Mul', q, q), 1.0, 1.0)
    return write('Div', above, below, last=last)


def _clip(write: _Writer, said: dict[str, Any]) -> None:
    low, high = (_limit(write, said, *which) for which in ((1, 'min'), (2, 'max')))
    if low is None or high is None or not low <= high:
        return
    if low == 0.0 and CLIP_HIGH[0] <= high <= CLIP_HIGH[1]:
        return
    capped = high < float(np.finfo(write.net.dtype(write.x)).max)
    name = write.x
    if low == 0.0:
        name = write('Relu', name, last=not capped)
    elif low > float(np.finfo(write.net.dtype(write.x)).min):
        name = write('Max', name, write.number(low), last=not capped)
    if capped:
        write('Min', name, write.number(high), last=True)


def _limit(write: _Writer, said: dict[str, Any], index: int, name: str) -> float | None:
    """A limit of Clip; infinite where there is none, None where it is computed."""
    none = float('-inf' if name == 'min' else 'inf')
    if write.net.opset < CLIP_OPSET:
        return float(said.get(name, none))
    if not given(write.node, index):
        return none
    value = write.net.constant(given(write.node, index))
    return None if value is None else float(value.item())


FORMS: dict[str, Callable[[_Writer, dict[str, Any]], None]] = {
    'Swish': _swish,
    'QuickGelu': _swish,
    'HardSigmoid': _hard_sigmoid,
    'HardSwish': _hard_swish,
    'Mish': _mish,
    'Tanh': _tanh_of_softplus,
    'Clip': _clip,
}

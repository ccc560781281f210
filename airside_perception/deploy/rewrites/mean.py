"""Means over height and width by the pools and convolutions that the DLA has.

The DLA reduces by MAX only, and TensorRT makes a reduction of GlobalAveragePool. The mean over an
area is the mean over equal parts of their means, so it is a pool, or pools one after the other
with windows of at most 8; where the size has larger prime factors, a depthwise convolution with
equal weights does the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import (
    Network,
    attributes,
    flat_pads,
    label,
    reduced_axes,
    window,
)

LARGEST_WINDOW = 8
LARGEST_KERNEL = 32
LARGEST_STRIDE = 8
AXES_OPSET = 18
"""The axes of ReduceMean are an input from this version on, and an attribute before."""
Parts = list[int]


def means_to_pools(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Makes ReduceMean over height and width, GlobalAveragePool and wide AveragePools legal.

    Left as they are: means over other axes, wide pools with padding that does not count or
    rounding up, sizes that are not known or have a prime factor above 32.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes):
        shape = net.shape(node.input[0]) if node.input else None
        if shape is None or len(shape) != 4 or not net.is_float(node.input[0]):
            continue
        if node.op_type == 'GlobalAveragePool':
            _whole(net, node, True)
        elif node.op_type == 'ReduceMean' and reduced_axes(net, node, AXES_OPSET) == {2, 3}:
            _whole(net, node, bool(attributes(node).get('keepdims', 1)))
        elif node.op_type == 'AveragePool':
            _wide(net, node)
    return net.model()


def factors(size: int) -> tuple[Parts, int] | None:
    """Windows of 2 to 8 and one larger rest whose product is `size`; None: the rest is above 32.

    The rest is 1 where the windows do.
    """
    if size <= LARGEST_WINDOW:
        return ([size] if size > 1 else []), 1
    rest = size
    parts: Parts = []
    while rest > 1:
        part = next((n for n in range(LARGEST_WINDOW, 1, -1) if rest % n == 0), 0)
        if not part:
            break
        parts.append(part)
        rest //= part
    return (parts, rest) if rest <= LARGEST_KERNEL else None


def _whole(net: Network, node: Any, keep: bool) -> None:
    """The mean over everything."""
    shape = net.shape(node.input[0]) or ()
    out = node.output[0]
    goal = out if keep else net.name(f'{out}_pooled')
    new = _cascade(net, node, goal, (shape[2], shape[3]), '' if not keep else node.name)
    if new is None:
        return
    if not keep:
        net.note(goal, (*shape[:2], 1, 1), node.input[0])
        target = net.store(f'{out}_shape', np.array(shape[:2], np.int64))
        new.append(net.node('Reshape', [goal, target], out, node.name))
    net.replace(node, new)
    _say(net, node, new)


def _wide(net: Network, node: Any) -> None:
    """A pool whose window is too large for the DLA."""
    said, shape = attributes(node), net.shape(node.input[0]) or ()
    kernel, strides = said['kernel_shape'], said.get('strides', [1, 1])
    pads = window(node, shape[2:], kernel)
    if max(kernel) <= LARGEST_WINDOW or pads is None or said.get('ceil_mode', 0):
        return
    if set(said.get('dilations', [1])) != {1}:
        return
    padded = max(map(max, pads)) > 0
    if padded and not said.get('count_include_pad', 0):
        return
    parts = not padded and list(strides) == list(kernel)
    parts = parts and all(n % k == 0 for n, k in zip(shape[2:], kernel, strict=True))
    new = _cascade(net, node, node.output[0], tuple(kernel), node.name) if parts else None
    if new is None and max(kernel) <= LARGEST_KERNEL and max(strides) <= LARGEST_STRIDE:
        new = [_conv(net, node, node.input[0], node.output[0], kernel, strides, node.name)]
        new[0].attribute.extend([_attribute('pads', flat_pads(pads))])
    if new is not None:
        net.replace(node, new)
        _say(net, node, new)


def _cascade(
    net: Network, node: Any, goal: str, size: tuple[int, ...], name: str
) -> list[Any] | None:
    """Nodes that take means of non-overlapping areas of this size; the last makes `goal`."""
    found = [factors(length) for length in size]
    if found[0] is None or found[1] is None:
        return None
    (rows, row_rest), (columns, column_rest) = found[0], found[1]
    depth = max(len(rows), len(columns), 1 if row_rest * column_rest == 1 else 0)
    rows, columns = (part + [1] * (depth - len(part)) for part in (rows, columns))
    steps = [('AveragePool', list(both)) for both in zip(rows, columns, strict=True)]
    if row_rest * column_rest > 1:
        steps.append(('Conv', [row_rest, column_rest]))
    new: list[Any] = []
    source = node.input[0]
    for index, (kind, window_size) in enumerate(steps):
        last = index == len(steps) - 1
        out = goal if last else net.name(f'{node.output[0]}_mean{index + 1}')
        like = name if last else ''
        if kind == 'AveragePool':
            made = net.node(
                kind, [source], out, like, kernel_shape=window_size, strides=window_size
            )
        else:
            # one output only where it is the whole area, so the stride does not matter
            whole = size == (net.shape(node.input[0]) or ())[2:]
            strides = [1, 1] if whole else window_size
            if max(strides) > LARGEST_STRIDE:
                return None
            made = _conv(net, node, source, out, window_size, strides, like)
        new.append(made)
        source = out
    return new


def _conv(
    net: Network, node: Any, source: str, out: str, kernel: Any, strides: Any, name: str
) -> Any:
    """A depthwise convolution with equal weights."""
    channels = (net.shape(node.input[0]) or ())[1]
    value = np.full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    weight = net.store(f'{out}_mean', value.astype(net.dtype(node.input[0])))
    return net.node(
        'Conv', [source, weight], out, name, kernel_shape=list(kernel), strides=list(strides),
        group=channels,
    )  # fmt: skip


def _attribute(name: str, value: Any) -> Any:
    from onnx import helper

    return helper.make_attribute(name, value)


def _say(net: Network, node: Any, new: list[Any]) -> None:
    kinds = ' + '.join(
        f'{item.op_type} {"x".join(map(str, attributes(item)["kernel_shape"]))}'
        for item in new
        if item.op_type != 'Reshape'
    )
    net.changes.append(f'{label(node)}: {node.op_type} -> {kinds}')

"""Focus slices, SpaceToDepth and PixelUnshuffle as one strided convolution.

Focus (YOLOX, YOLOv5) takes every s-th row and column of an image, once for every offset, and puts
the parts side by side as channels. Its block of offset (a, b) and channel c at (i, j) is
x[c, s i + a, s j + b]: a convolution with stride s, an s x s kernel and a single 1. A convolution
after it, kernel k, stride t, padding p, sees s x s pixels where it saw one, so both together are
one convolution with kernel s k, stride s t, padding s p; its padding was zero in both cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.rewrites.network import (
    Network,
    attributes,
    flat_pads,
    given,
    label,
    window,
)
from airside_perception.deploy.rewrites.shuffles import SHUFFLES, blocks_to_channels, shuffle_to

LARGEST_KERNEL = 32
LARGEST_STRIDE = 8
LARGEST_PAD = 31
STEPS_OPSET = 10
"""Slice has steps from this version on."""
Offset = tuple[int, int]


class Focus(NamedTuple):
    """Where a Focus is.

    Attributes:
        source: the tensor [N, C, H, W] that it takes apart.
        stride: every so manyth row and column.
        offsets: (row, column) of every block of C channels.
        interleaved: all offsets of a channel lie side by side, in place of all channels of an
            offset.
    """

    node: Any
    source: str
    stride: int
    offsets: tuple[Offset, ...]
    interleaved: bool = False


def focus_to_conv(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Makes strided slices that are concatenated, SpaceToDepth and PixelUnshuffle convolutions.

    Where one convolution with a plain window follows, both become one; otherwise the new
    convolution has weights of 0 and 1. Left as they are: slices that somebody else reads or that
    are outputs, that leave rows or columns out at the end, or whose sizes are not known.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes):
        find = FINDERS.get(node.op_type)
        focus = find(net, node) if find else None
        if focus and not _merge(net, focus):
            _select(net, focus)
    return net.model()


def _merge(net: Network, focus: Focus) -> bool:
    """Makes a Focus part of the convolution that follows."""
    conv = net.only_reader(focus.node.output[0])
    if conv is None or conv.op_type != 'Conv' or conv.input[0] != focus.node.output[0]:
        return False
    said, weight = attributes(conv), net.constant(conv.input[1])
    below, source = net.shape(focus.node.output[0]), net.shape(focus.source)
    if weight is None or weight.ndim != 4 or below is None or source is None:
        return False
    pads = window(conv, below[2:], weight.shape[2:])
    plain = said.get('group', 1) == 1 and set(said.get('dilations', [1])) == {1}
    if pads is None or not plain:
        return False
    s = focus.stride
    kernel = [s * size for size in weight.shape[2:]]
    strides = [s * stride for stride in said.get('strides', [1, 1])]
    pads = [(s * begin, s * end) for begin, end in pads]
    if (
        max(kernel) > LARGEST_KERNEL
        or max(strides) > LARGEST_STRIDE
        or max(map(max, pads)) > LARGEST_PAD
    ):
        return False
    name = net.store(f'{conv.input[1]}_focus', _merged(weight, source[1], focus))
    node = net.node(
        'Conv', [focus.source, name, *conv.input[2:]], conv.output[0], conv.name,
        kernel_shape=kernel, strides=strides, pads=flat_pads(pads),
    )  # fmt: skip
    net.replace(conv, [node])
    net.changes.append(
        f'{label(conv)}: {len(focus.offsets)} slices + {weight.shape[2]}x{weight.shape[3]} '
        f'convolution -> {kernel[0]}x{kernel[1]} convolution, stride {strides[0]}'
    )
    return True


def _merged(weight: NDArray[Any], channels: int, focus: Focus) -> NDArray[Any]:
    """Weights [O, blocks * C, k, l] of the convolution behind as [O, C, s k, s l]."""
    s = focus.stride
    out, _, rows, columns = weight.shape
    merged = np.zeros((out, channels, s * rows, s * columns), np.float64)
    for block, (row, column) in enumerate(focus.offsets):
        if focus.interleaved:
            part = weight[:, block :: len(focus.offsets)]
        else:
            part = weight[:, block * channels : (block + 1) * channels]
        merged[:, :, row::s, column::s] += part
    return merged.astype(weight.dtype)


def _select(net: Network, focus: Focus) -> None:
    """A convolution of its own, with one 1 for every output channel."""
    source = net.shape(focus.source) or ()
    s, channels = focus.stride, source[1]
    unit = np.eye(len(focus.offsets) * channels, dtype=net.dtype(focus.source))
    weight = _merged(unit[:, :, None, None], channels, focus)
    out = focus.node.output[0]
    name = net.store(f'{out}_focus', weight)
    node = net.node(
        'Conv', [focus.source, name], out, focus.node.name, kernel_shape=[s, s], strides=[s, s]
    )
    net.replace(focus.node, [node])
    net.changes.append(
        f'{label(focus.node)}: {len(focus.offsets)} blocks of channels -> {s}x{s} convolution, '
        f'stride {s}'
    )


def _focus(net: Network, node: Any) -> Focus | None:
    """The Focus that ends in a Concat."""
    if attributes(node).get('axis') not in (1, -3) or len(node.input) < 2:
        return None
    chain: list[Any] = [node]
    offsets, steps, sources = [], set(), set()
    for name in node.input:
        found = _sliced(net, name, chain)
        if found is None:
            return None
        source, step, offset = found
        offsets.append(offset)
        steps.add(step)
        sources.add(source)
    if len(steps) != 1 or len(sources) != 1:
        return None
    for part in chain[1:]:
        readers = net.readers(part.output[0])
        alone = all(any(reader is item for item in chain) for reader in readers)
        if part.output[0] in net.outputs or not alone:
            return None  # it stays, whatever is made of the others
    return _checked(net, Focus(node, sources.pop(), steps.pop(), tuple(offsets)))


def _sliced(net: Network, name: str, chain: list[Any]) -> tuple[str, int, Offset] | None:
    """Source, step and (row, column) of a tensor that Slices made; they join `chain`."""
    starts, steps, end = {2: 0, 3: 0}, {2: 1, 3: 1}, net.shape(name)
    while (node := net.maker(name)) is not None and node.op_type == 'Slice':
        part = slice_of(net, node)
        if part is None:
            return None
        for axis, (start, step, _) in part.items():
            starts[axis] = start + step * starts.get(axis, 0)
            steps[axis] = step * steps.get(axis, 1)
        chain.append(node)
        name = node.input[0]
    source = net.shape(name)
    if source is None or end is None or len(source) != 4 or steps[2] != steps[3]:
        return None
    step = steps[2]
    others = [axis for axis in steps if axis < 2 and (steps[axis], starts[axis]) != (1, 0)]
    if step < 2 or others or source[:2] != end[:2]:
        return None
    sizes = zip(source[2:], end[2:], strict=True)
    if any(size % step or size // step != part for size, part in sizes):
        return None
    if max(starts[2], starts[3]) >= step:
        return None
    return name, step, (starts[2], starts[3])


def slice_of(net: Network, node: Any) -> dict[int, tuple[int, int, int]] | None:
    """{axis: (start, step, count)} of a Slice with constants and positive steps, else None."""
    shape = net.shape(node.input[0])
    if shape is None or net.opset < STEPS_OPSET:
        return None
    starts, ends = (net.constant(given(node, index)) for index in (1, 2))
    axes, steps = (net.constant(given(node, index)) for index in (3, 4))
    if starts is None or ends is None:
        return None
    if (given(node, 3) and axes is None) or (given(node, 4) and steps is None):
        return None
    which = range(len(starts)) if axes is None else (int(axis) % len(shape) for axis in axes)
    found = {}
    for index, axis in enumerate(which):
        step = 1 if steps is None else int(steps[index])
        if step < 1:
            return None
        part = slice(int(starts[index]), int(ends[index]), step).indices(shape[axis])
        found[axis] = (part[0], step, len(range(*part)))
    return found


def _space_to_depth(net: Network, node: Any) -> Focus | None:
    """SpaceToDepth puts its blocks row by row, as Focus could."""
    size = int(attributes(node)['blocksize'])
    offsets = tuple((row, column) for row in range(size) for column in range(size))
    return _checked(net, Focus(node, node.input[0], size, offsets)) if size > 1 else None


def _pixel_unshuffle(net: Network, node: Any) -> Focus | None:
    """PixelUnshuffle of PyTorch: Reshape and Transpose of more than four axes."""
    shuffle = shuffle_to(net, node)
    source = None if shuffle is None else net.shape(shuffle.source)
    if shuffle is None or source is None:
        return None
    size = source[2] // shuffle.places.shape[2]
    order = blocks_to_channels(shuffle, source, size) if size > 1 else ''
    offsets = tuple((row, column) for row in range(size) for column in range(size))
    focus = Focus(node, shuffle.source, size, offsets, order == 'interleaved')
    return _checked(net, focus) if order else None


def _checked(net: Network, focus: Focus) -> Focus | None:
    """Itself where the DLA has such a stride, and it is about numbers."""
    shape = net.shape(focus.source)
    fits = focus.stride <= LARGEST_STRIDE and net.is_float(focus.source)
    return focus if fits and shape is not None and len(shape) == 4 else None


FINDERS: dict[str, Callable[[Network, Any], Focus | None]] = {
    'Concat': _focus,
    'SpaceToDepth': _space_to_depth,
    **dict.fromkeys(SHUFFLES, _pixel_unshuffle),
}

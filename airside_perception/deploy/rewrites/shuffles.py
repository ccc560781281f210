"""Chains of Reshape and Transpose that only move values: what goes where."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.rewrites.network import Network, attributes

RESHAPES = ('Reshape', 'Flatten', 'Squeeze', 'Unsqueeze')
SHUFFLES = (*RESHAPES, 'Transpose')
LARGEST = 1 << 24
"""Values: of larger tensors it is not computed."""


class Shuffle(NamedTuple):
    """From a tensor of four axes through some of more to one of four.

    Attributes:
        source: the first of them.
        places: [N, C, H, W] of the last: which value of the source, flattened, it has there.
    """

    source: str
    places: NDArray[np.int64]


def shuffle_to(net: Network, node: Any) -> Shuffle | None:
    """The chain that ends in this node and is read by nobody else; None: it is no such chain."""
    if node.op_type not in SHUFFLES:
        return None
    chain: list[Any] = []
    item, most = node, 0
    while item is not None and item.op_type in SHUFFLES:
        if chain and net.only_reader(item.output[0]) is not chain[0]:
            return None
        chain.insert(0, item)
        shape = net.shape(item.input[0])
        if shape is None:
            return None
        if len(shape) == 4 and most > 4:
            return _followed(net, chain)
        most = max(most, len(shape))
        item = net.maker(item.input[0])
    return None


def blocks_to_channels(shuffle: Shuffle, shape: tuple[int, ...], size: int) -> str:
    """`interleaved` or `blocks` where a shuffle takes blocks of `size` apart, else ''.

    Args:
        shape: [N, C, H, W] of the source.
    """
    count, channels, rows, columns = shape
    if rows % size or columns % size:
        return ''
    known = np.arange(count * channels * rows * columns)
    six = known.reshape(count, channels, rows // size, size, columns // size, size)
    for order, axes in (('interleaved', (0, 1, 3, 5, 2, 4)), ('blocks', (0, 3, 5, 1, 2, 4))):
        wanted = six.transpose(axes).reshape(count, -1, rows // size, columns // size)
        if np.array_equal(wanted, shuffle.places):
            return order
    return ''


def channels_to_blocks(shuffle: Shuffle, shape: tuple[int, ...], size: int) -> str:
    """`CRD` or `DCR` (of DepthToSpace) where a shuffle makes blocks of channels, else ''."""
    count, channels, rows, columns = shape
    if channels % (size * size):
        return ''
    known = np.arange(count * channels * rows * columns)
    for mode, blocks, axes in (
        ('CRD', (-1, size, size), (0, 1, 4, 2, 5, 3)),
        ('DCR', (size, size, channels // (size * size)), (0, 3, 4, 1, 5, 2)),
    ):
        six = known.reshape(count, *blocks, rows, columns).transpose(axes)
        wanted = six.reshape(count, -1, rows * size, columns * size)
        if np.array_equal(wanted, shuffle.places):
            return mode
    return ''


def _followed(net: Network, chain: list[Any]) -> Shuffle | None:
    shape = net.shape(chain[0].input[0]) or ()
    if int(np.prod(shape)) > LARGEST:
        return None
    places = np.arange(int(np.prod(shape))).reshape(shape)
    for node in chain:
        after = net.shape(node.output[0])
        if after is None or int(np.prod(after)) != places.size:
            return None
        if node.op_type == 'Transpose':
            places = places.transpose(attributes(node).get('perm'))
        else:
            places = places.reshape(after)
    return Shuffle(chain[0].input[0], places) if places.ndim == 4 else None

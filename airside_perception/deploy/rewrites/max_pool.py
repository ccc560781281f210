"""Wide max-pools as cascades of pools that the DLA has.

The maximum over a window is the maximum over windows of maxima: 13x13 is 7x7 twice, and with 5x5
and 9x9 beside it one 5x5 after another. See `cascade` for what makes that exact.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, NamedTuple

from airside_perception.deploy.rewrites.cascade import (
    LARGEST_WINDOW,
    Pool,
    is_legal,
    same,
    split,
)
from airside_perception.deploy.rewrites.network import (
    Network,
    attributes,
    flat_pads,
    label,
    reduced_axes,
    window,
)

KINDS = ('MaxPool', 'GlobalMaxPool', 'ReduceMax')
AXES_OPSET = 18
"""The axes of ReduceMax are an input from this version on, and an attribute before."""


class Wide(NamedTuple):
    """A max-pool of a network, with its axes height and width."""

    node: Any
    axes: tuple[Pool, Pool]
    lengths: tuple[int, int]


def cascade_max_pools(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Cuts max-pools with windows above 8 into pools of at most 8, all but the last of stride 1.

    GlobalMaxPool and ReduceMax over height and width are such pools too. Pools over the same
    tensor build upon one another: 5, 9 and 13 become 5 after 5 after 5. Left as they are: dilated
    pools, pools with indices, other than 2D, of unknown size.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    pools = [pool for node in net.nodes if (pool := _pool(net, node))]
    pools.sort(key=lambda pool: pool.axes[0].size * pool.axes[1].size)
    done: list[Wide] = []
    for pool in pools:
        narrow = max(axis.size for axis in pool.axes) <= LARGEST_WINDOW
        legal = narrow and pool.node.op_type == 'MaxPool'
        if legal or _reuse(net, pool, done) or _cut(net, pool):
            done.append(pool)
    return net.model()


def _pool(net: Network, node: Any) -> Wide | None:
    """A max-pool that can be cut, or cut others; its rounding up and SAME made into padding."""
    shape = net.shape(node.input[0]) if node.op_type in KINDS else None
    if shape is None or len(shape) != 4 or any(node.output[1:]):
        return None
    said = attributes(node)
    if node.op_type != 'MaxPool':
        if not net.is_float(node.input[0]) or not _is_global(net, node):
            return None
        return Wide(node, (Pool(shape[2]), Pool(shape[3])), (shape[2], shape[3]))
    kernel = said['kernel_shape']
    pads = window(node, shape[2:], kernel)
    if pads is None or set(said.get('dilations', [1])) != {1}:
        return None
    axes = []
    for size, stride, pad, length in zip(
        kernel, said.get('strides', [1, 1]), pads, shape[2:], strict=True
    ):
        begin, end = pad
        if said.get('ceil_mode', 0):
            count = -(-(length + begin + end - size) // stride) + 1
            if (count - 1) * stride >= length + begin:  # this window would be padding only
                count -= 1
            end = max(end, (count - 1) * stride + size - length - begin)
        axes.append(Pool(size, stride, begin, end))
    return Wide(node, (axes[0], axes[1]), (shape[2], shape[3]))


def _is_global(net: Network, node: Any) -> bool:
    """Whether a reduction keeps its axes and goes over height and width."""
    if node.op_type == 'GlobalMaxPool':
        return True
    axes = reduced_axes(net, node, AXES_OPSET)
    return bool(attributes(node).get('keepdims', 1)) and axes == {2, 3}


def _cut(net: Network, pool: Wide) -> bool:
    """Puts a cascade in the place of a wide pool."""
    parts = []
    for axis, length in zip(pool.axes, pool.lengths, strict=True):
        found = (
            (axis,) if axis.size <= LARGEST_WINDOW and is_legal((axis,)) else split(axis, length)
        )
        if found is None:
            return False
        parts.append(found)
    depth = max(map(len, parts))
    # a shorter axis waits with windows of 1 until its own, strided pools come
    rows, columns = (((Pool(1),) * (depth - len(part)) + part) for part in parts)
    source, node = pool.node.input[0], pool.node
    new = []
    for step, both in enumerate(zip_longest(rows, columns)):
        last = step == depth - 1
        out = node.output[0] if last else net.name(f'{node.output[0]}_pool{step + 1}')
        new.append(_made(net, source, out, both, node.name if last else ''))
        source = out
    net.replace(node, new)
    sizes = ' + '.join(f'{a.size}x{b.size}' for a, b in zip(rows, columns, strict=True))
    net.changes.append(f'{_says(pool)} -> {sizes}')
    return True


def _reuse(net: Network, pool: Wide, done: list[Wide]) -> bool:
    """Builds a wide pool upon a narrower one over the same tensor, with one pool more."""
    for base in reversed(done):
        if base.node.input[0] != pool.node.input[0] or any(axis.stride > 1 for axis in base.axes):
            continue
        rest = []
        for wide, narrow, length in zip(pool.axes, base.axes, pool.lengths, strict=True):
            part = Pool(
                wide.size - narrow.size + 1,
                wide.stride,
                wide.begin - narrow.begin,
                wide.end - narrow.end,
            )
            if part.size < 1 or not is_legal((part,)) or not same(wide, (narrow, part), length):
                break
            rest.append(part)
        if len(rest) < 2:
            continue
        # the base has its own output still: it may come later in the file, and must not
        source = base.node.output[0]
        if not _before(net, source, pool.node):
            continue
        node = pool.node
        net.replace(node, [_made(net, source, node.output[0], (rest[0], rest[1]), node.name)])
        net.changes.append(f'{_says(pool)} -> {rest[0].size}x{rest[1].size} after {source!r}')
        return True
    return False


def _before(net: Network, name: str, node: Any) -> bool:
    """Whether a tensor is there when a node runs."""
    for item in net.nodes:
        if name in item.output:
            return True
        if item is node:
            return False
    return False


def _made(net: Network, source: str, out: str, axes: tuple[Pool, Pool], like: str) -> Any:
    return net.node(
        'MaxPool',
        [source],
        out,
        like,
        kernel_shape=[axis.size for axis in axes],
        strides=[axis.stride for axis in axes],
        pads=flat_pads([(axis.begin, axis.end) for axis in axes]),
    )


def _says(pool: Wide) -> str:
    return f'{label(pool.node)}: {pool.node.op_type} {pool.axes[0].size}x{pool.axes[1].size}'

"""Which layers go to DLA together, and what crosses between DLA and GPU."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from airside_perception.deploy.lint.network import Network

BYTES = {
    'bool': 1, 'int8': 1, 'uint8': 1, 'int16': 2, 'float16': 2, 'bfloat16': 2, 'int32': 4,
    'int64': 8, 'double': 8,
}  # fmt: skip


@dataclass(frozen=True)
class Transfer:
    """A tensor that one device computes and the other reads.

    Attributes:
        source: 'dla' or 'gpu': where it is computed.
        bytes: its size in the precision of the engine.
    """

    tensor: str
    source: str
    bytes: int


def groups(network: Network, dla: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """The subgraphs that become loadables.

    An approximation of what TensorRT does, which is not documented: along every edge between two
    DLA layers, in topological order, their groups are joined unless some other path leads from
    the one to the other through a third group or a GPU layer: such a group would have to leave
    and come back. What remains is convex, its order has no cycle, and no two groups that touch
    could be joined. The number is not proven to be the smallest, and layers that only share an
    input are not joined.

    Args:
        dla: names of the layers on DLA.

    Returns:
        Names of the layers of each group, in topological order.
    """
    group = {node.name: at for at, node in enumerate(network.layers)}
    edges = [
        (source.name, node.name) for node in network.layers for _, source in network.sources(node)
    ]
    after: dict[int, set[int]] = {at: set() for at in group.values()}
    before: dict[int, set[int]] = {at: set() for at in group.values()}
    for first, second in edges:
        after[group[first]].add(group[second])
        before[group[second]].add(group[first])
    members = {at: [name] for name, at in group.items()}
    for first, second in edges:
        one, two = group[first], group[second]
        if one == two or first not in dla or second not in dla or _detour(after, one, two):
            continue
        for name in members[two]:
            group[name] = one
        members[one] += members.pop(two)
        _redirect(after, before, one, two)
        _redirect(before, after, one, two)
    order = {node.name: node.index for node in network.layers}
    found = [sorted(names, key=order.__getitem__) for names in members.values() if names[0] in dla]
    return tuple(tuple(names) for names in sorted(found, key=lambda names: order[names[0]]))


def transfers(
    network: Network, dla: Collection[str], precision: str, on_gpu: Collection[str]
) -> tuple[Transfer, ...]:
    """The tensors that cross, each once; inputs and outputs of the network do not count."""
    found: dict[str, Transfer] = {}
    for node in network.layers:
        for tensor, source in network.sources(node):
            crosses = (source.name in dla and node.name in on_gpu) or (
                source.name in on_gpu and node.name in dla
            )
            if crosses and tensor not in found:
                device = 'dla' if source.name in dla else 'gpu'
                found[tensor] = Transfer(tensor, device, _bytes(network, tensor, precision))
    return tuple(found.values())


def _detour(after: Mapping[int, set[int]], start: int, end: int) -> bool:
    """Whether a path other than the edge itself leads from the one to the other."""
    pending = [at for at in after[start] if at != end]
    seen = set(pending)
    while pending:
        for at in after[pending.pop()]:
            if at == end:
                return True
            if at not in seen:
                seen.add(at)
                pending.append(at)
    return False


def _redirect(
    ahead: dict[int, set[int]], behind: dict[int, set[int]], kept: int, gone: int
) -> None:
    """What led on from `gone` leads on from `kept`."""
    for at in ahead.pop(gone):
        behind[at].discard(gone)
        if at != kept:
            ahead[kept].add(at)
            behind[at].add(kept)
    ahead[kept].discard(gone)


def _bytes(network: Network, tensor: str, precision: str) -> int:
    shape = network.shape(tensor) or ()
    count = math.prod(size for size in shape if isinstance(size, int))
    kind = network.types.get(tensor, 'float')
    engine = {'fp32': 4, 'fp16': 2, 'int8': 1}[precision]
    return count * (engine if kind == 'float' else BYTES.get(kind, 4))

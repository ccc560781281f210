"""Which narrow pools, one after the other, see what one wide pool sees, along one axis.

Windows of sizes a and b with stride 1 reach as far as one window of a + b - 1 (SPP as in YOLOv3
becomes SPPF as in YOLOv5). Padding is minus infinity and so adds nothing to a maximum, but it may
hide positions from a later window: what every output sees is computed, as intervals of inputs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

LARGEST_WINDOW = 8
LARGEST_PAD = 7
LARGEST_STRIDE = 16


class Pool(NamedTuple):
    """One pool along one axis: size of the window, stride, padding before and behind."""

    size: int
    stride: int = 1
    begin: int = 0
    end: int = 0


Cascade = tuple[Pool, ...]


def split(pool: Pool, length: int) -> Cascade | None:
    """Pools of at most 8 that see what one wide pool sees, along one axis.

    Args:
        pool: the wide one.
        length: of the input.

    Returns:
        None where there are none.
    """
    reach = max(1, pool.size - 1)
    choices = [[1 + part for part in _parts(reach, LARGEST_WINDOW - 1)]]
    if reach % 2 == 0:  # odd windows, so that padding on both sides can be the same
        choices.insert(0, [1 + 2 * part for part in _parts(reach // 2, LARGEST_WINDOW // 2 - 1)])
    for chosen in choices:
        for share in (_proportional, _first):
            begins, ends = share(pool.begin, chosen), share(pool.end, chosen)
            found = tuple(
                Pool(size, 1, begin, end)
                for size, begin, end in zip(chosen, begins, ends, strict=True)
            )
            found = (*found[:-1], found[-1]._replace(stride=pool.stride))
            if is_legal(found) and same(pool, found, length):
                return found
    return None


def same(pool: Pool, cascade: Cascade, length: int) -> bool:
    """Whether every output of a cascade sees the inputs that the output of the pool sees."""
    inputs: list[tuple[int, int] | None] = [(index, index) for index in range(length)]
    found: list[tuple[int, int] | None] | None = inputs
    for part in cascade:
        found = None if found is None else _seen(part, found)
    wanted = _seen(pool, inputs)
    return wanted is not None and None not in wanted and wanted == found


def _seen(pool: Pool, inputs: list[tuple[int, int] | None]) -> list[tuple[int, int] | None] | None:
    """First and last input below every output; None in place of all: not one interval."""
    count = (len(inputs) + pool.begin + pool.end - pool.size) // pool.stride + 1
    outputs: list[tuple[int, int] | None] = []
    for index in range(count):
        start = index * pool.stride - pool.begin
        below = [item for item in inputs[max(0, start) : max(0, start + pool.size)] if item]
        for one, other in pairwise(below):
            if other[0] > one[1] + 1:
                return None
        outputs.append((min(b[0] for b in below), max(b[1] for b in below)) if below else None)
    return outputs


def is_legal(cascade: Cascade) -> bool:
    """Whether the DLA has every pool of it."""
    return all(
        part.size <= LARGEST_WINDOW
        and part.stride <= LARGEST_STRIDE
        and max(part.begin, part.end) <= min(LARGEST_PAD, part.size - 1)
        and min(part.begin, part.end) >= 0
        for part in cascade
    )


def _parts(total: int, largest: int) -> list[int]:
    """As few and as equal numbers as there are that are at most `largest` each."""
    count = -(-total // largest)
    return [(total + index) // count for index in range(count)]


def _proportional(total: int, sizes: list[int]) -> list[int]:
    """Padding shared by how far the windows reach: for 'same' pools the smallest tensors."""
    reach = sum(size - 1 for size in sizes)
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size - 1)
    marks = [total * end // reach for end in ends]
    return [after - before for before, after in pairwise(marks)]


def _first(total: int, sizes: list[int]) -> list[int]:
    """Padding as early as it goes: nothing is hidden from later windows, so always exact."""
    shares = []
    for size in sizes:
        shares.append(min(total, size - 1))
        total -= shares[-1]
    return shares

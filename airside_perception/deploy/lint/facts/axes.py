"""Facts of what works along axes or changes the layout."""

from __future__ import annotations

import math
from typing import Any

from airside_perception.deploy.lint.facts.subject import Subject, fact


@fact
def axis(s: Subject) -> Any:
    """The axis, counted from the front."""
    return s.attribute('axis', 0) % max(len(s.shape()), 1)


@fact
def axes(s: Subject) -> Any:
    """The axes of a Slice, Split or reduction, counted from the front."""
    rank = len(s.shape())
    if s.at.op_type == 'Split':
        return (s.attribute('axis', 0) % rank,)
    place = 3 if s.at.op_type == 'Slice' else 1
    given = s.attribute('axes')
    if given is None:
        given = s.operand(place)
    if given is None:
        count = len(_starts(s)) if s.at.op_type == 'Slice' else rank
        given = range(count)
    return tuple(int(item) % rank for item in given)


@fact
def steps(s: Subject) -> Any:
    """Of a Slice."""
    given = s.operand(4)
    return None if given is None else tuple(int(item) for item in given)


@fact
def parameters(s: Subject) -> Any:
    """Whether all inputs but the first are constants."""
    names = [name for name in s.at.inputs[1:] if name]
    return 'constant' if all(map(s.network.is_constant, names)) else 'computed'


@fact
def axis_size(s: Subject) -> Any:
    """Size along the axis of a softmax; before opset 13 of all dimensions from it on."""
    return math.prod(s.fixed()[place] for place in _softmax_axes(s))


@fact
def other_sizes(s: Subject) -> Any:
    """Sizes along the other axes of a softmax, the batch not counted."""
    shape, own = s.fixed(), _softmax_axes(s)
    return tuple(size for place, size in enumerate(shape) if place and place not in own) or (1,)


@fact
def batch_kept(s: Subject) -> Any:
    """Whether a change of layout leaves the first dimension alone."""
    if s.at.op_type == 'Transpose':
        order = s.attribute('perm', tuple(reversed(range(len(s.shape())))))
        return 'yes' if order[0] == 0 else 'no'
    before, after = s.fixed(), s.fixed(output=True)
    return 'yes' if before[:1] == after[:1] else 'no'


def _starts(s: Subject) -> Any:
    given = s.attribute('starts')
    return s.operand(1) if given is None else given


def _softmax_axes(s: Subject) -> list[int]:
    rank = len(s.shape())
    if s.network.opset >= 13:
        return [s.attribute('axis', -1) % rank]
    return list(range(s.attribute('axis', 1) % rank, rank))

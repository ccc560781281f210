"""Facts of activations and of what computes element by element."""

from __future__ import annotations

import math
from typing import Any

from airside_perception.deploy.lint.facts.subject import Subject, fact


@fact
def clip_low(s: Subject) -> Any:
    """Lower bound."""
    return _bound(s, 'min', 1, -math.inf)


@fact
def clip_high(s: Subject) -> Any:
    """Upper bound."""
    return _bound(s, 'max', 2, math.inf)


@fact
def window(s: Subject) -> Any:
    """Of a local response normalisation."""
    return s.attribute('size')


@fact
def training(s: Subject) -> Any:
    """Whether a batch normalisation is in training mode."""
    return 'yes' if s.attribute('training_mode', 0) else 'no'


@fact
def operands(s: Subject) -> Any:
    """How many inputs."""
    return sum(bool(name) for name in s.at.inputs)


@fact
def constant_operands(s: Subject) -> Any:
    """How many inputs are constants."""
    return sum(bool(name) and s.network.is_constant(name) for name in s.at.inputs)


@fact
def broadcast(s: Subject) -> Any:
    """For each operand NCHW, NC11 or N111, or its shape where it is none of these."""
    out = s.fixed(output=True)
    kinds = []
    for place in range(len(s.at.inputs)):
        given = s.fixed(place)
        shape = (1,) * (len(out) - len(given)) + given
        forms = {
            'NCHW': out,
            'NC11': (*out[:2], *(1 for _ in out[2:])),
            'N111': (*out[:1], *(1 for _ in out[1:])),
        }
        kinds.append(next((kind for kind, form in forms.items() if form == shape), str(given)))
    return tuple(kinds)


@fact
def zero_point(s: Subject) -> Any:
    """Whether a quantisation is symmetric."""
    value = s.operand(2)
    return 'zero' if value is None or not value.any() else 'not zero'


@fact
def reduction(s: Subject) -> Any:
    """What a scatter does with values that meet."""
    return s.attribute('reduction', 'none')


@fact
def equation(s: Subject) -> Any:
    """Of an Einsum."""
    return s.attribute('equation', '')


def _bound(s: Subject, name: str, place: int, default: float) -> float:
    given = s.attribute(name)
    if given is None:
        value = s.operand(place)
        given = default if value is None else float(value.reshape(-1)[0])
    return float(given)

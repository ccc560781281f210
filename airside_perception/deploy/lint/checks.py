"""The comparisons of the rules: what a measured fact must be. A tuple holds if every item does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Comparison = Callable[[Any, Any], bool]


def items(value: Any) -> tuple[Any, ...]:
    """A fact as a tuple: most facts are one value for each dimension, tensor or neighbour."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def within(value: Any, limits: Any) -> bool:
    """Between two numbers, these included."""
    low, high = limits
    return all(low <= item <= high for item in items(value))


def not_within(value: Any, limits: Any) -> bool:
    """Outside of two numbers."""
    low, high = limits
    return not any(low <= item <= high for item in items(value))


def at_most(value: Any, limit: Any) -> bool:
    """No more than a number."""
    return all(item <= limit for item in items(value))


def one_of(value: Any, allowed: Any) -> bool:
    """Among these."""
    return all(item in allowed for item in items(value))


def none_of(value: Any, forbidden: Any) -> bool:
    """Not among these."""
    return not any(item in forbidden for item in items(value))


def below(value: Any, bounds: Any) -> bool:
    """Item by item less than another fact; begins and ends of one dimension have one bound."""
    limits = items(bounds)
    return all(item < limits[at % len(limits)] for at, item in enumerate(items(value)))


def multiple_of(value: Any, divisor: Any) -> bool:
    """Divisible by a number."""
    return all(item % divisor == 0 for item in items(value))


def integers(value: Any, wanted: Any) -> bool:
    """Whole numbers."""
    return bool(wanted) == all(float(item).is_integer() for item in items(value))


def none(value: Any, wanted: Any) -> bool:
    """Nothing is there."""
    return bool(wanted) == (len(items(value)) == 0)


def lacks(value: Any, part: Any) -> bool:
    """A text without this in it."""
    return part not in value


COMPARISONS: dict[str, Comparison] = {
    check.__name__: check
    for check in (
        within, not_within, at_most, one_of, none_of, below, multiple_of, integers, none, lacks,
    )
}  # fmt: skip
"""{name in the YAML: function of the fact and the limits}. `below` names another fact, whose
value comes as its limits."""


def shown(value: Any) -> str:
    """A fact as a reader writes it: 9 x 9 for numbers of the dimensions, else a list."""
    if not isinstance(value, (tuple, list)):
        return f'{value:g}' if isinstance(value, float) else str(value)
    if value and all(isinstance(item, (int, float)) for item in value):
        return ' x '.join(f'{item:g}' for item in value)
    return ', '.join(dict.fromkeys(map(str, value)))

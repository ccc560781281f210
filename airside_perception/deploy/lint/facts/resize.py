"""Facts of Resize and Upsample."""

from __future__ import annotations

from typing import Any

from airside_perception.deploy.lint.facts.subject import Subject, fact


@fact
def scales(s: Subject) -> Any:
    """Of height and width."""
    return _scales(s)[-2:]


@fact
def outer_scales(s: Subject) -> Any:
    """Of everything before height and width."""
    return _scales(s)[:-2]


@fact
def resize_mode(s: Subject) -> Any:
    """nearest, linear or cubic."""
    return s.attribute('mode', 'nearest')


@fact
def coordinates(s: Subject) -> Any:
    """How places in the output map to the input."""
    if s.at.op_type == 'Upsample' or s.network.opset < 11:
        return 'asymmetric'
    return s.attribute('coordinate_transformation_mode', 'half_pixel')


@fact
def resize_rule(s: Subject) -> Any:
    """Coordinates and rounding of nearest."""
    if s.at.op_type == 'Upsample' or s.network.opset < 11:
        return 'asymmetric/floor'
    return f'{coordinates(s)}/{s.attribute("nearest_mode", "round_prefer_floor")}'


@fact
def antialias(s: Subject) -> Any:
    """Whether a resize filters."""
    return 'yes' if s.attribute('antialias', 0) else 'no'


@fact
def aspect_policy(s: Subject) -> Any:
    """What a resize keeps."""
    return s.attribute('keep_aspect_ratio_policy', 'stretch')


def _scales(s: Subject) -> tuple[float, ...]:
    given = s.attribute('scales')
    if given is None and s.at.op_type == 'Resize' and s.network.opset >= 11:
        place = 2
    else:
        place = 1
    if given is None and len(s.at.inputs) > place and s.at.inputs[place]:
        given = s.network.value(s.at.inputs[place])
    if given is not None and len(given) and s.attribute('axes') is None:
        return tuple(float(item) for item in given)
    before, after = s.fixed(), s.fixed(output=True)
    return tuple(b / a for a, b in zip(before, after, strict=True))

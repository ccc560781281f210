"""What stands in the world: a mesh with the label and the box that a detector should give.

A body's frame has its origin on the ground under the middle of the box, x forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airside_perception.sim.lamps import Lamp
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import Mesh, cylinder, merge
from airside_perception.types import Float64

CLASSES = (
    'aircraft', 'bus', 'belt_loader', 'pushback_tug', 'baggage_tractor', 'baggage_cart',
    'fuel_truck', 'catering_truck', 'stairs', 'truck', 'car', 'cyclist', 'person',
)  # fmt: skip
SMALL = ('cone', 'chock', 'fod')
"""Classes of small things on the ground. They are kept apart: no network is asked for them yet."""


@dataclass(frozen=True)
class Body:
    """A mesh with its label ('' for structure that is no object) and its boxes.

    Attributes:
        label: one of CLASSES or SMALL, or ''.
        mesh: in the body's frame.
        labelled: how many of the mesh's triangles, from the first, belong to the labelled object.
        box: float64 [6], (x, y, z of the centre, length, width, height) of the labelled part.
        footprint: float64 [4], (x, y of the centre, length, width) of all of it, for placement.
        lamps: in the body's frame.
    """

    label: str
    mesh: Mesh
    labelled: int
    box: Float64
    footprint: Float64
    lamps: tuple[Lamp, ...] = ()


def body(
    label: str,
    parts: Sequence[Mesh],
    labelled: Sequence[float] | None = None,
    others: Sequence[Mesh] = (),
) -> Body:
    """A body of `parts` and unlabelled `others`; its box is what all span, or `labelled`.

    The origin is moved under the middle of the box; heights stay.
    """
    mesh = merge([*parts, *others])
    low, high = mesh.extents
    centre, size = (low + high) / 2, high - low
    box = np.concatenate([centre, size]) if labelled is None else np.array(labelled, np.float64)
    shift = np.array([-box[0], -box[1], 0.0])
    box[:2] = 0.0
    footprint = np.array([centre[0] + shift[0], centre[1] + shift[1], size[0], size[1]])
    return Body(label, mesh.moved(shift), sum(map(len, parts)), box, footprint)


def structure(parts: Sequence[Mesh], lamps: Sequence[Lamp] = ()) -> Body:
    """A body without a label; its origin stays where the parts put it."""
    mesh = merge(parts)
    low, high = mesh.extents
    centre, size = (low + high) / 2, high - low
    return Body(
        '',
        mesh,
        0,
        np.concatenate([centre, size]),
        np.concatenate([centre[:2], size[:2]]),
        tuple(lamps),
    )


def wheels(x: Sequence[float], track: float, radius: float) -> list[Mesh]:
    """Wheels at `x`, outer sides `track` apart; a pair is one roller: the body hides the rest."""
    span = (-track / 2, track / 2)
    return [cylinder(radius, span, (at, radius), row('rubber'), 'y', sides=8) for at in x]


def pick(rng: np.random.Generator, names: Sequence[str]) -> int:
    """The material row of one of `names`."""
    return row(names[int(rng.integers(len(names)))])

"""Ground-support vehicles of an apron, in the sizes that operators buy."""

from __future__ import annotations

import numpy as np

from airside_perception.sim.bodies import Body, body, pick, structure, wheels
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import Mesh, box, cylinder, frustum, hexahedron, plate
from airside_perception.sim.vehicles import truck_cab

_PAINT = ('white', 'yellow', 'white', 'blue', 'green', 'orange', 'red')


def belt_loader(rng: np.random.Generator) -> Body:
    """A low carrier, its seat on the left, with a belt raised towards the aircraft (+x)."""
    length, width, height = rng.uniform(5.6, 8.0), rng.uniform(2.0, 2.5), rng.uniform(2.2, 3.6)
    half, paint = length / 2, pick(rng, _PAINT)
    belt = 0.7
    y = -(width - belt) / 2 + 0.35
    parts = [
        box((length * 0.75, width, 0.55), (-0.08 * length, 0, 0.3), paint),
        _slope(-half, half, y, belt, (0.75, height - 0.35), 0.25, row('steel')),
        _slope(-half, half, y + belt / 2 + 0.05, 0.08, (1.0, height - 0.1), 0.1, row('yellow')),
        _slope(-half, half, y - belt / 2 - 0.05, 0.08, (1.0, height - 0.1), 0.1, row('yellow')),
        box((0.15, 0.5, 0.5 * height), (0.15 * half, y, 0.5), row('dark')),
        box((0.7, 0.7, 0.45), (-0.2 * half, width / 2 - 0.4, 0.85), row('dark')),
        box((0.12, 0.6, 0.7), (-0.2 * half - 0.35, width / 2 - 0.4, 1.0), row('dark')),
        *wheels((-0.32 * length, 0.2 * length), width + 0.02, 0.33),
    ]
    return body('belt_loader', parts)


def pushback_tug(rng: np.random.Generator) -> Body:
    """A low heavy tug with a cab at one end."""
    length, width, height = rng.uniform(4.6, 8.2), rng.uniform(2.3, 3.0), rng.uniform(1.7, 2.3)
    half, paint, glass = length / 2, pick(rng, _PAINT), row('glass')
    cab = rng.uniform(1.3, 1.8)
    at = half - cab - 0.2 if rng.random() < 0.6 else -half + 0.3
    deck = 0.95
    parts = [
        frustum((-half + 0.1, half - 0.1, width - 0.1), (-half, half, width), (0.25, deck), paint),
        frustum(
            (-half + 0.15, half - 0.15, width - 0.1),
            (-half + 0.4, half - 0.4, width - 0.4),
            (deck, deck + 0.12),
            row('dark'),
        ),
        frustum(
            (at, at + cab, width - 0.7),
            (at + 0.15, at + cab - 0.15, width - 0.9),
            (deck, height - 0.12),
            (glass, glass, glass, glass, paint, paint),
        ),
        box((cab - 0.2, width - 0.8, 0.08), (at + cab / 2, 0, height - 0.12), paint),
        cylinder(0.08, (height - 0.04, height + 0.12), (at + cab / 2, 0), row('orange'), sides=6),
        *wheels((-0.28 * length, 0.28 * length), width + 0.02, 0.48),
    ]
    return body('pushback_tug', parts)


def baggage_tractor(rng: np.random.Generator) -> Body:
    """A small tractor, usually with a roof on four posts."""
    length, width, height = rng.uniform(2.7, 3.4), rng.uniform(1.25, 1.6), rng.uniform(1.7, 2.1)
    half, paint = length / 2, pick(rng, _PAINT)
    parts = [
        box((length, width, 0.45), (0, 0, 0.25), paint),
        frustum(
            (0.1 * half, half - 0.05, width - 0.1),
            (0.15 * half, half - 0.2, width - 0.25),
            (0.7, 1.05),
            paint,
        ),
        box((0.5, width - 0.3, 0.3), (-0.35 * half, 0, 0.7), row('dark')),
        box((0.12, width - 0.3, 0.6), (-0.55 * half, 0, 0.8), row('dark')),
        *wheels((-0.5 * half, 0.55 * half), width + 0.02, 0.3),
    ]
    if rng.random() < 0.75:
        corners = [(x, s * (width / 2 - 0.1)) for x in (-0.7 * half, 0.2 * half) for s in (1, -1)]
        parts += [box((0.06, 0.06, height - 0.75), (x, y, 0.7), row('dark')) for x, y in corners]
        parts.append(
            box((0.98 * half, width - 0.1, 0.06), (-0.25 * half, 0, height - 0.06), paint)
        )
    return body('baggage_tractor', parts)


def baggage_cart(rng: np.random.Generator) -> Body:
    """A cart or dolly: open deck, loaded deck, or covered with side curtains."""
    length, width = rng.uniform(2.0, 3.2), rng.uniform(1.2, 1.6)
    kind = int(rng.integers(4))
    half = length / 2
    parts: list[Mesh] = [
        box((length, width, 0.15), (0, 0, 0.4), row('steel')),
        box((0.5, 0.08, 0.08), (half + 0.2, 0, 0.4), row('dark')),
        *wheels((-0.32 * length, 0.32 * length), width + 0.02, 0.2),
    ]
    if kind == 0:
        parts += [
            box((0.06, width, 0.5), (s * (half - 0.03), 0, 0.55), row('steel')) for s in (1, -1)
        ]
    elif kind == 1:
        for _ in range(int(rng.integers(3, 8))):
            size = rng.uniform((0.4, 0.3, 0.25), (0.8, 0.55, 0.6))
            spot = rng.uniform(-0.5, 0.5, 2) * [length - 0.8, width - 0.55]
            parts.append(
                box(size, (*spot, 0.55), pick(rng, ('luggage', 'red', 'blue', 'black', 'grey')))
            )
        parts.append(box((0.06, width, 0.7), (-half + 0.03, 0, 0.55), row('steel')))
    elif kind == 2:
        height = rng.uniform(1.5, 1.8)
        parts.append(box((length, width, 0.05), (0, 0, height - 0.05), row('livery_grey')))
        parts.append(box((length - 0.1, 0.04, height - 0.6), (0, 0, 0.55), row('tarpaulin')))
        parts += [
            box((0.05, width, height - 0.6), (s * (half - 0.03), 0, 0.55), row('tarpaulin'))
            for s in (1, -1)
        ]
    else:
        # A container on a dolly: the outline of an LD3, wider above than at the deck.
        top = width + 0.2
        parts.append(
            frustum(
                (-0.42 * length, 0.42 * length, width - 0.1),
                (-0.42 * length, 0.42 * length, top),
                (0.55, 1.0),
                row('silver'),
            )
        )
        parts.append(box((0.84 * length, top, 1.0), (0, 0, 1.0), row('silver')))
    return body('baggage_cart', parts)


def fuel_truck(rng: np.random.Generator) -> Body:
    """A refueller: cab and a tank with a hose cabinet."""
    length, width, height = rng.uniform(7.5, 11.0), rng.uniform(2.4, 2.6), rng.uniform(2.8, 3.4)
    half, cab, paint = length / 2, 2.0, pick(rng, ('white', 'yellow', 'green', 'white'))
    radius = (height - 1.05) / 2
    x = (-half + 0.9, half - cab - 0.4)
    centre = 1.05 + radius
    parts = [
        *truck_cab(half, cab, width, min(height - 0.1, 2.9), paint),
        box((length - 0.4, width - 0.9, 0.4), (-0.1, 0, 0.62), row('dark')),
        cylinder(
            radius, x, (0, centre), pick(rng, ('white', 'silver', 'yellow')), 'x', sides=12
        ).scaled(1, (width - 0.1) / (2 * radius), 1),
        box((1.0, width, 1.3), (-half + 0.5, 0, 0.6), paint),
        *wheels((-half + 1.6, -half + 2.8, half - 1.1), width + 0.02, 0.5),
    ]
    return body('fuel_truck', parts)


def catering_truck(rng: np.random.Generator) -> Body:
    """A high-loader: cab, box on scissors (sometimes raised), platform in front of the box."""
    length, width = rng.uniform(6.8, 9.0), rng.uniform(2.3, 2.5)
    half, paint, shell = (
        length / 2,
        pick(rng, _PAINT),
        pick(rng, ('white', 'silver', 'blue', 'white')),
    )
    lift = rng.uniform(1.2, 2.8) if rng.random() < 0.6 else 0.0
    load = length - 1.9
    floor, box_height = 1.1 + lift, 2.4
    middle = -half + load / 2
    parts = [
        *truck_cab(half, 1.7, width, 2.5, paint),
        box((length - 0.3, width - 0.8, 0.4), (-0.1, 0, 0.65), row('dark')),
        box((load, width, box_height), (middle, 0, floor), shell),
        box(
            (1.5, width - 0.2, 0.1), (middle + load / 2 + 0.75, 0, max(floor, 2.55)), row('steel')
        ),
        *wheels((-half + 1.4, half - 1.0), width + 0.02, 0.48),
    ]
    if lift:
        for sign in (1, -1):
            ends = ((-0.3 * load, 1.0), (0.3 * load, floor))
            for (x0, z0), (x1, z1) in (ends, ((ends[0][0], ends[1][1]), (ends[1][0], ends[0][1]))):
                parts.append(
                    _beam(middle + x0, z0, middle + x1, z1, sign * (width / 2 - 0.3), row('steel'))
                )
    return body('catering_truck', parts)


def stairs(rng: np.random.Generator) -> Body:
    """Passenger stairs: a flight with side walls that climbs towards the aircraft (+x)."""
    length, width, height = rng.uniform(6.0, 9.0), rng.uniform(1.9, 2.4), rng.uniform(2.4, 4.4)
    half, paint = length / 2, pick(rng, ('white', 'livery_grey', 'yellow', 'livery_blue'))
    landing = 1.3
    foot, top = -half, half - landing
    parts = [
        _slope(foot, top, 0, width - 0.2, (0.1, height - 0.2), 0.2, row('steel')),
        box((landing, width, 0.2), (half - landing / 2, 0, height - 0.2), row('steel')),
        *(
            _slope(foot, top, s * (width / 2 - 0.05), 0.08, (0.15, height), 1.0, paint)
            for s in (1, -1)
        ),
        *(
            box((landing, 0.08, 1.1), (half - landing / 2, s * (width / 2 - 0.05), height), paint)
            for s in (1, -1)
        ),
        box((0.8 * length, width - 0.3, 0.35), (-0.02 * length, 0, 0.35), row('dark')),
        *(
            box((0.12, width - 0.4, height - 0.5), (x, 0, 0.4), row('steel'))
            for x in (0.35 * half, 0.8 * half)
        ),
        *wheels((-0.3 * length, 0.3 * length), width + 0.02, 0.33),
    ]
    return body('stairs', parts)


def cone(rng: np.random.Generator) -> Body:
    """A traffic cone with a reflective band."""
    height = rng.uniform(0.5, 0.9)
    return body(
        'cone',
        [
            box((0.38, 0.38, 0.04), (0, 0, 0), row('dark')),
            cylinder((0.14, 0.09), (0.04, 0.5 * height), (0, 0), row('orange'), sides=7),
            cylinder((0.095, 0.065), (0.5 * height, 0.72 * height), (0, 0), row('tape'), sides=7),
            cylinder((0.06, 0.025), (0.72 * height, height), (0, 0), row('orange'), sides=7),
        ],
    )


def fod(rng: np.random.Generator) -> Body:
    """A foreign object on the ground: a tool, a bottle, rubber, a bag, sheet metal, a bolt."""
    kind = int(rng.choice(6, p=[0.2, 0.2, 0.15, 0.15, 0.15, 0.15]))
    if kind == 0:
        length = rng.uniform(0.2, 0.4)
        parts = [
            box((length, 0.03, 0.02), (0, 0, 0), row('steel')),
            box((0.06, 0.08, 0.025), (length / 2, 0, 0), row('steel')),
        ]
    elif kind == 1:
        radius, length = rng.uniform(0.03, 0.05), rng.uniform(0.15, 0.3)
        colour = pick(rng, ('blue', 'white', 'red', 'silver'))
        parts = [
            cylinder(radius, (-length / 2, length / 2), (0, radius), colour, 'x', sides=8),
            cylinder(
                (0.8 * radius, 0.4 * radius), (length / 2, 0.7 * length), (0, radius), colour, 'x'
            ),
        ]
    elif kind == 2:
        width = rng.uniform(0.08, 0.2)
        low, high = (-0.2, 0.15, width), (-0.12, 0.1, 0.6 * width)
        parts = [frustum(low, high, (0.0, rng.uniform(0.03, 0.08)), row('rubber'))]
    elif kind == 3:
        size = rng.uniform((0.35, 0.2, 0.18), (0.7, 0.45, 0.35))
        parts = [box(size, (0, 0, 0), pick(rng, ('luggage', 'black', 'red', 'blue')))]
    elif kind == 4:
        half = rng.uniform(0.08, 0.2)
        outline = [
            (half, half, 0.02),
            (-half, half, 0.0),
            (-half, -half, 0.01),
            (half, -half, half),
        ]
        parts = [plate(outline, 0.01, row('silver'))]
    else:
        parts = [cylinder((0.02, 0.015), (-0.05, 0.05), (0, 0.02), row('steel'), 'x', sides=6)]
    return body('fod', parts)


def ground_power(rng: np.random.Generator) -> Body:
    """A ground power unit on wheels: a plain cabinet; it has no label yet."""
    length, width, height = rng.uniform(2.2, 3.2), rng.uniform(1.4, 1.8), rng.uniform(1.2, 1.7)
    return structure(
        [
            box((length, width, height - 0.3), (0, 0, 0.3), pick(rng, _PAINT)),
            cylinder(
                0.08, (height, height + 0.25), (-0.3 * length, 0.2 * width), row('dark'), sides=6
            ),
            *wheels((-0.3 * length, 0.3 * length), width + 0.02, 0.25),
        ]
    )


def container(rng: np.random.Generator) -> Body:
    """A shipping or waste container left on the ground; structure."""
    size = (rng.uniform(1.5, 6.0), rng.uniform(1.2, 2.5), rng.uniform(1.1, 2.6))
    low, high = (
        (-0.46 * size[0], 0.46 * size[0], size[1]),
        (-0.5 * size[0], 0.5 * size[0], size[1]),
    )
    return structure(
        [frustum(low, high, (0.0, size[2]), pick(rng, ('blue', 'green', 'grey', 'red')))]
    )


def chock(rng: np.random.Generator) -> Body:
    """A wheel chock."""
    material = pick(rng, ('yellow', 'rubber'))
    low, high = (-0.13, 0.13, 0.6), (-0.03, 0.03, 0.6)
    return body('chock', [frustum(low, high, (0.0, 0.2), material)])


def _slope(
    x0: float,
    x1: float,
    y: float,
    width: float,
    z: tuple[float, float],
    thickness: float,
    material: int,
) -> Mesh:
    """A slanted deck from (x0, z[0]) up to (x1, z[1]), `thickness` high."""
    a, b = y + width / 2, y - width / 2
    outline = [(x1, a, z[1]), (x0, a, z[0]), (x0, b, z[0]), (x1, b, z[1])]
    return plate(outline, thickness, material)


def _beam(x0: float, z0: float, x1: float, z1: float, y: float, material: int) -> Mesh:
    """A straight bar of 0.12 m in the xz plane."""
    low = np.array(
        [(x1, y + 0.06, z1), (x0, y + 0.06, z0), (x0, y - 0.06, z0), (x1, y - 0.06, z1)]
    )
    return hexahedron(np.concatenate([low, low + np.array([0, 0, 0.15])]), material)

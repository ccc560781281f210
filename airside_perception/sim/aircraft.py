"""Airliners as lofted bodies. The label is for the fuselage; the rest is structure.

A single box over a 37 x 36 m airliner is mostly air: people and vehicles work inside it. The
fuselage is what must not be hit and what a box describes well: its length, width and height,
centred on its axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airside_perception.sim.bodies import Body, body, pick, wheels
from airside_perception.sim.materials import LIVERIES, row
from airside_perception.sim.mesh import Mesh, box, cylinder, hexahedron, loft, plate


@dataclass(frozen=True)
class Airliner:
    """Principal dimensions, metres; stations are measured from the nose."""

    length: float
    span: float
    height: float  # top of the fin
    width: float  # fuselage
    belly: float  # underside of the fuselage above the ground
    wing: float  # station of the wing's leading edge at the root
    root: float  # chord at the root
    wing_height: float
    engine: float  # diameter
    engine_y: float
    propeller: bool = False
    t_tail: bool = False
    engines: int = 2  # a side times two


AIRLINERS = {
    'A320': Airliner(37.6, 35.8, 11.8, 3.95, 1.75, 12.5, 6.1, 2.4, 2.2, 5.75),
    'A350': Airliner(66.8, 64.8, 17.1, 5.96, 2.3, 22.5, 11.5, 3.3, 3.6, 10.5),
    'ATR': Airliner(27.2, 27.1, 7.7, 2.86, 1.1, 10.8, 2.6, 3.7, 1.3, 4.1, True, True),
    'A380': Airliner(72.7, 79.8, 24.1, 7.14, 2.3, 24.0, 17.0, 3.5, 3.6, 14.8, engines=4),
}


def aircraft(rng: np.random.Generator, kind: str = '') -> Body:
    """An airliner of a named kind (A320, A350, ATR, A380), sizes varied by a few percent."""
    names = tuple(AIRLINERS)
    plane = AIRLINERS[kind or names[int(rng.choice(4, p=[0.55, 0.2, 0.2, 0.05]))]]
    tube = plane.width * (1.18 if plane.engines == 4 else 1.03)  # height of the fuselage
    hull = _fuselage(plane, tube, rng)
    others = [
        *_wings(plane),
        *_engines(plane),
        *_tail(plane, tube, pick(rng, LIVERIES)),
        *_gear(plane),
    ]
    stretch = rng.uniform(0.94, 1.06)
    hull = [part.scaled(stretch, 1.0, 1.0) for part in hull]
    others = [part.scaled(stretch, 1.0, 1.0) for part in others]
    length = plane.length * stretch
    tube_box = (-length / 2, 0.0, plane.belly + tube / 2, length, plane.width, tube)
    return body('aircraft', hull, tube_box, others)


def _fuselage(plane: Airliner, tube: float, rng: np.random.Generator) -> list[Mesh]:
    """Nose at x = 0, tail at -length; the tail cone rises to the top line."""
    radius, half, axis = plane.width / 2, tube / 2, plane.belly + tube / 2
    # Shares: station of the length, width, height, rise of the axis of the half height.
    shape = [
        (1.0, 0.08, 0.10, 0.62), (0.93, 0.38, 0.36, 0.52), (0.85, 0.68, 0.64, 0.30),
        (0.76, 0.92, 0.90, 0.09), (0.70, 1.0, 1.0, 0.0), (0.40, 1.0, 1.0, 0.0),
        (0.13, 1.0, 1.0, 0.0), (0.085, 0.94, 0.94, -0.03), (0.05, 0.78, 0.76, -0.09),
        (0.02, 0.48, 0.46, -0.18), (0.004, 0.2, 0.18, -0.22), (0.0, 0.05, 0.05, -0.23),
    ]  # fmt: skip
    sections = [
        (-s * plane.length, 0.0, axis + r * half, w * radius, h * half) for s, w, h, r in shape
    ]
    hull = loft(sections, row('fuselage'), sides=14)
    panes = row('glass')
    front = 0.062 * plane.length
    cockpit = box(
        (0.03 * plane.length, 0.62 * plane.width, 0.12 * tube),
        (-front, 0, axis + 0.2 * half),
        panes,
    )
    band = pick(rng, LIVERIES)
    stripe = box(
        (0.5 * plane.length, plane.width * 0.99, 0.08 * tube),
        (-0.42 * plane.length, 0, axis + 0.1),
        band,
    )
    return [hull, cockpit, stripe]


def _wings(plane: Airliner) -> list[Mesh]:
    high = plane.propeller
    sweep = 0.04 if high else 0.42
    reach = plane.span / 2
    inner = 0.0 if high else plane.width * 0.35
    tip = plane.root * (0.5 if high else 0.25)
    x0, x1 = -plane.wing, -plane.wing - sweep * (reach - inner)
    z0, z1 = plane.wing_height, plane.wing_height + (0.1 if high else 0.09 * reach)
    thick = 0.12 * plane.root
    parts = []
    for side in (1, -1):
        outline = [
            (x1, side * reach, z1),
            (x1 - tip, side * reach, z1),
            (x0 - plane.root, side * inner, z0),
            (x0, side * inner, z0),
        ]
        parts.append(_oriented(outline, side, min(thick, 0.9) * 0.8, row('livery_grey')))
        if not high:
            parts.append(
                box((tip, 0.12, 0.05 * reach), (x1 - tip / 2, side * reach, z1), row('fuselage'))
            )
    return parts


def _engines(plane: Airliner) -> list[Mesh]:
    parts = []
    radius = plane.engine / 2
    for side in (1, -1):
        for place in range(plane.engines // 2):
            y = side * plane.engine_y * (1 + 0.7 * place)
            if plane.propeller:
                z = plane.wing_height + 0.1
                x = -plane.wing + 1.6
                parts.append(
                    cylinder(
                        (0.35, radius), (x - 4.2, x), (y, z - 0.2), row('fuselage'), 'x', sides=8
                    )
                )
                blade = box((0.08, 0.3, 3.9), (x + 0.1, y, z - 2.15), row('dark'))
                parts += [blade, box((0.08, 3.9, 0.3), (x + 0.1, y, z - 0.35), row('dark'))]
                continue
            dihedral = 0.09 * (abs(y) - plane.width * 0.35)
            z = plane.wing_height + dihedral - 0.62 * radius
            x = -plane.wing - 0.42 * (abs(y) - plane.width * 0.35) + 0.55 * plane.engine
            z = max(z, radius + 0.45)
            cowl = [
                (x - 1.9 * plane.engine, y, z, 0.45 * radius, 0.45 * radius),
                (x - 1.2 * plane.engine, y, z, 0.85 * radius, 0.85 * radius),
                (x - 0.4 * plane.engine, y, z, radius, radius),
                (x, y, z, 0.88 * radius, 0.88 * radius),
            ]
            parts.append(loft(cowl, row('engine'), sides=10))
            parts.append(
                cylinder(0.78 * radius, (x - 0.1, x + 0.02), (y, z), row('dark'), 'x', sides=8)
            )
            parts.append(
                box(
                    (1.6 * plane.engine, 0.3, 0.9 * radius),
                    (x - 1.2 * plane.engine, y, z + 0.6 * radius),
                    row('fuselage'),
                )
            )
    return parts


def _tail(plane: Airliner, tube: float, livery: int) -> list[Mesh]:
    top = plane.belly + tube
    chord = 0.17 * plane.length
    rear = -0.96 * plane.length
    tip = 0.45 * chord
    fin = np.array(
        [
            (rear + chord, 0.15, top - 0.4),
            (rear, 0.15, top - 0.4),
            (rear, -0.15, top - 0.4),
            (rear + chord, -0.15, top - 0.4),
            (rear - 0.1 * chord + tip, 0.1, plane.height),
            (rear - 0.1 * chord, 0.1, plane.height),
            (rear - 0.1 * chord, -0.1, plane.height),
            (rear - 0.1 * chord + tip, -0.1, plane.height),
        ]
    )
    from_z = plane.height - 0.25 if plane.t_tail else top - 0.35 * tube
    reach = 0.18 * plane.span if not plane.t_tail else 0.14 * plane.span
    x0 = rear + (0.45 if plane.t_tail else 0.7) * chord
    parts = [hexahedron(fin, livery)]
    for side in (1, -1):
        outline = [
            (x0 - 0.35 * chord, side * reach, from_z + 0.05 * reach),
            (x0 - 0.6 * chord, side * reach, from_z + 0.05 * reach),
            (x0 - 0.55 * chord, side * 0.1, from_z),
            (x0, side * 0.1, from_z),
        ]
        parts.append(_oriented(outline, side, 0.25, row('livery_grey')))
    return parts


def gear_track(plane: Airliner) -> float:
    """Distance between the struts of the main gear, metres."""
    return 2.0 * (5.3 if plane.length > 50 else 3.8 if not plane.propeller else 2.05)


def _gear(plane: Airliner) -> list[Mesh]:
    """Nose and main gear: a strut and wheels each."""
    main = -plane.wing - 0.85 * plane.root
    nose = -0.12 * plane.length
    big = plane.length > 50
    radius = 0.68 if big else 0.56 if not plane.propeller else 0.42
    track = gear_track(plane)
    axle = (main - 0.9, main + 0.9) if big else (main,)
    strut = plane.belly + 0.6
    return [
        *wheels((nose,), 0.7, 0.7 * radius),
        *(
            wheel.moved((0, s * track / 2, 0))
            for s in (1, -1)
            for wheel in wheels(axle, 1.0, radius)
        ),
        cylinder(0.12, (0.5 * radius, strut), (nose, 0), row('steel'), sides=6),
        *(
            cylinder(
                0.16, (0.5 * radius, strut + 0.4), (main, s * track / 2), row('steel'), sides=6
            )
            for s in (1, -1)
        ),
    ]


def _oriented(
    outline: list[tuple[float, float, float]], side: int, thickness: float, material: int
) -> Mesh:
    """A plate whose outline was written for the left side, wound properly for either side."""
    return plate(outline if side > 0 else outline[::-1], thickness, material)

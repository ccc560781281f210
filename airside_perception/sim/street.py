"""Street scenes: roads between houses or fields, parked rows, traffic, people, cyclists.

World frame: the road runs along x around y = 0; the vehicle drives on its right side (y < 0).
"""

from __future__ import annotations

import numpy as np

from airside_perception.sim import structures, vehicles
from airside_perception.sim.bodies import Body
from airside_perception.sim.layout import Layout
from airside_perception.sim.people import person
from airside_perception.sim.scene import Motion, Scenario

QUARTER = np.pi / 2


def street(seed: int) -> Scenario:
    """A street; everything in it follows from `seed`."""
    layout = Layout(np.random.default_rng([seed, 2]))
    half = layout.uniform(2.8, 5.5)
    city = layout.chance(0.7)
    drive = -half / 2 + float(layout.rng.normal(0, 0.25))
    ego = Motion(
        0.0,
        drive,
        float(layout.rng.normal(0, 0.04)),
        layout.uniform(0, 11),
        float(layout.rng.normal(0, 0.015)),
    )
    layout.reserve(8.0 + 2.5 * ego.speed, drive, 26.0 + 5 * ego.speed, 2.4)
    walk = layout.uniform(1.5, 3.5) if city else 0.0
    parking = (
        _parking(layout, half, 1) if layout.chance(0.75 if city else 0.3) else 0.0,
        _parking(layout, half, -1) if layout.chance(0.75 if city else 0.3) else 0.0,
    )
    for side, depth in ((1, parking[0]), (-1, parking[1])):
        _roadside(layout, half + depth, side, walk, city)
    _traffic(layout, half)
    _people(layout, half + max(parking), walk)
    for x in np.arange(-50, 70, 9.0):
        layout.paint('line_white', (3.0, 0.13), float(x), 0.0)
    return layout.scenario(ego, 'asphalt', 0.004)


def vehicle(layout: Layout, heavy: float = 0.12) -> Body:
    """A road vehicle as traffic brings them; `heavy` is the share of trucks and buses."""
    rng = layout.rng
    if layout.chance(heavy):
        return vehicles.truck(rng) if layout.chance(0.6) else vehicles.bus(rng)
    if layout.chance(0.14):
        return vehicles.van(rng, large=layout.chance(0.4))
    return vehicles.pickup(rng) if layout.chance(0.04) else vehicles.car(rng)


def _parking(layout: Layout, half: float, side: int) -> float:
    """A parked row beside the road, along or across it; returns its depth."""
    across = layout.chance(0.3)
    depth = 5.2 if across else 2.3
    density = layout.uniform(0.3, 0.95)
    x = -60.0
    while x < 70:
        body = vehicle(layout, 0.03)
        step = (
            body.box[4] + layout.uniform(0.5, 1.1)
            if across
            else body.box[3] + layout.uniform(0.5, 1.6)
        )
        x += step / 2
        if layout.chance(density):
            yaw = QUARTER if across else 0.0
            yaw += np.pi * layout.chance(
                0.5 if across else 0.2 if side < 0 else 0.8
            ) + layout.rng.normal(0, 0.04)
            layout.put(
                body,
                x,
                side * (half + depth / 2 + layout.rng.normal(0, 0.12)),
                float(yaw),
                margin=0.05,
            )
        x += step / 2
    return depth


def _roadside(layout: Layout, edge: float, side: int, walk: float, city: bool) -> None:
    """Pavement, then houses in town; grass, hedges and trees outside."""
    rng = layout.rng
    if walk:
        layout.put(
            structures.kerb(140.0, walk, layout.uniform(0.08, 0.15)),
            5.0,
            side * (edge + walk / 2),
            0.0,
            reserve=False,
        )
    else:
        layout.paint('grass', (150.0, 25.0), 5.0, side * (edge + 13.0))
    x = -65.0
    set_back = walk + layout.uniform(0.3, 9.0 if city else 20.0)
    while x < 75:
        length = layout.uniform(8, 26)
        depth = layout.uniform(8, 14)
        if layout.chance(0.8 if city else 0.25):
            back = set_back + layout.uniform(0, 3)
            house = structures.building(rng, length, depth, layout.uniform(3.5, 15))
            layout.put(house, x + length / 2, side * (edge + back + depth / 2), 0.0, margin=0.0)
        x += length + layout.uniform(0, 8 if city else 25)
    for _ in range(int(rng.integers(1, 5))):
        length = layout.uniform(4, 18)
        maker = structures.hedge if layout.chance(0.6) else structures.fence
        layout.put(
            maker(rng, length),
            layout.uniform(-50, 65),
            side * (edge + walk + layout.uniform(0.3, 2)),
            0.0,
        )
    for _ in range(int(rng.integers(2, 7))):
        layout.put(
            structures.pole(rng),
            layout.uniform(-45, 70),
            side * (edge + layout.uniform(0.3, 0.9)),
            layout.uniform(0, 3),
        )
    for _ in range(int(rng.integers(1, 6) if city else rng.integers(3, 9))):
        tree = structures.tree(rng) if layout.chance(0.7) else structures.bush(rng)
        layout.put(
            tree,
            layout.uniform(-45, 70),
            side * (edge + walk + layout.uniform(0.2, 6 if city else 15)),
            0.0,
            margin=-2.0,
        )


def _traffic(layout: Layout, half: float) -> None:
    """Vehicles in both directions, cyclists at the edges, some vehicles off the road."""
    rng = layout.rng
    for _ in range(int(rng.integers(1, 7))):
        ours = layout.chance(0.4)
        y = (-half / 2 if ours else half / 2) + float(rng.normal(0, 0.2))
        yaw = 0.0 if ours else np.pi
        layout.put(
            vehicle(layout, 0.2),
            layout.uniform(-55, 75),
            y,
            yaw + float(rng.normal(0, 0.03)),
            layout.uniform(0, 12) if layout.chance(0.7) else 0.0,
        )
    for _ in range(int(rng.integers(0, 4))):
        side = 1 if layout.chance(0.5) else -1
        layout.put(
            vehicles.cyclist(rng),
            layout.uniform(-30, 45),
            side * (half - layout.uniform(0.3, 0.9)),
            (0.0 if side < 0 else np.pi) + float(rng.normal(0, 0.1)),
            layout.uniform(0, 6),
        )
    if layout.chance(0.3):
        for _ in range(int(rng.integers(1, 4))):
            layout.put(
                vehicle(layout),
                layout.uniform(-40, 60),
                layout.uniform(-30, 30),
                layout.uniform(-np.pi, np.pi),
            )


def _people(layout: Layout, edge: float, walk: float) -> None:
    """People on the pavements, alone and in groups, and a few on the road."""
    rng = layout.rng
    for _ in range(int(rng.integers(1, 9))):
        side = 1 if layout.chance(0.5) else -1
        x = layout.uniform(-35, 45)
        y = side * (edge + layout.uniform(0.2, max(walk, 1.5)))
        for _ in range(int(rng.integers(1, 4)) if layout.chance(0.3) else 1):
            along = (
                rng.choice([0.0, np.pi]) if layout.chance(0.8) else layout.uniform(-np.pi, np.pi)
            )
            body = person(rng, vest=layout.chance(0.04))
            layout.put(body, x, y, float(along), layout.uniform(0, 1.8), margin=0.05)
            x, y = x + layout.uniform(-0.9, 0.9), y + layout.uniform(-0.8, 0.8)
    for _ in range(int(rng.integers(0, 3))):
        layout.put(
            person(rng),
            layout.uniform(4, 40),
            layout.uniform(-edge, edge),
            layout.uniform(-np.pi, np.pi),
            layout.uniform(0, 1.6),
        )

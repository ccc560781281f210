"""Apron scenes: stands with aircraft being served, traffic, a terminal, people everywhere.

World frame: aircraft stand side by side along y, noses at x = 0, facing the terminal (+x).
"""

from __future__ import annotations

import numpy as np

from airside_perception.sim import ground_support as gse
from airside_perception.sim import structures, vehicles
from airside_perception.sim.aircraft import AIRLINERS, aircraft
from airside_perception.sim.bodies import Body
from airside_perception.sim.layout import Layout
from airside_perception.sim.people import person
from airside_perception.sim.scene import Motion, Scenario

QUARTER = np.pi / 2
_STANDS = {'A320': 0.6, 'A350': 0.12, 'ATR': 0.26, 'A380': 0.02}


def apron(seed: int) -> Scenario:
    """A busy apron; everything in it follows from `seed`."""
    layout = Layout(np.random.default_rng([seed, 1]))
    kinds = [
        str(k)
        for k in layout.rng.choice(
            list(_STANDS), int(layout.rng.integers(2, 4)), p=list(_STANDS.values())
        )
    ]
    spans = np.array([AIRLINERS[k].span for k in kinds])
    lefts = np.concatenate([[0.0], np.cumsum(spans + layout.rng.uniform(6, 12))])
    middles = lefts[:-1] + spans / 2
    front = layout.uniform(9, 13)  # middle of the road between noses and terminal
    rear = -max(AIRLINERS[k].length for k in kinds) - layout.uniform(9, 14)
    busiest = int(layout.rng.integers(len(kinds)))
    ego = _ego(layout, middles, spans, busiest, front, rear)
    _surroundings(layout, lefts, front, rear)
    for number, (kind, middle) in enumerate(zip(kinds, middles, strict=True)):
        occupied = number == busiest or layout.chance(0.7)
        _stand(layout, kind, float(middle), front, occupied)
    _roads(layout, lefts, front, rear)
    _scatter(layout, ego)
    return layout.scenario(ego, 'concrete' if layout.chance(0.6) else 'asphalt')


def _ego(
    layout: Layout, middles: np.ndarray, spans: np.ndarray, busiest: int, front: float, rear: float
) -> Motion:
    """The vehicle on a road before or behind the stands, between two stands or on one."""
    middle, span = float(middles[busiest]), float(spans[busiest])
    way = int(layout.rng.choice(4, p=[0.3, 0.2, 0.25, 0.25]))
    sign = 1.0 if layout.chance(0.5) else -1.0
    speed = layout.uniform(0.0, 4.2)
    jitter = float(layout.rng.normal(0, 0.06))
    y = middle + layout.uniform(-0.6, 0.6) * span
    if way == 0:
        ego = Motion(front + 2 * sign, y, sign * QUARTER + jitter, speed)
    elif way == 1:
        ego = Motion(rear + 2 * sign, y, sign * QUARTER + jitter, speed)
    elif way == 2:
        ego = Motion(
            layout.uniform(0.1, 0.7) * rear,
            middle + sign * (span / 2 + 3),
            layout.uniform(-np.pi, np.pi),
            0.5 * speed,
            layout.uniform(-0.2, 0.2),
        )
    else:
        ego = Motion(
            layout.uniform(0.1, 0.9) * rear,
            middle + sign * layout.uniform(9, 16),
            layout.uniform(-np.pi, np.pi),
            0.4 * speed,
        )
    x, y, yaw = ego.pose(2.0)
    layout.reserve(x, y, 7.0 + 6.0 * ego.speed, 3.4, yaw)
    return ego


def _surroundings(layout: Layout, lefts: np.ndarray, front: float, rear: float) -> None:
    """Terminal, masts, roads and their markings."""
    middle, length = float(lefts.mean()), float(lefts[-1]) + 60
    if layout.chance(0.85):
        layout.put(
            structures.terminal(layout.rng, length),
            front + layout.uniform(6, 16),
            middle,
            0.0,
            margin=0.0,
        )
    for left in lefts:
        if layout.chance(0.5):
            layout.put(
                structures.mast(layout.rng, layout.uniform(15, 28)), front + 5.5, float(left), 0.0
            )
    for x in (front, rear):
        for side in (-4.0, 4.0):
            layout.paint('line_white', (length, 0.15), x + side, middle, QUARTER)
        for y in np.arange(middle - 45, middle + 45, 9.0):
            layout.paint('line_white', (3.0, 0.15), x, float(y), QUARTER)
    for left in lefts:
        layout.paint('line_red', (abs(rear), 0.3), rear / 2, float(left) - 3, 0.0)


def _roads(layout: Layout, lefts: np.ndarray, front: float, rear: float) -> None:
    """Traffic on both roads, some of it parked."""
    for x in (front, rear):
        for _ in range(int(layout.rng.integers(3, 8))):
            sign = 1.0 if layout.chance(0.5) else -1.0
            speed = layout.uniform(1.5, 6.5) if layout.chance(0.5) else 0.0
            y = layout.uniform(float(lefts[0]) - 20, float(lefts[-1]) + 20)
            lane = x + 2.0 * sign if speed else x + layout.uniform(-7, 7)
            yaw = sign * QUARTER + float(layout.rng.normal(0, 0.04))
            if layout.chance(0.35):
                _train(layout, lane, y, yaw, speed)
            else:
                layout.put(_traffic(layout), lane, y, yaw, speed)


def _traffic(layout: Layout) -> Body:
    """A vehicle as it drives about on an apron."""
    makers = (
        vehicles.bus,
        gse.fuel_truck,
        gse.catering_truck,
        gse.pushback_tug,
        gse.belt_loader,
        gse.baggage_tractor,
        vehicles.car,
        vehicles.van,
        vehicles.pickup,
        vehicles.truck,
        gse.stairs,
    )
    weights = np.array([3, 2, 2, 2, 2, 2, 2, 3, 1, 1, 1], dtype=np.float64)
    return makers[int(layout.rng.choice(len(makers), p=weights / weights.sum()))](layout.rng)


def _train(layout: Layout, x: float, y: float, yaw: float, speed: float = 0.0) -> None:
    """A baggage tractor with up to four carts behind it; its origin is the tractor's."""
    tractor = gse.baggage_tractor(layout.rng)
    carts = [gse.baggage_cart(layout.rng) for _ in range(int(layout.rng.integers(0, 5)))]
    behind = tractor.box[3] / 2
    if not layout.put(tractor, x, y, yaw, speed, margin=0.1):
        return
    for cart in carts:
        behind += cart.box[3] / 2 + 0.25
        spot = (x - np.cos(yaw) * behind, y - np.sin(yaw) * behind)
        # Carts of a moving train share the tractor's way, which is already kept free.
        if not layout.put(cart, *spot, yaw, speed, margin=0.05, reserve=not speed):
            return
        behind += cart.box[3] / 2 + 0.25


def _stand(layout: Layout, kind: str, middle: float, front: float, occupied: bool) -> None:
    """One stand: lead-in line and, if occupied, an aircraft with its turn-round service."""
    plane = AIRLINERS[kind]
    layout.paint('line_yellow', (plane.length + 15, 0.25), -plane.length / 2, middle)
    layout.paint('line_yellow', (2.0, 0.3), -0.12 * plane.length, middle, QUARTER)
    if not occupied:
        for _ in range(int(layout.rng.integers(0, 6))):
            spot = (
                layout.uniform(-plane.length, -4),
                middle + layout.uniform(-0.4, 0.4) * plane.span,
            )
            layout.put(_equipment(layout), *spot, layout.uniform(-np.pi, np.pi))
        return
    body = aircraft(layout.rng, kind)
    length = float(body.box[3])
    layout.put(body, -length / 2, middle, float(layout.rng.normal(0, 0.02)), margin=0.0)
    _services(layout, kind, length, middle, front)
    _crew(layout, length, middle, plane.span)


def _services(layout: Layout, kind: str, length: float, middle: float, front: float) -> None:
    """Vehicles at the places where the doors, holds, tanks and the nose gear want them."""
    plane = AIRLINERS[kind]
    rng, side = layout.rng, plane.width / 2

    def dock(body: Body, station: float, left: bool, gap: float) -> tuple[float, float]:
        """Nose to the fuselage at a share of the length, on the left or the right."""
        sign = 1.0 if left else -1.0
        y = middle + sign * (side + gap + body.box[3] / 2)
        x = -station * length + float(rng.normal(0, 0.4))
        layout.put(body, x, y, -sign * QUARTER + float(rng.normal(0, 0.05)))
        return x, y

    for station in (0.27, 0.70):
        if layout.chance(0.75):
            x, y = dock(gse.belt_loader(rng), station, False, layout.uniform(-0.3, 0.6))
            if layout.chance(0.8):
                _train(
                    layout,
                    x + layout.uniform(2.2, 3.5),
                    y - layout.uniform(0, 3),
                    layout.rng.choice([QUARTER, -QUARTER, 0.3]) + float(rng.normal(0, 0.2)),
                )
    for station in (0.13, 0.88):
        if layout.chance(0.5):
            dock(gse.catering_truck(rng), station, False, layout.uniform(0.1, 0.8))
    for station, chance in ((0.12, 0.4), (0.87, 0.5)):
        if layout.chance(chance):
            dock(gse.stairs(rng), station, True, layout.uniform(0.0, 0.5))
    if layout.chance(0.55):
        layout.put(
            gse.fuel_truck(rng),
            -plane.wing + layout.uniform(2, 5),
            middle - layout.uniform(0.25, 0.4) * plane.span,
            rng.choice([0.0, np.pi]) + float(rng.normal(0, 0.08)),
        )
    if layout.chance(0.6):
        tug = gse.pushback_tug(rng)
        layout.put(
            tug,
            tug.box[3] / 2 + layout.uniform(0.5, 3.5),
            middle,
            np.pi + float(rng.normal(0, 0.05)),
        )
    if layout.chance(0.6):
        layout.put(
            gse.ground_power(rng),
            layout.uniform(-4, 1),
            middle + layout.uniform(2.5, 4.5),
            layout.uniform(0, 3),
        )
    if layout.chance(0.45):
        layout.put(
            vehicles.bus(rng),
            -layout.uniform(0.2, 0.7) * length,
            middle + layout.uniform(0.35, 0.45) * plane.span,
            rng.choice([0.0, np.pi, 0.6]) + float(rng.normal(0, 0.1)),
        )
    if layout.chance(0.55) and not plane.propeller:
        start = (front + 6.5, middle + side + layout.uniform(10, 14))
        door = (-0.11 * length, middle + side + 1.8)
        reach = float(np.hypot(door[0] - start[0], door[1] - start[1]))
        yaw = float(np.arctan2(door[1] - start[1], door[0] - start[0]))
        column = (start[0] + 0.85 * reach * np.cos(yaw), start[1] + 0.85 * reach * np.sin(yaw))
        if layout.claim(*column, 1.5, 4.0, yaw):
            layout.put(structures.jet_bridge(rng, reach), *start, yaw, reserve=False)
    for _ in range(int(rng.integers(0, 4))):
        layout.put(
            _equipment(layout),
            layout.uniform(-length, 2),
            middle + layout.uniform(-0.48, 0.48) * plane.span,
            layout.uniform(-np.pi, np.pi),
        )


def _equipment(layout: Layout) -> Body:
    """Something left standing on a stand."""
    makers = (
        gse.baggage_cart,
        gse.baggage_tractor,
        gse.belt_loader,
        gse.ground_power,
        gse.container,
        gse.stairs,
        gse.pushback_tug,
        vehicles.van,
        vehicles.car,
    )
    weights = np.array([5, 2, 2, 2, 1.5, 1.5, 1.5, 1, 1])
    return makers[int(layout.rng.choice(len(makers), p=weights / weights.sum()))](layout.rng)


def _crew(layout: Layout, length: float, middle: float, span: float) -> None:
    """People at work around an aircraft, its cones and chocks."""
    for x, y in (
        (-0.5, 0.5),
        (-0.5, -0.5),
        (-1.02, 0.0),
        (-0.35, 0.2),
        (-0.35, -0.2),
        (0.06, 0.06),
    ):
        if layout.chance(0.6):
            layout.put(
                gse.cone(layout.rng), x * length + layout.uniform(-1, 1), middle + y * span, 0.0
            )
    for _ in range(int(layout.rng.integers(3, 10))):
        x = layout.uniform(-1.0, 0.12) * length
        y = middle + float(layout.rng.normal(0, 0.22)) * span
        _person(layout, x, y, vest=layout.chance(0.85))
    if layout.chance(0.25):  # passengers in file between a bus or the gate and the aircraft
        x, y, yaw = -0.12 * length, middle + layout.uniform(5, 8), layout.uniform(0, np.pi)
        for step in range(int(layout.rng.integers(4, 9))):
            _person(layout, x + 1.2 * step * np.cos(yaw), y + 1.2 * step * np.sin(yaw), vest=False)


def _person(layout: Layout, x: float, y: float, vest: bool | None = None) -> None:
    body = person(layout.rng, vest=vest)
    walks = body.box[3] > 0.65 and body.box[5] > 1.4
    speed = layout.uniform(0.5, 1.7) if walks else 0.0
    layout.put(body, x, y, layout.uniform(-np.pi, np.pi), speed, margin=0.1)


def _scatter(layout: Layout, ego: Motion) -> None:
    """More people and vehicles near the vehicle itself: what is near matters and is rare."""
    for _ in range(int(layout.rng.integers(2, 9))):
        distance, bearing = layout.uniform(3, 35), layout.uniform(-np.pi, np.pi)
        _person(layout, ego.x + distance * np.cos(bearing), ego.y + distance * np.sin(bearing))
    for _ in range(int(layout.rng.integers(1, 5))):
        distance, bearing = layout.uniform(6, 45), layout.uniform(-np.pi, np.pi)
        layout.put(
            _traffic(layout),
            ego.x + distance * np.cos(bearing),
            ego.y + distance * np.sin(bearing),
            layout.uniform(-np.pi, np.pi),
        )

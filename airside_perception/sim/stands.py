"""Aircraft stands: an airliner with its turn-round service, where airports put it.

Layouts come in two families, so that an evaluation can be on arrangements never trained on:

- `train`: stands square to the terminal, service from the doors as most airlines do it, and any
  aircraft side by side but the held-out pairs.
- `held_out`: stands at 20 to 40 degrees (herringbone); belt loaders and catering at other holds
  and doors; the fuel truck on the left wing and ground power on the right; no jet bridge, but
  stairs at both doors and two buses; in every row an A350 beside an ATR, or an A320 beside an
  A380. None of these occurs in the other family.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from airside_perception.errors import ConfigError
from airside_perception.sim import ground_support as gse
from airside_perception.sim import structures, vehicles
from airside_perception.sim.aircraft import AIRLINERS, Airliner, aircraft, gear_track
from airside_perception.sim.bodies import Body
from airside_perception.sim.layout import Layout
from airside_perception.sim.people import person
from airside_perception.sim.scene import Motion

QUARTER = np.pi / 2
_SHARES = {'A320': 0.6, 'A350': 0.12, 'ATR': 0.26, 'A380': 0.02}
HELD_OUT_PAIRS = (('A350', 'ATR'), ('ATR', 'A350'), ('A320', 'A380'), ('A380', 'A320'))
"""Neighbours, seen from one end of the row, that only the held-out family has."""


@dataclass(frozen=True)
class Arrangement:
    """Where things stand around an aircraft.

    Attributes:
        angle: of the stands to the terminal's normal, radians, lowest and highest.
        belts, catering: stations of belt loaders and catering trucks, shares of the length.
        stairs: stations with the chance of stairs there.
        fuel, power: side of the fuel truck and of ground power, 1: left.
        buses: how many may stand beside the aircraft.
        bridges: whether there are jet bridges.
        pairs: whether a row has one of HELD_OUT_PAIRS.
    """

    angle: tuple[float, float] = (0.0, 0.0)
    belts: tuple[float, ...] = (0.27, 0.70)
    catering: tuple[float, ...] = (0.13, 0.88)
    stairs: tuple[tuple[float, float], ...] = ((0.12, 0.4), (0.87, 0.5))
    fuel: int = -1
    power: int = 1
    buses: int = 1
    bridges: bool = True
    pairs: bool = False


FAMILIES = {
    'train': Arrangement(),
    'held_out': Arrangement(
        (0.35, 0.70), (0.34, 0.62), (0.19, 0.80), ((0.12, 0.9), (0.87, 0.9)), 1, -1, 2, False, True
    ),
}


def arrangement(family: str) -> Arrangement:
    """One of FAMILIES.

    Raises:
        ConfigError: there is no such family.
    """
    if family not in FAMILIES:
        raise ConfigError(f'layout family {family!r} is not one of {", ".join(FAMILIES)}')
    return FAMILIES[family]


def row_of(layout: Layout, plan: Arrangement) -> list[str]:
    """The aircraft of two or three stands side by side."""
    names = list(_SHARES)
    count = int(layout.rng.integers(2, 4))
    kinds = [str(k) for k in layout.rng.choice(names, count, p=list(_SHARES.values()))]
    if plan.pairs:
        pair = HELD_OUT_PAIRS[int(layout.rng.choice(4, p=[0.35, 0.35, 0.15, 0.15]))]
        return [*pair, *kinds[2:]]
    for n in range(1, count):
        if (kinds[n - 1], kinds[n]) in HELD_OUT_PAIRS:
            kinds[n] = kinds[n - 1]
    return kinds


def stand(
    layout: Layout, kind: str, front: float, occupied: bool, plan: Arrangement, extra: Generator
) -> None:
    """One stand in its own frame, the nose at the origin: a line and, if occupied, an aircraft.

    Args:
        layout: in the stand's frame; kind: of AIRLINERS.
        front: distance of the road before the nose, metres.
        occupied: whether an aircraft with its turn-round service stands there.
        plan: where what stands; extra: source of the small things.
    """
    plane = AIRLINERS[kind]
    layout.paint('line_yellow', (plane.length + 15, 0.25), -plane.length / 2, 0.0)
    layout.paint('line_yellow', (2.0, 0.3), -0.12 * plane.length, 0.0, QUARTER)
    if not occupied:
        for _ in range(int(layout.rng.integers(0, 6))):
            spot = (layout.uniform(-plane.length, -4), layout.uniform(-0.4, 0.4) * plane.span)
            layout.put(_equipment(layout), *spot, layout.uniform(-np.pi, np.pi))
        return
    body = aircraft(layout.rng, kind)
    length = float(body.box[3])
    layout.put(body, -length / 2, 0.0, float(layout.rng.normal(0, 0.02)), margin=0.0)
    _services(layout, kind, length, front, plan)
    _crew(layout, length, plane.span)
    _chocks(layout, plane, length / plane.length, extra)


def _chocks(layout: Layout, plane: Airliner, stretch: float, extra: Generator) -> None:
    """Before and behind the wheels of nose and main gear."""
    main = (-plane.wing - 0.85 * plane.root) * stretch
    wheels = [(-0.12 * plane.length * stretch, 0.0)]
    wheels += [(main, side * gear_track(plane) / 2) for side in (1, -1)]
    radius = 1.6 if plane.length > 50 else 0.75
    for x, y in wheels:
        for sign in (1, -1):
            if extra.random() < 0.7:
                layout.put(
                    gse.chock(extra), x + sign * radius, y, extra.normal(0, 0.1), reserve=False
                )


def litter(layout: Layout, ego: Motion, rear: float, width: float, extra: Generator) -> None:
    """Foreign objects on the ground, some of them before the vehicle."""
    c, s = np.cos(ego.yaw), np.sin(ego.yaw)
    for _ in range(int(extra.poisson(1.6))):
        ahead, aside = extra.uniform(4, 28), extra.normal(0, 2.5)
        place = (ego.x + c * ahead - s * aside, ego.y + s * ahead + c * aside)
        layout.put(gse.fod(extra), *place, extra.uniform(-3, 3), reserve=False)
    for _ in range(int(extra.poisson(3.0))):
        place = (extra.uniform(rear, 5.0), extra.uniform(0.0, width))
        layout.put(gse.fod(extra), *place, extra.uniform(-3, 3), reserve=False)


def _services(layout: Layout, kind: str, length: float, front: float, plan: Arrangement) -> None:
    """Vehicles at the places where the doors, holds, tanks and the nose gear want them."""
    plane = AIRLINERS[kind]
    rng, side = layout.rng, plane.width / 2

    def dock(body: Body, station: float, left: bool, gap: float) -> tuple[float, float]:
        """Nose to the fuselage at a share of the length, on the left or the right."""
        sign = 1.0 if left else -1.0
        y = sign * (side + gap + body.box[3] / 2)
        x = -station * length + float(rng.normal(0, 0.4))
        layout.put(body, x, y, -sign * QUARTER + float(rng.normal(0, 0.05)))
        return x, y

    for station in plan.belts:
        if layout.chance(0.75):
            x, y = dock(gse.belt_loader(rng), station, False, layout.uniform(-0.3, 0.6))
            if layout.chance(0.8):
                baggage_train(
                    layout,
                    x + layout.uniform(2.2, 3.5),
                    y - layout.uniform(0, 3),
                    layout.rng.choice([QUARTER, -QUARTER, 0.3]) + float(rng.normal(0, 0.2)),
                )
    for station in plan.catering:
        if layout.chance(0.5):
            dock(gse.catering_truck(rng), station, False, layout.uniform(0.1, 0.8))
    for station, chance in plan.stairs:
        if layout.chance(chance):
            dock(gse.stairs(rng), station, True, layout.uniform(0.0, 0.5))
    if layout.chance(0.55):
        layout.put(
            gse.fuel_truck(rng),
            -plane.wing + layout.uniform(2, 5),
            plan.fuel * layout.uniform(0.25, 0.4) * plane.span,
            rng.choice([0.0, np.pi]) + float(rng.normal(0, 0.08)),
        )
    if layout.chance(0.6):
        tug = gse.pushback_tug(rng)
        layout.put(
            tug,
            tug.box[3] / 2 + layout.uniform(0.5, 3.5),
            0.0,
            np.pi + float(rng.normal(0, 0.05)),
        )
    if layout.chance(0.6):
        layout.put(
            gse.ground_power(rng),
            layout.uniform(-4, 1),
            plan.power * layout.uniform(2.5, 4.5),
            layout.uniform(0, 3),
        )
    for _ in range(plan.buses):
        if not layout.chance(0.45 if plan.buses == 1 else 0.9):
            continue
        layout.put(
            vehicles.bus(rng),
            -layout.uniform(0.2, 0.7) * length,
            layout.uniform(0.35, 0.45) * plane.span,
            rng.choice([0.0, np.pi, 0.6]) + float(rng.normal(0, 0.1)),
        )
    if plan.bridges and layout.chance(0.55) and not plane.propeller:
        start = (front + 6.5, side + layout.uniform(10, 14))
        door = (-0.11 * length, side + 1.8)
        reach = float(np.hypot(door[0] - start[0], door[1] - start[1]))
        yaw = float(np.arctan2(door[1] - start[1], door[0] - start[0]))
        column = (start[0] + 0.85 * reach * np.cos(yaw), start[1] + 0.85 * reach * np.sin(yaw))
        if layout.claim(*column, 1.5, 4.0, yaw):
            layout.put(structures.jet_bridge(rng, reach), *start, yaw, reserve=False)
    for _ in range(int(rng.integers(0, 4))):
        layout.put(
            _equipment(layout),
            layout.uniform(-length, 2),
            layout.uniform(-0.48, 0.48) * plane.span,
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


def _crew(layout: Layout, length: float, span: float) -> None:
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
            layout.put(gse.cone(layout.rng), x * length + layout.uniform(-1, 1), y * span, 0.0)
    for _ in range(int(layout.rng.integers(3, 10))):
        x = layout.uniform(-1.0, 0.12) * length
        y = float(layout.rng.normal(0, 0.22)) * span
        put_person(layout, x, y, vest=layout.chance(0.85))
    if layout.chance(0.25):  # passengers in file between a bus or the gate and the aircraft
        x, y, yaw = -0.12 * length, layout.uniform(5, 8), layout.uniform(0, np.pi)
        for step in range(int(layout.rng.integers(4, 9))):
            put_person(
                layout, x + 1.2 * step * np.cos(yaw), y + 1.2 * step * np.sin(yaw), vest=False
            )


def put_person(layout: Layout, x: float, y: float, vest: bool | None = None) -> None:
    """A person at (x, y), who walks if the figure does."""
    body = person(layout.rng, vest=vest)
    walks = body.box[3] > 0.65 and body.box[5] > 1.4
    speed = layout.uniform(0.5, 1.7) if walks else 0.0
    layout.put(body, x, y, layout.uniform(-np.pi, np.pi), speed, margin=0.1)


def baggage_train(layout: Layout, x: float, y: float, yaw: float, speed: float = 0.0) -> None:
    """A baggage tractor with up to four carts behind it; its origin is the tractor's."""
    tractor = gse.baggage_tractor(layout.rng)
    carts = [gse.baggage_cart(layout.rng) for _ in range(int(layout.rng.integers(0, 5)))]
    behind = tractor.box[3] / 2
    if not layout.put(tractor, x, y, yaw, speed, margin=0.1):
        return
    if speed and carts:
        # Carts of a moving train share the tractor's way, which is kept free; not so what is
        # behind it when it starts.
        tail = sum(cart.box[3] + 0.25 for cart in carts)
        middle = behind + 0.1 + tail / 2
        spot = (x - np.cos(yaw) * middle, y - np.sin(yaw) * middle)
        if not layout.claim(*spot, tail, 1.7, yaw):
            return
    for cart in carts:
        behind += cart.box[3] / 2 + 0.25
        spot = (x - np.cos(yaw) * behind, y - np.sin(yaw) * behind)
        if not layout.put(cart, *spot, yaw, speed, margin=0.05, reserve=not speed):
            return
        behind += cart.box[3] / 2 + 0.25


def traffic(layout: Layout) -> Body:
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

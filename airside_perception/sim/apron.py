"""Apron scenes: stands with aircraft being served, traffic, a terminal, people everywhere.

World frame: aircraft stand side by side along y, noses at x = 0, facing the terminal (+x).
"""

from __future__ import annotations

import numpy as np

from airside_perception.sim import structures
from airside_perception.sim.aircraft import AIRLINERS, aircraft
from airside_perception.sim.layout import Layout
from airside_perception.sim.scene import Motion, Scenario
from airside_perception.sim.stands import (
    QUARTER,
    arrangement,
    baggage_train,
    litter,
    put_person,
    row_of,
    stand,
    traffic,
)


def apron(seed: int, family: str = 'train') -> Scenario:
    """A busy apron; everything in it follows from `seed`.

    Args:
        seed: 0 or more.
        family: which arrangements of stands and service, `train` or `held_out`; see `stands`.

    Raises:
        ConfigError: there is no such family.
    """
    plan = arrangement(family)
    layout = Layout(np.random.default_rng([seed, 1]))
    extra = np.random.default_rng(
        [seed, 3]
    )  # of what was added later: older seeds keep their look
    kinds = row_of(layout, plan)
    angle = float(extra.uniform(*plan.angle)) * (1 if extra.random() < 0.5 else -1)
    lean = float(np.cos(angle))
    spans = np.array([AIRLINERS[k].span for k in kinds]) / lean
    lefts = np.concatenate([[0.0], np.cumsum(spans + layout.rng.uniform(6, 12))])
    middles = lefts[:-1] + spans / 2
    front = layout.uniform(9, 13)  # middle of the road between noses and terminal
    longest = max(AIRLINERS[k].length * lean + spans.max() / 2 * abs(np.sin(angle)) for k in kinds)
    rear = -longest - layout.uniform(9, 14)
    busiest = int(layout.rng.integers(len(kinds)))
    spot = float(middles[busiest])
    ego = _ego(layout, (0.0, spot, angle), float(spans[busiest]), front, rear)
    _surroundings(layout, lefts, front, rear)
    for number, (kind, middle) in enumerate(zip(kinds, middles, strict=True)):
        occupied = number == busiest or layout.chance(0.7)
        with layout.frame(0.0, float(middle), angle):
            stand(layout, kind, front, occupied, plan, extra)
    _roads(layout, lefts, front, rear)
    _scatter(layout, ego)
    _taxiing(layout, lefts, rear, extra)
    litter(layout, ego, rear, float(lefts[-1]), extra)
    return layout.scenario(ego, 'concrete' if layout.chance(0.6) else 'asphalt')


def _ego(
    layout: Layout, frame: tuple[float, float, float], span: float, front: float, rear: float
) -> Motion:
    """The vehicle on a road before or behind the stands, between two stands or on one."""
    middle = frame[1]
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
        x = layout.uniform(0.1, 0.7) * rear
        yaw = layout.uniform(-np.pi, np.pi)
        with layout.frame(*frame):
            place = layout.placed(x, sign * (span / 2 + 3), yaw)
        ego = Motion(*place, 0.5 * speed, layout.uniform(-0.2, 0.2))
    else:
        x = layout.uniform(0.1, 0.9) * rear
        aside = sign * layout.uniform(9, 16)
        with layout.frame(*frame):
            place = layout.placed(x, aside, layout.uniform(-np.pi, np.pi))
        ego = Motion(*place, 0.4 * speed)
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
                baggage_train(layout, lane, y, yaw, speed)
            else:
                layout.put(traffic(layout), lane, y, yaw, speed)


def _scatter(layout: Layout, ego: Motion) -> None:
    """More people and vehicles near the vehicle itself: what is near matters and is rare."""
    for _ in range(int(layout.rng.integers(2, 9))):
        distance, bearing = layout.uniform(3, 35), layout.uniform(-np.pi, np.pi)
        put_person(layout, ego.x + distance * np.cos(bearing), ego.y + distance * np.sin(bearing))
    for _ in range(int(layout.rng.integers(1, 5))):
        distance, bearing = layout.uniform(6, 45), layout.uniform(-np.pi, np.pi)
        layout.put(
            traffic(layout),
            ego.x + distance * np.cos(bearing),
            ego.y + distance * np.sin(bearing),
            layout.uniform(-np.pi, np.pi),
        )


def _taxiing(layout: Layout, lefts: np.ndarray, rear: float, extra: np.random.Generator) -> None:
    """Sometimes an aircraft that rolls by on the taxiway behind the stands."""
    if extra.random() < 0.3:
        sign = 1.0 if extra.random() < 0.5 else -1.0
        kind = str(extra.choice(['A320', 'ATR']))
        y = float(lefts.mean()) - sign * extra.uniform(0, 60)
        speed = extra.uniform(3, 8)
        layout.put(aircraft(extra, kind), rear - 42.0, y, sign * QUARTER, speed, reserve=False)

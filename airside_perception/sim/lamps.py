"""Lamps: flood-light masts, street lamps, head lights, beacons; and the light that they throw.

A lamp throws power cos(angle to its axis)^focus into a direction (a Phong lobe): focus 1 is a wide
flood light, 60 a head light. A face gets the irradiance lobe cos(incidence) / distance^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from airside_perception.types import Float32, Float64, Int64

WHITE, WARM, SODIUM, RED, AMBER = (
    (1.0, 0.98, 0.92),
    (0.72, 0.88, 1.0),
    (0.42, 0.74, 1.0),
    (0.1, 0.1, 1.0),
    (0.05, 0.55, 1.0),
)
"""Colours of lamps: blue, green, red."""

HEADLIGHT, FLOOD, STREET = 8.0, 14.0, 1.0
"""Irradiance on the axis at 1 m, the clear sun's being 0.75. Real lamps give a fiftieth of it:
that cameras expose longer at night is half in these numbers, half in the gain."""

VEHICLES = frozenset(
    {
        'bus', 'belt_loader', 'pushback_tug', 'baggage_tractor', 'fuel_truck', 'catering_truck',
        'truck', 'car',
    }
)  # fmt: skip
SERVICE = VEHICLES - {'bus', 'car', 'truck'}
"""Vehicles of the apron, which carry a beacon."""


@dataclass(frozen=True)
class Lamp:
    """One lamp.

    Attributes:
        position: (x, y, z), metres; axis: unit vector (x, y, z) that it points along.
        power: see the module; focus: exponent of the lobe.
        colour: blue, green, red, 0..1.
        size: radius of what glares, metres.
    """

    position: tuple[float, float, float]
    axis: tuple[float, float, float] = (0.0, 0.0, -1.0)
    power: float = FLOOD
    focus: float = 1.0
    colour: tuple[float, float, float] = WHITE
    size: float = 0.25

    def moved(self, x: float, y: float, yaw: float) -> Lamp:
        """Turned about z by `yaw` and shifted on the ground."""
        c, s = float(np.cos(yaw)), float(np.sin(yaw))

        def turn(v: tuple[float, float, float]) -> tuple[float, float, float]:
            return c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]

        px, py, pz = turn(self.position)
        return replace(self, position=(px + x, py + y, pz), axis=turn(self.axis))


@dataclass(frozen=True)
class Lamps:
    """L lamps as arrays, float32: position, axis, colour [L, 3]; power, focus, size [L]."""

    position: Float32
    axis: Float32
    power: Float32
    focus: Float32
    colour: Float32
    size: Float32

    def __len__(self) -> int:
        return len(self.power)

    @staticmethod
    def of(lamps: Sequence[Lamp], world2base: Float64, slope: Float64) -> Lamps:
        """Lamps of the world, on level ground, in base_link on ground that falls by `slope`."""
        position = np.array([lamp.position for lamp in lamps], np.float64).reshape(-1, 3)
        position[:, 2] += position[:, :2] @ slope
        axis = np.array([lamp.axis for lamp in lamps], np.float64).reshape(-1, 3)
        turn = world2base[:3, :3]

        def column(name: str) -> Float32:
            return np.array([getattr(lamp, name) for lamp in lamps], np.float32)

        return Lamps(
            (position @ turn.T + world2base[:3, 3]).astype(np.float32),
            (axis @ turn.T).astype(np.float32),
            column('power'),
            column('focus'),
            np.array([lamp.colour for lamp in lamps], np.float32).reshape(-1, 3),
            column('size'),
        )

    def near(self, reach: float) -> Lamps:
        """Those within `reach` metres of the origin, seen from above."""
        kept = np.hypot(self.position[:, 0], self.position[:, 1]) < reach
        return Lamps(
            self.position[kept],
            self.axis[kept],
            self.power[kept],
            self.focus[kept],
            self.colour[kept],
            self.size[kept],
        )

    def irradiance(self, points: Float32, normals: Float32) -> Float32:
        """Irradiance float32 [N, L] of each lamp on faces at `points` with `normals`, [N, 3]."""
        found = np.zeros((len(self), len(points)), np.float32)
        places, faces = np.ascontiguousarray(points.T), np.ascontiguousarray(normals.T)
        for number in range(len(self)):
            focus = self.focus[number]
            row: slice | Int64 = slice(None)
            away = self.position[number][:, None] - places
            if focus > 8:  # a narrow beam: most of the places lie outside it
                ahead = -_dot(away, self.axis[number])
                row = np.flatnonzero((ahead > 0) & (_dot(away, away) < 1.35 * ahead * ahead))
                away = away[:, row]
            square = np.maximum(_dot(away, away), np.float32(0.3))
            over = 1 / np.sqrt(square)
            lobe = np.maximum(-_dot(away, self.axis[number]) * over, 0)
            if focus != 1:
                lobe **= focus
            facing = np.maximum(_dot(away, faces[:, row]) * over, 0)
            found[number, row] = self.power[number] * lobe * facing / square
        return found.T


def _dot(a: Float32, b: Float32) -> Float32:
    """Scalar products [N] of vectors [3, N], or of one vector [3] and those."""
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2], dtype=np.float32)


def of_vehicle(label: str, box: Float64, moving: bool) -> list[Lamp]:
    """Head lights and tail lights of what drives; a beacon on what serves aircraft.

    Args:
        label: class; box: float64 [6] as that of a `Body`, in its frame.
        moving: whether it drives: only then it has lights on.
    """
    if label not in VEHICLES or not moving:
        return []
    length, width, height = box[3:].tolist()
    side = 0.36 * width
    low = min(0.75, 0.5 * height)
    lamps = []
    for sign in (1, -1):
        front = (0.5 * length + 0.05, sign * side, low)
        lamps.append(Lamp(front, _down(0.06), HEADLIGHT, 60.0, WHITE, 0.09))
        rear = (-0.5 * length - 0.05, sign * side, low + 0.1)
        lamps.append(Lamp(rear, (-1.0, 0.0, 0.0), 0.05, 1.0, RED, 0.05))
    if label in SERVICE:
        top = (0.0, 0.0, height + 0.15)
        lamps.append(Lamp(top, (0.0, 0.0, 1.0), 0.04, 0.0, AMBER, 0.08))
    return lamps


def ego() -> list[Lamp]:
    """The head lights of the vehicle that carries the sensors, in base_link."""
    return [
        Lamp((2.6, side, 0.75), _down(0.07), HEADLIGHT, 60.0, WHITE, 0.0) for side in (0.6, -0.6)
    ]


def _down(angle: float) -> tuple[float, float, float]:
    """Straight ahead, `angle` radians below the horizontal."""
    return float(np.cos(angle)), 0.0, -float(np.sin(angle))

"""Placing bodies without overlap: a list of occupied rectangles and a random generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from airside_perception.sim.bodies import Body, structure
from airside_perception.sim.lamps import Lamp
from airside_perception.sim.materials import Materials, row, standard
from airside_perception.sim.mesh import Mesh, merge, quad
from airside_perception.sim.scene import Actor, Motion, Scenario
from airside_perception.types import Float64

DURATION = 6.0
"""Seconds for which the way of a moving body is kept free."""


class Layout:
    """Collects actors and structure; refuses what would stand inside something else."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._taken: list[Float64] = []
        self._circles = np.empty((0, 3))  # middle and radius of each, to look at near ones only
        self._actors: list[Actor] = []
        self._structure: list[Mesh] = []
        self._lamps: list[Lamp] = []
        self._frame = (0.0, 0.0, 0.0)

    @contextmanager
    def frame(self, x: float, y: float, yaw: float) -> Iterator[None]:
        """Places given within are in this frame of the world: (x, y) metres, yaw radians."""
        before, self._frame = self._frame, (x, y, yaw)
        try:
            yield
        finally:
            self._frame = before

    def placed(self, x: float, y: float, yaw: float = 0.0) -> tuple[float, float, float]:
        """A pose of the current frame in the world."""
        x0, y0, turn = self._frame
        if turn == 0.0:
            return x + x0, y + y0, yaw
        c, s = float(np.cos(turn)), float(np.sin(turn))
        return x0 + c * x - s * y, y0 + s * x + c * y, yaw + turn

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def reserve(self, x: float, y: float, length: float, width: float, yaw: float = 0.0) -> None:
        """Keep a rectangle free."""
        x, y, yaw = self.placed(x, y, yaw)
        self._take(_corners(x, y, length, width, yaw))

    def claim(self, x: float, y: float, length: float, width: float, yaw: float = 0.0) -> bool:
        """Reserve a rectangle if it is free."""
        x, y, yaw = self.placed(x, y, yaw)
        return self._claim(_corners(x, y, length, width, yaw))

    def put(
        self,
        body: Body,
        x: float,
        y: float,
        yaw: float,
        speed: float = 0.0,
        turn: float = 0.0,
        margin: float = 0.15,
        reserve: bool = True,
    ) -> bool:
        """Place a body whose origin is at (x, y), if its footprint and its way are free.

        With `reserve` false it is placed whatever is there and blocks nothing.
        """
        x, y, yaw = self.placed(x, y, yaw)
        if reserve:
            spot = self._footprint(body, x, y, yaw, speed, margin)
            if not self._claim(spot):
                return False
        if body.label or speed:
            self._actors.append(Actor(body, Motion(x, y, yaw, speed, turn)))
        else:
            self._structure.append(body.mesh.moved((x, y, 0.0), yaw))
            self._lamps += [lamp.moved(x, y, yaw) for lamp in body.lamps]
        return True

    def paint(
        self, material: str, size: Sequence[float], x: float, y: float, yaw: float = 0.0
    ) -> None:
        """A marking of (length, width) on the ground; later ones lie above earlier ones."""
        x, y, yaw = self.placed(x, y, yaw)
        height = 0.004 + 0.0005 * (len(self._structure) % 5)
        self._structure.append(quad(size, (x, y, height), yaw, row(material)))

    def scenario(self, ego: Motion, ground: str, slope: float = 0.006) -> Scenario:
        """The world as placed; the ground falls by about `slope` somewhere, 1.5 % at most."""
        fall = np.clip(self.rng.normal(0, slope, 2), -0.015, 0.015)
        materials: Materials = standard().jittered(self.rng)
        still = merge(self._structure) if self._structure else structure([_nothing()]).mesh
        return Scenario(
            still,
            tuple(self._actors),
            ego,
            materials,
            row(ground),
            (float(fall[0]), float(fall[1])),
            tuple(self._lamps),
        )

    def _claim(self, spot: Float64) -> bool:
        if self._blocked(spot):
            return False
        self._take(spot)
        return True

    def _take(self, spot: Float64) -> None:
        self._taken.append(spot)
        self._circles = np.concatenate([self._circles, _circle(spot)[None]])

    def _blocked(self, spot: Float64) -> bool:
        """Whether something stands in a rectangle [4, 2]."""
        x, y, radius = _circle(spot)
        near = (
            np.hypot(self._circles[:, 0] - x, self._circles[:, 1] - y)
            < self._circles[:, 2] + radius
        )
        return any(_overlap(spot, self._taken[i]) for i in np.flatnonzero(near))

    @staticmethod
    def _footprint(
        body: Body, x: float, y: float, yaw: float, speed: float, margin: float
    ) -> Float64:
        """The rectangle that the body covers on its way."""
        fx, fy, length, width = body.footprint
        if body.label == 'aircraft':  # what stands on the ground: people work under the wings
            fx, fy, length, width = 0.0, 0.0, body.box[3], body.box[4]
        way = speed * DURATION
        fx += way / 2
        c, s = np.cos(yaw), np.sin(yaw)
        return _corners(
            x + c * fx - s * fy, y + s * fx + c * fy, length + way + margin, width + margin, yaw
        )


def _nothing() -> Mesh:
    return quad((0.01, 0.01), (0.0, 0.0, -50.0), 0.0, row('asphalt'))


def _corners(x: float, y: float, length: float, width: float, yaw: float) -> Float64:
    signs = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    local = signs * [length, width]
    c, s = np.cos(yaw), np.sin(yaw)
    return np.asarray(local @ np.array([[c, s], [-s, c]]) + [x, y])


def _circle(spot: Float64) -> Float64:
    """(x, y, radius) of the circle around a rectangle [4, 2]."""
    middle = spot.mean(axis=0)
    return np.array([*middle, np.hypot(*(spot[0] - middle))])


def _overlap(a: Float64, b: Float64) -> bool:
    """Whether two rectangles [4, 2] overlap (separating axes)."""
    for one, other in ((a, b), (b, a)):
        for edge in (one[0] - one[1], one[1] - one[2]):
            first, second = one @ edge, other @ edge
            if first.max() <= second.min() or second.max() <= first.min():
                return False
    return True

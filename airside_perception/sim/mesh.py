"""Triangle meshes of simple solids: every part of the simulated world is made of these.

Solids are closed and wound counter-clockwise seen from outside, so normals point outwards. All
lengths are metres; a solid is built in the frame of its body (x forward, y left, z up).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from airside_perception.types import Float32, Float64

Int32 = NDArray[np.int32]
Faces = int | Sequence[int]
Vector = Sequence[float] | Float64

# Corners of a hexahedron: bottom then top, each counter-clockwise from the front left.
_FACES = np.array(
    [
        [[0, 7, 3], [0, 4, 7]],  # front (+x)
        [[2, 5, 1], [2, 6, 5]],  # rear
        [[1, 4, 0], [1, 5, 4]],  # left (+y)
        [[3, 6, 2], [3, 7, 6]],  # right
        [[4, 6, 7], [4, 5, 6]],  # top
        [[0, 2, 1], [0, 3, 2]],  # bottom
    ]
)


@dataclass(frozen=True)
class Mesh:
    """Triangles float32 [T, 3, 3] with a row of the material table, int32 [T], each."""

    triangles: Float32
    materials: Int32

    def __len__(self) -> int:
        return len(self.materials)

    @property
    def extents(self) -> tuple[Float64, Float64]:
        """Lowest and highest x, y, z, float64 [3] each."""
        points = self.triangles.reshape(-1, 3).astype(np.float64)
        return points.min(axis=0), points.max(axis=0)

    def moved(
        self,
        at: Vector = (0.0, 0.0, 0.0),
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
    ) -> Mesh:
        """Turned by roll (x), then pitch (y), then yaw (z), radians, and shifted to `at`."""
        matrix = rotation(yaw, pitch, roll)
        points = self.triangles @ matrix.T + np.asarray(at, dtype=np.float64)
        return Mesh(points.astype(np.float32), self.materials)

    def scaled(self, x: float, y: float, z: float) -> Mesh:
        """Stretched about the origin by positive factors."""
        return Mesh(self.triangles * np.array([x, y, z], dtype=np.float32), self.materials)


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Float64:
    """Rotation [3, 3]: z by yaw times y by pitch times x by roll, radians."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def merge(parts: Sequence[Mesh]) -> Mesh:
    """All triangles of `parts`, in order."""
    return Mesh(
        np.concatenate([part.triangles for part in parts]).astype(np.float32, copy=False),
        np.concatenate([part.materials for part in parts]).astype(np.int32, copy=False),
    )


def halved(triangles: Float32, least: float, share: float) -> tuple[Float32, NDArray[np.int64]]:
    """`triangles` [T, 3, 3], the long ones in pieces: [P, 3, 3], and what each is a piece of [P].

    Halved, and halved again, is what has an edge longer than `least`, metres, and than `share` of
    its middle's horizontal distance from the origin; up to 256 pieces of one triangle.
    """
    done, owners, owner = [], [], np.arange(len(triangles))
    for _ in range(8):
        corners = np.ascontiguousarray(triangles.reshape(-1, 9).T).reshape(3, 3, -1)
        edges = corners[[1, 2, 0]] - corners
        square = (edges * edges).sum(axis=1)  # of the edge from each corner to the next
        x, y = corners[:, 0].sum(axis=0), corners[:, 1].sum(axis=0)
        limit = np.maximum((x * x + y * y) * np.float32(share * share / 9), np.float32(least**2))
        long = square.max(axis=0) > limit
        done.append(triangles.compress(~long, axis=0))
        owners.append(owner.compress(~long))
        owner = np.tile(owner.compress(long), 2)
        corners = corners.compress(long, axis=2)
        first = square.compress(long, axis=1).argmax(axis=0)
        each = np.arange(len(first))
        a, b, c = (corners[(first + after) % 3, :, each] for after in range(3))
        middle = (a + b) * np.float32(0.5)
        triangles = np.stack(
            [np.concatenate([a, middle]), np.concatenate([middle, b]), np.concatenate([c, c])],
            axis=1,
        )
        if not len(triangles):
            break
    return np.concatenate([*done, triangles]), np.concatenate([*owners, owner])


def hexahedron(corners: Float64, material: Faces) -> Mesh:
    """A solid of 8 corners [8, 3]: front left, rear left, rear right, front right, low then high.

    `material` is one row, or six: front, rear, left, right, top, bottom.
    """
    points = np.asarray(corners, dtype=np.float32)
    rows = np.broadcast_to(np.asarray(material, dtype=np.int32), (6,))
    return Mesh(points[_FACES.reshape(-1, 3)], np.repeat(rows, 2))


def frustum(
    bottom: tuple[float, float, float],
    top: tuple[float, float, float],
    z: tuple[float, float],
    material: Faces,
    y: float = 0.0,
) -> Mesh:
    """A box whose bottom and top, (rear x, front x, width), may differ; centred on `y`."""
    corners = [
        (x, y + side * width / 2, height)
        for (rear, front, width), height in zip((bottom, top), z, strict=True)
        for x, side in ((front, 1), (rear, 1), (rear, -1), (front, -1))
    ]
    return hexahedron(np.array(corners), material)


def box(size: Vector, at: Vector, material: Faces) -> Mesh:
    """A box of (length, width, height) standing on `at`: the middle of its bottom face."""
    length, width, height = size
    x, y, z = at
    side = (x - length / 2, x + length / 2, width)
    return frustum(side, side, (z, z + height), material, y)


def cylinder(
    radius: float | tuple[float, float],
    span: tuple[float, float],
    at: tuple[float, float],
    material: int,
    axis: str = 'z',
    sides: int = 10,
) -> Mesh:
    """A round solid along `axis` over `span`, its axis through `at` (the two other coordinates).

    Two radii make a cone: at the start and at the end of the span. `at` is (x, y) for axis z,
    (y, z) for axis x and (x, z) for axis y.
    """
    low, high = radius if isinstance(radius, tuple) else (radius, radius)
    u, v = at if axis != 'y' else at[::-1]
    sections = np.array([(span[0], u, v, low, low), (span[1], u, v, high, high)])
    return _lofted(sections, sides, 2.0, material, axis)


def loft(
    sections: Sequence[Sequence[float]], material: int, sides: int = 12, exponent: float = 2.0
) -> Mesh:
    """A body along x through cross-sections (x, y, z, half width, half height), x increasing.

    A section is a superellipse of `exponent`: 2 is an ellipse, more is boxier.
    """
    return _lofted(np.asarray(sections, dtype=np.float64), sides, exponent, material)


def ellipsoid(size: Vector, at: Vector, material: int, sides: int = 8, rings: int = 5) -> Mesh:
    """An ellipsoid of full (length, width, height) around its centre `at`."""
    angles = np.linspace(0, np.pi, rings)
    radius = np.maximum(np.sin(angles), 0.02)
    half = np.asarray(size, dtype=np.float64) / 2
    x = at[0] - half[0] * np.cos(angles)
    fixed = np.ones(rings)
    sections = np.stack([x, at[1] * fixed, at[2] * fixed, half[1] * radius, half[2] * radius], 1)
    return loft(list(sections), material, sides)


def plate(outline: Sequence[Sequence[float]], thickness: float, material: Faces) -> Mesh:
    """A flat solid over four points (front left, rear left, rear right, front right), [4, 3].

    The points are its bottom; wings, tailplanes and ramps are plates.
    """
    low = np.asarray(outline, dtype=np.float64)
    return hexahedron(np.concatenate([low, low + np.array([0, 0, thickness])]), material)


def quad(size: Vector, at: Vector, yaw: float, material: int) -> Mesh:
    """A painted rectangle (length, width) lying at `at` (x, y, z), facing up; two triangles."""
    half_l, half_w = size[0] / 2, size[1] / 2
    flat = np.array(
        [[half_l, half_w, 0], [-half_l, half_w, 0], [-half_l, -half_w, 0], [half_l, -half_w, 0]]
    )
    points = (flat @ rotation(yaw).T + np.asarray(at)).astype(np.float32)
    return Mesh(points[np.array([[0, 1, 2], [0, 2, 3]])], np.full(2, material, np.int32))


@lru_cache(maxsize=64)
def _outline(sides: int, exponent: float) -> tuple[Float64, Float64]:
    """Half widths and half heights, -1..1, of a superellipse's corners, counter-clockwise."""
    angle = (np.arange(sides) + 0.5) * (2 * np.pi / sides)
    c, s = np.cos(angle), np.sin(angle)
    power = 2.0 / exponent
    across, up = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    # A polygon inside the ellipse is narrower than it; stretched to the full width and height.
    return across / np.abs(across).max(), up / np.abs(up).max()


@lru_cache(maxsize=64)
def _skin(rings: int, sides: int) -> NDArray[np.int64]:
    """Corner indices [T, 3] of the closed surface over rings of points, a fan over both ends."""
    ring, side = np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing='ij')
    a = (ring * sides + side).ravel()
    b = (ring * sides + (side + 1) % sides).ravel()
    fan = np.arange(1, sides - 1)
    last = (rings - 1) * sides
    rear = np.stack([np.zeros_like(fan), fan + 1, fan], 1)
    front = np.stack([np.full_like(fan, last), last + fan, last + fan + 1], 1)
    around = [np.stack([a, b, b + sides], 1), np.stack([a, b + sides, a + sides], 1)]
    return np.concatenate([*around, rear, front])


def _lofted(
    sections: Float64, sides: int, exponent: float, material: int, axis: str = 'x'
) -> Mesh:
    """The surface over cross-sections (x, y, z, half width, half height) [S, 5], along `axis`."""
    across, up = _outline(sides, exponent)
    points = np.empty((len(sections), sides, 3))
    points[..., 0] = sections[:, :1]
    points[..., 1] = sections[:, 1:2] + sections[:, 3:4] * across
    points[..., 2] = sections[:, 2:3] + sections[:, 4:5] * up
    # A cyclic turn of the axes keeps the winding.
    turned = points.reshape(-1, 3)[:, {'x': [0, 1, 2], 'y': [2, 0, 1], 'z': [1, 2, 0]}[axis]]
    triangles = turned.astype(np.float32)[_skin(len(sections), sides)]
    return Mesh(triangles, np.full(len(triangles), material, np.int32))

"""Ray-casters: which triangle a ray meets first, and how far away."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import ConfigError
from airside_perception.types import Float32, Float64

Int32 = NDArray[np.int32]


class Caster(Protocol):
    """Holds the triangles of one scene and answers rays."""

    def cast(self, origin: NDArray[Any], directions: Float32) -> tuple[Float32, Int32]:
        """What the rays meet first.

        Args:
            origin: [3], or [R, 3] where every ray has its own; directions: float32 [R, 3].

        Returns:
            Distance float32 [R] in lengths of the direction (inf: nothing), triangle int32 [R]
            (-1: nothing).
        """
        ...

    def shaded(
        self, points: Float32, towards: NDArray[Any], until: float = np.inf
    ) -> NDArray[np.bool_]:
        """Whether something lies between `points` [N, 3] and a light.

        Args:
            points: float32 [N, 3].
            towards: [3] or [N, 3], direction of the light.
            until: how far to look, in lengths of the direction: below 1 for a lamp at its end.
        """
        ...

    def through(self, origin: NDArray[Any], directions: Float32) -> tuple[Int32, Int32, Float32]:
        """All that the rays pass through.

        Returns:
            Ray int32 [K], ascending; triangle int32 [K]; distance float32 [K].
        """
        ...


class Open3DCaster:
    """Embree through open3d's RaycastingScene; the same rays give the same bits.

    Args:
        triangles: float32 [T, 3, 3].
        threads: of one call; 0: all cores. Calls release the GIL: several may run at once.

    Raises:
        ConfigError: open3d, or the libusb-1.0 that its import needs, is missing.
    """

    def __init__(self, triangles: Float32, threads: int = 0) -> None:
        try:
            import open3d
        except (ImportError, OSError) as error:
            raise ConfigError(
                f'open3d cannot be imported ({error}): the simulator casts rays with it; install '
                'the PyPI package open3d and the apt package libusb-1.0-0'
            ) from error
        self._core: Any = open3d.core
        self._threads = threads
        corners = np.ascontiguousarray(triangles.reshape(-1, 3), dtype=np.float32)
        index = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
        self._scene: Any = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(self._core.Tensor(corners), self._core.Tensor(index))

    def cast(self, origin: NDArray[Any], directions: Float32) -> tuple[Float32, Int32]:
        """See `Caster`."""
        if not len(directions):  # open3d crashes
            return np.empty(0, np.float32), np.empty(0, np.int32)
        answer = self._scene.cast_rays(self._rays(origin, directions), nthreads=self._threads)
        # Nothing is the largest uint32: -1 as int32.
        return answer['t_hit'].numpy(), answer['primitive_ids'].numpy().view(np.int32)

    def shaded(
        self, points: Float32, towards: NDArray[Any], until: float = np.inf
    ) -> NDArray[np.bool_]:
        """See `Caster`."""
        if not len(points):
            return np.empty(0, np.bool_)
        rays = self._rays(points, np.broadcast_to(towards, points.shape))
        found: NDArray[np.bool_] = self._scene.test_occlusions(
            rays, tfar=until, nthreads=self._threads
        ).numpy()
        return found

    def through(self, origin: NDArray[Any], directions: Float32) -> tuple[Int32, Int32, Float32]:
        """See `Caster`."""
        if not len(directions):
            return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
        rays = self._rays(origin, directions)
        answer = self._scene.list_intersections(rays, nthreads=self._threads)
        return (
            answer['ray_ids'].numpy().astype(np.int32),
            answer['primitive_ids'].numpy().astype(np.int32),
            answer['t_hit'].numpy(),
        )

    def _rays(self, origin: NDArray[Any], directions: NDArray[Any]) -> Any:
        rays = np.empty((len(directions), 6), np.float32)
        origin = np.asarray(origin)
        for axis in range(3):  # column by column: rows of three are slow to copy
            rays[:, axis] = origin[..., axis]
            rays[:, 3 + axis] = directions[:, axis]
        return self._core.Tensor.from_numpy(rays)


class BruteCaster:
    """Every ray against every triangle in float64 (Möller and Trumbore, 1997): a slow check."""

    def __init__(self, triangles: Float32) -> None:
        self._corner = triangles[:, 0].astype(np.float64)
        self._edges = (triangles[:, 1:] - triangles[:, :1]).astype(np.float64)

    def cast(self, origin: NDArray[Any], directions: Float32) -> tuple[Float32, Int32]:
        """See `Caster`."""
        return self._first(np.broadcast_to(origin, directions.shape), directions)

    def shaded(
        self, points: Float32, towards: NDArray[Any], until: float = np.inf
    ) -> NDArray[np.bool_]:
        """See `Caster`."""
        distance, _ = self._first(points, np.broadcast_to(towards, points.shape))
        return np.asarray(distance < until)

    def through(self, origin: NDArray[Any], directions: Float32) -> tuple[Int32, Int32, Float32]:
        """See `Caster`."""
        starts = np.broadcast_to(origin, directions.shape).astype(np.float64)
        way = directions.astype(np.float64)
        met = np.array([self._meet(n, starts, way) for n in range(len(self._corner))])
        ray, triangle = np.nonzero(np.isfinite(met.T))
        return (
            ray.astype(np.int32),
            triangle.astype(np.int32),
            met[triangle, ray].astype(np.float32),
        )

    def _first(self, origins: NDArray[Any], directions: NDArray[Any]) -> tuple[Float32, Int32]:
        distance = np.full(len(directions), np.inf)
        triangle = np.full(len(directions), -1, np.int32)
        starts, rays = origins.astype(np.float64), directions.astype(np.float64)
        for number in range(len(self._corner)):
            t = self._meet(number, starts, rays)
            hit = t < distance
            distance[hit], triangle[hit] = t[hit], number
        return distance.astype(np.float32), triangle

    def _meet(self, number: int, starts: Float64, rays: Float64) -> Float64:
        """Where the rays meet one triangle, in lengths of the direction; inf: nowhere."""
        edge1, edge2 = self._edges[number]
        p = np.cross(rays, edge2)
        determinant = p @ edge1
        with np.errstate(divide='ignore', invalid='ignore'):
            offset = starts - self._corner[number]
            u = np.einsum('ij,ij->i', p, offset) / determinant
            q = np.cross(offset, edge1)
            v = np.einsum('ij,ij->i', rays, q) / determinant
            t = q @ edge2 / determinant
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        return np.where(hit, t, np.inf)

"""Ray-casters: which triangle a ray meets first, and how far away."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import ConfigError
from airside_perception.types import Float32, Float64


class Caster(Protocol):
    """Holds the triangles of one scene and answers rays from one origin."""

    def cast(self, origin: Float64, directions: Float32) -> tuple[Float32, NDArray[np.int32]]:
        """What the rays meet first.

        Args:
            origin: float64 [3]; directions: float32 [R, 3].

        Returns:
            Distance float32 [R] in lengths of the direction (inf: nothing), triangle int32 [R]
            (-1: nothing).
        """
        ...

    def shaded(self, points: Float32, towards: Float64) -> NDArray[np.bool_]:
        """Whether each of `points` [N, 3] is hidden from a light in direction `towards` [3]."""
        ...


class Open3DCaster:
    """Embree through open3d's RaycastingScene; the same rays give the same bits.

    Raises:
        ConfigError: open3d, or the libusb-1.0 that its import needs, is missing.
    """

    def __init__(self, triangles: Float32) -> None:
        try:
            import open3d
        except (ImportError, OSError) as error:
            raise ConfigError(
                f'open3d cannot be imported ({error}): the simulator casts rays with it; install '
                'the PyPI package open3d and the apt package libusb-1.0-0'
            ) from error
        self._core: Any = open3d.core
        corners = np.ascontiguousarray(triangles.reshape(-1, 3), dtype=np.float32)
        index = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
        self._scene: Any = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(self._core.Tensor(corners), self._core.Tensor(index))

    def cast(self, origin: Float64, directions: Float32) -> tuple[Float32, NDArray[np.int32]]:
        """See `Caster`."""
        rays = np.empty((len(directions), 6), np.float32)
        rays[:, :3] = origin
        rays[:, 3:] = directions
        answer = self._scene.cast_rays(self._core.Tensor(rays))
        triangle = answer['primitive_ids'].numpy()
        none = np.iinfo(np.uint32).max
        return answer['t_hit'].numpy(), np.where(
            triangle == none, -1, triangle.astype(np.int64)
        ).astype(np.int32)

    def shaded(self, points: Float32, towards: Float64) -> NDArray[np.bool_]:
        """See `Caster`."""
        rays = np.empty((len(points), 6), np.float32)
        rays[:, :3] = points
        rays[:, 3:] = towards
        blocked: NDArray[np.bool_] = self._scene.test_occlusions(self._core.Tensor(rays)).numpy()
        return blocked


class BruteCaster:
    """Every ray against every triangle in float64 (Möller and Trumbore, 1997): a slow check."""

    def __init__(self, triangles: Float32) -> None:
        self._corner = triangles[:, 0].astype(np.float64)
        self._edges = (triangles[:, 1:] - triangles[:, :1]).astype(np.float64)

    def cast(self, origin: Float64, directions: Float32) -> tuple[Float32, NDArray[np.int32]]:
        """See `Caster`."""
        return self._first(np.broadcast_to(origin, directions.shape), directions)

    def shaded(self, points: Float32, towards: Float64) -> NDArray[np.bool_]:
        """See `Caster`."""
        distance, _ = self._first(points, np.broadcast_to(towards, points.shape))
        return np.isfinite(distance)

    def _first(
        self, origins: NDArray[Any], directions: NDArray[Any]
    ) -> tuple[Float32, NDArray[np.int32]]:
        distance = np.full(len(directions), np.inf)
        triangle = np.full(len(directions), -1, np.int32)
        starts, rays = origins.astype(np.float64), directions.astype(np.float64)
        for number, corner in enumerate(self._corner):
            edge1, edge2 = self._edges[number]
            p = np.cross(rays, edge2)
            determinant = p @ edge1
            with np.errstate(divide='ignore', invalid='ignore'):
                offset = starts - corner
                u = np.einsum('ij,ij->i', p, offset) / determinant
                q = np.cross(offset, edge1)
                v = np.einsum('ij,ij->i', rays, q) / determinant
                t = q @ edge2 / determinant
                hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < distance)
            distance[hit], triangle[hit] = t[hit], number
        return distance.astype(np.float32), triangle

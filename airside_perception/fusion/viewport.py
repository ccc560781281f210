"""Boxes as a camera sees them: their rectangles in the image, cut at the borders of the view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import MessageError
from airside_perception.geometry import apply, corners, invert
from airside_perception.projection import CameraModel
from airside_perception.types import HEIGHT, LENGTH, WIDTH, YAW, Float64, Int64

NEAR = 0.1
"""Metres before the lens; what is nearer is cut off."""
MARGIN = 0.02
"""The frustum is wider than the image by this part: rounding must not cut at its border."""
BORDER_POINTS = 9
BENT = 4
"""Points along an edge where the lens bends it."""
BOX_EDGES = np.array(
    [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 0],
        [4, 5],
        [5, 6],
        [6, 7],
        [7, 4],
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
    ]
)
FACE_EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """Boxes in one image.

    Attributes:
        xyxy: float64 [N, 4], pixels, inside the image; zeros where not `visible`.
        visible: bool [N], whether any part of the box is in the image.
        depth: float64 [N], metres along the optical axis of the nearest corner.
        size: width and height of the image.
    """

    xyxy: Float64
    visible: Mask
    depth: Float64
    size: tuple[int, int]


@dataclass(frozen=True)
class Viewport:
    """The view of a camera as a frustum: five planes through or near the optical centre.

    Attributes:
        camera: the lens.
        normals: float64 [5, 3], unit vectors that point into the view: left, right, top, bottom
            (through the optical centre) and near.
        offsets: float64 [5]; a point is inside where normals @ point >= offsets.
        corner_rays: float64 [4, 3], z = 1, of the corners of the image; `corner_pixels` [4, 2].
        steps: float64 [S] from 0 to 1, where edges are looked at: at their ends, and in between
            if the lens bends them.
    """

    camera: CameraModel
    normals: Float64
    offsets: Float64
    corner_rays: Float64
    corner_pixels: Float64
    steps: Float64

    @staticmethod
    def of(camera: CameraModel) -> Viewport:
        """The view of `camera`, from the rays through the border of its image.

        Raises:
            MessageError: the lens model has no ray through the border of the image.
        """
        x, y = np.meshgrid(
            np.linspace(0.0, camera.width, BORDER_POINTS),
            np.linspace(0.0, camera.height, BORDER_POINTS),
        )
        border = (x % camera.width == 0.0) | (y % camera.height == 0.0)
        rays = camera.rays(np.stack([x[border], y[border]], axis=1))
        rays = rays[np.isfinite(rays).all(axis=1)]
        if not len(rays):
            raise MessageError(f'{camera.frame_id}: no ray through the border of the image')
        low, high = rays[:, :2].min(axis=0), rays[:, :2].max(axis=0)
        low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
        normals = np.array(
            [[1, 0, -low[0]], [-1, 0, high[0]], [0, 1, -low[1]], [0, -1, high[1]], [0, 0, 1]],
            dtype=np.float64,
        )
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        pixels = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [camera.width, camera.height] * 1.0
        bent = camera.model == 'equidistant' or any(camera.distortion)
        return Viewport(
            camera,
            normals,
            offsets=np.array([0.0, 0.0, 0.0, 0.0, NEAR]),
            corner_rays=camera.rays(pixels),
            corner_pixels=pixels,
            steps=np.linspace(0.0, 1.0, BENT if bent else 2),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image, pixels."""
        return self.camera.width, self.camera.height

    def see_boxes(
        self, boxes: Float64, fusion2camera: Float64, points: Float64 | None = None
    ) -> Seen:
        """The image rectangles of boxes [N, 7]; `points` [N, 8, 3]: their corners, if known.

        The part of a box in the view is a convex body; its image is spanned by the edges of the
        box cut at the frustum, and by the corners of the image that lie in the box's image.
        """
        if points is None:
            points = corners(boxes)
        n = len(boxes)
        xyxy, visible, depth = np.zeros((n, 4)), np.zeros(n, dtype=bool), np.zeros(n)
        centres = apply(fusion2camera, boxes[:, :3])
        radius = 0.5 * np.linalg.norm(boxes[:, [LENGTH, WIDTH, HEIGHT]], axis=1)
        reach = (centres @ self.normals.T - self.offsets).min(axis=1) >= -radius
        rows = np.flatnonzero(reach)
        if len(rows):
            local = apply(fusion2camera, points[rows].reshape(-1, 3)).reshape(-1, 8, 3)
            pierced = self._pierced(boxes[rows], fusion2camera)
            xyxy[rows], visible[rows] = self._extent(local, BOX_EDGES, pierced)
            depth[rows] = local[..., 2].min(axis=1)
        return Seen(xyxy, visible, depth, self.size)

    def see_faces(self, boxes: Float64, fusion2camera: Float64) -> Seen:
        """The image rectangles of the near faces of boxes [N, 7] that were lifted from this image.

        A lifted box faces its camera: its yaw is the bearing, and the face at centre - length / 2
        is the 2D box that it came from.
        """
        face = front_faces(boxes)
        local = apply(fusion2camera, face.reshape(-1, 3)).reshape(-1, 4, 3)
        xyxy, visible = self._extent(local, FACE_EDGES, np.zeros((len(boxes), 4), bool))
        return Seen(xyxy, visible, local[..., 2].min(axis=1), self.size)

    def _extent(self, points: Float64, edges: Int64, extra: Mask) -> tuple[Float64, Mask]:
        """Rectangles [N, 4] inside the image, and which are not empty.

        Around the edges [E, 2] of points [N, K, 3] and the image corners in `extra` [N, 4].
        """
        parts, kept = self._cut(points, edges)
        pixels, valid = self.camera.project(parts.reshape(-1, 3))
        pixels = pixels.reshape(len(points), -1, 2)
        inside = valid.reshape(*kept.shape, -1) & kept[..., None]
        inside = inside.reshape(len(points), -1)
        corner_pixels = np.broadcast_to(self.corner_pixels, (len(points), 4, 2))
        pixels = np.concatenate([pixels, corner_pixels], axis=1)
        inside = np.concatenate([inside, extra], axis=1)[..., None]
        size = np.array(self.size, dtype=np.float64)
        low = np.clip(np.where(inside, pixels, np.inf).min(axis=1), 0.0, size)
        high = np.clip(np.where(inside, pixels, -np.inf).max(axis=1), 0.0, size)
        visible = (high > low).all(axis=1)
        return np.where(visible[:, None], np.concatenate([low, high], axis=1), 0.0), visible

    def _cut(self, points: Float64, edges: Int64) -> tuple[Float64, Mask]:
        """The parts [N, E, S, 3] of edges inside the frustum, and whether there is one [N, E].

        Liang and Barsky, 1984: along an edge every plane moves the entry up or the exit down.
        """
        distance = points @ self.normals.T - self.offsets
        first, last = distance[:, edges[:, 0]], distance[:, edges[:, 1]]
        span = first - last
        crossing = np.divide(first, span, out=np.zeros_like(span), where=span != 0.0)
        enter = np.where(first < 0.0, crossing, 0.0).max(axis=-1)
        leave = np.where(last < 0.0, crossing, 1.0).min(axis=-1)
        kept = (enter <= leave) & ~((first < 0.0) & (last < 0.0)).any(axis=-1)
        start, stop = points[:, edges[:, 0]], points[:, edges[:, 1]]
        part = (enter[..., None] + (leave - enter)[..., None] * self.steps)[..., None]
        return start[:, :, None] + part * (stop - start)[:, :, None], kept

    def _pierced(self, boxes: Float64, fusion2camera: Float64) -> Mask:
        """Whether the rays through the image corners meet the boxes: [N, 4] (slab test)."""
        camera2fusion = invert(fusion2camera)
        origin = camera2fusion[:3, 3] - boxes[:, :3]
        rays = self.corner_rays @ camera2fusion[:3, :3].T
        c, s = np.cos(boxes[:, YAW])[:, None], np.sin(boxes[:, YAW])[:, None]
        start = np.concatenate(
            [
                c * origin[:, :1] + s * origin[:, 1:2],
                c * origin[:, 1:2] - s * origin[:, :1],
                origin[:, 2:],
            ],
            axis=1,
        )[:, None]
        step = np.stack(
            [
                c * rays[:, 0] + s * rays[:, 1],
                c * rays[:, 1] - s * rays[:, 0],
                np.broadcast_to(rays[:, 2], (len(boxes), 4)),
            ],
            axis=-1,
        )
        step = np.where(np.abs(step) < 1e-12, 1e-12, step)
        half = boxes[:, None, [LENGTH, WIDTH, HEIGHT]] / 2
        near, far = (-half - start) / step, (half - start) / step
        enter = np.minimum(near, far).max(axis=-1)
        leave = np.maximum(near, far).min(axis=-1)
        pierced: Mask = leave >= np.maximum(enter, NEAR)
        return pierced


def front_faces(boxes: Float64) -> Float64:
    """Near faces [N, 4, 3] of lifted boxes [N, 7], at centre - length / 2 along the yaw."""
    c, s = np.cos(boxes[:, YAW, None]), np.sin(boxes[:, YAW, None])
    aside = boxes[:, WIDTH, None] * np.array([0.5, -0.5, -0.5, 0.5])
    x = boxes[:, 0, None] - boxes[:, LENGTH, None] / 2 * c - aside * s
    y = boxes[:, 1, None] - boxes[:, LENGTH, None] / 2 * s + aside * c
    z = boxes[:, 2, None] + boxes[:, HEIGHT, None] * np.array([-0.5, -0.5, 0.5, 0.5])
    return np.stack([x, y, z], axis=-1)

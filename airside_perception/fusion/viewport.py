"""Boxes as cameras see them: their rectangles in the images, cut at the borders of the view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.geometry import corners
from airside_perception.projection import WIDEST_ANGLE, CameraModel
from airside_perception.types import HEIGHT, LENGTH, WIDTH, YAW, Float64, Int64

NEAR = 0.001
"""Metres before the lens; what is nearer is cut off. So small that a box that is cut off there, in
the view and not beside it, fills the image anyway."""
OFFSETS = np.array([0.0, 0.0, 0.0, 0.0, NEAR])
BORDER_POINTS = 33
"""Rays along each side of the image that bound the view; lenses bend the sides."""
EDGE_STEPS = np.linspace(0.0, 1.0, 4)
"""Where the edges of a body that is cut are looked at: lenses bend them."""
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
    """What one camera has in its image.

    Attributes:
        xyxy: float64 [N, 4], pixels of the boxes, inside the image; zeros where not `visible`.
        visible: bool [N], whether any part of the box is in the image.
        depth: float64 [N], metres along the optical axis of the nearest corner; 0 out of view.
        distance: float64 [N], metres from the camera to the centre.
        lifted: float64 [M, 4], the boxes that were lifted from this image; zeros where not
            `found`.
        found: bool [M], whether any part of these is in the image.
        size: width and height of the image.
    """

    xyxy: Float64
    visible: Mask
    depth: Float64
    distance: Float64
    lifted: Float64
    found: Mask
    size: tuple[int, int]


@dataclass(frozen=True)
class Viewport:
    """The view of a camera as a frustum: five planes through or near the optical centre.

    Attributes:
        camera: the lens.
        normals: float64 [5, 3], unit vectors that point into the view: left, right, top, bottom
            (through the optical centre) and near; inside is normals @ point >= OFFSETS.
        corner_rays: float64 [4, 3], z = 1, of the corners of the image; `corner_pixels` [4, 2].
    """

    camera: CameraModel
    normals: Float64
    corner_rays: Float64
    corner_pixels: Float64

    @staticmethod
    def of(camera: CameraModel) -> Viewport:
        """The view of `camera`, from the rays through the border of its image."""
        x, y = np.meshgrid(
            np.linspace(0.0, camera.width, BORDER_POINTS),
            np.linspace(0.0, camera.height, BORDER_POINTS),
        )
        border = (x % camera.width == 0.0) | (y % camera.height == 0.0)
        rays = camera.rays(np.stack([x[border], y[border]], axis=1))
        if np.isfinite(rays).all():
            low, high = rays[:, :2].min(axis=0), rays[:, :2].max(axis=0)
        else:  # a fisheye whose image circle ends inside the image
            high = np.full(2, np.tan(WIDEST_ANGLE))
            low = -high
        normals = np.array(
            [[1, 0, -low[0]], [-1, 0, high[0]], [0, 1, -low[1]], [0, -1, high[1]], [0, 0, 1]],
            dtype=np.float64,
        )
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        pixels = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [camera.width, camera.height] * 1.0
        return Viewport(camera, normals, camera.rays(pixels), pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image, pixels."""
        return self.camera.width, self.camera.height


def see(
    viewports: Sequence[Viewport],
    fusion2camera: Sequence[Float64],
    boxes: Float64,
    lifted: Sequence[Float64],
) -> list[Seen]:
    """What C cameras have in their images: boxes, and those that were lifted from each image.

    The part of a box in a view is a convex body. Its image is spanned by the edges of the box, cut
    at the frustum, and by the corners of the image that it covers. A lifted box faces its camera:
    the corners of its near face span the 2D box that it came from. All cameras are computed as
    one, but for their lenses.

    Args:
        viewports: C views.
        fusion2camera: C [4, 4], into the optical frames.
        boxes: [N, 7] in the fusion frame.
        lifted: for each camera [M, 7], in the fusion frame.
    """
    if not viewports:
        return []
    count, n = len(viewports), len(boxes)
    transforms = np.stack(fusion2camera)
    turn, shift = transforms[:, :3, :3].transpose(0, 2, 1), transforms[:, None, :3, 3]
    normals = np.stack([viewport.normals for viewport in viewports])
    centres = boxes[:, :3] @ turn + shift
    radius = 0.5 * np.linalg.norm(boxes[:, [LENGTH, WIDTH, HEIGHT]], axis=1)
    reach = (centres @ normals.transpose(0, 2, 1) - OFFSETS).min(axis=-1) >= -radius
    view, row = np.nonzero(reach)
    bodies = corners(boxes)[row] @ turn[view] + shift[view]
    face_view = np.repeat(np.arange(count), [len(each) for each in lifted])
    faces = front_faces(np.concatenate(lifted)) @ turn[face_view] + shift[face_view]

    span, solid, cut = _outline(bodies, BOX_EDGES, normals[view])
    face_span, face, _ = _outline(faces, FACE_EDGES, normals[face_view])
    rays = np.stack([viewport.corner_rays for viewport in viewports])[view[cut]]
    full, corner = np.nonzero(_covered(boxes[row[cut]], transforms[view[cut]], rays))

    # all that is seen, in one list: first N boxes for each camera, then the lifted ones
    slot = np.concatenate([view * n + row, count * n + np.arange(len(faces))])
    owner = np.concatenate([solid, len(view) + face])
    slot_view = np.concatenate([np.repeat(np.arange(count), n), face_view])
    pixels, valid = _project(viewports, np.concatenate([span, face_span]), slot_view[slot[owner]])
    corner_pixels = np.stack([viewport.corner_pixels for viewport in viewports])
    xyxy = _rectangles(
        np.concatenate([pixels[valid], corner_pixels[view[cut[full]], corner]]),
        slot[np.concatenate([owner[valid], cut[full]])],
        corner_pixels[slot_view, 2],
    )
    visible = xyxy[:, 2] > xyxy[:, 0]
    depth = np.zeros((count, n))
    depth[view, row] = bodies[..., 2].min(axis=1)
    distance = np.linalg.norm(centres, axis=2)
    ends = count * n + np.cumsum([0, *(len(each) for each in lifted)])
    return [
        Seen(
            xyxy[k * n : (k + 1) * n],
            visible[k * n : (k + 1) * n],
            depth[k],
            distance[k],
            xyxy[ends[k] : ends[k + 1]],
            visible[ends[k] : ends[k + 1]],
            viewport.size,
        )
        for k, viewport in enumerate(viewports)
    ]


def front_faces(boxes: Float64) -> Float64:
    """Near faces [N, 4, 3] of lifted boxes [N, 7], at centre - length / 2 along the yaw."""
    c, s = np.cos(boxes[:, YAW, None]), np.sin(boxes[:, YAW, None])
    aside = boxes[:, WIDTH, None] * np.array([0.5, -0.5, -0.5, 0.5])
    x = boxes[:, 0, None] - boxes[:, LENGTH, None] / 2 * c - aside * s
    y = boxes[:, 1, None] - boxes[:, LENGTH, None] / 2 * s + aside * c
    z = boxes[:, 2, None] + boxes[:, HEIGHT, None] * np.array([-0.5, -0.5, 0.5, 0.5])
    return np.stack([x, y, z], axis=-1)


def _project(viewports: Sequence[Viewport], points: Float64, view: Int64) -> tuple[Float64, Mask]:
    """Pixels [P, 2] of points [P, 3], each through the lens of its `view` [P]; which are valid."""
    pixels, valid = np.empty((len(points), 2)), np.empty(len(points), dtype=bool)
    for k, viewport in enumerate(viewports):
        rows = np.flatnonzero(view == k)
        pixels[rows], valid[rows] = viewport.camera.project(points[rows])
    return pixels, valid


def _rectangles(pixels: Float64, slot: Int64, size: Float64) -> Float64:
    """Rectangles [S, 4] around the pixels [P, 2] of each `slot` [P], cut to `size` [S, 2].

    Zeros where nothing is left.
    """
    low, high = np.full(size.shape, np.inf), np.full(size.shape, -np.inf)
    if len(slot):
        order = np.argsort(slot, kind='stable')
        starts = np.flatnonzero(np.diff(slot[order], prepend=-1))
        filled = slot[order[starts]]
        columns = pixels.T[:, order]  # in rows, reduceat is five times as fast
        low[filled] = np.minimum.reduceat(columns, starts, axis=1).T
        high[filled] = np.maximum.reduceat(columns, starts, axis=1).T
    low, high = np.clip(low, 0.0, size), np.clip(high, 0.0, size)
    return np.where((high > low).all(axis=1)[:, None], np.concatenate([low, high], axis=1), 0.0)


def _outline(points: Float64, edges: Int64, normals: Float64) -> tuple[Float64, Int64, Int64]:
    """Points [P, 3] that span the parts of bodies [N, K, 3] in frusta with `normals` [N, 5, 3].

    Of a body inside, its corners: what a lens bends the edges between them is left out. Of one
    that is cut, points on its edges [E, 2], which are cut after Liang and Barsky, 1984: along an
    edge every plane moves the entry up or the exit down.

    Returns:
        Points [P, 3], the body of each [P], and which bodies are cut.
    """
    distance = points @ normals.transpose(0, 2, 1) - OFFSETS
    inside = (distance >= 0.0).all(axis=(1, 2))
    whole, cut = np.flatnonzero(inside), np.flatnonzero(~inside)
    first, last = distance[cut][:, edges[:, 0]], distance[cut][:, edges[:, 1]]
    body, edge = np.nonzero(~((first < 0.0) & (last < 0.0)).any(axis=-1))
    first, last = first[body, edge], last[body, edge]
    span = first - last
    crossing = np.divide(first, span, out=np.zeros_like(span), where=span != 0.0)
    enter = np.where(first < 0.0, crossing, 0.0).max(axis=-1)
    leave = np.where(last < 0.0, crossing, 1.0).min(axis=-1)
    kept = enter <= leave
    body, edge, enter, leave = cut[body[kept]], edge[kept], enter[kept], leave[kept]
    start, stop = points[body, edges[edge, 0]], points[body, edges[edge, 1]]
    part = enter[:, None] + (leave - enter)[:, None] * EDGE_STEPS
    parts = start[:, None] + part[..., None] * (stop - start)[:, None]
    return (
        np.concatenate([points[whole].reshape(-1, 3), parts.reshape(-1, 3)]),
        np.concatenate([np.repeat(whole, points.shape[1]), np.repeat(body, len(EDGE_STEPS))]),
        cut,
    )


def _covered(boxes: Float64, fusion2camera: Float64, rays: Float64) -> Mask:
    """Whether rays [N, R, 3] of cameras at [N, 4, 4] meet boxes [N, 7] (slab test)."""
    camera2fusion = fusion2camera[:, :3, :3].transpose(0, 2, 1)
    c, s, zero = np.cos(boxes[:, YAW]), np.sin(boxes[:, YAW]), np.zeros(len(boxes))
    upright = np.stack([c, s, zero, -s, c, zero, zero, zero, zero + 1.0], axis=-1)
    camera2box = upright.reshape(-1, 3, 3) @ camera2fusion
    origin = (
        -(camera2box @ fusion2camera[:, :3, 3:]) - upright.reshape(-1, 3, 3) @ boxes[:, :3, None]
    )
    start, step = origin.transpose(0, 2, 1), rays @ camera2box.transpose(0, 2, 1)
    step = np.where(np.abs(step) < 1e-12, 1e-12, step)
    half = boxes[:, None, [LENGTH, WIDTH, HEIGHT]] / 2
    near, far = (-half - start) / step, (half - start) / step
    enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    covered: Mask = leave >= np.maximum(enter, NEAR)
    return covered

"""Pictures of results: the scene from above, and boxes drawn into a camera image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.geometry import apply, bev_corners, corners
from airside_perception.projection import CameraModel
from airside_perception.types import YAW, Boxes2D, Boxes3D, Float32, Float64

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

BACKGROUND: Color = (28, 24, 22)
GRID: Color = (60, 54, 50)
TEXT: Color = (225, 225, 225)
TRUTH: Color = (150, 150, 150)
EVIDENCE: dict[str, Color] = {
    'lidar and camera': (110, 220, 90),
    'lidar': (250, 170, 70),
    'camera': (60, 150, 250),
}
"""BGR by what an object's evidence came from."""

EDGES = (
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 0),
    (4, 5),
    (5, 6),
    (6, 7),
    (7, 4),
    (0, 4),
    (1, 5),
    (2, 6),
    (3, 7),
)
ZOOM = 2
"""Of camera pictures, so that labels fit."""
PIECES = 24
"""Of an edge; each is drawn if both its ends are in front of the lens."""
NEAR = 0.1
"""Depth in metres nearer than which nothing is drawn."""


def evidence(sources: Sequence[str]) -> str:
    """`lidar and camera`, `lidar` or `camera`: what the sources of an object amount to."""
    if 'lidar' not in sources and sources:
        return 'camera'
    return 'lidar and camera' if len(sources) > 1 else 'lidar'


def bird_view(
    points: Float32,
    found: Boxes3D,
    truth: Boxes3D | None = None,
    *,
    ahead: float = 60.0,
    size: int = 1100,
    title: str = '',
) -> Picture:
    """The scene from above, x up and y left, the frame's origin in the centre.

    Args:
        points: float32 [N, 3 or more], x, y, z in metres; coloured by height.
        found: objects in the same frame, coloured by the evidence they carry.
        truth: what is really there, thin and grey.
        ahead: metres from the centre to the border.
        size: pixels of the square picture.
        title: text at the top.

    Returns:
        uint8 BGR [size, size, 3].
    """
    picture = np.full((size, size, 3), BACKGROUND, np.uint8)
    scale = size / (2 * ahead)

    def pixels(xy: Float64) -> Float64:
        return np.stack([size / 2 - xy[..., 1] * scale, size / 2 - xy[..., 0] * scale], axis=-1)

    for radius in range(20, int(ahead * 1.5), 20):
        cv2.circle(picture, (size // 2, size // 2), round(radius * scale), GRID, 1, cv2.LINE_AA)
        _text(
            picture,
            f'{radius} m',
            (size // 2 + 4, round(size / 2 - radius * scale) - 4),
            GRID,
            0.45,
        )
    at = pixels(np.asarray(points[:, :2], np.float64)).astype(np.int64)
    inside = ((at >= 0) & (at < size)).all(axis=1)
    shade = np.clip((points[inside, 2] + 0.3) / 5.0, 0.0, 1.0)
    colors = cv2.applyColorMap((95 + shade * 150).astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    order = np.argsort(points[inside, 2], kind='stable')  # the highest is seen from above
    picture[at[inside, 1][order], at[inside, 0][order]] = colors[order, 0]
    if truth is not None:
        for outline in pixels(bev_corners(truth.boxes)):
            _polygon(picture, outline, TRUTH, 1)
    for row, outline in enumerate(pixels(bev_corners(found.boxes))):
        color = EVIDENCE[evidence(found.sources[row])]
        _polygon(picture, outline, color, 2)
        x, y, yaw = found.boxes[row, 0], found.boxes[row, 1], found.boxes[row, YAW]
        reach = found.boxes[row, 3] / 2 + 0.8
        nose = np.array([[x, y], [x + reach * np.cos(yaw), y + reach * np.sin(yaw)]])
        start, stop = _whole(pixels(nose))
        cv2.line(picture, start, stop, color, 2, cv2.LINE_AA)
        corner = outline.max(axis=0)
        label = f'{found.classes[row]} {found.scores[row]:.2f}'
        _text(picture, label, (int(corner[0]) + 3, int(corner[1])), color, 0.42)
    cv2.drawMarker(picture, (size // 2, size // 2), TEXT, cv2.MARKER_TRIANGLE_UP, 14, 2)
    _legend(picture, title, truth is not None)
    return picture


def camera_overlay(
    image: Picture,
    camera: CameraModel,
    frame2camera: Float64,
    found: Boxes3D,
    boxes: Boxes2D | None = None,
) -> Picture:
    """The image, enlarged, with objects as wire frames and 2D detections as thin rectangles.

    Args:
        image: uint8 BGR [H, W, 3].
        camera: its calibration.
        frame2camera: [4, 4], from the frame of `found` to the camera's optical frame.
        found: objects.
        boxes: 2D detections in this image.
    """
    height, width = image.shape[:2]
    large = cv2.resize(image, (width * ZOOM, height * ZOOM), interpolation=cv2.INTER_CUBIC)
    picture: Picture = np.asarray(large, np.uint8)
    if boxes is not None:
        for x1, y1, x2, y2 in (boxes.xyxy * ZOOM).round().astype(int).tolist():
            cv2.rectangle(picture, (x1, y1), (x2, y2), (255, 255, 255), 1, cv2.LINE_AA)
    depths = apply(frame2camera, found.boxes[:, :3])[:, 2]
    labels: list[tuple[int, int, str, Color]] = []
    for row in np.argsort(depths, kind='stable'):
        color = EVIDENCE[evidence(found.sources[row])]
        points = apply(frame2camera, corners(found.boxes[row : row + 1])[0])
        drawn = [line for a, b in EDGES for line in _edge(points[a], points[b], camera)]
        for start, stop in drawn:
            cv2.line(picture, start, stop, color, 2, cv2.LINE_AA)
        if drawn:
            ends = np.array(drawn).reshape(-1, 2)
            x, y = ends[ends[:, 1].argmin()].tolist()
            x, y = min(x, width * ZOOM - 130), max(y - 6, 16)
            if all(abs(x - a) > 130 or abs(y - b) > 18 for a, b, *_ in labels):  # the nearer wins
                labels.append((x, y, f'{found.classes[row]} {found.scores[row]:.2f}', color))
    for x, y, text, color in labels:
        _text(picture, text, (x, y), color, 0.5)
    return picture


def _edge(a: Float64, b: Float64, camera: CameraModel) -> list[tuple[Any, Any]]:
    """Visible parts of the edge a-b (optical frame) in pixels of the picture.

    In pieces, as a lens bends lines, and knows only rays that are not too far outside its image.
    """
    points = a + np.linspace(0.0, 1.0, PIECES + 1)[:, None] * (b - a)
    pixels, valid = camera.project(points)
    valid &= points[:, 2] > NEAR
    valid[valid] &= np.abs(pixels[valid]).max(axis=1) < 20 * (camera.width + camera.height)
    frame = (0, 0, camera.width * ZOOM, camera.height * ZOOM)
    found = []
    for index in np.flatnonzero(valid[1:] & valid[:-1]):
        start, stop = _whole(pixels[index : index + 2] * ZOOM)
        seen, first, last = cv2.clipLine(frame, start, stop)
        if seen:
            found.append((first, last))
    return found


def _whole(points: Float64) -> list[tuple[int, int]]:
    return [(round(x), round(y)) for x, y in points.tolist()]


def _polygon(picture: Picture, outline: Float64, color: Color, width: int) -> None:
    cv2.polylines(picture, [outline.round().astype(np.int32)], True, color, width, cv2.LINE_AA)


def _text(picture: Picture, text: str, at: tuple[int, int], color: Color, size: float) -> None:
    """Text on a dark plate, so that it can be read on any picture."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, size, 1)
    x, y = at
    rows = slice(max(y - height - 2, 0), max(y + below, 0))
    plate = picture[rows, max(x - 2, 0) : max(x + width + 2, 0)]
    plate[:] = plate // 3
    cv2.putText(picture, text, at, font, size, color, 1, cv2.LINE_AA)


def _legend(picture: Picture, title: str, truth: bool) -> None:
    y = 24
    if title:
        _text(picture, title, (12, y), TEXT, 0.6)
        y += 24
    entries = {**EVIDENCE, **({'ground truth': TRUTH} if truth else {})}
    for name, color in entries.items():
        cv2.rectangle(picture, (12, y - 11), (26, y + 1), color, -1)
        _text(picture, name, (32, y), TEXT, 0.45)
        y += 20

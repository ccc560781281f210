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
ZOOM = 2.0
"""Of camera pictures, so that labels fit."""
PIECES = 24
"""Of an edge; each is drawn if both its ends are in front of the lens."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
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
    width: int | None = None,
    title: str | None = '',
    scores: bool = True,
) -> Picture:
    """The scene from above, x up and y left, the frame's origin in the centre.

    Args:
        points: float32 [N, 3 or more], x, y, z in metres; coloured by height.
        found: objects in the same frame, coloured by the evidence they carry.
        truth: what is really there, thin and grey.
        ahead: metres from the centre to the upper border.
        size: height of the picture, pixels.
        width: of the picture, pixels; None: it is square.
        title: text at the top, above the legend; None: neither of them.
        scores: whether labels tell the score beside the class.

    Returns:
        uint8 BGR [size, width, 3].
    """
    width = size if width is None else width
    picture = np.full((size, width, 3), BACKGROUND, np.uint8)
    scale = size / (2 * ahead)
    middle = (width // 2, size // 2)

    def pixels(xy: Float64) -> Float64:
        return np.stack([width / 2 - xy[..., 1] * scale, size / 2 - xy[..., 0] * scale], axis=-1)

    for radius in range(20, int(1.5 * ahead * max(width / size, 1.0)), 20):
        cv2.circle(picture, middle, round(radius * scale), GRID, 1, cv2.LINE_AA)
        at_rim = (middle[0] + 4, round(size / 2 - radius * scale) - 4)
        put_text(picture, f'{radius} m', at_rim, GRID, 0.45)
    at = pixels(np.asarray(points[:, :2], np.float64)).astype(np.int64)
    inside = ((at >= 0) & (at < (width, size))).all(axis=1)
    shade = np.clip((points[inside, 2] + 0.3) / 5.0, 0.0, 1.0)
    colors = cv2.applyColorMap((95 + shade * 150).astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    order = np.argsort(points[inside, 2], kind='stable')  # the highest is seen from above
    picture[at[inside, 1][order], at[inside, 0][order]] = colors[order, 0]
    if truth is not None:
        for outline in pixels(bev_corners(truth.boxes)):
            _polygon(picture, outline, TRUTH, 1)
    labels: list[tuple[tuple[int, int], str, Color]] = []
    outlines = pixels(bev_corners(found.boxes))
    for row in np.argsort(np.hypot(found.boxes[:, 0], found.boxes[:, 1]), kind='stable'):
        outline, color = outlines[row], EVIDENCE[evidence(found.sources[row])]
        _polygon(picture, outline, color, 2)
        x, y, yaw = found.boxes[row, 0], found.boxes[row, 1], found.boxes[row, YAW]
        reach = found.boxes[row, 3] / 2 + 0.8
        nose = np.array([[x, y], [x + reach * np.cos(yaw), y + reach * np.sin(yaw)]])
        start, stop = _whole(pixels(nose))
        cv2.line(picture, start, stop, color, 2, cv2.LINE_AA)
        corner = outline.max(axis=0)
        spot = (int(corner[0]) + 3, int(corner[1]))
        labels.append((spot, _label(found, row, scores), color))
    _put_labels(picture, labels, 0.42)
    cv2.drawMarker(picture, middle, TEXT, cv2.MARKER_TRIANGLE_UP, 14, 2)
    if title is not None:
        _legend(picture, title, truth is not None)
    return picture


def camera_overlay(
    image: Picture,
    camera: CameraModel,
    frame2camera: Float64,
    found: Boxes3D,
    boxes: Boxes2D | None = None,
    *,
    zoom: float = ZOOM,
    scores: bool = True,
) -> Picture:
    """The image, enlarged, with objects as wire frames and 2D detections as thin rectangles.

    Args:
        image: uint8 BGR [H, W, 3], or its like in the size of the result.
        camera: calibration of the H x W image.
        frame2camera: [4, 4], from the frame of `found` to the camera's optical frame.
        found: objects.
        boxes: 2D detections in this image.
        zoom: size of the result by H x W; lines are thicker where it is above 1.
        scores: whether labels tell the score beside the class.

    Returns:
        uint8 BGR [H * zoom, W * zoom, 3].
    """
    size = (round(camera.width * zoom), round(camera.height * zoom))
    way = cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA
    picture: Picture = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
    line, letters = 2 if zoom > 1 else 1, 0.5 if zoom >= 1 else 0.4
    if boxes is not None:
        for x1, y1, x2, y2 in (boxes.xyxy * zoom).round().astype(int).tolist():
            cv2.rectangle(picture, (x1, y1), (x2, y2), (255, 255, 255), 1, cv2.LINE_AA)
    depths = apply(frame2camera, found.boxes[:, :3])[:, 2]
    labels: list[tuple[tuple[int, int], str, Color]] = []
    for row in np.argsort(depths, kind='stable'):
        color = EVIDENCE[evidence(found.sources[row])]
        points = apply(frame2camera, corners(found.boxes[row : row + 1])[0])
        drawn = _edges(points, camera, zoom) if points[:, 2].max() > NEAR else []
        for start, stop in drawn:
            cv2.line(picture, start, stop, color, line, cv2.LINE_AA)
        if drawn:
            ends = np.array(drawn).reshape(-1, 2)
            x, y = ends[ends[:, 1].argmin()].tolist()
            labels.append(((x, max(y - 6, 0)), _label(found, row, scores), color))
    _put_labels(picture, labels, letters)
    return picture


def _label(found: Boxes3D, row: int, score: bool) -> str:
    return found.classes[row] + (f' {found.scores[row]:.2f}' if score else '')


def _put_labels(
    picture: Picture, labels: Sequence[tuple[tuple[int, int], str, Color]], size: float
) -> None:
    """Labels (place, text, colour), each where it hides none before it; else it is left out."""
    taken: list[tuple[int, int, int, int]] = []
    for (x, y), text, color in labels:
        (width, height), below = cv2.getTextSize(text, FONT, size, 1)
        if not (0 <= x < picture.shape[1] and 0 <= y < picture.shape[0]):
            continue
        x = min(max(x, 2), picture.shape[1] - width - 2)
        y = min(max(y, height + 3), picture.shape[0] - below - 1)
        plate = (x - 2, y - height - 2, x + width + 2, y + below)
        if not any(_overlap(plate, other) for other in taken):
            taken.append(plate)
            put_text(picture, text, (x, y), color, size)


def _overlap(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two rectangles (x1, y1, x2, y2) share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _edges(points: Float64, camera: CameraModel, zoom: float) -> list[tuple[Any, Any]]:
    """Visible pieces of a box's edges in pixels of the picture; `points` [8, 3], optical frame.

    In pieces, as a lens bends lines, and knows only rays that are not too far outside its image.
    """
    first, last = points[[a for a, _ in EDGES]], points[[b for _, b in EDGES]]
    shares = np.linspace(0.0, 1.0, PIECES + 1)[:, None]
    along = (first[:, None] + shares * (last - first)[:, None]).reshape(-1, 3)
    pixels, valid = camera.project(along)
    valid &= along[:, 2] > NEAR
    valid[valid] &= np.abs(pixels[valid]).max(axis=1) < 20 * (camera.width + camera.height)
    pixels, valid = pixels.reshape(len(EDGES), -1, 2) * zoom, valid.reshape(len(EDGES), -1)
    frame = (0, 0, round(camera.width * zoom), round(camera.height * zoom))
    found = []
    for edge, piece in np.argwhere(valid[:, 1:] & valid[:, :-1]):
        start, stop = _whole(pixels[edge, piece : piece + 2])
        seen, begin, end = cv2.clipLine(frame, start, stop)
        if seen:
            found.append((begin, end))
    return found


def _whole(points: Float64) -> list[tuple[int, int]]:
    return [(round(x), round(y)) for x, y in points.tolist()]


def _polygon(picture: Picture, outline: Float64, color: Color, width: int) -> None:
    cv2.polylines(picture, [outline.round().astype(np.int32)], True, color, width, cv2.LINE_AA)


def put_text(picture: Picture, text: str, at: tuple[int, int], color: Color, size: float) -> None:
    """Text on a dark plate, so that it can be read on any picture."""
    (width, height), below = cv2.getTextSize(text, FONT, size, 1)
    x, y = at
    rows = slice(max(y - height - 2, 0), max(y + below, 0))
    plate = picture[rows, max(x - 2, 0) : max(x + width + 2, 0)]
    plate[:] = plate // 3
    cv2.putText(picture, text, at, FONT, size, color, 1, cv2.LINE_AA)


def _legend(picture: Picture, title: str, truth: bool) -> None:
    y = 24
    if title:
        put_text(picture, title, (12, y), TEXT, 0.6)
        y += 24
    entries = {**EVIDENCE, **({'ground truth': TRUTH} if truth else {})}
    for name, color in entries.items():
        cv2.rectangle(picture, (12, y - 11), (26, y + 1), color, -1)
        put_text(picture, name, (32, y), TEXT, 0.45)
        y += 20

"""Boxes drawn into an image, for people to look at."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.types import Boxes2D

COLORS = (
    (80, 200, 255),
    (120, 255, 120),
    (255, 180, 80),
    (200, 120, 255),
    (255, 255, 120),
    (120, 120, 255),
)
"""BGR, one a class, by the order in which classes appear in the alphabet."""


def draw_boxes(picture: NDArray[np.uint8], boxes: Boxes2D) -> NDArray[np.uint8]:
    """A copy of a BGR picture [H, W, 3] with a rectangle, class and score for every box."""
    canvas: Any = np.ascontiguousarray(picture).copy()
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(sorted(set(boxes.classes)))}
    for (left, top, right, bottom), score, name in zip(
        boxes.xyxy, boxes.scores, boxes.classes, strict=True
    ):
        corner = (round(left), round(top))
        cv2.rectangle(canvas, corner, (round(right), round(bottom)), colors[name], 2)
        text = f'{name} {score:.2f}'
        place = (corner[0] + 2, max(corner[1] - 4, 12))
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(
            canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colors[name], 1, cv2.LINE_AA
        )
    return canvas  # type: ignore[no-any-return]  # OpenCV draws in place

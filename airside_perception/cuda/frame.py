"""What travels to the device and back with every frame; `frame.cuh` says the same to the kernels.

All live parameters are in the frame, so that a recorded graph serves for all of their values.
"""

from __future__ import annotations

import numpy as np

LABELS = 128
"""Most labels of a network."""

FRAME = np.dtype(
    {
        'names': [
            'points', 'most', 'max_detections', 'min_range2', 'intensity_scale', 'nms_iou',
            'nms_iou_across', 'moved', 'thresholds', 'groups', 'motion', 'ego_low', 'ego_high',
        ],
        'formats': [
            'i4', 'i4', 'i4', 'f4', 'f4', 'f4', 'f4', 'i4', ('f4', (LABELS,)), ('u1', (LABELS,)),
            ('f4', (3, 4)), ('f4', (3,)), ('f4', (3,)),
        ],
        'offsets': [0, 4, 8, 12, 16, 20, 24, 28, 32, 544, 672, 720, 732],
        'itemsize': 1024,
    }
)  # fmt: skip
"""Begins every input block; points (float32 [n, 4]) or pixels follow it.

Fields:
    points: number of points that follow.
    most: candidates that enter suppression.
    max_detections: boxes that are put out.
    min_range2: m^2; points nearer to the z axis are left out.
    intensity_scale: brings the intensity to 0..1; 1 where time_lag is in its place.
    nms_iou, nms_iou_across: within a group, and between groups.
    thresholds: lowest value (lidar: logit, camera: probability) of every label; inf where a label
        is dropped.
    groups: suppression group of every label.
    moved: 1 if the points are in another frame than the network, 0 if not.
    motion: from their frame to that of the network, the upper rows of `geometry.transform`.
    ego_low, ego_high: m, in the network's frame; points in this box are left out, see `lidar.ego`.
"""

MOST_ROWS = 1000
"""Most boxes that come back, the highest `max_detections` that can be set."""
NAN_SCORE, BAD_BOX = 1, 2
"""Bits of `flags`: a score that is NaN; a box above its threshold that is not finite."""

RESULT = np.dtype(
    {
        'names': [
            'count', 'flags', 'candidates', 'in_range', 'pillars', 'considered', 'pairs', 'rows',
        ],
        'formats': ['u4', 'u4', 'u4', 'u4', 'u4', 'u4', 'u4', ('f4', (MOST_ROWS, 9))],
        'offsets': [0, 4, 8, 12, 16, 20, 24, 64],
        'itemsize': 64 + MOST_ROWS * 36,
    }
)  # fmt: skip
"""Comes back from the device.

Fields:
    count: rows that are valid, best first.
    flags: what went wrong, see `NAN_SCORE`.
    candidates: places that reached their threshold, also those beyond `most`.
    in_range: points within the range of the network.
    pillars: occupied, also those beyond what the network takes.
    considered: candidates that entered suppression.
    pairs: of them that overlap too much.
    rows: x, y, z, length, width, height, yaw, score, label of each box. Camera: centre x and y,
        0, width, height, 0, 0, score, label, in pixels of the image.
"""

RESULT_WITH_VELOCITIES = np.dtype([('result', RESULT), ('velocities', 'f4', (MOST_ROWS, 2))])
"""The same of a network that puts out velocities: vx and vy of each row, m/s over ground."""

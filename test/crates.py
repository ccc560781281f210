"""A world for lidars of training that is easy to check: solid boxes on a plane. Needs torch."""

from __future__ import annotations

import math

import numpy as np
import torch

from airside_perception.sim.mesh import box
from training.lidars import Lidar
from training.scans import World

PLAIN = Lidar(np.radians(np.linspace(5, -25, 40)), 720, 1.8, 1e4, 0.0, 0.0)
"""Sees everything, without noise."""


def crates(seed):
    """Four solid boxes on a plane, each its own object."""
    rng = np.random.default_rng(seed)
    parts, boxes = [], []
    for spot in ((12, 3), (-9, 8), (4, -14), (-15, -10)):
        size, yaw = rng.uniform((1, 1, 0.8), (5, 2, 2.5)), rng.uniform(-3, 3)
        parts.append(box(size, (0, 0, 0), 0).moved((*spot, 0.0), yaw).triangles)
        boxes.append([*spot, size[2] / 2, *size, yaw])
    floor = np.array([[99, 99, 0], [-99, 99, 0], [-99, -99, 0], [99, -99, 0]])[
        [[0, 1, 2], [0, 2, 3]]
    ]
    owner = np.concatenate([np.repeat(np.arange(4), [len(p) for p in parts]), [-1, -1]])
    triangles = torch.tensor(np.concatenate([*parts, floor]), dtype=torch.float32)
    spots = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
    return World(
        triangles,
        torch.zeros(len(triangles), dtype=torch.int16),
        torch.tensor(owner, dtype=torch.int32),
        torch.tensor(boxes, dtype=torch.float32),
        torch.arange(4),
        spots,
        torch.zeros(4, 2),
    )


def inside(points, boxes, margin):
    """Whether points [N, 3] are in any of boxes [M, 7]."""
    found = np.zeros(len(points), bool)
    for x, y, z, *size, yaw in boxes:
        c, s = math.cos(yaw), math.sin(yaw)
        local = (points - [x, y, z]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        found |= (np.abs(local) < np.array(size) / 2 + margin).all(1)
    return found

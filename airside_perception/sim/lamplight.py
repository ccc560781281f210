"""The light of lamps on the ground and on faces: maps seen from above, made once a scene."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from airside_perception.sim.conditions import Conditions
from airside_perception.sim.rows import four, merged
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Int64

LIT, CELL = 90.0, 1.0
"""The map of lamp light: half its side and a cell's, metres."""


@dataclass(frozen=True)
class LampLight:
    """Light of lamps around base_link.

    Attributes:
        pools: float32 [S, S, 4], irradiance of level ground, by y, then x; the fourth is empty.
        nearest: float32 [S, S, 4], place of the lamp that gives most of it; the same.
        turned: float32 [T + 1], what a face gets of the level ground's irradiance.
    """

    pools: Float32
    nearest: Float32
    turned: Float32

    def at(self, table: Float32, points: Float32, sharp: bool = False) -> Float32:
        """Values [R, 4] of one of the maps at points [R, 2 or more] in base_link."""
        if not len(points):
            return np.empty((0, 4), np.float32)
        rows = -(-len(points) // 512)
        x, y = np.full((2, rows * 512), -9, np.float32)  # what no point fills is off the map
        scale, offset = np.float32(1 / CELL), np.float32(LIT / CELL - 0.5)
        for axis, place in ((0, x), (1, y)):
            np.multiply(points[:, axis], scale, out=place[: len(points)])
            place[: len(points)] += offset
        how = cv2.INTER_NEAREST if sharp else cv2.INTER_LINEAR
        found = cv2.remap(
            table, x.reshape(rows, 512), y.reshape(rows, 512), how, borderMode=cv2.BORDER_CONSTANT
        )
        return np.asarray(found.reshape(-1, 4)[: len(points)], dtype=np.float32)


def lamp_light(scene: Scene, conditions: Conditions) -> LampLight | None:
    """The light of the scene's lamps; None where none is lit, or by day, when it is lost."""
    lamps = scene.lamps.near(LIT + 60.0)
    if not conditions.lamps or conditions.light == 'day' or not len(lamps):
        return None
    side = round(2 * LIT / CELL)
    axis = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(CELL) - np.float32(LIT)
    x, y = np.meshgrid(axis, axis)
    flat = np.stack([x, y, x * scene.slope[0] + y * scene.slope[1]], 2).reshape(-1, 3)
    flat = flat.astype(np.float32)
    up = np.broadcast_to(scene.up, flat.shape)
    each = lamps.irradiance(flat, up)
    pools = np.zeros((4, side * side), np.float32)
    for light, colour in zip(each.T, lamps.colour, strict=True):
        for channel, share in zip(pools, colour, strict=False):
            channel += light * share
    nearest = four(lamps.position).take(_strongest(each), axis=0)
    middles = np.append(scene.triangles.mean(axis=1), np.zeros((1, 3), np.float32), axis=0)
    face = lamps.irradiance(middles, scene.normals).sum(axis=1)
    place = np.clip((middles[:, :2] + np.float32(LIT)) / np.float32(CELL), 0, side - 1)
    u, v = place.astype(np.int64).T
    level = each.sum(axis=1).reshape(side, side)[v, u]
    turned = np.clip(face / np.maximum(level, np.float32(1e-4)), 0.0, 4.0)
    turned[-1] = 1.0
    # Light that the ground throws back reaches what is turned away from every lamp.
    turned += np.float32(0.15) * (1 - scene.normals[:, 2]) / 2 + np.float32(0.05)
    return LampLight(
        merged(tuple(pools.reshape(4, side, side))),
        nearest.reshape(side, side, 4),
        turned.astype(np.float32),
    )


def _strongest(each: Float32) -> Int64:
    """Number [N] of the lamp that gives most, of [N, L]; the first of equals."""
    most, number = each[:, 0].copy(), np.zeros(len(each), np.int64)
    for row in range(1, each.shape[1]):
        more = each[:, row] > most
        np.maximum(most, each[:, row], out=most)
        number[more] = row
    return number

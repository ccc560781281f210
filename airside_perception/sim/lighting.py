"""What all cameras of one scene share of its light: colours of its faces, and its lamps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.conditions import Conditions, Light
from airside_perception.sim.lamplight import LampLight, lamp_light
from airside_perception.sim.materials import row as material_row
from airside_perception.sim.rows import four
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32

Mask = NDArray[np.bool_]

PAVED = ('asphalt', 'concrete', 'pavement', 'line_white', 'line_yellow', 'line_red')
GLOWING = {'pane': (0.010, 0.014, 0.017)}
"""Materials that shine at night and how bright: lit windows."""


def albedo(scene: Scene, wetness: float) -> Float32:
    """Colours [T + 1, 3] of the triangles and the ground: wet pavement is darker."""
    colour = scene.materials.colour
    if wetness:
        colour = colour.copy()
        colour[[material_row(name) for name in PAVED]] *= np.float32(1 - 0.5 * wetness)
    return colour.take(scene.materials_of, axis=0)


def lit(scene: Scene, light: Light, colour: Float32, glow: bool = False) -> Float32:
    """Colours [2 (T + 1), 4] of the triangles and the ground, in the sun, then in shadow."""
    normal = scene.normals
    towards = light.direction(scene.base2world).astype(np.float32)
    facing = np.maximum(np.einsum('ij,j->i', normal, towards), 0.0)[:, None]
    sky = np.array(light.sky_tint, np.float32) * np.float32(light.sky)
    dark = colour * (sky * (0.75 + 0.25 * normal[:, 2:]))
    if glow:
        for name, shine in GLOWING.items():
            dark[scene.materials_of == material_row(name)] += np.array(shine, np.float32)
    sun = np.array(light.sun_tint, np.float32) * np.float32(light.sun)
    return four(np.concatenate([dark + colour * (sun * facing), dark]))


@dataclass(frozen=True)
class Lighting:
    """What of the shading all cameras of one scene share: make it once a scene.

    Attributes:
        table: float32 [2 (T + 1), 4], as of `lit`.
        lamplit: float32 [T + 1, 4], what lamps add in the light of irradiance 1 on level ground.
        facing: bool [T + 1], whether the sun can reach a face.
    """

    light: Light
    conditions: Conditions | None
    table: Float32
    lamplit: Float32
    facing: Mask
    lamps: LampLight | None

    @staticmethod
    def of(scene: Scene, light: Light, conditions: Conditions | None = None) -> Lighting:
        """For one scene; `light` counts only without `conditions`."""
        light = conditions.sky() if conditions else light
        colour = albedo(scene, conditions.wetness if conditions else 0.0)
        lamps = lamp_light(scene, conditions) if conditions else None
        towards = light.direction(scene.base2world).astype(np.float32)
        facing = np.einsum('ij,j->i', scene.normals, towards) > 0
        table = lit(scene, light, colour, lamps is not None)
        lamplit = four(colour * lamps.turned[:, None]) if lamps else table[:0]
        return Lighting(light, conditions, table, lamplit, facing, lamps)

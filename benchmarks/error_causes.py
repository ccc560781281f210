"""What stands where a lidar network sees something that is not there: by the simulated scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from airside_perception.errors import ConfigError
from airside_perception.geometry import rotation_z
from airside_perception.sim.materials import NAMES
from airside_perception.sim.scene import Scenario, Scene
from airside_perception.types import HEIGHT, LENGTH, WIDTH, YAW, Float32, Float64, Z

EMPTY, GROUND, WEATHER = 'no point', 'ground', 'fog, rain, halo'
CLEAR_OF_GROUND = 0.2
"""Points lower than this (m) are the ground's, where a box has others as well."""
APART = 0.3
"""Points farther than this (m) from every surface are none of a surface."""
ROOM = 0.2
"""Metres added on each side of a box."""
STRUCTURES = {
    'building': ('facade', 'brick', 'cladding', 'pane', 'glass'),
    'concrete column, mast foot': ('concrete',),
    'mast, pole, fence, bridge column': ('steel', 'tape', 'lamp'),
    'plants': ('leaves', 'bark'),
    'ground': ('pavement', 'line_white', 'line_yellow', 'line_red', 'asphalt', 'grass'),
}
"""What has no label is told apart by its material; the rest of it by its height."""
BRIDGE = 2.8
"""Metres above the ground from which other structure is a jet bridge; below it is equipment."""


class Surroundings:
    """A moment of a scenario, asked what points belong to.

    Args:
        scenario: the world.
        seconds: since its start.

    Raises:
        ConfigError: open3d is missing.
    """

    def __init__(self, scenario: Scenario, seconds: float) -> None:
        self._scene: Scene = scenario.at(seconds)
        self._labels = tuple(actor.body.label for actor in scenario.actors)
        try:
            import open3d
        except (ImportError, OSError) as error:
            raise ConfigError(f'open3d cannot be imported: {error}') from error
        self._core: Any = open3d.core
        self._surfaces: Any = open3d.t.geometry.RaycastingScene()
        corners = np.ascontiguousarray(self._scene.triangles.reshape(-1, 3), np.float32)
        index = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
        self._surfaces.add_triangles(self._core.Tensor(corners), self._core.Tensor(index))

    def causes(self, boxes: Float64, points: Float32, rows: Sequence[int]) -> dict[int, str]:
        """{row: what most points in that box belong to}.

        Args:
            boxes: float64 [N, 7]; points: float32 [P, 3], both in base_link.
            rows: boxes that are asked for.
        """
        found = {}
        for row in rows:
            room = boxes[row].copy()
            room[LENGTH : HEIGHT + 1] += 2 * ROOM
            room[Z] += ROOM
            reach = float(np.hypot(room[LENGTH], room[WIDTH])) / 2
            near = points[np.hypot(*(points[:, :2] - room[:2]).T) <= reach]
            local = np.abs((near - room[:3]) @ rotation_z(room[YAW]))
            found[row] = self._cause(near[(local <= room[LENGTH : HEIGHT + 1] / 2).all(axis=1)])
        return found

    def _cause(self, points: Float32) -> str:
        if not len(points):
            return EMPTY
        above = points[:, 2] - points[:, :2] @ np.array(self._scene.slope)
        raised = above > CLEAR_OF_GROUND
        if not raised.any():
            return GROUND
        own = np.ascontiguousarray(points[raised], np.float32)
        answer = self._surfaces.compute_closest_points(self._core.Tensor(own), nthreads=1)
        apart = np.linalg.norm(answer['points'].numpy() - own, axis=1)
        triangles = answer['primitive_ids'].numpy()
        names = [
            WEATHER if away > APART else self._name(int(number), float(height))
            for number, away, height in zip(triangles, apart, above[raised], strict=True)
        ]
        return Counter(sorted(names)).most_common(1)[0][0]

    def _name(self, triangle: int, height: float) -> str:
        scene = self._scene
        actor = int(scene.actor[triangle])
        if actor >= 0:
            label = self._labels[actor] or 'equipment'
            part = label == 'aircraft' and int(scene.instance[triangle]) < 0
            return 'wing, engine, tail, gear' if part else label
        material = NAMES[int(scene.material[triangle])]
        for name, materials in STRUCTURES.items():
            if material in materials:
                return name
        return 'jet bridge' if height > BRIDGE else 'ground power, container, bridge wheels'

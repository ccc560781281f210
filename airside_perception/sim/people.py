"""People: standing, walking, crouching, riding; with or without a reflective vest."""

from __future__ import annotations

import numpy as np

from airside_perception.sim.bodies import Body, body, pick
from airside_perception.sim.materials import CLOTHES, row
from airside_perception.sim.mesh import Mesh, cylinder, ellipsoid, frustum

POSES = ('standing', 'walking', 'crouching')


def person(rng: np.random.Generator, pose: str = '', vest: bool | None = None) -> Body:
    """One person, 1.55 to 1.95 m tall when upright; about 0.5 x 0.5 m, longer when striding."""
    pose = pose or POSES[int(rng.choice(3, p=[0.4, 0.5, 0.1]))]
    worn = bool(rng.random() < 0.5) if vest is None else vest
    top = pick(rng, ('vest_yellow', 'vest_orange')) if worn else pick(rng, CLOTHES)
    stature, build = rng.uniform(1.55, 1.95) / 1.78, rng.uniform(0.9, 1.15)
    parts = [part.scaled(build, build, stature) for part in figure(rng, pose, top, worn)]
    low = np.min([part.extents[0] for part in parts], axis=0)
    high = np.max([part.extents[1] for part in parts], axis=0)
    # A box of at least half a metre: what an annotator draws, whatever the arms do.
    size = np.maximum(high - low, [0.5, 0.5, 0.0])
    centre = (low + high) / 2
    return body('person', parts, (centre[0], centre[1], high[2] / 2, size[0], size[1], high[2]))


def figure(rng: np.random.Generator, pose: str, top: int, vest: bool = False) -> list[Mesh]:
    """The parts of a figure 1.78 m tall, facing x, feet on z = 0 under the origin."""
    trousers, skin = pick(rng, ('cloth_dark', 'cloth_blue', 'cloth_dark')), row('skin')
    stride = {'standing': 0.04, 'walking': float(rng.uniform(0.2, 0.34))}.get(pose, 0.1)
    hip, lean = {'crouching': (0.42, 0.5), 'riding': (0.95, 0.55)}.get(pose, (0.88, 0.05))
    torso = 0.56
    shoulder = np.array([np.sin(lean) * torso, 0.0, hip + np.cos(lean) * torso])
    head = shoulder + np.array([0.06 + 0.1 * np.sin(lean), 0.0, 0.20])
    parts = []
    for side, step in ((1, stride), (-1, -stride)):
        y = side * 0.10
        if pose in ('crouching', 'riding'):
            knee = np.array([0.36, y, 0.46 if pose == 'crouching' else 0.72 + 0.1 * side])
            foot = np.array([0.10, y, 0.06 if pose == 'crouching' else 0.28 + 0.1 * side])
        else:
            knee, foot = np.array([0.6 * step + 0.03, y, 0.46]), np.array([step, y, 0.06])
        parts.append(_limb(np.array([0.0, y, hip]), knee, (0.09, 0.065), trousers))
        parts.append(_limb(knee, foot, (0.065, 0.05), trousers))
        parts.append(
            frustum(
                (foot[0] - 0.1, foot[0] + 0.18, 0.1),
                (foot[0] - 0.1, foot[0] + 0.08, 0.1),
                (foot[2] - 0.06, foot[2] + 0.05),
                row('dark'),
                y,
            )
        )
        reach = 0.42 if pose == 'riding' else 0.25 if pose == 'crouching' else -0.7 * step
        drop = 0.32 if pose == 'riding' else 0.48
        hand = shoulder + np.array([reach, side * 0.24, -drop])
        parts.append(_limb(shoulder + np.array([0, side * 0.2, -0.04]), hand, (0.055, 0.04), top))
    waist = np.array([0.0, 0.0, hip - 0.06])
    parts.append(_torso(waist, shoulder, top))
    if vest:
        for share in (0.3, 0.62):
            low, high = (
                waist + share * (shoulder - waist),
                waist + (share + 0.09) * (shoulder - waist),
            )
            parts.append(_torso(low, high, row('tape'), 1.06))
    parts.append(ellipsoid((0.21, 0.17, 0.27), head, skin, sides=6, rings=5))
    return parts


def _limb(start: np.ndarray, end: np.ndarray, radius: tuple[float, float], material: int) -> Mesh:
    """A four-sided limb from `start` to `end`, [3] each."""
    along = end - start
    length = float(np.linalg.norm(along))
    yaw = float(np.arctan2(along[1], along[0]))
    pitch = float(np.arccos(np.clip(along[2] / length, -1, 1)))
    return cylinder(radius, (0.0, length), (0.0, 0.0), material, sides=4).moved(start, yaw, pitch)


def _torso(low: np.ndarray, high: np.ndarray, material: int, grow: float = 1.0) -> Mesh:
    """A tapering trunk, deeper and wider by `grow`, from `low` to `high`, [3] each."""
    depth, width = 0.24 * grow, 0.40 * grow
    return frustum(
        (low[0] - depth / 2, low[0] + depth / 2, width * 0.9),
        (high[0] - depth / 2, high[0] + depth / 2, width),
        (low[2], high[2]),
        material,
    )

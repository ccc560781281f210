"""Pictures that the simulator's own camera takes, in its light and weather, to learn from.

`render` draws on the accelerator what a lens sees in daylight; lamps, wet ground, rain, blur of
what moves and automatic exposure are here. Needs open3d and no torch: processes take them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from airside_perception.geometry import invert, transform
from airside_perception.projection import CameraModel
from airside_perception.sim.camera import Lens, Picture, look, take
from airside_perception.sim.caster import Open3DCaster
from airside_perception.sim.conditions import conditions
from airside_perception.sim.materials import Materials, row
from airside_perception.sim.mesh import rotation
from airside_perception.sim.rig import OPTICAL2CAMERA
from airside_perception.sim.scene import Scene
from airside_perception.sim.shade import Lighting
from airside_perception.types import Float32, Float64, Int64
from training.stages import Recipe, staged

AROUND = 4
"""Plain pictures of a scene: to every side, as the shipped rig looks."""
SAME_LENS = 200
"""Scenes that follow each other and have the same lens."""


@dataclass(frozen=True)
class Shooting:
    """How pictures are taken, and what of them is asked for; see `yolox.yaml` for the units.

    Attributes:
        recipe: of the scenes.
        width, height: of a picture, pixels.
        objects: most objects in a picture.
        least_pixels, least_height, least_share: of what is to be found.
        views: pictures of every scene.
    """

    recipe: Recipe
    width: int
    height: int
    objects: int
    least_pixels: int
    least_height: float
    least_share: float
    views: int = 6


@dataclass(frozen=True)
class Photo:
    """A picture with what it shows, as `camera_loss.Truth` has it.

    Attributes:
        image: uint8 [3, H, W], blue, green, red.
        boxes: float32 [M, 4], x1, y1, x2, y2 around the visible pixels, the largest first.
        label: int64 [M].
        state: int64 [M]; 1: to be found, 0: neither asked for nor punished, -1: empty place.
    """

    image: NDArray[np.uint8]
    boxes: Float32
    label: Int64
    state: Int64


def photos(seed: int, shooting: Shooting, plain: bool = False) -> list[Photo]:
    """The pictures of scene number `seed`.

    `plain` ones have nothing added or repainted, and lenses like those of the shipped rig.
    """
    recipe = shooting.recipe.plain() if plain else shooting.recipe
    rng = np.random.default_rng([seed, 13])
    stage = staged(seed, recipe)
    scene = stage.scene
    if not plain:
        scene = replace(scene, materials=scene.materials.jittered(rng, float(rng.uniform(0, 0.4))))
        scene = repainted(scene, rng, float(rng.choice([0.0, 0.15, 0.4])))
    weather = conditions(seed)
    lighting = Lighting.of(scene, weather.sky(), weather)
    caster = Open3DCaster(scene.triangles, threads=1)
    found = []
    # Undistorting a lens's pixels takes as long as three pictures: it serves many scenes.
    model = _model(np.random.default_rng([seed // SAME_LENS, 17]), shooting, plain)
    for number in range(AROUND if plain else shooting.views):
        at_vehicle = plain or rng.random() < 0.5
        spot = stage.spots[0 if at_vehicle else int(rng.integers(len(stage.spots)))]
        yaw = number * np.pi / 2 if at_vehicle else rng.uniform(-np.pi, np.pi)
        lens = _lens(rng, model, scene, spot, yaw, plain)
        sticky = np.random.default_rng([seed, number])
        picture = take(lens, scene, caster, lighting, rng, look(lens), sticky)
        found.append(labelled(picture, lens, scene, shooting))
    return found


def repainted(scene: Scene, rng: np.random.Generator, amount: float) -> Scene:
    """A scene each of whose objects has a tint of its own; `amount` as of its logarithm."""
    # Panes keep their row: at night it is by this that they glow.
    mine = np.flatnonzero((scene.instance >= 0) & (scene.material != row('pane')))
    if not amount or not len(mine):
        return scene
    owned = np.stack([scene.instance[mine], scene.material[mine]])
    pairs, index = np.unique(owned, axis=1, return_inverse=True)
    tint = np.exp(
        rng.normal(0, amount, (len(scene.objects), 1))
        + rng.normal(0, amount / 2, (len(scene.objects), 3))
    )
    table, material = scene.materials, scene.material.copy()
    material[mine] = len(table.colour) + np.ravel(index)
    colour = np.clip(table.colour[pairs[1]] * tint[pairs[0]], 0.01, 1.0)
    return replace(
        scene,
        material=material,
        materials=Materials(
            np.append(table.reflectivity, table.reflectivity[pairs[1]]),
            np.append(table.retro, table.retro[pairs[1]]),
            np.append(table.loss, table.loss[pairs[1]]),
            np.concatenate([table.colour, colour]).astype(np.float32),
        ),
    )


def labelled(picture: Picture, lens: Lens, scene: Scene, shooting: Shooting) -> Photo:
    """A picture with the boxes of what it shows."""
    count, most = len(scene.objects), shooting.objects
    pixels = np.bincount(picture.instance.ravel() + 1, minlength=count + 1)[1:]
    spans = ndimage.find_objects(picture.instance + 1, max_label=count)
    rows = np.flatnonzero(pixels > 0)
    rows = rows[np.argsort(-pixels[rows], kind='stable')][:most]
    boxes, label = np.zeros((most, 4), np.float32), np.zeros(most, np.int64)
    state = np.full(most, -1, np.int64)
    whole = _whole(lens, scene, rows)
    for place, number in enumerate(rows):
        down, right = spans[number]
        boxes[place] = right.start, down.start, right.stop, down.stop
        label[place] = shooting.recipe.labels[scene.objects.classes[number]]
        share = _area(boxes[place]) / max(_area(whole[place]), 1e-3)
        clear = pixels[number] >= shooting.least_pixels and share >= shooting.least_share
        state[place] = clear and down.stop - down.start >= shooting.least_height
    image = np.ascontiguousarray(picture.image.transpose(2, 0, 1))
    return Photo(image, boxes, label, state)


def _whole(lens: Lens, scene: Scene, rows: Int64) -> Float64:
    """Boxes [N, 4] within the picture that objects would have with nothing before them.

    Corners behind the camera are left out, so an object that it stands beside seems smaller.
    """
    mine = np.flatnonzero(np.isin(scene.instance, rows))
    base2camera = invert(lens.camera2base)
    points = scene.triangles[mine].reshape(-1, 3) @ base2camera[:3, :3].T + base2camera[:3, 3]
    place, valid = lens.model.project(points)
    owner = np.repeat(scene.instance[mine], 3)
    size = np.array([lens.model.width, lens.model.height])
    boxes = np.zeros((len(rows), 4))
    for number, object_row in enumerate(rows):
        own = np.clip(place[valid & (owner == object_row)] + 0.5, 0, size)
        if len(own):
            boxes[number] = [*own.min(axis=0), *own.max(axis=0)]
    return boxes


def _area(box: NDArray[np.floating]) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 0)))


def _model(rng: np.random.Generator, shooting: Shooting, plain: bool) -> CameraModel:
    """A lens: half of them are much like those of `config/rig.yaml`, which all plain ones are."""
    size = shooting.width / 640
    like_rig = plain or rng.random() < 0.5
    focal = 330 * np.exp(rng.normal(0, 0.05)) if like_rig else 400 * np.exp(rng.uniform(-0.4, 0.5))
    k1 = -0.04 if plain else rng.normal(-0.04, 0.02 if like_rig else 0.05)
    focal = size * (330 if plain else focal)
    middle = (np.array([shooting.width, shooting.height]) - 1) / 2
    middle = middle + (0 if plain else rng.normal(0, 5 * size, 2))
    matrix = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    return CameraModel('camera', shooting.width, shooting.height, matrix, (k1, 0.006, 0, 0, 0))


def _lens(
    rng: np.random.Generator,
    model: CameraModel,
    scene: Scene,
    spot: Float64,
    yaw: float,
    plain: bool,
) -> Lens:
    pitch, roll, height = np.deg2rad(4.0), 0.0, 1.65
    if not plain:
        yaw += rng.normal(0, 0.1)
        pitch = rng.choice([rng.normal(0.07, 0.02), rng.uniform(0, 0.175)])
        roll, height = rng.normal(0, 0.015), rng.uniform(1.2, 2.2)
    # The cameras of a vehicle look out from its edge.
    x, y = spot + 0.8 * np.array([np.cos(yaw), np.sin(yaw)])
    place = np.array([x, y, height + scene.slope[0] * x + scene.slope[1] * y])
    camera2base = transform(rotation(yaw, float(pitch), float(roll)), place) @ OPTICAL2CAMERA
    noise, exposure = (2.0, 1.0) if plain else (rng.uniform(0.5, 5), np.exp(rng.normal(0, 0.2)))
    return Lens(model, camera2base, float(noise), float(exposure))

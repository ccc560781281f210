"""Simulated frames, each made once and kept in a small file: what the precisions are compared on.

A frame is one turn of the lidar and one picture of every camera, of a seed whose world, layout and
weather follow from it. In a file, points are whole steps of 4 mm, a fifth of the lidar's noise,
and pictures are JPEG of quality 95: every precision is given the same. So a hundred frames are a
few dozen megabytes, and a machine that has no simulator can read them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from airside_perception.errors import ConfigError
from airside_perception.evaluate.frames import Truth
from airside_perception.evaluate.images import flat
from airside_perception.files import write_whole
from airside_perception.types import Float32, Image, PointCloud
from benchmarks import drives

CONDITIONS = tuple((name, *sky) for name, sky in drives.CONDITIONS.items())
"""Name, light and weather. Seeds take them in turn."""
STEP = 0.004
"""Metres; int16 reaches 131 m."""
QUALITY = 95
FAMILY = 'held_out'
NAMES = 32
"""Longest name of a class, characters."""


@dataclass(frozen=True)
class Shot:
    """One frame.

    Attributes:
        seed: of world and noise; condition: name of CONDITIONS.
        cloud: in base_link, x, y, z in metres and intensity 0..1.
        images: by camera, bgr8.
        objects: in base_link, with the lidar points on each; small ones are left out.
        visible: {camera: boxes around what is visible}, flat boxes in pixels (`evaluate.images`).
    """

    seed: int
    condition: str
    cloud: PointCloud
    images: Mapping[str, Image]
    objects: Truth
    visible: Mapping[str, Truth]

    @property
    def name(self) -> str:
        """For messages and file names."""
        return f'{self.seed}_{self.condition}'


def condition_of(seed: int) -> tuple[str, str, str]:
    """Name, light and weather of a seed: with the streets, every pair comes once in 12 seeds."""
    return CONDITIONS[seed % len(CONDITIONS)]


def shoot(seed: int, condition: tuple[str, str, str] | None = None) -> Shot:
    """Simulates a frame, in the condition of its seed or another. Needs open3d."""
    from airside_perception.geometry import move_cloud
    from airside_perception.resources import resource
    from airside_perception.sim.conditions import conditions
    from airside_perception.sim.frames import RATE, drive
    from airside_perception.sim.rig import BASE, load_rig

    name, light, weather = condition or condition_of(seed)
    rig = load_rig(resource('config', 'rig.yaml'))
    (frame,) = drive(
        drives.world(seed, FAMILY), rig, 1 / RATE, seed, conditions(seed, light, weather)
    )
    cloud = move_cloud(frame.cloud, rig.lidar2base, BASE)
    points = np.ascontiguousarray(cloud.points[:, :4])
    return Shot(
        seed,
        name,
        PointCloud(0, BASE, points, ('x', 'y', 'z', 'intensity')),
        {camera: Image(0, image.frame_id, image.data) for camera, image in frame.images.items()},
        Truth(frame.objects.classes, frame.objects.boxes, points=frame.points),
        {
            camera: Truth(must.classes, flat(must.xyxy))
            for camera, boxes in frame.objects2d.items()
            for must in (boxes.select(boxes.scores > 0.0),)
        },
    )


def save(shot: Shot, path: Path) -> None:
    """Writes a frame as .npz.

    Points beyond the reach of int16 are left out.
    """
    steps = np.round(shot.cloud.points[:, :3] / STEP)
    near = (np.abs(steps) <= np.iinfo(np.int16).max).all(axis=1)
    intensity = np.clip(np.round(255 * shot.cloud.points[near, 3]), 0, 255)
    content: dict[str, np.ndarray] = {
        'head': np.array([str(shot.seed), shot.condition, shot.cloud.frame_id]),
        # one axis after the other is smaller
        'points': np.ascontiguousarray(steps[near].T.astype(np.int16)),
        'intensity': intensity.astype(np.uint8),
        'names': np.array(shot.objects.classes, f'<U{NAMES}'),
        'boxes': shot.objects.boxes,
        'hits': np.asarray(shot.objects.points),
        'cameras': np.array(list(shot.images), f'<U{NAMES}'),
    }
    for camera, image in shot.images.items():
        good, code = cv2.imencode('.jpg', image.data, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not good:
            raise ConfigError(f'{shot.name}: the image of {camera} cannot be written as JPEG')
        truth = shot.visible[camera]
        content[f'{camera}/image'] = code
        content[f'{camera}/frame'] = np.array(image.frame_id)
        content[f'{camera}/names'] = np.array(truth.classes, f'<U{NAMES}')
        content[f'{camera}/boxes'] = truth.boxes.astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def load(path: Path) -> Shot:
    """Reads a frame that `save` wrote.

    Raises:
        ConfigError: it did not.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            seed, condition, frame_id = content['head'].tolist()
            points = np.column_stack(
                [content['points'].T * np.float32(STEP), content['intensity'] / np.float32(255)]
            ).astype(np.float32)
            images, visible = {}, {}
            for camera in content['cameras'].tolist():
                pixels = cv2.imdecode(content[f'{camera}/image'], cv2.IMREAD_COLOR)
                if pixels is None:
                    raise ValueError(f'the image of {camera} is no JPEG')
                frame = str(content[f'{camera}/frame'])
                images[camera] = Image(0, frame, np.asarray(pixels, np.uint8))
                names = tuple(content[f'{camera}/names'].tolist())
                visible[camera] = Truth(names, content[f'{camera}/boxes'].astype(np.float64))
            names = tuple(content['names'].tolist())
            objects = Truth(names, content['boxes'], points=content['hits'])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f'{path}: no frame of this benchmark: {error}') from error
    cloud = PointCloud(0, frame_id, points, ('x', 'y', 'z', 'intensity'))
    return Shot(int(seed), condition, cloud, images, objects, visible)


def shots(
    folder: Path, seeds: Iterable[int], every: bool = False, make: bool = True
) -> list[Path]:
    """Files of the frames of these seeds, made where they are not there.

    Args:
        every: each seed in every condition, not in its own only.
        make: False: nothing is made.

    Raises:
        ConfigError: one is not there, and `make` is False.
    """
    found = []
    for seed in seeds:
        for condition in CONDITIONS if every else (condition_of(seed),):
            path = folder / f'{seed}_{condition[0]}.npz'
            if not path.is_file():
                if not make:
                    raise ConfigError(f'{path} is not there, and no frame shall be made')
                save(shoot(seed, condition), path)
                print(f'{path.name}: {path.stat().st_size / 1e3:.0f} kB', flush=True)
            found.append(path)
    return found


def clouds(paths: Sequence[Path], folder: Path) -> Path:
    """The clouds of frames as .npy files, as `engine` takes them; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        points: Float32 = load(path).cloud.points
        np.save(folder / f'{path.stem}.npy', points)
    return folder


def pictures(paths: Sequence[Path], folder: Path) -> Path:
    """The pictures of frames as .png files, as `engine` takes them; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        for camera, image in load(path).images.items():
            cv2.imwrite(str(folder / f'{path.stem}_{camera}.png'), image.data)
    return folder

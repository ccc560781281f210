"""Simulated drives: what the rig sees, frame by frame, and the same as a bag with ground truth.

Stamps start at a fixed time, so the same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.messages import (
    camera_info_message,
    detections2d,
    detections3d,
    image_message,
    point_cloud_message,
    transform_message,
)
from airside_perception.replay.bag import BagWriter
from airside_perception.sim.camera import Light, look, render, visible
from airside_perception.sim.caster import Caster, Open3DCaster
from airside_perception.sim.lidar import scan
from airside_perception.sim.rig import BASE, LIDAR, ODOM, Rig
from airside_perception.sim.scene import Scenario, Scene
from airside_perception.types import Boxes2D, Boxes3D, Float32, Float64, Image, PointCloud

START_NS = 1_700_000_000_000_000_000
RATE = 10
"""Frames a second."""
ODOMETRY = 5
"""Odometry messages a frame."""
TF_LEAD_NS = 1_000_000
"""Transforms are recorded 1 ms before the sensor data of their stamp: players send them first."""
LEAST_PIXELS = 20
"""Smallest visible part of an object that counts as seen by a camera."""


@dataclass(frozen=True)
class Frame:
    """All that the rig measures at one stamp, and the truth.

    Attributes:
        stamp_ns: of everything in it.
        base2odom: float64 [4, 4], pose of the vehicle.
        cloud: in the frame `lidar`.
        images, objects2d: by camera name; boxes around what is visible of each object.
        objects: every labelled object in reach, in base_link; scores are 1.
        velocities: float64 [N, 2] of `objects`, m/s in base_link's axes.
        points: int64 [N], lidar points on each of `objects`.
        pixels: int64 [N], pixels of each in all images together.
    """

    stamp_ns: int
    base2odom: Float64
    cloud: PointCloud
    images: dict[str, Image]
    objects2d: dict[str, Boxes2D]
    objects: Boxes3D
    velocities: Float64
    points: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @property
    def seen(self) -> Boxes3D:
        """The objects that returned a lidar point or are visible in a camera."""
        return self.objects.select((self.points > 0) | (self.pixels >= LEAST_PIXELS))


def drive(
    scenario: Scenario,
    rig: Rig,
    seconds: float,
    seed: int,
    light: Light | None = None,
    open_caster: Callable[[Float32], Caster] = Open3DCaster,
) -> Iterator[Frame]:
    """Frames of a drive of `seconds` at RATE; `seed` is that of the sensors' noise."""
    light = light or Light()
    directions = {name: look(lens) for name, lens in rig.lenses.items()}
    for number in range(round(seconds * RATE)):
        stamp_ns = START_NS + number * (1_000_000_000 // RATE)
        scene = scenario.at(number / RATE)
        caster = open_caster(scene.triangles)
        sweep = scan(
            rig.spec, scene, caster, rig.lidar2base, np.random.default_rng([seed, number])
        )
        images, boxes2d = {}, {}
        pixels = np.zeros(len(scene.objects), np.int64)
        for camera, (name, lens) in enumerate(rig.lenses.items(), 1):
            noise = np.random.default_rng([seed, number, camera])
            picture = render(lens, scene, caster, light, noise, directions[name])
            frame_id = lens.model.frame_id
            images[name] = Image(stamp_ns, frame_id, picture.image)
            boxes2d[name] = visible(picture, scene, stamp_ns, frame_id, LEAST_PIXELS)
            pixels += np.bincount(picture.instance.ravel() + 1, minlength=len(pixels) + 1)[1:]
        yield Frame(
            stamp_ns=stamp_ns,
            base2odom=scene.base2world,
            cloud=PointCloud(stamp_ns, LIDAR, sweep.points),
            images=images,
            objects2d=boxes2d,
            objects=_truth(scene, stamp_ns),
            velocities=scene.objects.velocities,
            points=sweep.counts(len(scene.objects)),
            pixels=pixels,
        )


def write_drive(
    scenario: Scenario,
    rig: Rig,
    seconds: float,
    seed: int,
    out: Path,
    storage: str = 'mcap',
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:
    """Writes a drive as a bag: sensors, transforms, odometry as /tf, and ground truth.

    Returns:
        Number of messages by topic.

    Raises:
        BagError: the bag cannot be written.
    """
    counts: dict[str, int] = {}
    with BagWriter(out, storage, overwrite) as writer:
        types = writer.types

        def write(topic: str, message: Any, log_ns: int) -> None:
            writer.write(topic, message, log_ns)
            counts[topic] = counts.get(topic, 0) + 1

        def tf(topic: str, edges: list[tuple[str, str, Float64]], stamp_ns: int) -> None:
            items = [
                transform_message(up, down, stamp_ns, pose, types) for up, down, pose in edges
            ]
            write(topic, types('tf2_msgs/msg/TFMessage')(transforms=items), stamp_ns - TF_LEAD_NS)

        tf('/tf_static', rig.static_transforms(), START_NS)
        for number, frame in enumerate(drive(scenario, rig, seconds, seed), 1):
            tf('/tf', [(ODOM, BASE, frame.base2odom)], frame.stamp_ns)
            for name, image in frame.images.items():
                info = camera_info_message(rig.lenses[name].model, frame.stamp_ns, types)
                write(f'/sensing/camera/{name}/camera_info', info, frame.stamp_ns)
                write(f'/sensing/camera/{name}/image', image_message(image, types), frame.stamp_ns)
                truth = detections2d(frame.objects2d[name], types)
                write(f'/ground_truth/camera/{name}/objects', truth, frame.stamp_ns)
            write('/sensing/lidar/points', point_cloud_message(frame.cloud, types), frame.stamp_ns)
            write('/ground_truth/objects', detections3d(frame.seen, types), frame.stamp_ns)
            for step in range(1, ODOMETRY):
                later = step / (RATE * ODOMETRY)
                pose = scenario.pose((frame.stamp_ns - START_NS) * 1e-9 + later)
                tf('/tf', [(ODOM, BASE, pose)], frame.stamp_ns + round(later * 1e9))
            progress(number, round(seconds * RATE))
    return counts


def _truth(scene: Scene, stamp_ns: int) -> Boxes3D:
    count = len(scene.objects)
    return Boxes3D(
        stamp_ns,
        BASE,
        scene.objects.boxes,
        np.ones(count),
        scene.objects.classes,
        np.broadcast_to(1e-6 * np.eye(4), (count, 4, 4)),
        ids=tuple(str(i) for i in scene.objects.ids.tolist()),
    )

"""Time and frame: what the sensors saw, brought to one frame and one stamp before it is fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from airside_perception.config import FusionConfig
from airside_perception.errors import MessageError, PerceptionError
from airside_perception.geometry import move_boxes
from airside_perception.projection import CameraModel
from airside_perception.transforms import TransformSource
from airside_perception.types import HEIGHT, LENGTH, Boxes3D, Float64, X, Y

NANOSECONDS = 1e-9


@dataclass(frozen=True)
class CameraView:
    """What the fusion knows of one camera for one set.

    Attributes:
        boxes: lifted boxes in the fusion frame at the fusion stamp.
        camera: the lens; None until its camera_info came: then only positions are compared.
        fusion2camera: float64 [4, 4], the fusion frame at the fusion stamp into the optical frame
            at the image's stamp; None where `camera` is None.
    """

    boxes: Boxes3D
    camera: CameraModel | None = None
    fusion2camera: Float64 | None = None

    def __post_init__(self) -> None:
        if (self.camera is None) != (self.fusion2camera is None):
            raise MessageError('a view has a camera and fusion2camera, or neither')


@dataclass(frozen=True)
class Aligned:
    """One set of inputs, ready for `Fusion.fuse`.

    Attributes:
        lidar: boxes in the fusion frame at `stamp_ns`; None: no answer from the lidar.
        cameras: {name: view}.
        failures: {source: why it is missing above, or, for a camera that is there, why only its
            positions can be used, or, for a lidar that is there, why its shadows are not known}.
        lidar_origin: float64 [2], x, y of the lidar in the frame; None: not known.
    """

    stamp_ns: int
    frame_id: str
    lidar: Boxes3D | None
    cameras: Mapping[str, CameraView]
    failures: Mapping[str, PerceptionError]
    lidar_origin: Float64 | None = None


def align(
    boxes: Boxes3D,
    transforms: TransformSource,
    frame_id: str,
    stamp_ns: int,
    fixed_frame: str,
    speed_sigma: float,
) -> Boxes3D:
    """`boxes` in `frame_id` at `stamp_ns`.

    Between equal stamps a plain lookup is enough. Otherwise the boxes go through `fixed_frame`,
    so that ego motion is taken out; the objects themselves may have moved in the meantime by
    `speed_sigma` m/s along x and y, which the covariance says: P + speed_sigma^2 dt^2 I. A
    covariance of zeros, which means that it is not known, stays so.

    Raises:
        TransformError: a frame is unknown, or there is no transform for a stamp.
    """
    if boxes.stamp_ns == stamp_ns:
        if boxes.frame_id == frame_id:
            return boxes
        return move_boxes(boxes, transforms.lookup(frame_id, boxes.frame_id, stamp_ns), frame_id)
    moved = transforms.lookup_between(
        frame_id, stamp_ns, boxes.frame_id, boxes.stamp_ns, fixed_frame
    )
    aligned = move_boxes(boxes, moved, frame_id, stamp_ns)
    drift = speed_sigma * (stamp_ns - boxes.stamp_ns) * NANOSECONDS
    covariances = aligned.covariances.copy()
    covariances[:, [X, Y], [X, Y]] += np.where(unknown(covariances), 0.0, drift**2)[:, None]
    return replace(aligned, covariances=covariances)


def align_set(
    detections: Mapping[str, Boxes3D],
    cameras: Mapping[str, CameraModel],
    transforms: TransformSource,
    config: FusionConfig,
    stamp_ns: int | None = None,
) -> Aligned:
    """One set of detections in the fusion frame at `stamp_ns`.

    A source that cannot be brought there, or whose boxes cannot be trusted, is left out and named
    in `failures`: the others still see.

    Args:
        detections: {'lidar' or camera name: boxes as they came}; a camera's stamp is its image's.
        cameras: {camera name: lens}; a camera may be missing.
        transforms: of the vehicle.
        config: frames and process noise.
        stamp_ns: of the result; None: the stamp of the first source, by rank, that is there.

    Raises:
        MessageError: no detections at all, or a source that is not in `config.sources`.
    """
    unknown = sorted(set(detections) - set(config.sources))
    if unknown or not detections:
        raise MessageError(
            f'detections of {unknown or "no source"}; the fusion knows {list(config.sources)}'
        )
    if stamp_ns is None:
        stamp_ns = next(detections[name].stamp_ns for name in config.sources if name in detections)
    frame, fixed = config.fusion_frame, config.fixed_frame
    aligned: dict[str, Boxes3D] = {}
    views: dict[str, CameraView] = {}
    failures: dict[str, PerceptionError] = {}
    for name, boxes in sorted(detections.items()):
        try:
            aligned[name] = align(
                boxes, transforms, frame, stamp_ns, fixed, config.object_speed_sigma
            )
            check_boxes(aligned[name])
        except PerceptionError as error:
            aligned.pop(name, None)
            failures[name] = error
    origin = None
    if 'lidar' in aligned and config.lidar_shadow:
        try:
            own = config.lidar_frame or detections['lidar'].frame_id
            origin = transforms.lookup(frame, own, stamp_ns)[:2, 3]
        except PerceptionError as error:
            failures['lidar'] = error
    for name in sorted(set(aligned) - {'lidar'}):
        views[name] = CameraView(aligned[name])
        camera, image_ns = cameras.get(name), detections[name].stamp_ns
        if camera is None:
            continue
        try:
            if image_ns == stamp_ns:
                fusion2camera = transforms.lookup(camera.frame_id, frame, stamp_ns)
            else:
                fusion2camera = transforms.lookup_between(
                    camera.frame_id, image_ns, frame, stamp_ns, fixed
                )
            views[name] = CameraView(aligned[name], camera, fusion2camera)
        except PerceptionError as error:
            failures[name] = error
    return Aligned(stamp_ns, frame, aligned.get('lidar'), views, failures, origin)


def check_boxes(boxes: Boxes3D) -> None:
    """Refuses boxes that no fusion can weigh.

    Raises:
        MessageError: values that are not finite, sizes that are negative, scores outside [0, 1],
            or a covariance whose x, y block is not positive definite; only one of zeros, which
            says that it is not known, may pass.
    """
    rows, p = boxes.boxes, boxes.covariances
    if not (np.isfinite(rows).all() and np.isfinite(p).all()):
        bad = ~(np.isfinite(rows).all(axis=1) & np.isfinite(p).all(axis=(1, 2)))
        raise MessageError(f'{_first(boxes, bad)} or its covariance is not finite')
    bad = ~((boxes.scores >= 0.0) & (boxes.scores <= 1.0))
    if bad.any():
        score = boxes.scores[bad][0]
        raise MessageError(f'{_first(boxes, bad)} has score {score:g}, expected 0 to 1')
    bad = (rows[:, LENGTH : HEIGHT + 1] < 0.0).any(axis=1)
    if bad.any():
        raise MessageError(f'{_first(boxes, bad)} has a negative size')
    sound = (p[:, X, X] > 0.0) & (p[:, X, X] * p[:, Y, Y] > p[:, X, Y] * p[:, Y, X])
    bad = ~(sound | unknown(p))
    if bad.any():
        block = p[bad][0, :2, :2].tolist()
        raise MessageError(
            f'{_first(boxes, bad)} has the covariance {block} of x, y, which is not positive '
            'definite'
        )


def unknown(covariances: Float64) -> NDArray[np.bool_]:
    """Which covariances [N, 4, 4] are all zeros: what detectors send that do not know it."""
    return ~covariances.any(axis=(1, 2))


def _first(boxes: Boxes3D, bad: NDArray[np.bool_]) -> str:
    """What to call the first of the boxes that are `bad` [N]."""
    row = int(np.flatnonzero(bad)[0])
    x, y = boxes.boxes[row, :2]
    return f'{"/".join(boxes.sources[row])} {boxes.classes[row]} at ({x:.1f}, {y:.1f})'.strip()

"""Late fusion in bird's-eye view: lidar and camera boxes of one set become one list of objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from airside_perception.config import FusionConfig
from airside_perception.errors import TransformError
from airside_perception.fusion.align import CameraView, check_boxes
from airside_perception.fusion.associate import Labels, match_places, match_views
from airside_perception.fusion.fuse import Objects
from airside_perception.fusion.viewport import Seen, Viewport, see
from airside_perception.fusion.visibility import should_see
from airside_perception.projection import CameraModel
from airside_perception.timing import Laps
from airside_perception.types import Boxes3D, Float64, Int64

ORIGIN = np.zeros(2)


@dataclass(frozen=True)
class FusionResult:
    """Fused objects and where they come from.

    Attributes:
        boxes: best score first, from `score_threshold` up; `sources` names the sensors of each.
            The counts below are those of all.
        matched: lidar boxes that a camera sees too.
        lidar_only, camera_only: objects of the lidar alone, and of one or more cameras alone.
        penalised: those of `lidar_only` that a camera should see and does not.
    """

    boxes: Boxes3D
    matched: int
    lidar_only: int
    camera_only: int
    penalised: int


class Fusion:
    """Fuses one set after the other; keeps nothing between them but the views of the cameras.

    Attributes:
        config: may be replaced between sets.
        timings: milliseconds of the last set by step: prepare, project, associate, state, merge,
            finish.
    """

    def __init__(self, config: FusionConfig) -> None:
        self.config = config
        self.timings: dict[str, float] = {}
        self._viewports: dict[str, Viewport] = {}

    def fuse(
        self,
        lidar: Boxes3D | None,
        cameras: Mapping[str, CameraView],
        stamp_ns: int,
        frame_id: str,
        lidar_origin: Float64 | None = ORIGIN,
    ) -> FusionResult:
        """One set of inputs to objects.

        The order of `cameras` and of the boxes changes nothing but the place of equal scores.

        Args:
            lidar: boxes in `frame_id` at `stamp_ns`; None: no answer.
            cameras: {name: view}; a camera that gave no answer is not in it.
            stamp_ns: of the result.
            frame_id: of the result.
            lidar_origin: float64 [2], x, y of the lidar in that frame; None: not known, then
                nothing lies in its shadow.

        Raises:
            TransformError: boxes of another frame or stamp.
            MessageError: boxes that cannot be weighed, see `check_boxes`.
        """
        config, laps = self.config, Laps()
        boxes, origin, rows = _stack(lidar, cameras, stamp_ns, frame_id)
        check_boxes(boxes)
        own = rows.pop('lidar')
        labels = Labels(config.groups)
        objects = Objects(boxes, len(own), labels, config)
        laps('prepare')

        seen = self._see(boxes.boxes, own, rows, cameras)
        laps('project')

        mates, lidar_places = [], objects.places(own)
        for name, mine in rows.items():
            places = objects.places(mine)
            if name in seen:
                row, column = match_views(lidar_places, places, seen[name], config)
            else:
                row, column = match_places(lidar_places, places, config)
            mates.append((own[row], mine[column]))
        laps('associate')

        objects.join_all(mates)
        laps('state')

        cameras_only = own[:0]
        for mine in rows.values():
            left = mine[~objects.absorbed[mine]]
            row, column = match_places(objects.places(cameras_only), objects.places(left), config)
            objects.join(cameras_only[row], left[column])
            cameras_only = np.concatenate([cameras_only, left[~objects.absorbed[left]]])
        laps('merge')

        missed = np.zeros(len(own), dtype=bool)
        alone = ~objects.joined[own]
        alone &= labels.belong(boxes.classes[: len(own)], config.camera_groups)
        for view in seen.values():
            missed |= should_see(view, alone, config)
        doubted = own[:0] if lidar is None else cameras_only
        fused = objects.result(penalised=own[missed], doubted=doubted, lidar_origin=lidar_origin)
        kept = np.concatenate([own, cameras_only])
        kept = kept[fused.scores[kept] >= config.score_threshold]
        order = kept[np.lexsort((origin[kept], -fused.scores[kept]))]
        matched = int(objects.joined[own].sum())
        result = FusionResult(
            fused.select(order),
            matched=matched,
            lidar_only=len(own) - matched,
            camera_only=len(cameras_only),
            penalised=int(missed.sum()),
        )
        laps('finish')
        self.timings = laps.ms
        return result

    def _see(
        self,
        boxes: Float64,
        lidar: Int64,
        rows: Mapping[str, Int64],
        cameras: Mapping[str, CameraView],
    ) -> dict[str, Seen]:
        """What the cameras whose lens is known have in their images."""
        viewports, transforms = {}, []
        for name in rows:
            camera, fusion2camera = cameras[name].camera, cameras[name].fusion2camera
            if camera is not None and fusion2camera is not None:
                viewports[name] = self._viewport(name, camera)
                transforms.append(fusion2camera)
        lifted = [boxes[rows[name]] for name in viewports]
        images = see(list(viewports.values()), transforms, boxes[lidar], lifted)
        return dict(zip(viewports, images, strict=True))

    def _viewport(self, name: str, camera: CameraModel) -> Viewport:
        known = self._viewports.get(name)
        if known is None or known.camera is not camera:
            self._viewports[name] = known = Viewport.of(camera)
        return known


def _stack(
    lidar: Boxes3D | None, cameras: Mapping[str, CameraView], stamp_ns: int, frame_id: str
) -> tuple[Boxes3D, Int64, dict[str, Int64]]:
    """All boxes one after the other, those of each sensor in an order of their own.

    The assignment decides ties by order; with an order that comes from the boxes alone, the
    result does not depend on how they were sent.

    Returns:
        Boxes [T] with the sensor as source, their places before they were sorted [T], and the
        rows of each sensor: the lidar, then the cameras by name.

    Raises:
        TransformError: boxes of another frame or stamp.
    """
    inputs = {'lidar': Boxes3D.empty(stamp_ns, frame_id) if lidar is None else lidar}
    inputs.update((name, cameras[name].boxes) for name in sorted(cameras))
    for name, part in inputs.items():
        if (part.frame_id, part.stamp_ns) != (frame_id, stamp_ns):
            raise TransformError(
                f'{name} boxes are in {part.frame_id!r} at {part.stamp_ns} ns, expected '
                f'{frame_id!r} at {stamp_ns} ns; align_set brings them there'
            )
    parts = list(inputs.values())
    boxes = Boxes3D(
        stamp_ns,
        frame_id,
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        classes=tuple(name for part in parts for name in part.classes),
        covariances=np.concatenate([part.covariances for part in parts]),
        ids=tuple(name for part in parts for name in part.ids),
        sources=tuple((name,) for name, part in inputs.items() for _ in part.classes),
    )
    sizes = [len(part) for part in parts]
    sensor = np.repeat(np.arange(len(parts)), sizes)
    order = np.lexsort((*boxes.boxes.T[::-1], -boxes.scores, sensor))
    twins = (np.diff(boxes.boxes[order], axis=0) == 0.0).all(axis=1)
    if twins.any():  # rare: the rest decides too
        _, label = np.unique(np.array(boxes.classes), return_inverse=True)
        spread = boxes.covariances[:, :2, :2].reshape(-1, 4).T
        keys = (*spread, label.reshape(-1), *boxes.boxes.T[::-1], -boxes.scores, sensor)
        order = np.lexsort(keys)
    rows = np.split(np.arange(len(order)), np.cumsum(sizes)[:-1])
    return boxes.select(order), order, dict(zip(inputs, rows, strict=True))

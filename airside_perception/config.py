"""Settings as frozen dataclasses: every default, unit, range and description lives here, once.

What a parameter is, and how values get in and out, is in `parameter`; its names can be imported
from here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from airside_perception.errors import ConfigError
from airside_perception.parameter import (
    Parameter,
    flat_values,
    from_values,
    parameter,
    per_class,
    replace_values,
    specs,
)

__all__ = [
    'CameraConfig',
    'EngineConfig',
    'FusionConfig',
    'LidarConfig',
    'Parameter',
    'flat_values',
    'from_values',
    'fusion_priors',
    'parameter',
    'per_class',
    'replace_values',
    'specs',
]


@dataclass(frozen=True)
class EngineConfig:
    """What every detector says about its network."""

    engine_path: str = parameter(
        '',
        'Network: .onnx (ONNX Runtime) or .engine/.plan (TensorRT). Relative paths are looked up '
        'in the models folder.',
        swap=True,
    )
    card_path: str = parameter(
        '',
        'Model card; empty: beside the network, same name, .yaml; for NAME.fp16.gpu.engine also '
        'NAME.yaml.',
        swap=True,
    )
    precision: str = parameter(
        'auto',
        'Precision the engine must have; auto takes what the file holds.',
        choices=('auto', 'fp32', 'fp16', 'int8'),
        swap=True,
    )
    dla_core: int = parameter(
        -1,
        'DLA core that runs the network; -1: GPU (TensorRT) or CPU (ONNX Runtime).',
        low=-1, high=1, swap=True,
    )  # fmt: skip
    dla_strict: bool = parameter(
        False, 'Refuse an engine of which a layer is not on its DLA core.', swap=True
    )
    allow_host_code: bool = parameter(
        False,
        'Open version-compatible plans: they carry code that runs on the CPU. Their manifest must '
        'match all the same.',
        swap=True,
    )
    engine_build: str = parameter(
        'never',
        'missing: an engine that is missing or does not fit this machine is built from its ONNX '
        'beside it, which takes minutes; the node is inactive until then. Read when a network is '
        'opened.',
        choices=('never', 'missing'),
        live=True,
    )
    allow_hot_swap: bool = parameter(
        False,
        'Whether what is marked "swap" may be set while the node is configured: the new network '
        'opens and warms up beside the old one and takes over between two frames.',
        live=True,
    )
    threads: int = parameter(0, 'CPU threads of ONNX Runtime; 0: all.', low=0, high=64, swap=True)
    input_qos: str = parameter(
        'sensor_data',
        'QoS of the sensor: sensor_data takes what arrives; reliable has lost parts of large '
        'messages sent again, and needs a sensor that publishes reliably.',
        choices=('sensor_data', 'reliable'),
    )
    expected_time_ms: float = parameter(
        100.0,
        'Longest processing time that diagnostics call normal.',
        unit='ms', low=1.0, high=5000.0, live=True,
    )  # fmt: skip
    tf_timeout_ms: float = parameter(
        50.0,
        'Longest wait for a transform at the stamp of a message.',
        unit='ms', low=0.0, high=1000.0, live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class CameraConfig(EngineConfig):
    """camera_detector: image to 2D boxes to boxes on the ground plane."""

    compressed: bool = parameter(
        False, 'Subscribe to CompressedImage on <image topic>/compressed instead of Image.'
    )
    score_threshold: float = parameter(
        0.3, 'Lowest score of any detection.', low=0.0, high=1.0, live=True
    )
    score_thresholds: dict[str, float] = per_class(
        'Lowest score of a class; the higher of this and score_threshold counts.',
        low=0.0, high=1.0,
    )  # fmt: skip
    nms_iou: float = parameter(
        0.45, 'Boxes of one class that overlap more are one object.', low=0.0, high=1.0, live=True
    )
    nms_iou_across: float = parameter(
        0.8,
        'The same for boxes of different classes (a large van is a car and a truck to a '
        'network), if it is larger than nms_iou; 1 keeps all.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    max_candidates: int = parameter(
        1000, 'Best candidates that enter suppression.', low=1, high=10000, live=True
    )
    max_detections: int = parameter(
        100, 'Most detections in one image, best first.', low=1, high=1000, live=True
    )
    ground_frame: str = parameter(
        'base_link', 'Frame whose plane z = 0 is the ground; 3D boxes are published in it.'
    )
    max_range: float = parameter(
        80.0,
        'Farthest ground contact that is lifted to 3D.',
        unit='m', low=5.0, high=300.0, live=True,
    )  # fmt: skip
    pixel_sigma: float = parameter(
        2.0,
        'Standard deviation of the edges of a 2D box.',
        unit='px', low=0.1, high=50.0, live=True,
    )  # fmt: skip
    pitch_sigma: float = parameter(
        0.0035,
        'Standard deviation of the tilt of the camera against the ground (default: 0.2 degrees).',
        unit='rad', low=0.0, high=0.1, live=True,
    )  # fmt: skip
    truncation_margin: int = parameter(
        3,
        'A 2D box this near to the border of the image counts as cut off there; its place is less '
        'certain.',
        unit='px', low=0, high=100, live=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.ground_frame:
            raise ConfigError("ground_frame = '': name the frame whose plane z = 0 is the ground")


@dataclass(frozen=True)
class LidarConfig(EngineConfig):
    """lidar_detector: point cloud to 3D boxes."""

    target_frame: str = parameter(
        'base_link',
        'Frame of the network and of its boxes (z = 0 is the ground); empty: the frame of the '
        'cloud.',
    )
    score_threshold: float = parameter(
        0.1, 'Lowest score of any detection.', low=0.0, high=1.0, live=True
    )
    score_thresholds: dict[str, float] = per_class(
        'Lowest score of a class; the higher of this and score_threshold counts.',
        low=0.0, high=1.0,
    )  # fmt: skip
    nms_iou: float = parameter(
        0.1,
        'Boxes of one class whose footprints overlap more are one object; 1 keeps all.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    nms_iou_across: float = parameter(
        0.3,
        'The same for boxes of different classes, if it is larger than nms_iou. A box is never '
        'lost to one whose footprint is more than 1 / nms_iou_across times its own: at 0.3, no '
        'person to the vehicle beside it. 1 keeps all.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    max_candidates: int = parameter(
        1000, 'Best candidates that enter suppression.', low=1, high=10000, live=True
    )
    max_detections: int = parameter(
        200, 'Most detections in one sweep, best first.', low=1, high=1000, live=True
    )
    max_points_in_cloud: int = parameter(
        200_000,
        'Room for the points of one sweep on the GPU, about 60 bytes each; of more the first are '
        'taken. The CPU takes any number.',
        low=1000, high=1_048_575, swap=True,
    )  # fmt: skip
    min_range: float = parameter(
        0.0,
        'Points nearer than this to the origin of target_frame, seen from above, are left out '
        '(ego vehicle).',
        unit='m', low=0.0, high=20.0, live=True,
    )  # fmt: skip
    intensity_scale: float = parameter(
        1.0,
        'Factor that brings the intensity of this sensor to 0..1.',
        low=0.0001, high=1.0, live=True,
    )  # fmt: skip
    position_sigma: float = parameter(
        0.15,
        'Standard deviation of the centre of a box at 0 m, along each axis.',
        unit='m', low=0.01, high=5.0, live=True,
    )  # fmt: skip
    position_sigma_per_m: float = parameter(
        0.005, 'Growth of position_sigma with range.', low=0.0, high=0.2, live=True
    )
    yaw_sigma: float = parameter(
        0.1,
        'Standard deviation of the yaw of a box.',
        unit='rad', low=0.001, high=3.2, live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class FusionConfig:
    """bev_fusion: boxes of one lidar and several cameras to fused objects.

    `lidar` and the names in `cameras` are the sources of the fusion; their order is their rank:
    the first live one paces the output.
    """

    lidar: bool = parameter(True, 'Whether lidar boxes are fused (source "lidar").')
    cameras: tuple[str, ...] = parameter(('front',), 'Names of the fused cameras.')
    fusion_frame: str = parameter('base_link', 'Frame of the fused objects (z = 0 is the ground).')
    fixed_frame: str = parameter(
        'odom',
        'World-fixed frame that takes boxes from one stamp to another. Without odometry, name '
        'the fusion frame itself: ego motion is then left out.',
    )
    class_groups: tuple[str, ...] = parameter(
        (
            'vehicle=car,truck,bus,van,train,tram,trailer,construction_vehicle,vehicle,belt_loader,'
            'pushback_tug,tug,fuel_truck,catering_truck,baggage_cart,baggage_tractor,gse',
            'person=person,pedestrian,person_sitting',
            'cyclist=cyclist,bicycle,motorcycle',
            'aircraft=aircraft,airplane',
        ),
        'Classes that may be one object seen by two sensors, as "group=class,class,...". '
        'A class that is not named is a group of its own. Upper and lower case are one.',
    )
    camera_groups: tuple[str, ...] = parameter(
        ('vehicle', 'person', 'cyclist'),
        'Groups that the camera networks report; only their lidar boxes are penalised if unseen.',
    )
    queue_size: int = parameter(10, 'Messages kept of each source.', low=2, high=100)
    sync_slop_ms: float = parameter(
        40.0, 'Largest difference of the stamps of one set.', unit='ms', low=0.0, high=1000.0
    )
    deadline_ms: float = parameter(
        50.0,
        'Longest wait for missing inputs, from the arrival of the pacing one.',
        unit='ms', low=1.0, high=5000.0, live=True,
    )  # fmt: skip
    silence_ms: float = parameter(
        1000.0,
        'A source that sent nothing for so long is not waited for and does not pace the output; '
        'longer than the slowest source ever takes from one message to the next.',
        unit='ms', low=10.0, high=60000.0, live=True,
    )  # fmt: skip
    gate_chi2: float = parameter(
        9.21,
        'Largest squared Mahalanobis distance of two centres in BEV (chi-squared, 2 degrees of '
        'freedom; 9.21: 99 %).',
        low=0.1, high=100.0, live=True,
    )  # fmt: skip
    gate_giou: float = parameter(
        -0.2, 'Smallest generalised IoU of two boxes in the image.', low=-1.0, high=1.0, live=True
    )
    gate_cost: float = parameter(
        3.0, 'Largest sum of the costs below of a match.', low=0.01, high=100.0, live=True
    )
    image_cost: float = parameter(
        1.0, 'Cost of a match for each 1 - GIoU.', low=0.0, high=10.0, live=True
    )
    distance_cost: float = parameter(
        0.33, 'Cost of a match for each sigma between the centres.', low=0.0, high=10.0, live=True
    )
    class_cost: float = parameter(
        0.3, 'Cost of a match of two classes of one group.', low=0.0, high=10.0, live=True
    )
    prior: float = parameter(
        0.1,
        'Probability that a detection is an object before its score is known. A second sensor '
        'whose score is higher than this raises the score of the first.',
        low=0.001, high=0.999, live=True,
    )  # fmt: skip
    priors: dict[str, float] = per_class('As prior, for one class.', low=0.001, high=0.999)
    camera_weight: float = parameter(
        1.0,
        'Part of the log-odds of a camera that joins a lidar box.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    repeat_weight: float = parameter(
        0.5,
        'Part of the log-odds of every further camera: networks of one kind err together.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    score_limit: float = parameter(
        0.001, 'Fused scores stay this far from 0 and 1.', low=1e-6, high=0.1, live=True
    )
    penalty: float = parameter(
        0.5,
        'Log-odds taken from a lidar box that a camera should see and does not.',
        low=0.0, high=10.0, live=True,
    )  # fmt: skip
    penalty_floor: float = parameter(
        0.05, 'The penalty takes no score below this.', low=0.0, high=1.0, live=True
    )
    penalty_range: float = parameter(
        40.0, 'Farthest box that a camera should see.', unit='m', low=1.0, high=300.0, live=True
    )
    penalty_height: float = parameter(
        25.0, 'Smallest box that a camera should see.', unit='px', low=1.0, high=2000.0, live=True
    )
    penalty_occlusion: float = parameter(
        0.3,
        'Largest part of its image box hidden by nearer lidar boxes of a box that a camera '
        'should see.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    unknown_sigma: float = parameter(
        0.5,
        'Standard deviation, per axis, of the place of boxes whose covariance is all zeros: not '
        'known.',
        unit='m', low=0.01, high=10.0, live=True,
    )  # fmt: skip
    object_speed_sigma: float = parameter(
        3.0,
        'Speed of objects (standard deviation per axis) where boxes are brought to another stamp.',
        unit='m/s', low=0.0, high=50.0, live=True,
    )  # fmt: skip
    marker_lifetime_ms: float = parameter(
        300.0, 'How long a marker is shown.', unit='ms', low=0.0, high=10000.0, live=True
    )
    expected_time_ms: float = parameter(
        50.0,
        'Longest processing time that diagnostics call normal.',
        unit='ms', low=1.0, high=5000.0, live=True,
    )  # fmt: skip
    tf_timeout_ms: float = parameter(
        50.0,
        'Longest wait for a transform at the stamp of a message.',
        unit='ms', low=0.0, high=1000.0, live=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        names = self.sources
        for name in self.cameras:
            if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
                raise ConfigError(
                    f'cameras = {list(self.cameras)}: {name!r} cannot be part of a topic; '
                    'use small letters, digits and _'
                )
        if len(set(names)) != len(names) or 'lidar' in self.cameras:
            raise ConfigError(
                f'cameras = {list(self.cameras)}: names differ, and "lidar" is the lidar'
            )
        if not names:
            raise ConfigError('lidar = False and cameras = []: nothing to fuse')
        if not self.fusion_frame or not self.fixed_frame:
            raise ConfigError('fusion_frame and fixed_frame must be named')
        if self.silence_ms < self.deadline_ms:
            raise ConfigError(
                f'silence_ms = {self.silence_ms:g} is shorter than deadline_ms = '
                f'{self.deadline_ms:g}: every late source would count as silent'
            )
        groups = set(self.groups.values())
        for name in self.camera_groups:
            if name not in groups:
                raise ConfigError(
                    f'camera_groups: no group {name!r} in class_groups; there are {sorted(groups)}'
                )

    @property
    def sources(self) -> tuple[str, ...]:
        """The inputs of the fusion by rank: the lidar, then the cameras as they are listed."""
        return ('lidar',) * self.lidar + self.cameras

    @property
    def groups(self) -> dict[str, str]:
        """{class in lower case: group}.

        Raises:
            ConfigError: an entry that is not "group=class,...", or a class in two groups.
        """
        found: dict[str, str] = {}
        for entry in self.class_groups:
            group, _, classes = entry.partition('=')
            names = [name.strip().casefold() for name in classes.split(',')]
            if not group.strip() or not all(names):
                raise ConfigError(f'class_groups: {entry!r} is not "group=class,class,..."')
            for name in names:
                if found.setdefault(name, group.strip()) != group.strip():
                    raise ConfigError(
                        f'class_groups: {name!r} is in {found[name]!r} and in {group.strip()!r}'
                    )
        return found


def fusion_priors(classes: Iterable[str], prior: float = 0.1) -> dict[str, dict[str, float]]:
    """The per-class defaults of a FusionConfig whose priors can be tuned for each of `classes`."""
    return {'priors': dict.fromkeys(classes, prior)}

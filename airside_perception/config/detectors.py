"""Settings of the detectors."""

from __future__ import annotations

from dataclasses import dataclass

from airside_perception.errors import ConfigError
from airside_perception.parameter import parameter, per_class

NO_BOX = (0.0,) * 6
"""No point is in it: a box that is as wide as 0 has no room below its upper sides."""


@dataclass(frozen=True)
class EngineConfig:
    """What every detector says about its network."""

    engine_path: str = parameter(
        '',
        'Network: .onnx (ONNX Runtime) or .engine/.plan (TensorRT). A plain name is looked up in '
        'the models folder, then in the current one; a relative path with a folder the other way '
        'round.',
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
    rectified: bool = parameter(
        False,
        'The image is rectified (image_rect of image_proc): P and R of camera_info describe it. '
        'false: it is as the lens makes it, and K and D do.',
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
        3.0,
        'Standard deviation of the edges of a 2D box.',
        unit='px', low=0.1, high=50.0, live=True,
    )  # fmt: skip
    side_sigma: float = parameter(
        0.1,
        'What the left and the right edge err beside pixel_sigma, as a part of the width of the '
        'box.',
        low=0.0, high=1.0, live=True,
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
    fixed_frame: str = parameter(
        'odom',
        'World-fixed frame that takes past sweeps to the newest stamp, for networks that see '
        'several. Without odometry, name the target frame itself: ego motion is then left out.',
    )
    past_sweeps: int = parameter(
        5,
        'Most past sweeps that are added to the newest, of those that the network wants.',
        low=0, high=5, live=True,
    )  # fmt: skip
    max_sweep_age: float = parameter(
        0.55, 'Past sweeps older than this are left out.', unit='s', low=0.0, high=2.0, live=True
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
        'Room for the points of one sweep on the GPU, about 60 bytes each, and for as many of '
        'each past sweep that the network wants, 1048575 in all; of more the first are taken. The '
        'CPU takes any number.',
        low=1000, high=1_048_575, swap=True,
    )  # fmt: skip
    min_range: float = parameter(
        0.0,
        'Points nearer than this to the origin of target_frame, seen from above, are left out. '
        'It blinds the sides of the vehicle; for its body, use ego_box.',
        unit='m', low=0.0, high=20.0, live=True,
    )  # fmt: skip
    ego_box: tuple[float, ...] = parameter(
        NO_BOX,
        "The vehicle's own body, [x_min, y_min, z_min, x_max, y_max, z_max] in metres in "
        'target_frame: points in it (minimum <= x < maximum, likewise y and z) are left out. All '
        'zeros: none.',
        live=True,
    )
    intensity_scale: float = parameter(
        1.0,
        'Factor that brings the intensity of this sensor to 0..1.',
        low=0.0001, high=1.0, live=True,
    )  # fmt: skip
    position_sigma: float = parameter(
        0.15,
        'Standard deviation of the centre of a box at 0 m, along each axis, where the card has '
        'none for its class.',
        unit='m', low=0.01, high=5.0, live=True,
    )  # fmt: skip
    position_sigma_per_m: float = parameter(
        0.005,
        'Growth of the deviation of places with range, also of those of the card.',
        low=0.0,
        high=0.2,
        live=True,
    )
    yaw_sigma: float = parameter(
        0.1,
        'Standard deviation of the yaw of a box, where the card has none for its class.',
        unit='rad', low=0.001, high=3.2, live=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.fixed_frame:
            raise ConfigError("fixed_frame = '': name a world-fixed frame, or the target frame")
        box = self.ego_box
        if len(box) not in (0, 6):
            raise ConfigError(
                f'ego_box = {list(box)}: expected [x_min, y_min, z_min, x_max, y_max, z_max], or '
                'all zeros for none'
            )
        if not any(box):
            return
        for axis, low, high in zip('xyz', box[:3], box[3:], strict=True):
            if low >= high:
                raise ConfigError(
                    f'ego_box = {list(box)}: {axis}_min = {low:g} is not less than {axis}_max = '
                    f'{high:g}'
                )

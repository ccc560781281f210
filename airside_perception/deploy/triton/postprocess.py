"""What the model `postprocess` of a Triton repository does: outputs of networks to objects.

The folder of its version holds, beside model.py: `models.json` (which camera is served by which
network, with inputs and outputs), the model cards `camera.yaml` and `lidar.yaml`, and
`perception.yaml`, the parameters of the nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import CameraCard, LidarCard
from airside_perception.card.load import load_card
from airside_perception.config import CameraConfig, FusionConfig, LidarConfig, fusion_priors
from airside_perception.deploy.triton.heads import CameraHead, LidarHead, Served
from airside_perception.engine import TensorSpec
from airside_perception.errors import ConfigError, MessageError
from airside_perception.parameter import from_values
from airside_perception.params import CAMERA_NODE, ParameterFile, read_parameters
from airside_perception.pipeline import FusionPipeline
from airside_perception.projection import CameraModel
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Boxes2D, Boxes3D

MODELS, PARAMETERS = 'models.json', 'perception.yaml'
CAMERA_CARD, LIDAR_CARD = 'camera.yaml', 'lidar.yaml'
LIDAR_NODE, FUSION_NODE = 'lidar_detector', 'bev_fusion'
CALIBRATION = 'calibration'
"""Input: JSON {camera: {width, height, k, d, distortion_model, camera2fusion}}; names as in
sensor_msgs/CameraInfo; camera2fusion is 4 x 4, from the optical frame to the fusion frame."""
OUTPUTS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    'boxes': ('TYPE_FP64', (-1, 7)),
    'scores': ('TYPE_FP64', (-1,)),
    'classes': ('TYPE_STRING', (-1,)),
    'sources': ('TYPE_STRING', (-1,)),
    'covariances': ('TYPE_FP64', (-1, 4, 4)),
    'image_boxes': ('TYPE_FP64', (-1, 4)),
    'image_scores': ('TYPE_FP64', (-1,)),
    'image_classes': ('TYPE_STRING', (-1,)),
    'image_cameras': ('TYPE_STRING', (-1,)),
}
"""Fused objects, best first (x, y, z, length, width, height, yaw in the fusion frame), then boxes
in the images, `xyxy` in pixels. `sources` are joined by a plus."""


class Postprocess:
    """Decodes, suppresses, lifts and fuses what the networks of one set of inputs put out.

    Args:
        folder: of the model's version.

    Raises:
        ConfigError, CardError, EngineError: files of the folder that are missing or contradict
            one another.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        try:
            models = json.loads((folder / MODELS).read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise ConfigError(f'{folder / MODELS}: not readable: {error}') from error
        parameters = read_parameters(folder / PARAMETERS)
        lidar_card = load_card(folder / LIDAR_CARD)
        camera_card = load_card(folder / CAMERA_CARD)
        if not isinstance(lidar_card, LidarCard) or not isinstance(camera_card, CameraCard):
            raise ConfigError(f'{folder}: the cards of camera and lidar are not of their kinds')
        self.fusion = FusionPipeline(fusion_config(parameters, tuple(models['cameras'])))
        self._frame = self.fusion.fusion.config.fusion_frame
        self.lidar = LidarHead(
            _served('lidar', models['lidar']), lidar_card, lidar_config(parameters, lidar_card)
        )
        self.cameras = {
            name: CameraHead(
                _served(name, item), camera_card, camera_config(parameters, name, camera_card)
            )
            for name, item in models['cameras'].items()
        }
        self._one_frame()
        self._known = ''
        self._lenses: dict[str, CameraModel] = {}
        self._transforms = TransformBuffer()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all inputs."""
        lidar = tuple(map(lidar_input, self.lidar.card.outputs))
        return (*map(camera_input, self.cameras), *lidar, CALIBRATION)

    def __call__(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One set of inputs to objects.

        Args:
            tensors: {input: array}; texts are arrays of bytes.

        Returns:
            {output: array}, as `OUTPUTS` says; texts are arrays of bytes.

        Raises:
            PerceptionError: an input is missing, wrong or not finite, or a calibration does not
                fit its camera.
        """
        self._calibrate(tensors[CALIBRATION])
        in_images: dict[str, Boxes2D] = {}
        found = {
            'lidar': self.lidar.decode(
                {name: tensors[lidar_input(name)] for name in self.lidar.card.outputs},
                self._frame,
            )
        }
        for name, head in self.cameras.items():
            lens = self._lenses[name]
            output = tensors[camera_input(name)]
            boxes = head.decode(output, lens.height, lens.width, lens.frame_id)
            in_images[name] = boxes
            camera2ground = self._transforms.lookup(self._frame, lens.frame_id, 0)
            found[name] = head.lift(boxes, lens, camera2ground)
        fused, failures = self.fusion.fuse(found, self._lenses, self._transforms, 0)
        for error in failures.values():
            raise error
        return {**_objects(fused.boxes), **_in_images(in_images)}

    def _one_frame(self) -> None:
        """Everything is in the fusion frame: a request has one place for each camera."""
        frames = {f'camera_{name}: ground_frame': h.config.ground_frame
                  for name, h in self.cameras.items()}  # fmt: skip
        frames['lidar_detector: target_frame'] = self.lidar.config.target_frame or self._frame
        for name, frame in frames.items():
            if frame != self._frame:
                raise ConfigError(
                    f'{name} is {frame!r}, expected the fusion_frame {self._frame!r}'
                )

    def _calibrate(self, text: NDArray[Any]) -> None:
        """Reads lenses and places, where they are not those of the last call."""
        raw = text.reshape(-1)[0]
        said = raw.decode() if isinstance(raw, bytes) else str(raw)
        if said == self._known:
            return
        try:
            given = json.loads(said)
            missing = [name for name in self.cameras if name not in given]
            if missing:
                raise MessageError(f'{CALIBRATION}: nothing of camera {missing[0]!r}')
            transforms, lenses = TransformBuffer(), {}
            for name in self.cameras:
                lens = lenses[name] = _lens(name, given[name])
                pose = np.array(given[name]['camera2fusion'], dtype=np.float64).reshape(4, 4)
                transforms.set_static(self._frame, lens.frame_id, pose)
        except (ValueError, KeyError, TypeError) as error:
            raise MessageError(f'{CALIBRATION}: {type(error).__name__}: {error}') from error
        self._transforms, self._lenses, self._known = transforms, lenses, said


def camera_input(name: str) -> str:
    """The input of `postprocess` with the output of this camera's network."""
    return f'camera_{name}'


def lidar_input(output: str) -> str:
    """The input of `postprocess` with this output of the lidar's network."""
    return f'lidar_{output}'


def camera_config(parameters: ParameterFile, name: str, card: CameraCard) -> CameraConfig:
    """The settings of one camera's node.

    Raises:
        ConfigError: values that cannot be used.
    """
    thresholds = {label: card.thresholds.get(label, 0.0) for label in card.published}
    values = parameters.for_node(CAMERA_NODE.format(name))
    return from_values(CameraConfig, values, {'score_thresholds': thresholds})


def lidar_config(parameters: ParameterFile, card: LidarCard) -> LidarConfig:
    """The settings of the lidar's node.

    Raises:
        ConfigError: values that cannot be used.
    """
    thresholds = {label: card.thresholds.get(label, 0.0) for label in card.published}
    values = parameters.for_node(LIDAR_NODE)
    return from_values(LidarConfig, values, {'score_thresholds': thresholds})


def fusion_config(parameters: ParameterFile, cameras: tuple[str, ...]) -> FusionConfig:
    """The settings of the fusion's node, for these cameras and the lidar.

    Raises:
        ConfigError: values that cannot be used.
    """
    values = parameters.for_node(FUSION_NODE)
    plain = {key: [] if value == [''] else value for key, value in values.items()}
    classes = [key.partition('.')[2] for key in plain if key.startswith('priors.')]
    prior = plain.get('prior', FusionConfig().prior)
    found = from_values(FusionConfig, plain, fusion_priors(classes, float(prior)))
    return replace(found, cameras=cameras, lidar=True)


def _served(name: str, item: Mapping[str, Any]) -> Served:
    return Served(name, _specs(item['inputs']), _specs(item['outputs']))


def _specs(items: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(item['name'], tuple(item['shape']), np.dtype(item['dtype'])) for item in items
    )


def _lens(name: str, said: Mapping[str, Any]) -> CameraModel:
    matrix = np.array(said['k'], dtype=np.float64).reshape(3, 3)
    return CameraModel(
        said.get('frame_id') or f'camera_{name}_optical',
        int(said['width']),
        int(said['height']),
        matrix,
        tuple(said.get('d', ())),
        said.get('distortion_model') or 'plumb_bob',
    )


def _objects(boxes: Boxes3D) -> dict[str, NDArray[Any]]:
    return {
        'boxes': np.asarray(boxes.boxes),
        'scores': np.asarray(boxes.scores),
        'classes': _texts(boxes.classes),
        'sources': _texts('+'.join(names) for names in boxes.sources),
        'covariances': np.asarray(boxes.covariances),
    }


def _in_images(found: Mapping[str, Boxes2D]) -> dict[str, NDArray[Any]]:
    names = [name for name, boxes in found.items() for _ in boxes.classes]
    return {
        'image_boxes': np.concatenate([np.empty((0, 4)), *(b.xyxy for b in found.values())]),
        'image_scores': np.concatenate([np.empty(0), *(b.scores for b in found.values())]),
        'image_classes': _texts(label for b in found.values() for label in b.classes),
        'image_cameras': _texts(names),
    }


def _texts(words: Any) -> NDArray[Any]:
    """Texts as Triton has them: an array of objects that are bytes."""
    items = [word.encode() for word in words]
    found = np.empty(len(items), dtype=np.object_)
    found[:] = items
    return found

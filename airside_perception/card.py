"""Model cards: everything about a network that its file does not say, as YAML beside it.

A third-party network runs by writing a card; nothing else in the package knows network names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from airside_perception.errors import CardError
from airside_perception.types import Float32


@dataclass(frozen=True)
class ModelCard:
    """What every card says.

    Attributes:
        name: of the network.
        architecture: `yolox` or `pointpillars`.
        classes: label names in the order of the network's outputs.
        publish: {label: published class name}; labels that are not named are dropped. Empty: all as they are.
        thresholds: {published class: lowest score}, the defaults of `score_thresholds.<class>`.
        sha256: of the network file, empty where not pinned.
        about: licence, training, accuracy and whatever else, as written.
    """

    path: str
    name: str
    architecture: str
    classes: tuple[str, ...]
    publish: Mapping[str, str]
    thresholds: Mapping[str, float]
    sha256: str = ''
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> tuple[str, ...]:
        """The class names that leave the node, each once, in label order."""
        names = [self.publish.get(label, '') if self.publish else label for label in self.classes]
        return tuple(dict.fromkeys(name for name in names if name))

    def published_name(self, label: int) -> str:
        """Published class of a label index, '' where it is dropped."""
        return self.publish.get(self.classes[label], '') if self.publish else self.classes[label]


@dataclass(frozen=True)
class CameraCard(ModelCard):
    """A YOLOX-family network.

    Attributes:
        height, width: of the network's input, pixels.
        color: `bgr` or `rgb`, the channel order that the network was trained on.
        mean, std: per channel in that order; input = (pixel - mean) / std, pixel in 0..255.
        pad: value of the letterbox border.
        centered: whether the letterbox centres the image (False: top left).
        strides: of the output levels, in the order of the rows.
        input_name, output_name: of the network.
        activated: whether objectness and class scores have passed the sigmoid in the graph.
        sizes: {published class: (length, width, height)} in metres, priors for the lift to 3D.
    """

    height: int = 0
    width: int = 0
    color: str = 'bgr'
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    pad: int = 114
    centered: bool = False
    strides: tuple[int, ...] = (8, 16, 32)
    input_name: str = 'images'
    output_name: str = 'output'
    activated: bool = True
    sizes: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Anchor:
    """One anchor shape: label index, size in metres, height of its centre, yaw in radians."""

    label: int
    length: float
    width: float
    height: float
    z: float
    yaw: float


@dataclass(frozen=True)
class LidarCard(ModelCard):
    """A PointPillars network whose pillar feature net is linear (batch norm folded).

    Attributes:
        limits: (x0, y0, z0, x1, y1, z1) of the grid in metres, lower bounds inclusive.
        pillar: (x, y) extent of a pillar in metres.
        max_points, max_pillars: points kept in a pillar; pillars kept.
        features: point features in the order of the weights' rows; see `lidar.pillars`.
        weight, bias: float32 [F, C] and [C] of the pillar feature net.
        zero_row: whether a pillar with fewer than `max_points` points takes ReLU(bias) into its
            maximum (networks that were trained on zero-padded pillars).
        stride: of the output grid against the pillar grid.
        anchors: shapes at every output cell, in the order of the outputs' channels.
        direction_offset: radians, as in OpenPCDet; directions split the circle in two bins there.
        input_name: canvas, float32 [1, C, rows (y), columns (x)].
        score_output, box_output, direction_output: [1, A * classes | A * 7 | A * 2, rows / stride, columns / stride];
            scores are logits, one sigmoid a class; channel = anchor * n + k.
    """

    limits: tuple[float, ...] = ()
    pillar: tuple[float, float] = (0.0, 0.0)
    max_points: int = 32
    max_pillars: int = 40000
    features: tuple[str, ...] = ()
    weight: Float32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    bias: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    zero_row: bool = False
    stride: int = 2
    anchors: tuple[Anchor, ...] = ()
    direction_offset: float = 0.0
    input_name: str = 'canvas'
    score_output: str = 'scores'
    box_output: str = 'boxes'
    direction_output: str = 'directions'

    @property
    def grid(self) -> tuple[int, int]:
        """Rows (y) and columns (x) of the pillar grid."""
        x0, y0, _, x1, y1, _ = self.limits
        return round((y1 - y0) / self.pillar[1]), round((x1 - x0) / self.pillar[0])

    @property
    def needs_intensity(self) -> bool:
        return 'intensity' in self.features


def load_card(path: str | Path) -> ModelCard:
    """Reads a card and checks it.

    Raises:
        CardError: missing, not YAML, a key missing, unknown or of the wrong kind, or values that contradict.
    """
    path = Path(path)
    try:
        text = yaml.safe_load(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise CardError(f'{path}: no model card; card_path names one, or NAME.yaml lies beside the network') from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CardError(f'{path}: not readable as YAML: {str(error).splitlines()[0]}') from error
    if not isinstance(text, dict):
        raise CardError(f'{path}: a model card is a YAML mapping, this is {type(text).__name__}')
    reader = _Reader(str(path), text)
    architecture = reader.take('architecture', str)
    common: dict[str, Any] = {
        'path': str(path),
        'name': reader.take('name', str),
        'architecture': architecture,
        'classes': tuple(reader.take('classes', list)),
        'publish': reader.take('publish', dict, {}),
        'thresholds': {name: float(value) for name, value in reader.take('thresholds', dict, {}).items()},
        'sha256': reader.take('sha256', str, ''),
        'about': reader.take('about', dict, {}),
    }
    if architecture == 'yolox':
        card: ModelCard = _camera(reader, common)
    elif architecture == 'pointpillars':
        card = _lidar(reader, common)
    else:
        raise CardError(f'{path}: architecture {architecture!r} is not one of yolox, pointpillars')
    reader.finish()
    stray = [name for name in card.publish if name not in card.classes]
    stray += [name for name in card.thresholds if name not in card.published]
    if stray:
        raise CardError(f'{path}: {stray[0]!r} is not among the classes {", ".join(card.classes)}')
    return card


def find_card(network: str | Path, card_path: str = '') -> ModelCard:
    """The card of a network: `card_path` if given, else the .yaml beside it; its hash is checked.

    Raises:
        CardError: as `load_card`, or the network is not the one that the card was written for.
    """
    card = load_card(card_path or Path(network).with_suffix('.yaml'))
    if card.sha256 and Path(network).suffix == '.onnx':
        found = hashlib.sha256(Path(network).read_bytes()).hexdigest()
        if found != card.sha256:
            raise CardError(f'{network}: SHA-256 is {found[:12]}..., but {card.path} describes {card.sha256[:12]}...')
    return card


class _Reader:
    """Takes keys out of a mapping one by one and knows what is left."""

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self._values = dict(values)

    def take(self, key: str, kind: Any, default: Any = None) -> Any:
        if key not in self._values:
            if default is None:
                raise CardError(f'{self.path}: key {key!r} is missing')
            return default
        value = self._values.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CardError(f'{self.path}: {key} is {value!r}, expected {getattr(kind, "__name__", kind)}')
        return value

    def numbers(self, key: str, count: int, default: tuple[float, ...] | None = None) -> tuple[float, ...]:
        values = self.take(key, list, list(default) if default is not None else None)
        if len(values) != count or not all(isinstance(n, (int, float)) for n in values):
            raise CardError(f'{self.path}: {key} is {values!r}, expected {count} numbers')
        return tuple(float(n) for n in values)

    def nested(self, key: str) -> _Reader:
        return _Reader(f'{self.path}: {key}', self.take(key, dict))

    def finish(self) -> None:
        if self._values:
            raise CardError(f'{self.path}: unknown key {sorted(self._values)[0]!r}')


def _camera(reader: _Reader, common: dict[str, Any]) -> CameraCard:
    shape = reader.nested('input')
    output = reader.nested('output')
    color = shape.take('color', str, 'bgr')
    if color not in ('bgr', 'rgb'):
        raise CardError(f'{shape.path}: color is {color!r}, expected bgr or rgb')
    sizes = {name: tuple(map(float, size)) for name, size in reader.take('sizes', dict, {}).items()}
    if any(len(size) != 3 for size in sizes.values()):
        raise CardError(f'{reader.path}: sizes need length, width and height of every class')
    card = CameraCard(
        **common,
        height=shape.take('height', int),
        width=shape.take('width', int),
        color=color,
        mean=shape.numbers('mean', 3, (0.0, 0.0, 0.0)),
        std=shape.numbers('std', 3, (1.0, 1.0, 1.0)),
        pad=shape.take('pad', int, 114),
        centered=shape.take('centered', bool, False),
        input_name=shape.take('name', str, 'images'),
        strides=tuple(output.take('strides', list, [8, 16, 32])),
        output_name=output.take('name', str, 'output'),
        activated=output.take('activated', bool, True),
        sizes=sizes,  # type: ignore[arg-type]  # three numbers each, checked above
    )
    shape.finish()
    output.finish()
    if any(card.height % stride or card.width % stride for stride in card.strides):
        raise CardError(f'{reader.path}: input {card.height} x {card.width} is no multiple of the strides {card.strides}')
    missing = [name for name in card.published if name not in sizes]
    if missing:
        raise CardError(f'{reader.path}: sizes lack {missing[0]!r}')
    return card


def _lidar(reader: _Reader, common: dict[str, Any]) -> LidarCard:
    shape, encoder, output = reader.nested('input'), reader.nested('encoder'), reader.nested('output')
    weight = np.asarray(encoder.take('weight', list), dtype=np.float32)
    bias = np.asarray(encoder.take('bias', list), dtype=np.float32)
    features = tuple(encoder.take('features', list))
    if weight.ndim != 2 or weight.shape[0] != len(features) or bias.shape != (weight.shape[1],):
        raise CardError(
            f'{reader.path}: encoder weight {weight.shape} and bias {bias.shape} do not fit {len(features)} features'
        )
    classes = common['classes']
    anchors = []
    for item in output.take('anchors', list):
        anchor = _Reader(f'{output.path}: anchors', item)
        name = anchor.take('class', str)
        if name not in classes:
            raise CardError(f'{output.path}: anchor class {name!r} is not among {", ".join(classes)}')
        size = anchor.numbers('size', 3)
        z = anchor.take('z', float)
        for yaw in anchor.take('yaws', list):
            anchors.append(Anchor(classes.index(name), *size, z, float(yaw)))
        anchor.finish()
    card = LidarCard(
        **common,
        limits=shape.numbers('range', 6),
        pillar=shape.numbers('pillar', 2),  # type: ignore[arg-type]  # two numbers, checked
        max_points=shape.take('max_points', int),
        max_pillars=shape.take('max_pillars', int),
        input_name=shape.take('name', str, 'canvas'),
        features=features,
        weight=weight,
        bias=bias,
        zero_row=encoder.take('zero_row', bool, False),
        stride=output.take('stride', int),
        anchors=tuple(anchors),
        direction_offset=output.take('direction_offset', float, 0.0),
        score_output=output.take('scores', str, 'scores'),
        box_output=output.take('boxes', str, 'boxes'),
        direction_output=output.take('directions', str, 'directions'),
    )
    for part in (shape, encoder, output):
        part.finish()
    x0, y0, z0, x1, y1, z1 = card.limits
    rows, columns = card.grid
    exact = abs(columns * card.pillar[0] - (x1 - x0)) < 1e-3 and abs(rows * card.pillar[1] - (y1 - y0)) < 1e-3
    if not (x0 < x1 and y0 < y1 and z0 < z1 and exact and rows % card.stride == 0 and columns % card.stride == 0):
        raise CardError(f'{reader.path}: range {card.limits} is no whole number of {card.pillar} m pillars and strides')
    return card

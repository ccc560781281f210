"""Real inputs for networks: images and clouds as the nodes' own preprocessing has them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.camera.preprocess import Preprocessor
from airside_perception.card import CameraCard, LidarCard, ModelCard
from airside_perception.closing import Closing
from airside_perception.deploy.joined import JoinedSource
from airside_perception.deploy.sources import (
    ARRAYS,
    CLOUDS,
    IMAGES,
    BagSource,
    Source,
    fingerprint,
    open_source,
)
from airside_perception.engine import ENGINE_SUFFIXES, TensorSpec, check_feeds
from airside_perception.engine.graph import inputs, spec
from airside_perception.engine.manifest import Manifest
from airside_perception.engine.typed import read_network
from airside_perception.errors import ConfigError, EngineError, MessageError
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.labels import points_for
from airside_perception.lidar.pillars import Grid
from airside_perception.types import Image, PointCloud

Feed = dict[str, NDArray[Any]]
ONE_SWEEP = (
    'clouds in files have no odometry: every frame is one sweep, without the past ones that the '
    'network sees (up to {}); a recording has them, and .npz may'
)


class Feeds(Closing):
    """Inputs of one network, as many times as wanted and always in the same order.

    Sized, by number and iterable; an item is {input: array}, which belongs to the caller. Nothing
    is kept in memory but the frame at hand.

    Attributes:
        kind: `images`, `clouds` or `arrays`.
        total: frames that the source has; `len` of them are taken, evenly spaced. Fewer than all
            begin, where they can, with the first frame that lacks nothing (`Source.lead`).
    """

    def __init__(
        self,
        source: Source,
        most: int,
        prepare: Callable[[Any], Feed],
        specs: tuple[TensorSpec, ...],
        settings: str,
        note: str = '',
    ) -> None:
        self.kind = source.kind
        self.total = len(source)
        self._source = source
        count = min(most, self.total) if most > 0 else self.total
        first = min(source.lead, self.total - count)
        self._chosen = [first + number * (self.total - first) // count for number in range(count)]
        self._prepare = prepare
        self._specs = specs
        self._settings = settings
        self._note = note

    @property
    def note(self) -> str:
        """What frames that were read lack, in a line; '' where they lack nothing."""
        return self._note or self._source.note

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Feed:
        """Inputs of a frame.

        Raises:
            PerceptionError: it cannot be read, or does not fit the network.
        """
        frame = self._source.read(self._chosen[index])
        try:
            feed = self._prepare(frame)
        except MessageError as error:
            raise MessageError(f'{self.name(index)}: {error}') from error
        check_feeds(self.name(index), self._specs, feed)
        return feed

    def __iter__(self) -> Iterator[Feed]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """Where a frame comes from: a file, or a topic and a stamp."""
        return self._source.name(self._chosen[index])

    def raw(self, index: int) -> Image | PointCloud:
        """What a detector takes: the image as it is, or the cloud in the network's frame.

        A cloud of a recording has the past sweeps that the network sees, see `deploy.joined`.

        Raises:
            PerceptionError: it cannot be read, or the source holds arrays.
        """
        frame = self._source.read(self._chosen[index])
        if isinstance(frame, dict):
            raise ConfigError(f'{self.name(index)}: holds inputs of a network, no image or cloud')
        return frame

    def fingerprint(self) -> str:
        """SHA-256 that changes with the frames and with how they are preprocessed."""
        data = fingerprint(self._source, self._chosen)
        return hashlib.sha256(f'{data} {self._settings}'.encode()).hexdigest()

    def close(self) -> None:
        """Closes the source; may be called again."""
        self._source.close()


def open_feeds(
    source: str | Path,
    model_path: str | Path,
    card: ModelCard | None,
    most: int = 0,
    topic: str = '',
    height: float = 0.0,
    intensity_scale: float = 1.0,
    fixed_frame: str = 'odom',
) -> Feeds:
    """The inputs that a network gets from real data.

    Args:
        source: folder of images (.jpg, .png) or clouds (.bin of KITTI, .pcd.bin of nuScenes, .npy,
            .pcd), one such file, a recording (folder with metadata.yaml, .mcap, .db3), .npz with
            arrays named as the inputs, a folder of them, or a .txt that names files, one a line.
            Networks that see several sweeps get them of recordings, and of files one.
        model_path: .onnx, or an engine with its manifest.
        card: how the network sees images or clouds; None: only .npz can be used.
        most: so many frames, evenly spaced; 0: all.
        topic: of a recording; empty: the only one of a fitting type.
        height: metres added to z of clouds that no transform moves: of the lidar above the ground
            (KITTI: 1.73).
        intensity_scale: as the parameter of the lidar node; brings the intensity to 0..1.
        fixed_frame: likewise, through which past sweeps are moved.

    Raises:
        ConfigError: no source, an empty one, or one that does not go with the card.
        BagError: not a readable recording.
        EngineError: no network, or the card is not its own.
    """
    if most < 0:
        raise ConfigError(f'{most} frames: expected a number, 0 for all')
    specs = input_specs(model_path)
    need: tuple[str, ...] = ()
    wanted = ''
    if isinstance(card, CameraCard):
        wanted = IMAGES
    elif isinstance(card, LidarCard):
        wanted, need = CLOUDS, ('intensity',) if card.needs_intensity else ()
    opened = open_source(Path(source), wanted, topic, height, need)
    prepare: Callable[[Any], Feed] = dict
    settings = note = ''
    if opened.kind != ARRAYS:
        spec = _card_input(model_path, specs, card)
        if isinstance(card, CameraCard):
            prepare = _images(card, spec)
        elif isinstance(card, LidarCard):
            prepare = _clouds(card, spec, intensity_scale)
        settings = f'{spec} {height} {intensity_scale} {topic} {_seen(card)}'
        if isinstance(card, LidarCard) and card.past_sweeps:
            if isinstance(opened, BagSource):
                opened = JoinedSource(opened, card, fixed_frame)
                settings = f'{settings} {opened.settings}'
            else:
                note = ONE_SWEEP.format(card.past_sweeps)
    return Feeds(opened, most, prepare, specs, settings, note)


def input_specs(model_path: str | Path) -> tuple[TensorSpec, ...]:
    """Inputs of a network; of an engine, by its manifest.

    Raises:
        EngineError: no such network, or an engine without a manifest.
    """
    path = Path(model_path)
    if path.suffix in ENGINE_SUFFIXES:
        if not path.is_file():
            raise EngineError(f'{path}: no such network')
        return tuple(
            TensorSpec(item['name'], tuple(item['shape']), np.dtype(item['dtype']))
            for item in Manifest.read(path).inputs
        )
    return tuple(map(spec, inputs(read_network(path))))


def _card_input(
    model_path: str | Path, specs: tuple[TensorSpec, ...], card: ModelCard | None
) -> TensorSpec:
    """The input that a card describes, which must be the only one."""
    name = card.input_name if isinstance(card, (CameraCard, LidarCard)) else ''
    if [spec.name for spec in specs] != [name]:
        given = ', '.join(map(str, specs)) or 'none'
        raise EngineError(
            f'{model_path}: inputs are {given}, and its card describes {name!r} only; does the '
            'card belong to it? Other inputs come from .npz files'
        )
    if specs[0].dtype not in (np.float32, np.float16):
        raise EngineError(f'{model_path}: input {specs[0]}; expected float32 or float16')
    return specs[0]


def _images(card: CameraCard, spec: TensorSpec) -> Callable[[Image], Feed]:
    preprocess = Preprocessor(card, spec.dtype)
    return lambda image: {spec.name: preprocess(image)[0].copy()}


def _clouds(
    card: LidarCard, spec: TensorSpec, intensity_scale: float
) -> Callable[[PointCloud], Feed]:
    grid, encoder = Grid.of(card), Encoder(card)

    def prepare(cloud: PointCloud) -> Feed:
        points = points_for(card, cloud)
        canvas = encoder.encode(points, grid.fill(points), intensity_scale)
        with np.errstate(over='ignore'):  # infinite, as in the detector
            return {spec.name: canvas.astype(spec.dtype)}

    return prepare


def _seen(card: ModelCard | None) -> str:
    """What of a card changes the inputs."""
    if isinstance(card, CameraCard):
        return str((card.height, card.width, card.color, card.mean, card.std, card.pad,
                    card.centered))  # fmt: skip
    if isinstance(card, LidarCard):
        weights = hashlib.sha256(card.weight.tobytes() + card.bias.tobytes()).hexdigest()
        return str((card.limits, card.pillar, card.max_points, card.max_pillars, card.features,
                    card.zero_row, weights))  # fmt: skip
    return ''

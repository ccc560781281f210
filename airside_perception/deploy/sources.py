"""Where real inputs come from: files and recordings, each frame by its number."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.config import LidarConfig
from airside_perception.deploy.clouds import CLOUD_SUFFIXES, read_cloud
from airside_perception.errors import (
    BagError,
    ConfigError,
    MessageError,
    PerceptionError,
    TransformError,
    first_line,
)
from airside_perception.geometry import move_cloud
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Image, PointCloud

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
ARRAY_SUFFIXES = ('.npz',)
BAG_SUFFIXES = ('.mcap', '.db3')
LIST_SUFFIX = '.txt'
IMAGES, CLOUDS, ARRAYS = 'images', 'clouds', 'arrays'
SUFFIXES = {IMAGES: IMAGE_SUFFIXES, CLOUDS: CLOUD_SUFFIXES, ARRAYS: ARRAY_SUFFIXES}
TYPES = {
    IMAGES: ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'),
    CLOUDS: ('sensor_msgs/msg/PointCloud2',),
}
PIECE = 1 << 20
"""Of larger files, so many bytes of either end say whether they are the same."""

Raw = Image | PointCloud | dict[str, NDArray[Any]]


class Source(Protocol):
    """Frames by number."""

    kind: str
    """`IMAGES`, `CLOUDS` or `ARRAYS`."""
    lead: int
    """So many frames at the beginning lack a part: where few are chosen, they come after these."""

    @property
    def note(self) -> str:
        """What frames that were read lack, in a line; '' where they lack nothing."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Where a frame comes from."""

    def read(self, index: int) -> Raw:
        """A frame. Clouds are in the frame of the network.

        Raises:
            PerceptionError: it cannot be read; names it.
        """

    def files(self, indices: Sequence[int]) -> list[Path]:
        """The files that hold these frames."""

    def close(self) -> None:
        """Closes what is open; may be called again."""


class FileSource:
    """A frame a file, in the order of `paths`; see `Source`."""

    lead = 0
    note = ''

    def __init__(self, kind: str, paths: Sequence[Path], height: float) -> None:
        self.kind = kind
        self._paths = tuple(paths)
        self._height = height

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def read(self, index: int) -> Raw:
        path = self._paths[index]
        if self.kind == IMAGES:
            return _read_image(path)
        if self.kind == CLOUDS:
            return read_cloud(path, self._height, LidarConfig().target_frame)
        return _read_arrays(path)

    def files(self, indices: Sequence[int]) -> list[Path]:
        return [self._paths[index] for index in indices]

    def close(self) -> None:
        """Nothing stays open."""


class BagSource:
    """The messages of one topic of a recording; see `Source`.

    Clouds are moved to the network's frame where the recording has transforms to it. Frames in
    ascending order are one pass over the recording; going back starts another one.

    Attributes:
        topic: that is read.
        transforms: of the recording; none where images are read.
    """

    lead = 0
    note = ''

    def __init__(
        self, path: Path, kind: str, topic: str, height: float, need: tuple[str, ...]
    ) -> None:
        from airside_perception.replay.bag import BagReader
        from airside_perception.replay.runner import read_transforms

        self.kind = kind
        self._path, self._height, self._need = path, height, need
        self._frame = LidarConfig().target_frame
        with BagReader(path) as reader:
            self.topic = _find_topic(path, reader.topics, kind, topic)
            self._count = reader.topics[self.topic].count
            self.transforms = read_transforms(reader) if kind == CLOUDS else TransformBuffer()
        self._pass: Generator[tuple[int, Any], None, None] | None = None
        self._at, self._stamp_ns = -1, 0
        self._message: Any = None

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        self._seek(index)
        return f'{self._path} {self.topic} {self._stamp_ns} ns'

    def read(self, index: int) -> Raw:
        message = self._seek(index)
        try:
            return self._converted(message)
        except (MessageError, TransformError) as error:
            raise type(error)(f'{self.name(index)}: {error}') from error

    def files(self, indices: Sequence[int]) -> list[Path]:
        if self._path.is_file():
            return [self._path]
        return sorted(p for p in self._path.rglob('*') if p.suffix in (*BAG_SUFFIXES, '.zstd'))

    def close(self) -> None:
        """Closes the recording; may be called again."""
        if self._pass is not None:
            self._pass.close()
        self._pass, self._at, self._message = None, -1, None

    def _seek(self, index: int) -> Any:
        """The message; it stays at hand until another one is asked for."""
        if index < self._at:
            self.close()
        if self._pass is None:
            self._pass = self._records()
        while self._at < index:
            following = next(self._pass, None)
            if following is None:
                raise ConfigError(
                    f'{self._path}: {self.topic} has {self._at + 1} messages, and its metadata '
                    f'says {self._count}'
                )
            self._at += 1
            if self._at == index:
                try:
                    self._stamp_ns, self._message = following[0], following[1]()
                except BagError:  # the next one to ask starts anew
                    self.close()
                    raise
        return self._message

    def _records(self) -> Generator[tuple[int, Any], None, None]:
        """Stamps, and how to get the messages."""
        from airside_perception.replay.bag import BagReader

        with BagReader(self._path) as reader:
            for record in reader.records((self.topic,)):
                yield record.stamp_ns, partial(reader.message, record)

    def _converted(self, message: Any) -> Raw:
        from airside_perception import messages

        if self.kind == IMAGES:
            compressed = hasattr(message, 'format')
            return messages.compressed_image(message) if compressed else messages.image(message)
        return self._moved(messages.point_cloud(message, need=self._need))

    def _moved(self, cloud: PointCloud) -> PointCloud:
        """In the network's frame, by the recording's transforms or by the height that was said."""
        if cloud.frame_id == self._frame:
            return cloud
        if {self._frame, cloud.frame_id} <= set(self.transforms.frames):
            if self._height:
                raise MessageError(
                    f'a height of {self._height:g} m, and the recording itself has the transform '
                    f'{cloud.frame_id!r} -> {self._frame!r}; leave the height out'
                )
            lidar2base = self.transforms.lookup(self._frame, cloud.frame_id, cloud.stamp_ns)
            return move_cloud(cloud, lidar2base, self._frame)
        up = np.eye(4)
        up[2, 3] = self._height
        return move_cloud(cloud, up, self._frame) if self._height else cloud


def open_source(
    path: Path, wanted: str, topic: str = '', height: float = 0.0, need: tuple[str, ...] = ()
) -> Source:
    """The frames in a file or folder.

    Args:
        path: a recording, a file, a folder of files, or a .txt that names files, one a line.
        wanted: `IMAGES` or `CLOUDS`, what the network takes; empty: arrays only.
        topic: of a recording; empty: the only one of a fitting type.
        height: metres added to z of clouds that no transform moves.
        need: fields that clouds must have beside x, y, z.

    Raises:
        ConfigError: missing, empty, or of a kind that the network does not take.
        BagError: not a readable recording.
    """
    if not path.exists():
        raise ConfigError(f'{path}: no such file or folder')
    if path.suffix in BAG_SUFFIXES or (path / 'metadata.yaml').is_file():
        if not wanted:
            raise ConfigError(
                f'{path}: a recording needs a model card, which says what the network takes of it'
            )
        return BagSource(path, wanted, topic, height, need)
    if topic:
        raise ConfigError(f'{path}: topic {topic!r} was named, and this is no recording')
    paths = _listed(path)
    found = {kind: [p for p in paths if p.suffix.lower() in SUFFIXES[kind]] for kind in SUFFIXES}
    for kind in (wanted, ARRAYS):
        if kind and found[kind]:
            return FileSource(kind, found[kind], height)
    raise ConfigError(f'{path}: {_nothing(path, wanted, [k for k in found if found[k]])}')


def fingerprint(source: Source, indices: Sequence[int]) -> str:
    """SHA-256 that changes with the frames: names, sizes and both ends of the files."""
    digest = hashlib.sha256(f'{source.kind} {list(indices)}'.encode())
    for path in source.files(indices):
        try:
            size = path.stat().st_size
            digest.update(f'\0{path.name} {size}\0'.encode())
            with path.open('rb') as file:
                digest.update(file.read(PIECE))
                if size > PIECE:
                    file.seek(max(size - PIECE, PIECE))
                    digest.update(file.read(PIECE))
        except OSError as error:
            raise ConfigError(f'{path}: not readable: {error.strerror}') from error
    return digest.hexdigest()


def _listed(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith('.'))
    if path.suffix != LIST_SUFFIX:
        return [path]
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path}: not a list of files: {error}') from error
    paths = [path.parent / line.strip() for line in lines if line.strip()]
    missing = [p for p in paths if not p.is_file()]
    if missing:
        raise ConfigError(f'{path}: names {missing[0]}, which is no file')
    return paths


def _nothing(path: Path, wanted: str, there: list[str]) -> str:
    known = [wanted, ARRAYS] if wanted else [ARRAYS]
    text = ' or '.join(f'{kind} ({", ".join(SUFFIXES[kind])})' for kind in known)
    if there and not wanted:
        return f'holds {there[0]}, which need a model card: it says how the network sees them'
    if there:
        return f'holds {there[0]}, and the network takes {text}'
    if not path.is_dir():
        return f'expected {text}, a recording, or a folder or list (.txt) of files'
    below = sorted(p.name for p in path.iterdir() if p.is_dir())
    hint = f'; folders in it: {", ".join(below[:5])}' if below else ''
    return f'holds no {text}{hint}'


def _find_topic(path: Path, topics: Mapping[str, Any], kind: str, topic: str) -> str:
    fitting = [name for name, item in topics.items() if item.type in TYPES[kind] and item.count]
    if topic in fitting:
        return topic
    if topic:
        found = f'is {topics[topic].type}' if topic in topics else 'is not there'
        raise ConfigError(
            f'{path}: topic {topic!r} {found}; topics of {kind}: {", ".join(fitting) or "none"}'
        )
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ConfigError(
            f'{path}: several topics of {kind}: {", ".join(fitting)}; say which one (--topic)'
        )
    raise ConfigError(f'{path}: no topic of {kind} ({", ".join(TYPES[kind])})')


def _read_image(path: Path) -> Image:
    import cv2

    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except OSError as error:
        raise ConfigError(f'{path}: not readable: {error.strerror}') from error
    except cv2.error as error:
        raise ConfigError(f'{path}: not readable as an image: {error.err}') from error
    if pixels is None:
        raise ConfigError(f'{path}: not readable as an image')
    return Image(0, 'camera', np.asarray(pixels, np.uint8))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except PerceptionError:
        raise
    except Exception as error:  # zipfile, NumPy and the system fail each in its own way
        raise ConfigError(f'{path}: not readable as .npz: {first_line(error)}') from error

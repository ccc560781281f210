"""Recordings (rosbag2: MCAP and sqlite3) read and written without ROS.

Reading is deterministic: records come by log time, then header stamp, then topic, whatever order
the storage keeps them in. Writing is whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from airside_perception.closing import Closing
from airside_perception.errors import BagError
from airside_perception.replay.definitions import make_typestore, message_class

STORAGES = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
LATCHED = frozenset({'/tf_static'})
"""Topics whose last messages late subscribers receive (durability transient local)."""

FOREVER = QosTime(2147483647, 4294967295)
KINDS = 'a folder with metadata.yaml, a .mcap or a .db3 file'
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Record:
    """One message as recorded.

    Attributes:
        topic, type: names, such as `/tf` and `tf2_msgs/msg/TFMessage`.
        log_ns: when it was recorded.
        stamp_ns: of its header; `log_ns` where the type has none.
        data: CDR, with its 4 bytes of encapsulation.
    """

    topic: str
    type: str
    log_ns: int
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class Topic:
    """A topic of a bag."""

    type: str
    count: int
    latched: bool


class BagReader(Closing):
    """An open recording: a folder with metadata.yaml, or a .mcap or .db3 file; a context manager.

    Raises:
        BagError: missing, not a bag, damaged, or without any message.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f'{self.path}: no such bag; a bag is {KINDS}')
        if self.path.is_dir() and not (self.path / 'metadata.yaml').is_file():
            raise BagError(
                f'{self.path}: no metadata.yaml in this folder; was its recording ended?'
            )
        if self.path.is_file() and self.path.suffix not in ('.mcap', '.db3'):
            raise BagError(f'{self.path}: is no bag; a bag is {KINDS}')
        with _readable(self.path):
            self._reader = Reader(self.path)
            self._reader.open()
        try:
            with _readable(self.path):
                self._store = make_typestore(self._reader.connections)
            if self._reader.message_count == 0:
                raise BagError(f'{self.path}: the bag holds no messages')
        except BagError:
            self.close()
            raise

    @property
    def topics(self) -> dict[str, Topic]:
        """Topics by name."""
        found: dict[str, Topic] = {}
        for item in sorted(self._reader.connections, key=lambda item: (item.topic, item.msgtype)):
            before = found.get(item.topic, Topic(item.msgtype, 0, item.topic in LATCHED))
            count = before.count + item.msgcount
            found[item.topic] = Topic(before.type, count, before.latched or _is_latched(item))
        return found

    @property
    def span_ns(self) -> tuple[int, int]:
        """Log times of the first and of the last message."""
        return self._reader.start_time, self._reader.end_time - 1

    def types(self, name: str) -> Any:
        """Class of a message type; see `definitions.message_class`."""
        return message_class(self._store, name)

    def records(self, topics: Collection[str] | None = None) -> Iterator[Record]:
        """Records in order of (log time, header stamp, topic), not deserialised.

        Args:
            topics: names; None: all.

        Raises:
            BagError: the storage is damaged.
        """
        known = self._reader.connections
        wanted = [item for item in known if topics is None or item.topic in topics]
        if not wanted:
            return
        raw = self._reader.messages(wanted)
        with _readable(self.path):
            for _, same_time in groupby(raw, key=lambda item: item[1]):
                yield from sorted(map(self._record, same_time), key=_order)

    def message(self, record: Record) -> Any:
        """A record deserialised.

        Raises:
            BagError: its type is unknown or its data are damaged.
        """
        message_class(self._store, record.type)
        try:
            return self._store.deserialize_cdr(record.data, record.type)
        except Exception as error:  # damaged CDR shows as whatever its bytes happen to provoke
            where = f'{self.path}: {record.topic} at {record.log_ns} ns'
            raise BagError(f'{where} is no {record.type}: {_first_line(error)}') from error

    def close(self) -> None:
        """Closes the files; may be called again."""
        if self._reader.is_open:
            self._reader.close()

    def _record(self, item: tuple[Connection, int, bytes]) -> Record:
        connection, log_ns, data = item
        stamp_ns = self._stamp(connection.msgtype, data, log_ns)
        return Record(connection.topic, connection.msgtype, log_ns, stamp_ns, bytes(data))

    def _stamp(self, name: str, data: bytes, log_ns: int) -> int:
        """Stamp of a message that starts with a std_msgs/Header, straight from its bytes."""
        fields = self._store.fielddefs.get(name, ((), ()))[1]
        if not fields or fields[0][1][1] != 'std_msgs/msg/Header' or len(data) < 12:
            return log_ns
        seconds, nanoseconds = struct.unpack_from('<iI' if data[1] else '>iI', data, 4)
        return int(seconds) * NANOSECONDS + int(nanoseconds)


class BagWriter:
    """A new recording, visible under its name only once it is whole. A context manager.

    Leaving the `with` block by an exception leaves nothing behind.

    Args:
        path: folder to make.
        storage: `mcap` or `sqlite3`.
        overwrite: replace a bag of that name; anything else is never replaced.

    Raises:
        BagError: unknown storage, the name is taken, or its folder cannot be written.
    """

    def __init__(self, path: str | Path, storage: str = 'mcap', overwrite: bool = False) -> None:
        self.path = Path(path)
        if storage not in STORAGES:
            raise BagError(f'storage {storage!r} is not one of {", ".join(STORAGES)}')
        if self.path.exists() and not (overwrite and (self.path / 'metadata.yaml').is_file()):
            raise BagError(
                f'{self.path}: exists already; choose another name or allow overwriting a bag'
            )
        self._store = make_typestore()
        self._connections: dict[str, Connection] = {}
        self._folder: Path | None = None
        with _writable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(
                tempfile.mkdtemp(prefix=f'.{self.path.name}-', dir=self.path.parent)
            )
            self._writer = Writer(
                self._folder / self.path.name, version=9, storage_plugin=STORAGES[storage]
            )
            self._writer.open()

    def types(self, name: str) -> Any:
        """Class of a message type; see `definitions.message_class`."""
        return message_class(self._store, name)

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Appends a message, recorded at `stamp_ns`.

        Raises:
            BagError: closed; the topic has another type; the message does not fit its type.
        """
        name = getattr(type(message), '__msgtype__', '')
        if name not in self._store.types:
            raise BagError(f'{topic}: {type(message).__name__} is no class that `types` returned')
        try:
            data = self._store.serialize_cdr(message, name)
        except Exception as error:  # a wrong field shows as whatever packing it provokes
            reason = _first_line(error)
            raise BagError(f'{topic}: cannot be written as {name}: {reason}') from error
        self.write_raw(topic, name, bytes(data), stamp_ns)

    def write_raw(self, topic: str, name: str, data: bytes, stamp_ns: int) -> None:
        """Appends the CDR of a message of type `name`; see `write`."""
        if self._folder is None:
            raise BagError(f'{self.path}: the bag is closed')
        connection = self._connections.get(topic)
        with _writable(self.path):
            if connection is None:
                connection = self._connections[topic] = self._writer.add_connection(
                    topic, name, typestore=self._store, offered_qos_profiles=[_qos(topic)]
                )
        if connection.msgtype != name:
            raise BagError(f'{topic}: holds {connection.msgtype}, not {name}')
        with _writable(self.path):
            self._writer.write(connection, stamp_ns, data)

    def close(self) -> None:
        """Ends the recording and gives it its name; may be called again."""
        if self._folder is None:
            return
        try:
            with _writable(self.path):
                self._writer.close()
                if self.path.exists():
                    shutil.rmtree(self.path)
                os.replace(self._folder / self.path.name, self.path)
        finally:
            self._discard()

    def abort(self) -> None:
        """Leaves nothing behind; may be called again."""
        if self._folder is not None:
            self._writer.abort()
            self._discard()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _discard(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _qos(topic: str) -> Qos:
    latched = topic in LATCHED
    return Qos(
        QosHistory.KEEP_LAST,
        100 if latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        False,
    )


def _is_latched(connection: Connection) -> bool:
    profiles = getattr(connection.ext, 'offered_qos_profiles', ())
    return any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in profiles)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file provokes into one error that names it."""
    try:
        yield
    except BagError:
        raise
    except Exception as error:  # OSError, struct.error, TypeError, apsw.Error, ...
        reason = _first_line(error)
        raise BagError(f'{path}: not readable as a bag (damaged or cut off?): {reason}') from error


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except BagError:
        raise
    except Exception as error:  # OSError, sqlite3.Error, rosbags' own errors, ...
        raise BagError(f'{path}: cannot be written: {_first_line(error)}') from error


def _order(record: Record) -> tuple[int, str]:
    return record.stamp_ns, record.topic


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""An engine and its manifest on the disk, so that no half of the two is ever taken for both."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from airside_perception.engine.manifest import Manifest, manifest_path
from airside_perception.errors import EngineError
from airside_perception.files import write_partial


class FileError(EngineError):
    """A file that cannot be written: no room, no right, no such folder."""


def write_engine(
    path: str | Path, data: bytes, manifest: Manifest, beside: Mapping[str | Path, str]
) -> None:
    """Writes an engine, its manifest and what else belongs to it: all of it or nothing.

    All is on the disk before anything takes its place, so a full disk or an interrupt leaves what
    was there. Then the engine takes its place, and its manifest last. Whoever ends the process
    between these two leaves an engine beside the manifest of the one before: its bytes are not
    those that the manifest knows, and it is refused until it is built again.

    Args:
        manifest: of these bytes.
        beside: {file: its text}.

    Raises:
        FileError: something cannot be written.
    """
    path = Path(path)
    files: dict[Path, bytes | str] = {Path(name): text for name, text in beside.items()}
    files.update({path: data, manifest_path(path): manifest.text()})
    partial: dict[Path, Path] = {}
    try:
        for target, content in files.items():
            partial[target] = write_partial(target, content, FileError)
        for target in list(partial):
            partial[target].replace(target)
            del partial[target]
    except OSError as error:
        raise FileError(f'{target}: cannot be written: {error.strerror}') from error
    finally:
        for left in partial.values():
            with suppress(OSError):
                left.unlink(missing_ok=True)

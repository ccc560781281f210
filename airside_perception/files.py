"""Files that are written whole or not at all: a reader never meets half of one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from airside_perception.errors import EngineError, PerceptionError


def write_whole(
    path: str | Path, data: bytes | str, error: type[PerceptionError] = EngineError
) -> Path:
    """Writes a file beside its place and renames it; what was there stays until then.

    Args:
        path: its folder is made if need be.
        data: bytes, or text, which becomes UTF-8.
        error: what is raised where it cannot be written.

    Returns:
        The path.

    Raises:
        PerceptionError: of the kind `error`; no half-written file is left.
    """
    path = Path(path)
    partial = write_partial(path, data, error)
    try:
        partial.replace(path)
    except OSError as cause:
        partial.unlink(missing_ok=True)
        raise error(f'{path}: cannot be written: {cause.strerror}') from cause
    return path


def write_partial(
    path: str | Path, data: bytes | str, error: type[PerceptionError] = EngineError
) -> Path:
    """Writes the data to a hidden file beside `path`, which the caller renames or removes.

    Raises:
        PerceptionError: of the kind `error`; nothing is left.
    """
    path = Path(path)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    if path.exists() and not (path.is_file() or path.is_dir()):  # renaming would take its place
        raise error(f'{path}: cannot be written: a device or pipe, not a file')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as cause:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise error(f'{path}: cannot be written: {cause.strerror}') from cause
    except BaseException:  # an interrupt leaves no half-written file either
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    return partial

"""What was measured before: JSON that `engine bench`, `profile` and `compare` printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH, PROFILE, COMPARE, CALIBRATION = 'bench', 'profile', 'compare', 'calibration'
LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Evidence:
    """One file.

    Attributes:
        path: the file.
        kind: which verb wrote it.
        content: what it says.
        written: when, seconds since 1970.
    """

    path: Path
    kind: str
    content: Mapping[str, Any]
    written: float

    def newer_than(self, file: Path) -> bool:
        """Whether it was measured after this file was written; an older one is about another."""
        return self.written >= file.stat().st_mtime


def find_evidence(*folders: Path) -> tuple[Evidence, ...]:
    """The measurements in these folders; JSON of other kinds is left alone."""
    found: dict[Path, Evidence] = {}
    for folder in folders:
        for path in sorted(folder.glob('*.json')):
            item = read_evidence(path)
            if item is not None:
                found[path.resolve()] = item
    return tuple(found.values())


def read_evidence(path: Path) -> Evidence | None:
    """One file; None if it is no measurement of this tool."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return None
        content = json.loads(path.read_text(encoding='utf-8'))
        written = path.stat().st_mtime
    except (OSError, ValueError):
        return None
    kind = _kind(content)
    return Evidence(path, kind, content, written) if kind else None


def _kind(content: Any) -> str:
    if not isinstance(content, dict):
        return ''
    keys = set(content)
    if {'timings', 'settings', 'sensors'} <= keys:
        return BENCH
    if {'path', 'layers', 'categories'} <= keys:
        return PROFILE
    if {'a', 'b', 'outputs', 'good'} <= keys:
        return COMPARE
    if {'method', 'frames', 'scales_sha256'} <= keys:
        return CALIBRATION
    return ''


def timings_of(items: tuple[Evidence, ...], file: Path) -> Iterator[tuple[Evidence, Any]]:
    """(file, timing) of each bench of this engine or network."""
    for item in items:
        if item.kind == BENCH:
            for timing in item.content['timings']:
                if Path(timing['path']).name == file.name and item.newer_than(file):
                    yield item, timing


def profiles_of(items: tuple[Evidence, ...], file: Path) -> Iterator[Evidence]:
    """The profiles of this engine or network."""
    for item in items:
        same = item.kind == PROFILE and Path(str(item.content['path'])).name == file.name
        if same and item.newer_than(file):
            yield item


def comparisons_of(items: tuple[Evidence, ...], file: Path) -> Iterator[Evidence]:
    """The comparisons in which this engine was compared with a reference."""
    for item in items:
        same = item.kind == COMPARE and _name(item.content['b']) == file.name
        if same and item.newer_than(file):
            yield item


def _name(side: Any) -> str:
    """`net.onnx` of `net.onnx (fp16)`."""
    return Path(str(side).partition(' (')[0]).name

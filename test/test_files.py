"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from airside_perception.errors import BagError, EngineError
from airside_perception.files import write_whole


def test_text_bytes_and_new_folders(tmp_path: Path) -> None:
    assert write_whole(tmp_path / 'a' / 'b.txt', 'ü').read_bytes() == 'ü'.encode()
    assert write_whole(tmp_path / 'a' / 'b.txt', b'\0').read_bytes() == b'\0'
    assert [path.name for path in (tmp_path / 'a').iterdir()] == ['b.txt']


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_whole(tmp_path / 'a.txt', 'before')

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(EngineError, match=r'a\.txt: cannot be written: No space left on device'):
        write_whole(path, 'after')
    with pytest.raises(BagError):
        write_whole(path, 'after', BagError)
    assert path.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_whole(tmp_path / 'a.txt', 'before')

    def interrupted(self: Path, data: bytes) -> int:
        self.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, 'write_bytes', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, 'after')
    assert path.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    with pytest.raises(EngineError, match='cannot be written'):
        write_whole(tmp_path / 'a', 'x')
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    """A device, as /dev/null, would be renamed away."""
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(EngineError, match='pipe: cannot be written: a device or pipe'):
        write_whole(tmp_path / 'pipe', 'x')
    assert (tmp_path / 'pipe').is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ['pipe']

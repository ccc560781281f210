"""The progress bar, hashes and percentiles."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from airside_perception.replay.report import Progress, hash_tree, latencies, versions


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal() -> None:
    terminal = Terminal()
    progress = Progress('replay', terminal, period_s=0.0)
    for done in range(1, 5):
        progress(done, 4)
    progress.close()
    steps = terminal.getvalue().split('\r')
    assert [step.split(']')[1].split()[0] for step in steps[1:5]] == ['1/4', '2/4', '3/4', '4/4']
    counts = [step.count('=') for step in steps[1:5]]
    assert counts == sorted(counts)
    assert ' ' not in steps[4].split('[')[1].split(']')[0]
    assert terminal.getvalue().endswith('\r\033[K')


def test_a_bar_is_drawn_no_more_often_than_asked() -> None:
    terminal = Terminal()
    progress = Progress('replay', terminal, period_s=1e6)
    for done in range(1, 101):
        progress(done, 100)
    assert terminal.getvalue().count('\r') <= 2
    assert '100/100' in terminal.getvalue()


def test_no_bar_elsewhere() -> None:
    stream = io.StringIO()
    progress = Progress('replay', stream)
    progress(1, 1)
    progress.close()
    assert stream.getvalue() == ''


def test_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    for name in ('a', 'b', 'c'):
        (tmp_path / name).mkdir()
    (tmp_path / 'a' / 'x.mcap').write_text('1')
    (tmp_path / 'b' / 'x.mcap').write_text('2')
    (tmp_path / 'c' / 'y.mcap').write_text('1')
    hashes = {hash_tree(tmp_path / name) for name in 'abc'}
    assert len(hashes) == 3
    (tmp_path / 'b' / 'x.mcap').write_text('1')
    assert hash_tree(tmp_path / 'b') == hash_tree(tmp_path / 'a')
    (tmp_path / 'b' / 'results.jsonl').write_text('no part of the bag')
    (tmp_path / 'b' / 'pictures.mcap').mkdir()
    assert hash_tree(tmp_path / 'b') == hash_tree(tmp_path / 'a')


def test_percentiles() -> None:
    values = np.arange(1.0, 101.0).tolist()
    row = latencies({'stage': values, 'never': []})
    assert list(row) == ['stage']
    assert row['stage']['calls'] == 100
    assert row['stage']['max'] == 100.0
    assert row['stage']['p50'] == pytest.approx(50.5)
    assert row['stage']['p99'] == pytest.approx(99.01)


def test_versions_name_the_libraries() -> None:
    assert versions()['numpy'] == np.__version__

"""Runs of the launched graph: what an earlier run or a shell without ROS 2 leaves to say."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from airside_perception.errors import PerceptionError
from airside_perception.live import run_live


def command(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)


def test_a_shell_without_ros_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('PATH', str(tmp_path / 'nothing'))
    with pytest.raises(PerceptionError, match=r"no command 'ros2' in this shell: source"):
        run_live(tmp_path / 'bag', tmp_path / 'out', [], [], {})


def test_results_of_an_earlier_run_are_not_taken_for_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path / 'bin', 'ros2', 'echo "no such launch file"; exit 3')
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:/usr/bin:/bin')
    out = tmp_path / 'out'
    out.mkdir()
    for name in ('results.jsonl', 'results.jsonl.latency.json'):
        (out / name).write_text('{}')
    with pytest.raises(PerceptionError, match=r'ros2 launch .* ended with 3: no such launch file'):
        run_live(tmp_path / 'bag', out, [], [], {})
    assert not [path.name for path in out.iterdir() if path.suffix != '.log']


def test_a_node_that_cannot_be_active_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = 'camera_front cannot be brought to active: no engine'
    command(tmp_path / 'bin', 'ros2', f'echo "{refusal}"; exec sleep 30')
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:/usr/bin:/bin')
    with pytest.raises(PerceptionError, match=f'^{refusal}$'):
        run_live(tmp_path / 'bag', tmp_path / 'out', [], [], {})


def test_a_graph_that_never_gets_ready_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path / 'bin', 'ros2', 'echo starting; exec sleep 30')
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:/usr/bin:/bin')
    with pytest.raises(PerceptionError, match=r'the graph is not active after 0\.3 s'):
        run_live(tmp_path / 'bag', tmp_path / 'out', [], [], {}, start_s=0.3)


def test_what_a_script_started_with_an_ampersand_can_be_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell lets such children ignore SIGINT, and theirs inherit that: nothing would end."""
    shown = tmp_path / 'shown'
    command(tmp_path / 'bin', 'ros2', f'grep SigIgn /proc/$$/status > {shown}; exit 3')
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:/usr/bin:/bin')
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(PerceptionError, match='ended with 3'):
            run_live(tmp_path / 'bag', tmp_path / 'out', [], [], {})
    finally:
        signal.signal(signal.SIGINT, before)
    ignored = int(shown.read_text().split()[1], 16)
    assert not ignored >> signal.SIGINT - 1 & 1

"""Runs the launched graph on a recording: starts it, plays the bag, records the results, ends it.

Only processes and files: ROS 2 is what the shell has. Used by the demo and by tests of the whole
graph, so both do what a user does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airside_perception.errors import PerceptionError

LAST = '/bev_fusion: active'
"""What the launch file logs when the node that it brings up last is active."""
REFUSED = 'cannot be brought to active'
POLL_S = 0.1
END_S = 15.0
"""Longest wait for a process that was asked to end."""


@dataclass(frozen=True)
class LiveRun:
    """What a run left.

    Attributes:
        results: JSON lines, one a message, as `replay run` writes them.
        log: what the launched graph said.
        exit_status: of `ros2 launch` after SIGINT.
        end_s: seconds from SIGINT to its end.
        latencies_ms: {topic: milliseconds from the first sensor message of a stamp to the result
            of that stamp, both as another process received them}; wall time, whatever the rate.
    """

    results: Path
    log: Path
    exit_status: int
    end_s: float
    latencies_ms: Mapping[str, Sequence[float]]


def run_live(
    bag: Path,
    out: Path,
    play: Sequence[str],
    record: Sequence[str],
    arguments: Mapping[str, str],
    rate: float = 1.0,
    start_s: float = 60.0,
    settle_s: float = 1.0,
) -> LiveRun:
    """Launches `full.launch.py` with simulated time, plays `bag` into it, records its results.

    Args:
        bag: the recording.
        out: folder for results.jsonl, launch.log and tools.log; made if it is not there.
        play: topics of the bag that are published.
        record: result topics that are written down.
        arguments: launch arguments.
        rate: of the recording's time; below 1 slower.
        start_s: longest wait for the graph to be active.
        settle_s: wait for last results after the end of the recording.

    Raises:
        PerceptionError: a process failed; its last words are in the message.
    """
    out.mkdir(parents=True, exist_ok=True)
    results, log, said = out / 'results.jsonl', out / 'launch.log', out / 'tools.log'
    latencies = results.with_name(f'{results.name}.latency.json')
    for old in (results, latencies):  # what an earlier run left is no result of this one
        old.unlink(missing_ok=True)
    launch = ['ros2', 'launch', 'airside_perception', 'full.launch.py', 'use_sim_time:=true']
    launch += [f'{name}:={value}' for name, value in arguments.items()]
    module = [sys.executable, '-m']
    recorder = [*module, 'airside_perception.nodes.recorder', '--out', str(results), *record]
    small = [
        topic for topic in play if not topic.startswith('/tf') and not topic.endswith('/image')
    ]
    recorder += ['--inputs', *small]  # camera_info has the stamps of the images
    player = [*module, 'airside_perception.replay', 'play', '--bag', str(bag), '--rate', str(rate)]
    player += ['--wait-for-subscribers', '10', '--topics', *play]
    with (
        log.open('w', encoding='utf-8') as file,
        said.open('w', encoding='utf-8') as tools,
        _process(launch, file) as graph,
        _process(recorder, tools) as writer,
    ):
        _wait_until_active(graph, log, start_s)
        with _process(player, tools) as source:
            while source.poll() is None:
                _check_alive(graph, log)
                _check_alive(writer, said)
                time.sleep(POLL_S)
        if source.returncode:
            raise PerceptionError(f'the player ended with {source.returncode}: {_tail(said)}')
        time.sleep(settle_s)
        _end(writer)
        began = time.monotonic()
        status = _end(graph)
        spent = time.monotonic() - began
    if not results.is_file():
        raise PerceptionError(f'the recorder wrote nothing: {_tail(said)}')
    return LiveRun(results, log, status, spent, json.loads(latencies.read_text(encoding='utf-8')))


@contextlib.contextmanager
def _process(command: Sequence[str], output: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, with all its children gone in the end."""
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    try:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,  # type: ignore[call-overload]  # an open file
            start_new_session=True, env=environment, preexec_fn=_heed_interrupts,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise PerceptionError(
            f'no command {command[0]!r} in this shell: source /opt/ros/$ROS_DISTRO/setup.bash and '
            'the install folder, or use make, which does'
        ) from error
    try:
        yield process
    finally:
        _end(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _heed_interrupts() -> None:
    """Undoes what a shell does to what a script starts with `&`, whose children ignore SIGINT.

    No more than this one call: it runs between fork and exec, and the caller may have threads.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> int:
    """SIGINT as from a terminal; SIGKILL where that does not help."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return int(process.returncode)


def _wait_until_active(graph: subprocess.Popen[bytes], log: Path, limit_s: float) -> None:
    """Returns when the whole graph is active.

    Raises:
        PerceptionError: it is not in time, or a node cannot be; with what was said about it.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        _check_alive(graph, log)
        said = log.read_text(encoding='utf-8', errors='replace').splitlines()
        refused = [line for line in said if REFUSED in line]
        if refused:
            raise PerceptionError(refused[0])
        if any(line.endswith(LAST) for line in said):
            return
        time.sleep(POLL_S)
    raise PerceptionError(f'the graph is not active after {limit_s:g} s: {_tail(log)}')


def _check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        name = ' '.join(str(part) for part in process.args[:4])  # type: ignore[index]  # a list here
        raise PerceptionError(f'{name} ended with {process.returncode}: {_tail(log)}')


def _tail(log: Path, lines: int = 5) -> str:
    text = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    return ' | '.join(text[-lines:])

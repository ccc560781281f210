"""Statistics of a network's tensors over real inputs, kept on disk so that a pass can go on."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.calibrate.activations import Activations
from airside_perception.deploy.calibrate.statistics import BINS, Statistics
from airside_perception.errors import EngineError, first_line
from airside_perception.files import write_whole

FORMAT = 1
EVERY_FRAMES, EVERY_S = 25, 20.0
"""The state is written when one of them has passed."""


class Inputs(Protocol):
    """What `deploy.feeds.Feeds` offers, as far as it is used here."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, NDArray[Any]]: ...

    def name(self, index: int) -> str:
        """Where it comes from."""


def collect(
    network: Activations,
    feeds: Inputs,
    state: Path,
    identity: Mapping[str, str],
    restart: bool = False,
    progress: Callable[[str, float], None] = lambda step, share: None,
) -> tuple[Statistics, int, str]:
    """Statistics over all feeds, one feed in memory at a time.

    Whatever ends the pass early (an interrupt, a damaged frame), what was counted is in `state`,
    and the next call with the same identity goes on behind it.

    Args:
        network: gives the values.
        feeds: real inputs.
        state: file of the statistics.
        identity: of network and data; a state of another one is not gone on with.
        restart: begin anew in any case.
        progress: called with the step and its share.

    Returns:
        The statistics; how many feeds were taken from the state; why not, where there is one.

    Raises:
        PerceptionError: a feed cannot be read or does not fit, the network fails or gives values
            that are not finite, or the state cannot be written.
    """
    found, note = _begin(network, state, identity, restart)
    start = saved = found.frames
    since = time.monotonic()
    try:
        for index in range(start, len(feeds)):
            progress('calibrate', index / len(feeds))
            values = network(feeds[index])
            try:
                found = found.with_frame(values)
            except EngineError as error:
                raise EngineError(f'{feeds.name(index)}: {error}') from error
            if found.frames - saved >= EVERY_FRAMES or time.monotonic() - since > EVERY_S:
                write_state(state, found, identity)
                saved, since = found.frames, time.monotonic()
    finally:  # a frame is counted wholly or not at all
        if found.frames > saved:
            write_state(state, found, identity)
    progress('calibrate', 1.0)
    return found, start, note


def write_state(path: Path, statistics: Statistics, identity: Mapping[str, str]) -> None:
    """Writes statistics, whole or not at all.

    Raises:
        EngineError: they cannot be written.
    """
    about = {
        'format': FORMAT,
        'identity': dict(identity),
        'names': statistics.names,
        'frames': statistics.frames,
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        counts=statistics.counts,
        exponents=statistics.exponents,
        low=statistics.low,
        high=statistics.high,
    )
    write_whole(path, buffer.getvalue())


def read_state(path: Path) -> tuple[Statistics, dict[str, str]]:
    """Statistics and the identity of their network and data.

    Raises:
        EngineError: missing, or no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(stored['about'].tobytes())
            arrays = {name: stored[name] for name in ('counts', 'exponents', 'low', 'high')}
        if about['format'] != FORMAT or arrays['counts'].shape != (len(about['names']), BINS):
            raise ValueError('of another format')
        found = Statistics(tuple(about['names']), frames=int(about['frames']), **arrays)
        return found, dict(about['identity'])
    except Exception as error:  # zipfile, NumPy and the system fail each in its own way
        raise EngineError(f'{path}: no state of a calibration: {first_line(error)}') from error


def _begin(
    network: Activations, state: Path, identity: Mapping[str, str], restart: bool
) -> tuple[Statistics, str]:
    """Where to go on, and why not where a state is."""
    empty = Statistics.empty(network.names)
    if restart or not state.exists():
        return empty, ''
    try:
        found, theirs = read_state(state)
    except EngineError as error:
        return empty, f'{error}: began anew'
    changed = [name for name, value in identity.items() if theirs.get(name) != value]
    if changed or found.names != empty.names:
        what = ' and '.join(changed) or 'tensors'
        return empty, f'{state} is of another {what}: began anew'
    return found, ''

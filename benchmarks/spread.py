"""How much a figure of few objects may be by chance: the bootstrap, over objects.

Objects are drawn again with replacement, a detection goes with the object that it found, and every
false alarm comes Poisson(1) times. Objects of one frame are taken as independent, which they are
not quite; of fewer than `LEAST` nothing is said. Where everything or nothing is found the
bootstrap says 0, and the rule of three has to do: of N objects all found, the true share may be
1 - 3 / N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches

DRAWS = 400
LEAST = 3


def standard_error(
    frames: Sequence[Frame],
    name: str,
    found: Sequence[Matches],
    figure: Callable[[Matches], float],
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """Standard deviation of the mean `figure` of one class over redrawn objects.

    Args:
        frames: of the matches.
        name: of the class.
        found: matches by several measures, over which the figure is averaged.
        figure: of matches.

    Returns:
        NaN where fewer than `LEAST` objects are asked for.
    """
    objects = {
        (number, row): place
        for place, (number, row) in enumerate(
            (number, row)
            for number, frame in enumerate(frames)
            for row, label in enumerate(frame.truth.classes)
            if label == name and np.asarray(frame.truth.asked)[row]
        )
    }
    if len(objects) < LEAST:
        return float('nan')
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        times = np.bincount(rng.integers(len(objects), size=len(objects)), minlength=len(objects))
        # A false alarm under one measure may be a hit under another: it has one number for all.
        alarms: dict[tuple[int, int], int] = {}
        for item in found:
            for key in zip(item.frames.tolist(), item.rows.tolist(), strict=True):
                alarms.setdefault(key, int(rng.poisson()))
        values.append(
            float(np.mean([figure(redrawn(item, objects, times, alarms)) for item in found]))
        )
    return float(np.std(values))


def redrawn(
    found: Matches,
    objects: Mapping[tuple[int, int], int],
    times: np.ndarray,
    alarms: Mapping[tuple[int, int], int],
) -> Matches:
    """Matches in which every object, with what found it, is there `times` its place says.

    Args:
        objects: {(frame, row of the object): place in `times`}.
        alarms: {(frame, row of the detection): how often it is there if it found nothing}.
    """
    counts = [
        int(times[objects[frame, thing]]) if hit else alarms[frame, row]
        for hit, frame, row, thing in zip(
            found.hits.tolist(), found.frames.tolist(), found.rows.tolist(),
            found.objects.tolist(), strict=True,
        )
    ]  # fmt: skip
    kept = np.repeat(np.arange(len(counts)), counts)
    return replace(
        found,
        scores=found.scores[kept],
        hits=found.hits[kept],
        frames=found.frames[kept],
        rows=found.rows[kept],
        objects=found.objects[kept],
        asked=int(times.sum()),
    )

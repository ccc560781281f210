"""`python -m benchmarks.int8_velocity`: INT8 of the network that sees several sweeps.

Simulated drives, each just long enough that its last frame has all past sweeps before it; a seed
has one of the conditions, in turn. `--canvases FOLDER` writes what the network is fed there, one
.npz a drive: `engine calibrate --data FOLDER` makes the scales of them.

Networks that are named run beside fp32 on the last frames, as `benchmarks.velocity` has it: mAP
with the standard error of the difference over seeds, and velocities. Of the boxes at the
thresholds it says how many of fp32 the other network has, too (same class, footprints that overlap
by half or more), how many only the other one has, and by how much scores and velocities differ in
those of both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.card import LidarCard, find_card
from airside_perception.deploy.feeds import open_feeds
from airside_perception.errors import ConfigError, PerceptionError
from airside_perception.evaluate.frames import Frame
from airside_perception.overlap import bev_iou
from airside_perception.resources import model_file
from airside_perception.types import by_score
from benchmarks.drives import add_options, make, write_figures
from benchmarks.error_figures import above
from benchmarks.error_spread import error, jackknifed
from benchmarks.velocity import SEVERAL, Found, figures, last_frame, text

OVERLAP = 0.5


def write_canvases(bags: Sequence[Path], model: Path, folder: Path) -> None:
    """What the network is fed with the last frame of each bag.

    Raises:
        ConfigError: a bag in which it has not all past sweeps before it.
    """
    card = find_card(model)
    folder.mkdir(parents=True, exist_ok=True)
    for bag in bags:
        with open_feeds(bag, model, card, 1) as feeds:
            feed = feeds[0]
            if feeds.note:
                raise ConfigError(f'{bag}: {feeds.note}')
        np.savez_compressed(folder / f'{bag.name}.npz', **feed)


def pairs_of(one: Frame, other: Frame) -> list[tuple[int, int]]:
    """Rows of boxes that both have, the best of `one` first, each once."""
    a, b = one.found, other.found
    if not len(a) or not len(b):
        return []
    overlap = bev_iou(a.boxes, b.boxes)
    overlap[np.array(a.classes)[:, None] != np.array(b.classes)] = 0.0
    pairs = []
    for row in by_score(a.scores).tolist():
        best = int(np.argmax(overlap[row]))
        if overlap[row, best] >= OVERLAP:
            pairs.append((row, best))
            overlap[:, best] = 0.0
    return pairs


def compared(reference: Sequence[Found], others: Sequence[Found]) -> dict[str, Any]:
    """Boxes at the thresholds, frame by frame."""
    wanted = kept = added = 0
    scores: list[float] = []
    speeds: list[float] = []
    for (one, lowest), (other, _) in zip(reference, others, strict=True):
        a, b = above(one, lowest), above(other, lowest)
        pairs = pairs_of(a, b)
        wanted, kept, added = wanted + len(a.found), kept + len(pairs), added + len(b.found)
        for row, column in pairs:
            scores.append(abs(float(a.found.scores[row] - b.found.scores[column])))
            first = np.asarray(a.found.velocities)[row]
            speeds.append(float(np.hypot(*(first - np.asarray(b.found.velocities)[column]))))
    return {
        'boxes': wanted, 'kept': kept, 'added': added - kept,
        'score differs': _spread(scores), 'velocity differs': _spread(speeds),
    }  # fmt: skip


def main() -> int:
    """Writes canvases, then compares the networks that are named."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.int8_velocity', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_options(parser)
    parser.add_argument('networks', nargs='*', type=Path, metavar='NETWORK.onnx')
    parser.add_argument('--model', default=SEVERAL, help='of fp32; default: %(default)s')
    parser.add_argument('--canvases', type=Path, metavar='FOLDER', help='write them to it')
    given = parser.parse_args()
    try:
        answer = _answer(given)
    except PerceptionError as problem:
        print(f'error: {problem}', file=sys.stderr)
        return 2
    write_figures(given, {'conditions': given.conditions, **answer})
    return 0


def _answer(given: argparse.Namespace) -> dict[str, Any]:
    """Figures of what the options name; nothing where they only want canvases."""
    model = model_file(given.model, here_first=True)
    card = find_card(model)
    count = max(given.frames, 1 + (card.past_sweeps if isinstance(card, LidarCard) else 0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.cache or Path(temporary)
        bags = [
            make(folder, seed, given.conditions[seed % len(given.conditions)], given.family, count)
            for seed in given.seeds
        ]
        if given.canvases:
            write_canvases(bags, model, given.canvases)
        return compare(bags, list(given.seeds), model, given.networks) if given.networks else {}


def compare(
    bags: Sequence[Path], seeds: Sequence[int], model: Path, networks: Sequence[Path]
) -> dict[str, Any]:
    """Figures of fp32 and of every other network; prints them."""
    reference = [last_frame(bag, str(model), None) for bag in bags]
    answer = {'fp32': figures(reference, seeds)}
    print(text(f'fp32 ({model.name})', answer['fp32']), flush=True)
    names = tuple(reference[0][1])
    curve = jackknifed([frame for frame, _ in reference], seeds, names, False)
    for path in networks:
        found = [last_frame(bag, str(path.resolve()), None) for bag in bags]
        values = {**figures(found, seeds), 'beside fp32': compared(reference, found)}
        gain = values['map'] - answer['fp32']['map']
        off = error(jackknifed([frame for frame, _ in found], seeds, names, False) - curve)
        answer[path.stem] = {**values, 'gain': {'map': gain, 'error': off}}
        print(text(path.name, values))
        print(f'{path.name} less fp32: {100 * gain:+.1f} +- {100 * off:.1f} points of mAP')
        print('  at the thresholds: ' + _described(values['beside fp32']), flush=True)
    return answer


def _described(values: dict[str, Any]) -> str:
    score, speed = values['score differs'], values['velocity differs']
    return (
        f'{values["kept"]} of {values["boxes"]} boxes kept, {values["added"]} added; of those '
        f'kept, scores differ by {score["median"]:.3f} (95 %: {score["95 %"]:.3f}) and velocities '
        f'by {speed["median"]:.2f} m/s (95 %: {speed["95 %"]:.2f})'
    )


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {'median': float('nan'), '95 %': float('nan')}
    return {'median': float(np.median(values)), '95 %': float(np.percentile(values, 95))}


if __name__ == '__main__':
    sys.exit(main())

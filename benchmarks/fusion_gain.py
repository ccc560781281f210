"""`python -m benchmarks.fusion_gain`: what the fusion is worth, against each sensor alone.

Simulated drives in clear weather, fog, rain and at night: two in three seeds are aprons of layouts
that nothing was trained on, the third is a street as those of training. Seeds from 6000 on chose
nothing of the networks that ship and of the fusion (5000 to 5099 did); what an analysis of their
errors changes must be judged on others, such as 6100:6160.
Networks run once; then only the fusion runs again, for every row of the table:

    camera                 the fusion without a lidar: boxes lifted from the images
    without calibration    fed with the scores of the networks instead of probabilities
    without the image      no lens is known: places alone are compared
    without covariance     nobody says how certain a place is: `unknown_sigma` for all
    lidar every second     every second frame has no cloud; so has the lidar alone
    without one camera     the mean of leaving out each
    faint camera boxes     cameras down to a probability of 0.05, the lidar at its thresholds
    perfect cameras        what is visible, by the ground truth of the images, lifted

All are asked for the same: every object that some sensor sees, within 80 m. mAP is the mean over
classes and centre distances of 0.5, 1, 2 and 4 m (nuScenes). `whole curves` looks at detections
down to a probability of 0.05, the rest at what is published by the thresholds of the cards. The
error of a gain is that of leaving out a tenth of the seeds at a time (jackknife).
"""

from __future__ import annotations

import argparse
import math
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.camera.lift import lift
from airside_perception.card.scores import published_scores
from airside_perception.config import FusionConfig
from airside_perception.errors import PerceptionError
from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.question import RANGES, average_precisions, mean
from airside_perception.fusion.collect import Gathered
from airside_perception.pipeline import FusionPipeline
from airside_perception.projection import CameraModel
from airside_perception.replay.bag import BagReader
from airside_perception.replay.evaluate import every_network, with_floor, without_curves
from airside_perception.replay.judge import aliases_of
from airside_perception.replay.report import thresholds
from airside_perception.replay.runner import CAMERA_TOPIC, LIDAR_TOPIC, Runner, read_transforms
from airside_perception.replay.settings import Settings, load_settings
from airside_perception.replay.truth import Moment, read_image_truth, read_truth
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Boxes3D
from benchmarks.drives import add_options, fingerprint, make, write_figures

NETWORK_FLOOR, FLOOR = 0.02, 0.05
"""Lowest scores of networks that are recorded, and lowest probability that is looked at."""
WITHIN = 80.0
FOLDS = 10
Detections = Mapping[str, Boxes3D]


@dataclass(frozen=True)
class Moments:
    """One frame of a drive.

    Attributes:
        seed, condition: of the drive.
        stamp_ns: of the set.
        network: {source: boxes with the scores of its network}.
        published: {source: the same boxes with the scores that are published}.
        lowest: {source: {class: threshold}}.
        perfect: {camera: boxes around what is visible, lifted}.
        lenses, transforms: of the rig.
        truth: what is there.
        fusion: the settings of the replay.
    """

    seed: int
    condition: str
    stamp_ns: int
    network: Detections
    published: Detections
    lowest: Mapping[str, Mapping[str, float]]
    perfect: Detections
    lenses: Mapping[str, CameraModel]
    transforms: TransformBuffer
    truth: Truth
    fusion: FusionConfig

    def shipped(self, boxes: Detections, floor: float | None = None) -> Detections:
        """Of `boxes` those that are published, or that have a probability of `floor` or more."""
        kept = {}
        for name, own in self.published.items():
            lowest = [self.lowest[name][c] if floor is None else floor for c in own.classes]
            kept[name] = boxes[name].select(np.flatnonzero(own.scores >= np.array(lowest)))
        return kept


class Recording(Runner):
    """A replay whose fusion only keeps what it would be given."""

    def __init__(self, reader: BagReader, settings: Settings) -> None:
        self.sets: list[Gathered[Boxes3D]] = []
        super().__init__(reader, settings, lambda result: None)

    def _fuse(self, sets: Iterable[Gathered[Boxes3D]]) -> None:
        self.sets += list(sets)

    @property
    def lenses(self) -> dict[str, CameraModel]:
        """Those that are known at the end."""
        return self._lenses()


def record(path: Path, seed: int, condition: str, params: Path | None = None) -> list[Moments]:
    """Runs the networks over a bag."""
    with BagReader(path) as reader:
        settings = load_settings(reader.topics, params, 1)
        plain = every_network(settings, lambda n: with_floor(without_curves(n), NETWORK_FLOOR))
        with Recording(reader, plain) as run:
            run.run()
        cards = {camera.name: camera.network.card for camera in settings.cameras}
        every: dict[str, Any] = dict(cards)
        if settings.lidar is not None:
            every['lidar'] = settings.lidar.card
        topics = {name: CAMERA_TOPIC.format(name) for name in cards} | {'lidar': LIDAR_TOPIC}
        own = thresholds(settings)
        transforms, aliases = read_transforms(reader), aliases_of(every.values())
        moments = {moment.stamp_ns: moment for moment in read_truth(reader)}
        perfect = _perfect(reader, settings, run.lenses, transforms, aliases)
    found = []
    for gathered in run.sets:
        moment = moments.get(gathered.stamp_ns)
        if moment is None:
            continue
        network = dict(gathered.messages)
        published = {
            name: replace(boxes, scores=published_scores(every[name], boxes.classes, boxes.scores))
            for name, boxes in network.items()
        }
        found.append(
            Moments(
                seed, condition, gathered.stamp_ns, network, published,
                {name: own[topics[name]] for name in network},
                perfect.get(gathered.stamp_ns, {}), run.lenses, transforms,
                _truth(moment, aliases), settings.fusion,
            )
        )  # fmt: skip
    return found


def _perfect(
    reader: BagReader,
    settings: Settings,
    lenses: Mapping[str, CameraModel],
    transforms: TransformBuffer,
    aliases: Mapping[str, str],
) -> dict[int, dict[str, Boxes3D]]:
    """{stamp: {camera: what must be seen, lifted}}: a network that errs nowhere."""
    found: dict[int, dict[str, Boxes3D]] = {}
    for camera in settings.cameras:
        card, lens = camera.network.card, lenses[camera.name]
        sharp = replace(camera.network.config, pixel_sigma=1.0, side_sigma=0.02)
        for stamp_ns, boxes in read_image_truth(reader, camera.name).items():
            names = tuple(aliases.get(name, name) for name in boxes.classes)
            must = boxes.scores > 0.0
            rows = [row for row, n in enumerate(names) if must[row] and n in card.published]
            sure = replace(boxes, classes=names, scores=np.full(len(names), 0.99)).select(rows)
            pose = transforms.lookup(sharp.ground_frame, lens.frame_id, stamp_ns)
            lifted = lift(sure, lens, pose, card.sizes, sharp)
            found.setdefault(stamp_ns, {})[camera.name] = lifted
    return found


def _truth(moment: Moment, aliases: Mapping[str, str]) -> Truth:
    names = tuple(aliases.get(name, name) for name in moment.truth.classes)
    return replace(moment.truth, classes=names)


Choice = Callable[[int, Moments], Detections]
"""What the fusion is given of a frame, by its number."""


def fused(
    moments: Sequence[Moments],
    choose: Choice,
    change: Callable[[FusionConfig], FusionConfig] = lambda config: config,
    lenses: bool = True,
) -> list[Frame]:
    """Frames with what the fusion makes of the detections that are chosen."""
    frames = []
    pipeline = FusionPipeline(change(moments[0].fusion))
    for number, item in enumerate(moments):
        given = choose(number, item)
        if not given:
            frames.append(_frame(item, Boxes3D.empty(item.stamp_ns, 'base_link')))
            continue
        known = item.lenses if lenses else {}
        result, _ = pipeline.fuse(given, known, item.transforms, item.stamp_ns)
        frames.append(_frame(item, result.boxes))
    return frames


def alone(moments: Sequence[Moments], choose: Choice) -> list[Frame]:
    """Frames with the boxes of the lidar, none where it is not chosen."""
    return [
        _frame(item, choose(n, item).get('lidar', Boxes3D.empty(item.stamp_ns, 'base_link')))
        for n, item in enumerate(moments)
    ]


def _frame(item: Moments, boxes: Boxes3D) -> Frame:
    found = Found(boxes.classes, boxes.boxes, boxes.scores)
    return Frame(item.truth, found, f'{item.condition} {item.seed}')


def figures(
    frames: Sequence[Frame], names: Sequence[str], nearest: float = 0.0, farthest: float = WITHIN
) -> dict[str, float]:
    """{class: mean AP over the distances}, NaN where nothing is asked for."""
    near = [frame.in_range(nearest, farthest) for frame in frames]
    return {name: mean(average_precisions(near, name).values()) for name in names}


def blank(boxes: Boxes3D) -> Boxes3D:
    """The same boxes, of whose places nobody says how certain they are."""
    return replace(boxes, covariances=np.zeros_like(boxes.covariances))


def rows(moments: Sequence[Moments]) -> dict[str, tuple[list[list[Frame]], list[Frame]]]:
    """{row: (frames of every variant that it is the mean of, of the lidar alone beside it)}."""
    cameras = [name for name in moments[0].published if name != 'lidar']
    kinds = [item.condition for item in moments]
    turn = [kinds[:number].count(kind) for number, kind in enumerate(kinds)]

    def only(keep: Callable[[int, str], bool], floor: float | None = None) -> Choice:
        def choose(number: int, item: Moments) -> Detections:
            shown = item.shipped(item.published, floor)
            return {name: boxes for name, boxes in shown.items() if keep(number, name)}

        return choose

    def faint(_: int, item: Moments) -> Detections:
        shown = item.shipped(item.published, FLOOR)
        return {**shown, 'lidar': item.shipped(item.published)['lidar']}

    def uncalibrated(_: int, item: Moments) -> Detections:
        return item.shipped(item.network)

    def uncertain(_: int, item: Moments) -> Detections:
        return {name: blank(boxes) for name, boxes in item.shipped(item.published).items()}

    def perfect(_: int, item: Moments) -> Detections:
        return {**item.perfect, 'lidar': item.shipped(item.published)['lidar']}

    every = only(lambda number, name: True)
    second = only(lambda number, name: name != 'lidar' or turn[number] % 2 == 0)
    blind = only(lambda number, name: name != 'lidar')
    whole = only(lambda number, name: True, FLOOR)
    lidar = alone(moments, every)
    nothing = alone(moments, blind)

    def without(camera: str) -> list[Frame]:
        return fused(moments, only(lambda number, name: name != camera))

    return {
        'lidar': ([lidar], lidar),
        'camera': ([fused(moments, blind)], lidar),
        'fused': ([fused(moments, every)], lidar),
        'without calibration': ([fused(moments, uncalibrated)], lidar),
        'without the image': ([fused(moments, every, lenses=False)], lidar),
        'without covariance': ([fused(moments, uncertain)], lidar),
        'lidar every second': ([fused(moments, second)], alone(moments, second)),
        'without the lidar': ([fused(moments, blind)], nothing),
        'without one camera': ([without(name) for name in cameras], lidar),
        'faint camera boxes': ([fused(moments, faint)], lidar),
        'perfect cameras': ([fused(moments, perfect)], lidar),
        'whole curves': ([fused(moments, whole)], alone(moments, whole)),
    }


def judge(
    variants: Sequence[Sequence[Frame]], base: Sequence[Frame], names: Sequence[str]
) -> dict[str, Any]:
    """mAP of frames and what they gain over others: in all, by class and by range."""

    def both(
        nearest: float = 0.0, farthest: float = WITHIN
    ) -> tuple[dict[str, float], dict[str, float]]:
        each = [figures(frames, names, nearest, farthest) for frames in variants]
        own = {name: float(np.mean([item[name] for item in each])) for name in names}
        return own, figures(base, names, nearest, farthest)

    own, other = both()
    found: dict[str, Any] = {
        'map': mean(own.values()),
        'gain': mean(own.values()) - mean(other.values()),
        'classes': {name: {'ap': own[name], 'gain': own[name] - other[name]} for name in names},
        'ranges': {},
    }
    for low, high in pairwise(RANGES):
        here, there = both(low, high)
        value = mean(here.values())
        found['ranges'][f'{low:g}-{high:g} m'] = {
            'map': value,
            'gain': value - mean(there.values()),
        }
    return found


def gain_error(
    seeds: Sequence[int], frames: Sequence[Frame], base: Sequence[Frame], names: Sequence[str]
) -> float:
    """Standard error of a gain by the delete-a-group jackknife over seeds (B. Efron, 1982)."""
    gains = []
    for fold in range(FOLDS):
        kept = [n for n, seed in enumerate(seeds) if seed % FOLDS != fold]
        own, other = (
            mean(figures([part[n] for n in kept], names).values()) for part in (frames, base)
        )
        gains.append(own - other)
    spread = np.array(gains) - np.mean(gains)
    return float(np.sqrt((FOLDS - 1) / FOLDS * (spread**2).sum()))


def measured(moments: Sequence[Moments]) -> dict[str, Any]:
    """All figures of all rows."""
    names = tuple(
        dict.fromkeys(name for item in moments for own in item.lowest.values() for name in own)
    )
    table: dict[str, Any] = {}
    for row, (variants, base) in rows(moments).items():
        table[row] = judge(variants, base, names)
        table[row]['conditions'] = {}
        for condition in dict.fromkeys(item.condition for item in moments):
            here = [n for n, item in enumerate(moments) if item.condition == condition]
            each = [
                mean(figures([frames[n] for n in here], names).values()) for frames in variants
            ]
            other = mean(figures([base[n] for n in here], names).values())
            table[row]['conditions'][condition] = {
                'map': float(np.mean(each)),
                'gain': float(np.mean(each)) - other,
            }
        if row in ('fused', 'whole curves', 'faint camera boxes'):
            seeds = [item.seed for item in moments]
            table[row]['gain_error'] = gain_error(seeds, variants[0], base, names)
    return table


def text(table: Mapping[str, Any]) -> str:
    """The table, in mAP points; beside each mAP what it gains over the lidar alone."""
    kinds = list(table['lidar']['conditions'])
    head = ''.join(f'{name:>15}' for name in ('all', *kinds))
    lines = [f'{"mAP, gain on lidar":<22}{head}']
    for row, item in table.items():
        cells = [item, *(item['conditions'][kind] for kind in kinds)]
        shown = ''.join(f'{100 * c["map"]:>8.1f}{100 * c["gain"]:>+7.1f}' for c in cells)
        error = f'  ± {100 * item["gain_error"]:.1f}' if 'gain_error' in item else ''
        lines.append(f'{row:<22}{shown}{error}')
    lines += ['', f'{"class or range":<22}{"lidar":>8}{"camera":>8}{"fused":>8}{"gain":>7}']
    for name in table['fused']['classes']:
        values = [100 * table[row]['classes'][name]['ap'] for row in ('lidar', 'camera', 'fused')]
        lines.append(_line(name, values, 100 * table['fused']['classes'][name]['gain']))
    for name in table['fused']['ranges']:
        values = [100 * table[row]['ranges'][name]['map'] for row in ('lidar', 'camera', 'fused')]
        lines.append(_line(name, values, 100 * table['fused']['ranges'][name]['gain']))
    return '\n'.join(lines)


def _line(name: str, values: Sequence[float], gain: float) -> str:
    cells = ''.join('       -' if math.isnan(v) else f'{v:>8.1f}' for v in values)
    return f'{name:<22}{cells}' + ('' if math.isnan(gain) else f'{gain:>+7.1f}')


def main() -> int:
    """Makes and runs what is not there yet, then prints the table."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.fusion_gain',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument('--bags', type=Path, nargs='+', help='take these bags instead')
    parser.add_argument('--params', type=Path, help='ROS parameter file; default: the shipped one')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.cache or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        moments = []
        started = time.monotonic()
        try:
            if given.bags:
                for number, bag in enumerate(given.bags):
                    moments += record(bag, number, 'given', given.params)
            else:
                for seed in given.seeds:
                    for condition in given.conditions:
                        moments += _known(folder, seed, condition, given)
        except PerceptionError as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
        print(f'{len(moments)} frames in {time.monotonic() - started:.0f} s', file=sys.stderr)
        table = measured(moments)
    print(text(table))
    write_figures(given, {'frames': len(moments), **table})
    return 0


def _known(folder: Path, seed: int, condition: str, given: argparse.Namespace) -> list[Moments]:
    """What the networks find in a drive, from the folder where it is kept."""
    bag = make(folder, seed, condition, given.family, given.frames)
    with BagReader(bag) as reader:
        topics = tuple(reader.topics)
    settings, networks = _settings(topics, given.params)
    kept = bag.with_name(f'{bag.name}_{networks}.pickle')
    if kept.is_file():
        found: list[Moments] = pickle.loads(kept.read_bytes())
        return [replace(item, fusion=settings) for item in found]
    found = record(bag, seed, condition, given.params)
    kept.write_bytes(pickle.dumps(found))
    return found


@cache
def _settings(topics: tuple[str, ...], params: Path | None) -> tuple[FusionConfig, str]:
    """The fusion's settings as they are now, and the fingerprint of all networks."""
    settings = load_settings(topics, params, 1)
    networks = [camera.network for camera in settings.cameras]
    every = [network for network in (*networks, settings.lidar) if network is not None]
    files = [path for network in every for path in (network.path, Path(network.card.path))]
    return settings.fusion, fingerprint(dict.fromkeys(files))


if __name__ == '__main__':
    sys.exit(main())

"""`python -m benchmarks.transfer_curve`: what variation in training is worth on real scans.

Networks that `training.ablation` trained, stage by stage, on the frames of `benchmarks.transfer`
and by its figures, beside recorded predictions of networks that were trained on real scans. Every
AP has the standard error of `benchmarks.spread`: the sets are so small that a step between two
stages means something only where it is larger than that. `all frames` pools the sets; the drive
that nobody labelled is judged as `benchmarks.transfer_drive` says. `road classes only`: the same
networks with the classes of aprons switched off by their thresholds, since what is found and
called a baggage tractor is no car.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from airside_perception.card import LidarCard, find_card
from airside_perception.evaluate import frames as judged
from airside_perception.evaluate.precision import nuscenes_ap
from airside_perception.evaluate.question import DISTANCES, reached
from airside_perception.lidar.detector import LidarDetector
from benchmarks import transfer_drive
from benchmarks.lidar_frames import Found, Frame, recorded
from benchmarks.lidar_recall import detect, detector
from benchmarks.spread import standard_error
from benchmarks.transfer import FLOOR, NAMES, WITHIN, apron_off, figures, frame
from benchmarks.transfer_plot import Figures, Panel
from benchmarks.transfer_report import checked, options, references, report, with_earlier, written

ALL = 'all frames'
ROAD_ONLY = ', road classes only'
Places = Mapping[str, tuple[list[Frame], dict[str, list[Found]]]]


def measured(frames: Sequence[judged.Frame]) -> dict[str, dict[str, float]]:
    """The figures of `transfer`, and `se`, the standard error of the AP."""
    table = figures(frames)
    for name in NAMES:
        found = [reached(frames, name, reach) for reach in DISTANCES]
        table[name]['se'] = standard_error(frames, name, found, nuscenes_ap)
    return table


def panels_of(data: Path, networks: Mapping[str, Path]) -> list[Panel]:
    """One panel for every set of frames and one for all of them; with road classes only: all."""
    places, drive = recorded(data), transfer_drive.load(data)
    stages: dict[str, list[Figures]] = {}
    for path in networks.values():
        network = detector(path, FLOOR)
        for title, table in _answers(network, places, drive).items():
            stages.setdefault(title, []).append(table)
        off = apron_off(network.card, network.config.score_thresholds)
        network.config = replace(network.config, score_thresholds=off)
        again = _answers(network, places, drive)
        for title in (ALL, transfer_drive.TITLE):
            stages.setdefault(title + ROAD_ONLY, []).append(again[title])
    return [
        Panel(title, tables, _known(places[title]) if title in places else {})
        for title, tables in stages.items()
    ]


def _answers(network: LidarDetector, places: Places, drive: transfer_drive.Drive) -> dict[
    str, Figures
]:  # fmt: skip
    """{title: figures} of one network."""
    frames = {
        place: [frame(scan, detect(network, scan.points)) for scan in scans]
        for place, (scans, _) in places.items()
    }
    found = [detect(network, moment.points) for moment in drive.moments]
    return {
        **{place: measured(items) for place, items in frames.items()},
        ALL: measured([item for items in frames.values() for item in items]),
        transfer_drive.TITLE: transfer_drive.figures(transfer_drive.frames(drive, found)),
    }


def _known(place: tuple[list[Frame], dict[str, list[Found]]]) -> dict[str, Figures]:
    """Figures of the recorded predictions."""
    scans, known = place
    return {
        who: measured([frame(s, f) for s, f in zip(scans, found, strict=True)])
        for who, found in known.items()
    }


def main() -> int:
    """Prints the figures and leaves them in --out."""
    parser = options('python -m benchmarks.transfer_curve', __doc__, 'a=output/a.onnx')
    given, networks = checked(
        parser, lambda path: isinstance(find_card(path), LidarCard), 'lidar'
    )  # fmt: skip
    made = panels_of(given.data, networks)
    panels, names = with_earlier(parser, given.after, made, list(networks))
    print(report(panels, names))
    if given.out:
        notes = [
            f'AP: mean over centre distances of 0.5 to 4 m; objects within {WITHIN:.0f} m.',
            f'Agreement: at an overlap of {transfer_drive.IOU} in the image; not accuracy.',
        ]
        written(given.out, 'transfer_curve', panels, names, [*notes, *references(panels)])
    return 0


if __name__ == '__main__':
    sys.exit(main())

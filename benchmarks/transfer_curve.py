"""`python -m benchmarks.transfer_curve`: what variation in training is worth on real scans.

Networks that `training.ablation` trained, stage by stage, on the frames of `benchmarks.transfer`
and by its figures, beside recorded predictions of networks that were trained on real scans. Every
AP has the standard error of `benchmarks.spread`: the sets are so small that a step between two
stages means something only where it is larger than that. `all frames` pools the sets; the drive
that nobody labelled is judged as `benchmarks.transfer_drive` says.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from airside_perception.card import LidarCard, find_card
from airside_perception.evaluate import frames as judged
from airside_perception.evaluate.precision import nuscenes_ap
from airside_perception.evaluate.question import DISTANCES, reached
from benchmarks import transfer_drive
from benchmarks.lidar_frames import recorded
from benchmarks.lidar_recall import detect, detector
from benchmarks.spread import standard_error
from benchmarks.transfer import FLOOR, NAMES, WITHIN, figures, frame
from benchmarks.transfer_plot import Panel
from benchmarks.transfer_report import checked, options, references, report, written

ALL = 'all frames'


def measured(frames: Sequence[judged.Frame]) -> dict[str, dict[str, float]]:
    """The figures of `transfer`, and `se`, the standard error of the AP."""
    table = figures(frames)
    for name in NAMES:
        found = [reached(frames, name, reach) for reach in DISTANCES]
        table[name]['se'] = standard_error(frames, name, found, nuscenes_ap)
    return table


def panels_of(data: Path, networks: Mapping[str, Path]) -> list[Panel]:
    """One panel for every set of frames, and one for all of them together."""
    places = recorded(data)
    answers: dict[str, dict[str, list[judged.Frame]]] = {place: {} for place in places}
    drive, agreement = transfer_drive.load(data), []
    for who, path in networks.items():
        network = detector(path, FLOOR)
        found = [detect(network, moment.points) for moment in drive.moments]
        agreement.append(transfer_drive.figures(transfer_drive.frames(drive, found)))
        for place, (scans, _) in places.items():
            answers[place][who] = [frame(s, detect(network, s.points)) for s in scans]
    made = []
    for place, (scans, known) in places.items():
        others = {
            who: measured([frame(s, f) for s, f in zip(scans, found, strict=True)])
            for who, found in known.items()
        }
        made.append(Panel(place, [measured(answers[place][who]) for who in networks], others))
    pooled = [[f for place in places for f in answers[place][who]] for who in networks]
    made.append(Panel(ALL, [measured(frames) for frames in pooled], {}))
    return [*made, Panel(transfer_drive.TITLE, agreement, {})]


def main() -> int:
    """Prints the figures and leaves them in --out."""
    parser = options('python -m benchmarks.transfer_curve', __doc__, 'a=output/a.onnx')
    given, networks = checked(
        parser, lambda path: isinstance(find_card(path), LidarCard), 'lidar'
    )  # fmt: skip
    panels = panels_of(given.data, networks)
    print(report(panels, list(networks)))
    if given.out:
        notes = [
            f'AP: mean over centre distances of 0.5 to 4 m; objects within {WITHIN:.0f} m.',
            f'Agreement: at an overlap of {transfer_drive.IOU} in the image; not accuracy.',
        ]
        written(given.out, 'transfer_curve', panels, list(networks), [*notes, *references(panels)])
    return 0


if __name__ == '__main__':
    sys.exit(main())

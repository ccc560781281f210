"""`python -m benchmarks.transfer_curve`: what variation in training is worth on real scans.

Networks that `training.ablation` trained, stage by stage, on the frames of `benchmarks.transfer`
and by its figures, beside recorded predictions of networks that were trained on real scans. Every
AP has the standard error of `benchmarks.spread`: the sets are so small that a step between two
stages means something only where it is larger than that. `all frames` pools the sets.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from airside_perception.card import LidarCard, find_card
from airside_perception.evaluate import frames as judged
from airside_perception.evaluate.precision import nuscenes_ap
from airside_perception.evaluate.question import DISTANCES, reached
from benchmarks.lidar_frames import recorded
from benchmarks.lidar_recall import detect, detector
from benchmarks.spread import standard_error
from benchmarks.transfer import FLOOR, NAMES, WITHIN, figures, frame
from benchmarks.transfer_plot import Figures, Panel, picture

ALL = 'all frames'


def measured(frames: Sequence[judged.Frame]) -> dict[str, dict[str, float]]:
    """The figures of `transfer`, and `se`, the standard error of the AP."""
    table = figures(frames)
    for name in NAMES:
        found = [reached(frames, name, reach) for reach in DISTANCES]
        table[name]['se'] = standard_error(frames, name, found, nuscenes_ap)
    return table


def report(panels: Sequence[Panel], stages: Sequence[str]) -> str:
    """The figures as text: AP and its standard error."""
    lines = []
    for item in panels:
        counts = ', '.join(
            f'{item.stages[0][name]["objects"]:.0f} {name}' for name in NAMES
        )  # fmt: skip
        lines += ['', f'{item.title}: {counts}']
        rows = [*zip(stages, item.stages, strict=True), *item.references.items()]
        for who, table in rows:
            cells = ''.join(f'  {name} {_cell(table[name])}' for name in NAMES)
            lines.append(f'  {who:<44}{cells}')
    return '\n'.join(lines[1:])


def _cell(row: Mapping[str, float]) -> str:
    if not row['objects']:
        return f'{"-":12}'
    error = f' +- {row["se"]:.2f}' if math.isfinite(row['se']) else ''
    text = f'{row["ap"]:.2f}{error}'
    return f'{text:12}'


def named(items: Sequence[str]) -> dict[str, Path]:
    """{label: path} of arguments LABEL=PATH.

    Raises:
        ValueError: an argument is not of that form, or a label is there twice.
    """
    found: dict[str, Path] = {}
    for item in items:
        label, mark, path = item.partition('=')
        if not mark or not label.strip() or not path:
            raise ValueError(f'{item!r}: expected LABEL=PATH')
        if label in found:
            raise ValueError(f'{label!r} is there twice')
        found[label] = Path(path)
    return found


def written(folder: Path, name: str, panels: Sequence[Panel], stages: Sequence[str],
            notes: Sequence[str]) -> None:  # fmt: skip
    """Leaves NAME.json and NAME.png in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        item.title: {**dict(zip(stages, item.stages, strict=True)), **item.references}
        for item in panels
    }
    text = json.dumps(values, indent=1).replace('NaN', 'null')
    (folder / f'{name}.json').write_text(text + '\n', encoding='utf-8')
    drawn = cv2.imencode('.png', picture(panels, stages, notes))[1]
    (folder / f'{name}.png').write_bytes(drawn.tobytes())


def options(prog: str, text: str, example: str) -> argparse.ArgumentParser:
    """What the curves of lidar and camera take."""
    parser = argparse.ArgumentParser(prog=prog, description=text)
    parser.add_argument(
        '--network', action='append', required=True, metavar='LABEL=PATH',
        help=f'a network and what it is called, in the order of the curve: {example}',
    )  # fmt: skip
    parser.add_argument(
        '--data', type=Path, default=Path('../shared/data'), help='folder of the real frames'
    )
    parser.add_argument('--out', type=Path, help='folder for the figures and the picture')
    return parser


def panels_of(data: Path, networks: Mapping[str, Path]) -> list[Panel]:
    """One panel for every set of frames, and one for all of them together."""
    places = recorded(data)
    answers: dict[str, dict[str, list[judged.Frame]]] = {place: {} for place in places}
    for who, path in networks.items():
        network = detector(path, FLOOR)
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
    return made


def checked(
    parser: argparse.ArgumentParser, right: Callable[[Path], bool], kind: str
) -> tuple[argparse.Namespace, dict[str, Path]]:
    """Options and networks, or the end of the program with a line that says what is wrong."""
    given = parser.parse_args()
    if not (given.data / 'labelled').is_dir():
        parser.error(f'no real frames at {given.data}')
    try:
        networks = named(given.network)
    except ValueError as error:
        parser.error(f'--network {error}')
    for path in networks.values():
        if not path.is_file():
            parser.error(f'no network at {path}')
        if not right(path):
            parser.error(f'{path} is no {kind} network')
    return given, networks


def main() -> int:
    """Prints the figures and leaves them in --out."""
    parser = options('python -m benchmarks.transfer_curve', __doc__, 'a=output/a.onnx')
    given, networks = checked(
        parser, lambda path: isinstance(find_card(path), LidarCard), 'lidar'
    )  # fmt: skip
    panels = panels_of(given.data, networks)
    print(report(panels, list(networks)))
    if given.out:
        note = f'AP: mean over centre distances of 0.5 to 4 m; objects within {WITHIN:.0f} m.'
        written(given.out, 'transfer_curve', panels, list(networks), [note, *references(panels)])
    return 0


def references(panels: Sequence[Panel]) -> list[str]:
    """A line for every reference, in the order in which they are met."""
    names: dict[str, Figures] = {who: {} for item in panels for who in item.references}
    return [f'reference: {who}' for who in names]


if __name__ == '__main__':
    sys.exit(main())

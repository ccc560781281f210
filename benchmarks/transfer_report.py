"""What the curves of networks on real frames share: options, text, JSON and picture."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from benchmarks.transfer import NAMES
from benchmarks.transfer_plot import Figures, Panel, picture


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


def references(panels: Sequence[Panel]) -> list[str]:
    """A line for every reference, in the order in which they are met."""
    names: dict[str, Figures] = {who: {} for item in panels for who in item.references}
    return [f'reference: {who}' for who in names]

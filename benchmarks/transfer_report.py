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


def after(
    path: Path, panels: Sequence[Panel], stages: Sequence[str]
) -> tuple[list[Panel], list[str]]:
    """Panels and names with the networks of an earlier run, of which the figures remain, first.

    Args:
        path: JSON that `written` left. Networks of the same name are taken from the new run.

    Raises:
        ValueError: it is no such file, or was made of other frames.
    """
    try:
        known = json.loads(path.read_text(encoding='utf-8'))
        tables = [known[item.title] for item in panels]
        names = [name for name in tables[0] if name not in (*stages, *panels[0].references)]
        found = []
        for item, table in zip(panels, tables, strict=True):
            old = [_figures(table[name]) for name in names]
            for figures in old:
                if any(figures[n]['objects'] != item.stages[0][n]['objects'] for n in NAMES):
                    raise ValueError(f'{path} was made of other frames: {item.title}')
            found.append(Panel(item.title, [*old, *item.stages], item.references))
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} has no figures of these frames: {error}') from error
    return found, [*names, *stages]


def _figures(table: Mapping[str, Mapping[str, float | None]]) -> Figures:
    return {
        name: {key: math.nan if value is None else value for key, value in row.items()}
        for name, row in table.items()
    }


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
    parser.add_argument(
        '--after', type=Path, help='JSON of an earlier run, whose networks stand before these'
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
    if given.after is not None and not given.after.is_file():
        parser.error(f'--after: no file at {given.after}')
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


def with_earlier(
    parser: argparse.ArgumentParser, earlier: Path | None, panels: list[Panel], names: list[str]
) -> tuple[list[Panel], list[str]]:
    """What `after` gives, or the end of the program; without an earlier run what is given."""
    if earlier is None:
        return panels, names
    try:
        return after(earlier, panels, names)
    except ValueError as error:
        parser.error(f'--after: {error}')


def references(panels: Sequence[Panel]) -> list[str]:
    """A line for every reference, in the order in which they are met."""
    names: dict[str, Figures] = {who: {} for item in panels for who in item.references}
    return [f'reference: {who}' for who in names]

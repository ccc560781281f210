"""Simulated drives that benchmarks share: which world and weather a seed has, bags, options.

Importing needs nothing of the simulator: a machine without it can read what another one made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CONDITIONS: Mapping[str, tuple[str, str]] = {
    'clear': ('day', 'clear'),
    'fog': ('day', 'fog'),
    'rain': ('day', 'rain'),
    'night': ('night', 'clear'),
}
"""{name: light, weather}."""
STREETS = 3
"""One in so many seeds is a street, the others are aprons."""
FAMILIES = ('train', 'held_out')


def world(seed: int, family: str) -> Any:
    """The scenario of a seed: a street, or an apron of one family of layouts."""
    from airside_perception.sim.apron import apron
    from airside_perception.sim.street import street

    return street(seed) if seed % STREETS == STREETS - 1 else apron(seed, family)


def make(folder: Path, seed: int, condition: str, family: str, frames: int) -> Path:
    """The bag of a seed in a condition, so many frames long; made where it is not there."""
    from airside_perception.resources import resource
    from airside_perception.sim.conditions import conditions
    from airside_perception.sim.drive import write_drive
    from airside_perception.sim.frames import RATE
    from airside_perception.sim.rig import load_rig

    out = folder / f'{family}_{condition}_{seed}_{frames}'
    if not (out / 'metadata.yaml').is_file():
        weather = conditions(seed, *CONDITIONS[condition])
        rig = load_rig(resource('config', 'rig.yaml'))
        scenario = world(seed, family)
        write_drive(scenario, rig, frames / RATE, seed, out, overwrite=True, conditions=weather)
    return out


def fingerprint(files: Iterable[Path]) -> str:
    """Of the bytes of files: what is kept under it is made anew when one of them changes."""
    total = hashlib.sha256()
    for path in files:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which drives, where they are kept, and where figures go."""
    parser.add_argument(
        '--seeds', type=_seeds, default='6000:6060', metavar='FIRST:END',
        help='default: 6000:6060',
    )  # fmt: skip
    parser.add_argument(
        '--conditions', type=_conditions, default=','.join(CONDITIONS), metavar='NAME,...',
        help=f'of {", ".join(CONDITIONS)}; default: all',
    )  # fmt: skip
    parser.add_argument('--family', choices=FAMILIES, default='held_out', help='layouts of aprons')
    parser.add_argument('--frames', type=int, default=1, help='of each drive, 10 a second')
    parser.add_argument('--cache', type=Path, help='folder that keeps bags and detections')
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')


def write_figures(given: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Writes figures of the drives of the options to `--json`, where it is given."""
    if given.json:
        span = f'{given.seeds.start}:{given.seeds.stop}'
        content = json.dumps({'seeds': span, 'family': given.family, **figures}, indent=1)
        content = content.replace('NaN', 'null').replace('Infinity', 'null')
        given.json.write_text(content + '\n', encoding='utf-8')


def _seeds(text: str) -> range:
    first, mark, end = text.partition(':')
    if not (mark and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise argparse.ArgumentTypeError(f'{text} is not FIRST:END, such as 6000:6060')
    return range(int(first), int(end))


def _conditions(text: str) -> tuple[str, ...]:
    names = tuple(text.split(','))
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f'{unknown[0]!r} is not one of {", ".join(CONDITIONS)}')
    return names

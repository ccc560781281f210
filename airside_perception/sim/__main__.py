"""Writes a simulated drive as a bag: `python -m airside_perception.sim --out FOLDER`.

Light and weather are those of a clear day unless --light, --weather or --draw says otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airside_perception.errors import INTERRUPTED, PerceptionError
from airside_perception.replay.arguments import positive_int
from airside_perception.resources import resource
from airside_perception.sim.apron import apron
from airside_perception.sim.conditions import LIGHTS, WEATHERS, Conditions, conditions
from airside_perception.sim.drive import write_drive
from airside_perception.sim.rig import load_rig
from airside_perception.sim.scene import Scenario
from airside_perception.sim.stands import FAMILIES
from airside_perception.sim.street import street

WORLDS = ('apron', 'street')


def main() -> int:
    """Reads the command line, writes the bag, prints its topics.

    Returns:
        The exit status: 2 where that fails, 130 where it is interrupted.
    """
    parser = argparse.ArgumentParser(prog='python -m airside_perception.sim', description=__doc__)
    parser.add_argument('--world', choices=WORLDS, default='apron')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--family', choices=sorted(FAMILIES), default='train', help='layouts of an apron'
    )
    parser.add_argument('--light', choices=LIGHTS, help='default: day')
    parser.add_argument('--weather', choices=WEATHERS, help='default: clear')
    parser.add_argument(
        '--draw', action='store_true', help='draw light and weather that are not given'
    )
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--rig', type=Path, help='YAML of the sensors; default config/rig.yaml')
    parser.add_argument('--out', type=Path, required=True, help='folder of the new bag')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    parser.add_argument('--overwrite', action='store_true')
    parser.add_argument(
        '--processes', type=positive_int, metavar='N',
        help='that make frames side by side, 0.4 GiB each; default: one a core, 8 at most, fewer '
        'for short drives',
    )  # fmt: skip
    given = parser.parse_args()
    try:
        rig = load_rig(given.rig or resource('config', 'rig.yaml'))
        counts = write_drive(
            _world(given),
            rig,
            given.seconds,
            given.seed,
            given.out,
            given.storage,
            given.overwrite,
            conditions=_conditions(given),
            processes=given.processes,
        )
    except PerceptionError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; nothing was written', file=sys.stderr)
        return INTERRUPTED
    for topic, count in sorted(counts.items()):
        print(f'{count:6d}  {topic}')
    return 0


def _world(given: argparse.Namespace) -> Scenario:
    return street(given.seed) if given.world == 'street' else apron(given.seed, given.family)


def _conditions(given: argparse.Namespace) -> Conditions:
    if given.draw:
        return conditions(given.seed, given.light or '', given.weather or '')
    if given.light or given.weather:
        return conditions(given.seed, given.light or 'day', given.weather or 'clear')
    return Conditions()


if __name__ == '__main__':
    sys.exit(main())

"""Writes a simulated drive as a bag: `python -m airside_perception.sim --out FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airside_perception.errors import PerceptionError
from airside_perception.resources import resource
from airside_perception.sim.apron import apron
from airside_perception.sim.drive import write_drive
from airside_perception.sim.rig import load_rig
from airside_perception.sim.street import street

WORLDS = {'apron': apron, 'street': street}


def main() -> int:
    """Reads the command line, writes the bag, prints its topics; 2 where that fails."""
    parser = argparse.ArgumentParser(prog='python -m airside_perception.sim', description=__doc__)
    parser.add_argument('--world', choices=sorted(WORLDS), default='apron')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--rig', type=Path, help='YAML of the sensors; default config/rig.yaml')
    parser.add_argument('--out', type=Path, required=True, help='folder of the new bag')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    parser.add_argument('--overwrite', action='store_true')
    given = parser.parse_args()
    try:
        rig = load_rig(given.rig or resource('config', 'rig.yaml'))
        counts = write_drive(
            WORLDS[given.world](given.seed),
            rig,
            given.seconds,
            given.seed,
            given.out,
            given.storage,
            given.overwrite,
        )
    except PerceptionError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for topic, count in sorted(counts.items()):
        print(f'{count:6d}  {topic}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

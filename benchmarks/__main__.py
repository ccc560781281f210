"""`python -m benchmarks`: every stage beside what a user would otherwise write, in one run.

Inputs are made from seeds, sizes are those of a real rig. Alternatives that are not installed are
left out of the table. Figures are medians; `!` marks one above its goal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import cv2
import numpy as np

from benchmarks import fusion, lidar, node, sensors
from benchmarks.measure import table


def main() -> int:
    """Prints the table; the exit status says whether every goal is met."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    parser.add_argument('--only', default='', help='rows whose task holds this text')
    parser.add_argument(
        '--network', metavar='FILE',
        help='lidar network of the node; default: that of the shipped configuration',
    )  # fmt: skip
    parser.add_argument(
        '--turns', type=int, default=node.TURNS, metavar='N',
        help='messages to each node (default: %(default)s)',
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.turns < 1:
        parser.error(f'--turns: {arguments.turns} is not above 0')
    print(
        f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, '
        f'NumPy {np.__version__}, OpenCV {cv2.__version__}; medians, everybody in turn\n'
    )
    rows = [row for part in (sensors, lidar, fusion) for row in part.rows(arguments.only)]
    networks = {node.LIDAR: arguments.network} if arguments.network else None
    rows += node.rows(arguments.only, networks, arguments.turns)
    print(table(rows))
    if arguments.json:
        figures = [
            {
                'task': r.task,
                'ours_ms': r.ours_ms,
                'goal_ms': r.goal_ms,
                'others_ms': dict(r.others_ms),
            }
            for r in rows
        ]
        arguments.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    return 0 if all(row.ours_ms <= row.goal_ms for row in rows) else 1


if __name__ == '__main__':
    sys.exit(main())

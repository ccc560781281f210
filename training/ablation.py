"""Lidar networks that learn from ever more varied scans: `python -m training.ablation --stage a`.

What variation is worth on real scans is shown by networks that differ in nothing else: the same
seed, the same number of steps, no choice of weights by validation. Stage by stage the recipe of
--config gets what the stages before had and one thing more; the last one is the recipe itself.
`benchmarks.transfer_curve` sets them beside each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from training import sitting
from training.recipe import parse
from training.train import run

STAGES: Mapping[str, str] = {
    'a': 'one lidar, scenes as they are',
    'b': '+ lidars of 32 to 128 rings',
    'c': '+ shapes, ground, mounting',
    'd': '+ pasted bodies',
    'e': '+ losses and weather',
}
"""{stage: what it adds}."""
LIDAR = 'roof64'
"""The lidar of the first stage: that of the simulator's own vehicle."""
NEVER = 1e9
"""Seconds from one look at the held-out scenes to the next: only the last one is left."""


def stage(recipe: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The keys of a recipe, without what later stages than `name` add.

    Raises:
        ValueError: there is no such stage.
    """
    if name not in STAGES:
        raise ValueError(f'stage {name!r}: expected one of {", ".join(STAGES)}')
    had = list(STAGES)[: list(STAGES).index(name) + 1]
    values = dict(recipe)
    values['name'] = f'ablation_{name}'
    values['validation'] = {**recipe.get('validation', {}), 'seconds': NEVER, 'patience': 0}
    variation = dict(recipe['variation'])
    loss = variation.pop('loss', {})
    if 'b' not in had:
        values['lidar'] = LIDAR
    values['variation'] = variation if 'c' in had else {}
    if 'd' not in had:
        values['paste'] = 0
    if 'e' in had:
        values['variation'] = {**variation, 'loss': loss}
    return values


def main() -> None:
    """Trains one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='training/centerpoint.yaml')
    parser.add_argument('--stage', required=True, choices=STAGES, help='see training/README.md')
    sitting.add_options(parser, 'output/ablation', 100)
    parser.set_defaults(fresh_schedule=False)
    parser.add_argument('--compile', action='store_true', help='torch.compile the dense network')
    options = parser.parse_args()
    values = yaml.safe_load(Path(options.config).read_text(encoding='utf-8'))
    values |= {
        key: yaml.safe_load(value) for key, value in (item.split('=', 1) for item in options.set)
    }
    run(parse(stage(values, options.stage), options.config), Path(options.out), options)


if __name__ == '__main__':
    main()

"""An error analysis as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.error_figures import GOAL, NOTHING
from benchmarks.oracle import KINDS

MOST = 8
"""Causes of false alarms that are shown."""


def text(model: str, figures: Mapping[str, Any]) -> str:
    """Tables of one network, costs in mAP points."""
    parts = [
        _kinds(model, figures),
        _classes(figures['classes']),
        *(_missed(key, rows) for key, rows in figures['missed'].items()),
        _background(figures['background']) if 'large' in figures else [],
        _confused(figures['confused']),
        _people(figures.get('people to 30 m', {}), figures.get('people', {})),
        _large(figures.get('large', {})),
        [largest(figures)],
    ]
    return '\n\n'.join('\n'.join(lines) for lines in parts if lines) + '\n'


def largest(figures: Mapping[str, Any]) -> str:
    """The kind of mistake that costs most, and of which classes most of it is."""
    kind = max(KINDS, key=lambda name: figures['alone'][name])
    classes = figures['classes']
    own = sorted(classes, key=lambda name: -classes[name]['alone'][kind])[:3]
    share = ', '.join(f'{name} {_points(classes[name]["alone"][kind])}' for name in own)
    return (
        f'largest loss: {kind}, {_points(figures["alone"][kind])} mAP points alone; points of AP '
        f'by class: {share}'
    )


def _kinds(model: str, figures: Mapping[str, Any]) -> list[str]:
    whole, cut = figures['map'], figures['at the thresholds']
    lines = [
        f'{model}: {figures["frames"]} frames, mAP {_points(whole)}; cut off at the thresholds '
        f'of the card {_points(cut)} ({_points(cut - whole, sign=True)})',
        *_spread(figures),
        f'{"points of mAP lost to":<26}{"alone":>8}{"in turn":>9}',
    ]
    for kind in KINDS:
        alone, turn = figures['alone'][kind], figures['in turn'][kind]
        lines.append(f'{kind:<26}{_points(alone):>8}{_points(turn):>9}')
    total = sum(figures['in turn'].values())
    return [*lines, f'{"all":<26}{"":>8}{_points(total):>9}']


def _spread(figures: Mapping[str, Any]) -> list[str]:
    """Standard errors over seeds, and aprons and streets apart, where they were measured."""
    lines = []
    if 'error of map' in figures:
        whole, cut = figures['error of map'], figures['error of at the thresholds']
        lines.append(
            f'standard errors over seeds: {_points(whole)}, at the thresholds {_points(cut)}'
        )
    for name in ('aprons', 'streets'):
        if name in figures:
            whole, cut = figures[name]['map'], figures[name]['at the thresholds']
            lines.append(f'{name} alone: {_points(whole)}, at the thresholds {_points(cut)}')
    return lines


def _classes(classes: Mapping[str, Any]) -> list[str]:
    short = [kind.split()[0] for kind in KINDS]
    lines = [f'{"class":<18}{"objects":>8}{"AP":>7}' + ''.join(f'{k:>11}' for k in short)]
    for name, item in classes.items():
        cells = ''.join(f'{_points(item["alone"][kind]):>11}' for kind in KINDS)
        lines.append(f'{name:<18}{item["objects"]:>8}{_points(item["ap"]):>7}{cells}')
    return lines


def _missed(key: str, rows: Mapping[str, Any]) -> list[str]:
    lines = [f'{"missed, by " + key:<26}{"points":>8}{"missed":>8}{"of":>8}']
    for name, item in rows.items():
        lines.append(f'{name:<26}{_points(item["cost"]):>8}{item["missed"]:>8}{item["asked"]:>8}')
    return lines


def _background(rows: Mapping[str, Any]) -> list[str]:
    lines = [f'{"false alarms, on":<40}{"points":>8}{"alarms":>8}']
    for name, item in list(rows.items())[:MOST]:
        lines.append(f'{name:<40}{_points(item["cost"]):>8}{item["alarms"]:>8.0f}')
    return lines


def _confused(table: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Rows: what is there; columns: what it is called, at the thresholds."""
    names = [name for name in table if name != NOTHING]
    columns: Sequence[str] = [*names, NOTHING]
    lines = [f'{"there, called":<18}' + ''.join(f'{name[:9]:>10}' for name in columns)]
    for name in (*names, NOTHING):
        if any(table[name].values()):
            cells = ''.join(f'{table[name].get(other, 0):>10}' for other in columns)
            lines.append(f'{name:<18}{cells}')
    return lines


def _people(groups: Mapping[str, Any], detail: Mapping[str, Mapping[str, int]]) -> list[str]:
    labels = {'all': 'all', 'enough': 'with 5 points or more'}
    lines = [
        f'people to 30 m, {labels.get(key, key)}: recall {item["recall"]:.3f} of {item["asked"]} '
        f'at one false alarm in ten frames (goal 0.95)'
        for key, item in groups.items()
    ]
    if lines and detail:
        asked, found = detail['asked'], detail['found']
        shares = ', '.join(f'{label} {found[label]} of {asked[label]}' for label in asked)
        first = ', '.join(f'{name} {count}' for name, count in detail['alarms'].items())
        lines += [f'  found, by points: {shares}', f'  first false alarms: {first}']
    return lines


def _large(rows: Mapping[str, Any]) -> list[str]:
    if not rows:
        return []
    keys = ('centre', 'centre, median', 'forward', 'along', 'across', 'length')
    heads = ('centre', 'median', 'forward', '|along|', '|across|', 'length')
    lines = [
        f'{"found within 4 m, metres":<26}{"found":>7}{"of":>6}'
        + ''.join(f'{head:>9}' for head in heads)
        + f'{f"<= {GOAL:g}":>8}{"wrong way":>11}'
    ]
    for name, item in rows.items():
        cells = ''.join(f'{item[key]:>9.2f}' for key in keys)
        lines.append(
            f'{name:<26}{item["found"]:>7}{item["objects"]:>6}{cells}'
            f'{item["within the goal"]:>8.0%}{item["wrong way"]:>11.0%}'
        )
    return lines


def _points(value: float, sign: bool = False) -> str:
    if math.isnan(value):
        return '-'
    return f'{100 * value:+.1f}' if sign else f'{100 * value:.1f}'

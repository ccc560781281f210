"""What a rewrite did, as text and for JSON."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from airside_perception.deploy.lint import Lint
from airside_perception.deploy.rewrite import NOTHING, Rewritten, Step

MOST_CHANGES = 4


def describe(done: Rewritten, title: str, note: str = '') -> str:
    """As text.

    Args:
        title: first line.
        note: last line, where there is one.
    """
    lines = [title]
    for step in done.steps:
        lines += _step(step) if step.outcome != NOTHING else []
    idle = [step.name for step in done.steps if step.outcome == NOTHING]
    if idle:
        lines.append(f'  nothing to do  {", ".join(idle)}')
    before, after = done.before, done.after
    lines += [
        f'  outputs        largest relative error of all passes together '
        f'{_error(done.error, done.noise)}',
        f'  illegal nodes  {len(before.illegal)} -> {len(after.illegal)}',
        f'  on the DLA     {_share(before)} -> {_share(after)}',
        f'  subgraphs      {before.subgraphs} -> {after.subgraphs}, transfers '
        f'{before.transfers} -> {after.transfers}',
    ]
    if after.conditional:
        rules = Counter(verdict.rule for verdict in after.conditional)
        kinds = ', '.join(f'{rule} ({count})' for rule, count in sorted(rules.items()))
        lines.append(f'  conditional    {len(after.conditional)}: {kinds}; see `engine lint`')
    for verdict in after.illegal:
        lines.append(
            f'  left           {verdict.name} ({verdict.op_type}) {verdict.verdict}: '
            f'{verdict.value}, the limit is: {verdict.limit}'
        )
    return '\n'.join([*lines, *([f'  note           {note}'] if note else [])])


def as_dict(done: Rewritten) -> dict[str, Any]:
    """For JSON."""
    return {
        'steps': [step.as_dict() for step in done.steps],
        'error': done.error if math.isfinite(done.error) else 'infinite',
        'noise': done.noise,
        'legal': done.legal,
        'before': _lint(done.before),
        'after': _lint(done.after),
    }


def _step(step: Step) -> list[str]:
    error = '' if step.error is None else f', error {_error(step.error, step.noise)}'
    lines = [f'  {step.name:14} {step.outcome}{error}']
    if step.reason:
        lines.append(f'{"":17}{step.reason}')
    lines += [f'{"":17}{change}' for change in step.changes[:MOST_CHANGES]]
    if len(step.changes) > MOST_CHANGES:
        lines.append(f'{"":17}and {len(step.changes) - MOST_CHANGES} more')
    return lines


def _error(error: float, noise: float) -> str:
    return f'{error:.1e}' + (f' (rounding alone: {noise:.1e})' if noise else '')


def _share(found: Lint) -> str:
    return f'{found.layer_share:.1%} of layers, {found.flop_share:.1%} of FLOPs'


def _lint(found: Lint) -> dict[str, Any]:
    return {
        'illegal': [
            {'name': v.name, 'op_type': v.op_type, 'verdict': v.verdict, 'rule': v.rule,
             'value': v.value, 'limit': v.limit}
            for v in found.illegal
        ],
        'conditional': len(found.conditional),
        'layer_share': found.layer_share,
        'certain_layer_share': found.certain_layer_share,
        'flop_share': found.flop_share,
        'subgraphs': found.subgraphs,
        'transfers': found.transfers,
    }  # fmt: skip

"""A checklist as text for a terminal and as Markdown for a release."""

from __future__ import annotations

import re
import textwrap

from airside_perception.deploy.checklist.items import Checklist
from airside_perception.deploy.checklist.outcome import FAILED, PASSED, UNKNOWN

MARKS = {PASSED: 'passed', FAILED: 'FAILED', UNKNOWN: '-'}
BOXES = {PASSED: '[x]', FAILED: '[ ]', UNKNOWN: '[ ]'}
WIDTH = 96


def as_text(found: Checklist) -> str:
    """For a terminal."""
    lines: list[str] = []
    group = ''
    for item, outcome in found.outcomes:
        if item.group != group:
            group = item.group
            lines += ['', group]
        lines.append(f'  {MARKS[outcome.status]:<7} {item.title}')
        lines += [f'            {line}' for line in outcome.evidence]
        if outcome.reason:
            lines += textwrap.wrap(
                outcome.reason, WIDTH, initial_indent=' ' * 12, subsequent_indent=' ' * 12,
                break_long_words=False,
            )  # fmt: skip
        if outcome.command:
            lines.append(f'            -> {outcome.command}')
    return '\n'.join([*lines[1:], '', _summary(found)])


def as_markdown(found: Checklist) -> str:
    """For a release: a box for each item, with its evidence below."""
    lines = ['# Deployment checklist', '', _summary(found)]
    group = ''
    for item, outcome in found.outcomes:
        if item.group != group:
            group = item.group
            lines += ['', f'## {group}', '']
        state = '' if outcome.status == PASSED else f': *{outcome.status}*'
        reason = f': {_plain(outcome.reason)}' if outcome.reason else ''
        lines.append(f'- {BOXES[outcome.status]} **{_plain(item.title)}**{state}{reason}')
        lines += [f'  - {_plain(line)}' for line in outcome.evidence]
        if outcome.command:
            lines.append(f'  - to do: `{outcome.command}`')
    return '\n'.join(lines).rstrip() + '\n'


def _summary(found: Checklist) -> str:
    counts = found.counts
    return (
        f'{counts[PASSED]} of {len(found.outcomes)} passed, {counts[FAILED]} failed, '
        f'{counts[UNKNOWN]} cannot be checked here.'
    )


def _plain(text: str) -> str:
    """Text in which Markdown sees no marks; underscores within words are none."""
    return ' '.join(re.sub(r'([\\`*\[\]<>|]|(?<!\w)_|_(?!\w))', r'\\\1', text).split())

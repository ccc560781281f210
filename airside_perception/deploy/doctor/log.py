"""Recognising failures in a log, in what came from a pipe, or in the text of an exception."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from airside_perception.deploy.doctor.facts import machine_facts
from airside_perception.deploy.doctor.failures import Failure, known_failures
from airside_perception.errors import ConfigError

STDIN = '-'
COLOUR = re.compile('\x1b\\[[0-9;]*m')
REPORTS = re.compile(r'\[E\]|\bERROR\b|\bFATAL\b|^\w*(Error|Exception): |^engine: ')
"""What lines look like that report an error, whatever it is."""
CONTEXT = re.compile(r'While parsing node|--- (Begin|End) node|^Traceback|In node -?\d+ with name')
"""Lines that only lead to the one that says it."""
MOST_UNKNOWN = 5
LONGEST = 2000
"""Characters of a line that are looked at: dumps of weights are longer and say no more."""
WIDTH = 160


@dataclass
class Finding:
    """A failure that was recognised.

    Attributes:
        failure: which.
        line: number of the first line that reports it, from 1.
        text: that line.
        count: lines that report it.
    """

    failure: Failure
    line: int
    text: str
    count: int = 1


@dataclass(frozen=True)
class Diagnosis:
    """What a log reports.

    Attributes:
        origin: the file; `-`: standard input.
        lines: how many there were.
        findings: likeliest cause first: causes before their consequences, errors before warnings.
        unknown: (line number, text) of the first errors that are not recognised.
        facts: what holds on this machine, see `machine_facts`.
    """

    origin: str
    lines: int
    findings: tuple[Finding, ...]
    unknown: tuple[tuple[int, str], ...]
    facts: frozenset[str] = field(default=frozenset())

    @property
    def good(self) -> bool:
        """Whether there is no error in it; warnings may be."""
        return not self.unknown and all(item.failure.severity != 'error' for item in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            'log': self.origin,
            'lines': self.lines,
            'good': self.good,
            'findings': [
                {
                    'name': item.failure.name,
                    'what': item.failure.what,
                    'severity': item.failure.severity,
                    'line': item.line,
                    'text': item.text,
                    'count': item.count,
                    'cause': item.failure.cause,
                    'fix': list(item.failure.steps(self.facts)),
                    'source': item.failure.source,
                }
                for item in self.findings
            ],
            'not_recognised': [{'line': line, 'text': text} for line, text in self.unknown],
        }


def diagnose(log: str | Path, stdin: TextIO | None = None) -> Diagnosis:
    """Reads a log and recognises what it reports.

    Args:
        log: a text file, or `-` for standard input.
        stdin: in place of `sys.stdin`.

    Raises:
        ConfigError: there is no such file, it is empty, or it is not text.
    """
    if str(log) == STDIN:
        return recognise(stdin or sys.stdin, STDIN)
    try:
        with Path(log).open('rb') as start:
            if b'\0' in start.read(4096):
                raise ConfigError(
                    f'{log}: not a text; engine inspect looks into networks and engines'
                )
        with Path(log).open(encoding='utf-8', errors='replace') as file:
            return recognise(file, str(log))
    except OSError as error:
        raise ConfigError(f'{log}: cannot be read: {error.strerror}') from error


def recognise(
    text: str | Iterable[str], origin: str = 'text', facts: Collection[str] | None = None
) -> Diagnosis:
    """Recognises failures in text.

    Args:
        text: at once, e.g. of an exception, or line by line.
        origin: where it is from.
        facts: what holds on the machine; None: those of this one.

    Raises:
        ConfigError: there is nothing in it.
    """
    failures = known_failures()
    quick = re.compile('|'.join(f'(?:{item.pattern.pattern})' for item in failures), re.IGNORECASE)
    found: dict[str, Finding] = {}
    unknown: list[tuple[int, str]] = []
    number = 0
    for number, raw in enumerate(text.splitlines() if isinstance(text, str) else text, 1):
        line = COLOUR.sub('', raw[:LONGEST]).strip()
        matches = [f for f in failures if f.pattern.search(line)] if quick.search(line) else []
        for failure in matches:
            if failure.name in found:
                found[failure.name].count += 1
            else:
                found[failure.name] = Finding(failure, number, line)
        if not matches and len(unknown) < MOST_UNKNOWN and _reports(line):
            unknown.append((number, line))
    if not number:
        raise ConfigError(f'{origin}: it is empty, there is nothing to look at')
    return Diagnosis(
        origin,
        number,
        tuple(sorted(found.values(), key=_rank)),
        tuple(unknown),
        machine_facts() if facts is None else frozenset(facts),
    )


def describe_diagnosis(found: Diagnosis) -> str:
    """A diagnosis as text."""
    if not found.findings and not found.unknown:
        return f'{found.origin}: {found.lines} lines, no failure that is known here'
    lines = []
    for item in found.findings:
        failure = item.failure
        times = f' ({item.count} times)' if item.count > 1 else ''
        lines += [
            f'{failure.severity}: {failure.what}{times}',
            f'  line {item.line:<7}{_short(item.text)}',
            f'  cause       {failure.cause}',
            *(f'  {"fix" if not n else "":<12}{s}' for n, s in _numbered(failure, found.facts)),
            f'  source      {failure.source}',
            '',
        ]
    if found.unknown:
        lines.append('errors that are not recognised:')
        lines += [f'  line {line:<7}{_short(text)}' for line, text in found.unknown]
    return '\n'.join(lines).rstrip()


def _reports(line: str) -> bool:
    return bool(REPORTS.search(line)) and not CONTEXT.search(line)


def _numbered(failure: Failure, facts: Collection[str]) -> list[tuple[int, str]]:
    return list(enumerate(failure.steps(facts)))


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f'{text[: WIDTH - 4]} ...'


def _rank(item: Finding) -> tuple[bool, bool, int]:
    """Causes first; then errors; then what was reported first."""
    return item.failure.follows, item.failure.severity != 'error', item.line

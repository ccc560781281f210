"""The failures that are known, as data: `deploy/failures.yaml`."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from airside_perception.errors import ConfigError

FILE = 'failures.yaml'
SEVERITIES = ('error', 'warning')
KEYS = ('name', 'what', 'pattern', 'severity', 'cause', 'fix', 'source', 'example')


@dataclass(frozen=True)
class Step:
    """One step of a cure.

    Attributes:
        do: what to do, with the command.
        needs: a fact about the machine that must hold; empty: none.
        excludes: one that must not.
    """

    do: str
    needs: str = ''
    excludes: str = ''

    def applies(self, facts: Collection[str]) -> bool:
        """Whether it is of use where these facts hold."""
        return (not self.needs or self.needs in facts) and self.excludes not in facts


@dataclass(frozen=True)
class Failure:
    """A failure that can be recognised.

    Attributes:
        name: short, unique.
        what: what it is.
        pattern: found in lines that report it.
        severity: error or warning.
        follows: only a consequence of another failure.
        cause: why it happens.
        fix: what helps, first things first.
        source: where it is documented or was seen.
        example: lines that report it.
        seen: False where the example was made up after the source.
    """

    name: str
    what: str
    pattern: re.Pattern[str]
    severity: str
    follows: bool
    cause: str
    fix: tuple[Step, ...]
    source: str
    example: str
    seen: bool

    def steps(self, facts: Collection[str]) -> tuple[str, ...]:
        """What helps on a machine where these facts hold."""
        return tuple(step.do for step in self.fix if step.applies(facts))


@functools.cache
def known_failures() -> tuple[Failure, ...]:
    """All failures, in the order of the file.

    Raises:
        ConfigError: the file of this package is damaged.
    """
    text = files('airside_perception.deploy').joinpath(FILE).read_text(encoding='utf-8')
    try:
        found = tuple(map(read_failure, yaml.safe_load(text)))
    except (yaml.YAMLError, TypeError) as error:
        raise ConfigError(f'{FILE}: {error}') from error
    names = [item.name for item in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f'{FILE}: {twice[0]} is there twice')
    return found


def read_failure(entry: Mapping[str, Any]) -> Failure:
    """One entry of the file.

    Raises:
        ConfigError: a key is missing, or a value is not what it should be.
    """
    name = entry.get('name', '?')
    missing = [key for key in KEYS if not entry.get(key)]
    if missing:
        raise ConfigError(f'{FILE}: {name} has no {missing[0]}')
    if entry['severity'] not in SEVERITIES:
        raise ConfigError(f'{FILE}: {name}: severity {entry["severity"]!r} is not an error')
    try:
        pattern = re.compile(entry['pattern'], re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f'{FILE}: {name}: pattern: {error}') from error
    return Failure(
        name=name,
        what=entry['what'],
        pattern=pattern,
        severity=entry['severity'],
        follows=bool(entry.get('follows', False)),
        cause=' '.join(entry['cause'].split()),
        fix=tuple(map(_step, entry['fix'])),
        source=entry['source'],
        example=entry['example'],
        seen=bool(entry.get('seen', True)),
    )


def _step(item: Any) -> Step:
    if isinstance(item, str):
        return Step(item)
    return Step(item['do'], item.get('if', ''), item.get('unless', ''))

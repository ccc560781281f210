"""The rules of one JetPack generation, read from its YAML and those that it extends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from airside_perception.deploy.lint.checks import COMPARISONS, Comparison
from airside_perception.errors import ConfigError

PACKAGE = 'airside_perception.deploy.rules'
TARGETS = ('dla', 'gpu')
VERDICTS = ('runs', 'conditional', 'falls back', 'refused')
"""From good to bad."""
KEYS = {
    'scope', 'target', 'ops', 'except', 'when', 'fact', 'or_equal', 'verdict', 'says', 'fix',
    'sources',
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """What a fact must be.

    Attributes:
        fact: name in `facts.FACTS`.
        comparison: name in `checks.COMPARISONS`.
        limits: of the comparison.
        or_equal: whole values that are allowed besides.
    """

    fact: str
    comparison: str
    limits: Any
    or_equal: tuple[Any, ...] = ()

    @property
    def compare(self) -> Comparison:
        """The comparison itself."""
        return COMPARISONS[self.comparison]


@dataclass(frozen=True)
class Rule:
    """One limit.

    Attributes:
        name: key in the YAML.
        targets: of 'dla' and 'gpu'.
        scope: 'node' or 'network'.
        ops: operators it is for; empty: any.
        excepted: operators it is not for.
        condition: what must hold.
        when: where one of these does not hold, the rule is silent.
        verdict: of a node that breaks it.
        says: the limit in words.
        fix: what to do.
        sources: where the limit is written.
    """

    name: str
    targets: tuple[str, ...]
    scope: str
    ops: frozenset[str]
    excepted: frozenset[str]
    condition: Condition
    when: tuple[Condition, ...]
    verdict: str
    says: str
    fix: str
    sources: tuple[str, ...]

    def is_for(self, op_type: str) -> bool:
        """Whether it says anything of this operator."""
        return (not self.ops or op_type in self.ops) and op_type not in self.excepted


@dataclass(frozen=True)
class Table:
    """The rules of a generation.

    Attributes:
        jetpack: as it was asked for.
        tensorrt: version.
        dla: whether it has DLA.
        no_dla: why not, and what to do.
        notes: what holds for every network.
    """

    jetpack: str
    tensorrt: str
    dla: bool
    no_dla: str
    notes: tuple[str, ...]
    rules: tuple[Rule, ...] = field(repr=False)

    def of(self, target: str, scope: str) -> tuple[Rule, ...]:
        """The rules for a target, of nodes or of the whole network."""
        return tuple(r for r in self.rules if target in r.targets and r.scope == scope)


def generations() -> tuple[str, ...]:
    """The JetPack versions that have a table, one for each table."""
    names = (item.name for item in files(PACKAGE).iterdir())
    found = [name[: -len('.yaml')] for name in names if name.endswith('.yaml')]
    return tuple(sorted(found, key=lambda name: [int(part) for part in name.split('.')]))


@cache
def load_table(jetpack: str) -> Table:
    """The table of a JetPack version.

    Raises:
        ConfigError: there is none, or its YAML is broken.
    """
    for name in generations():
        if jetpack in _document(name).get('jetpacks', ()):
            return _table(jetpack, name)
    raise ConfigError(
        f'jetpack {jetpack!r}: there are rules for {", ".join(generations())}; '
        'a version between two of them follows the older one'
    )


def _document(name: str) -> dict[str, Any]:
    text = files(PACKAGE).joinpath(f'{name}.yaml').read_text(encoding='utf-8')
    return dict(yaml.safe_load(text))


def _merged(name: str) -> dict[str, Any]:
    """A document laid over what it extends: rules and sources by name, key by key."""
    own = _document(name)
    if 'extends' not in own:
        return own
    base = _merged(own['extends'])
    rules = dict(base['rules'])
    for key, change in own.get('rules', {}).items():
        if change is None:
            rules.pop(key)
        else:
            rules[key] = _laid_over(rules.get(key, {}), change)
    sources = {**base['sources'], **own.get('sources', {})}
    return {**base, 'no_dla': '', **own, 'rules': rules, 'sources': sources}


def _laid_over(rule: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A changed rule; another comparison takes the place of the old one."""
    kept = dict(rule)
    if any(key in COMPARISONS for key in change):
        kept = {key: value for key, value in kept.items() if key not in COMPARISONS}
    return {**kept, **change}


def _table(jetpack: str, name: str) -> Table:
    whole = _merged(name)
    return Table(
        jetpack=jetpack,
        tensorrt=str(whole['tensorrt']),
        dla=bool(whole['dla']),
        no_dla=whole.get('no_dla', ''),
        notes=tuple(whole.get('notes', ())),
        rules=tuple(_rule(key, text, whole['sources']) for key, text in whole['rules'].items()),
    )


def _rule(name: str, text: Mapping[str, Any], sources: Mapping[str, str]) -> Rule:
    unknown = set(text) - KEYS - set(COMPARISONS)
    if unknown:
        raise ConfigError(f'rule {name}: unknown key {sorted(unknown)[0]!r}')
    try:
        condition = _condition(name, text, text['fact'], text.get('or_equal', ()))
        when = tuple(_condition(name, to, fact) for fact, to in text.get('when', {}).items())
        target = text['target']
        ops = text.get('ops', 'any')
        return Rule(
            name=name,
            targets=TARGETS if target == 'any' else (target,),
            scope=text.get('scope', 'node'),
            ops=frozenset() if ops == 'any' else frozenset(ops),
            excepted=frozenset(text.get('except', ())),
            condition=condition,
            when=when,
            verdict=_verdict(name, text.get('verdict', 'falls back')),
            says=text.get('says') or _in_words(condition),
            fix=text['fix'],
            sources=tuple(sources[key] for key in text['sources']),
        )
    except KeyError as error:
        raise ConfigError(f'rule {name}: {error} is missing') from error


def _condition(
    name: str, text: Mapping[str, Any], fact: str, or_equal: tuple[Any, ...] = ()
) -> Condition:
    found = [key for key in text if key in COMPARISONS]
    if len(found) != 1:
        raise ConfigError(f'rule {name}: one comparison is needed, found {found}')
    return Condition(fact, found[0], text[found[0]], tuple(map(_value, or_equal)))


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _verdict(name: str, verdict: str) -> str:
    if verdict not in VERDICTS:
        raise ConfigError(f'rule {name}: verdict {verdict!r}: expected {", ".join(VERDICTS)}')
    return verdict


def _in_words(condition: Condition) -> str:
    limits = condition.limits
    fact = condition.fact.replace('_', ' ')
    if condition.comparison == 'within':
        return f'{fact} {limits[0]} to {limits[1]}'
    if condition.comparison == 'one_of':
        return f'{fact} {", ".join(map(str, limits))}'
    return f'{fact} {condition.comparison.replace("_", " ")} {limits}'

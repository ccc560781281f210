"""What came of one item: passed with evidence, failed, or not to be told here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from airside_perception.errors import ConfigError

PASSED, FAILED, UNKNOWN = 'passed', 'failed', 'cannot be checked here'


@dataclass(frozen=True)
class Outcome:
    """What came of one item.

    Attributes:
        status: `PASSED`, `FAILED` or `UNKNOWN`.
        evidence: what was seen, in lines; never empty where it passed.
        reason: why it did not pass; empty where it did.
        command: what brings the evidence or mends it; empty where it passed.
    """

    status: str
    evidence: tuple[str, ...] = ()
    reason: str = ''
    command: str = ''

    def __post_init__(self) -> None:
        if self.status == PASSED and not self.evidence:
            raise ConfigError('an item passes by evidence only')
        if self.status != PASSED and not self.reason:
            raise ConfigError(f'an item is {self.status!r} for a reason only')

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), 'evidence': list(self.evidence)}


def passed(*evidence: str) -> Outcome:
    """It is so, as this shows."""
    return Outcome(PASSED, evidence)


def failed(reason: str, command: str, *evidence: str) -> Outcome:
    """It is not so."""
    return Outcome(FAILED, evidence, reason, command)


def unknown(reason: str, command: str, *evidence: str) -> Outcome:
    """It cannot be told with what is here."""
    return Outcome(UNKNOWN, evidence, reason, command)


def together(parts: Iterable[Outcome], none: Outcome) -> Outcome:
    """One outcome for several files: passed where all passed; one that failed fails all.

    Args:
        parts: of each file.
        none: where there are no files.
    """
    found = list(parts)
    if not found:
        return none
    evidence = tuple(line for part in found for line in part.evidence)
    for status in (FAILED, UNKNOWN):
        wrong = [part for part in found if part.status == status]
        if wrong:
            reason = '; '.join(dict.fromkeys(part.reason for part in wrong))
            return Outcome(status, evidence, reason, wrong[0].command)
    return Outcome(PASSED, evidence)

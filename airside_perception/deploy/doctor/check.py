"""One thing that was looked at on a machine, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, PROBLEM = 'ok', 'warning', 'problem'


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: ok, warning or problem: it keeps a node of the parameters from its work.
        found: what is there.
        fix: what to do; empty where nothing is to be done.
        details: more of what was found.
    """

    name: str
    state: str
    found: str
    fix: str = ''
    details: tuple[str, ...] = ()

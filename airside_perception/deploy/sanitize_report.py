"""What `sanitize` changed in a network, as data and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airside_perception.deploy.agreement import Agreement


@dataclass(frozen=True)
class Report:
    """What changed.

    Attributes:
        nodes: {operator: (before, after)}, those inside branches and loops too.
        dead: nodes that no output needed.
        folded: nodes that became weights, or that only those needed.
        named: nodes that had no name of their own.
        weights: (before, after), initialisers.
        unused: initialisers that no node read.
        merged: initialisers that were equal to another.
        inputs_removed: weights that were listed among the inputs.
        functions: of the model's own that were inlined.
        opset: version of the standard operators.
        bytes: (before, after), with the weights.
        agreement: how far the outputs are from those before; None: not compared.
        notes: what else there is to know, e.g. why the outputs were not compared.
    """

    nodes: Mapping[str, tuple[int, int]]
    dead: tuple[str, ...]
    folded: tuple[str, ...]
    named: int
    weights: tuple[int, int]
    unused: tuple[str, ...]
    merged: int
    inputs_removed: tuple[str, ...]
    functions: int
    opset: int
    bytes: tuple[int, int]
    agreement: Agreement | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> tuple[int, int]:
        """Nodes before and after."""
        before, after = zip(*self.nodes.values(), strict=True) if self.nodes else ((), ())
        return sum(before), sum(after)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        pair = ('before', 'after')
        return {
            'nodes': dict(zip(pair, self.count, strict=True)),
            'operators': {
                name: dict(zip(pair, counts, strict=True)) for name, counts in self.nodes.items()
            },
            'folded': list(self.folded),
            'dead': list(self.dead),
            'named': self.named,
            'weights': dict(zip(pair, self.weights, strict=True)),
            'unused_weights': list(self.unused),
            'merged_weights': self.merged,
            'inputs_removed': list(self.inputs_removed),
            'functions_inlined': self.functions,
            'opset': self.opset,
            'bytes': dict(zip(pair, self.bytes, strict=True)),
            'compared': None if self.agreement is None else self.agreement.as_dict(),
            'notes': list(self.notes),
        }

    def lines(self, outputs: bool = True) -> list[str]:
        """As text, with or without the comparison of outputs."""
        before, after = self.count
        changed = [
            f'{name} {old} -> {new}' for name, (old, new) in self.nodes.items() if old != new
        ]
        counts = {
            'folded': len(self.folded), 'dead': len(self.dead), 'named': self.named,
            'unused weights': len(self.unused), 'merged weights': self.merged,
            'weights taken off the inputs': len(self.inputs_removed),
            'functions inlined': self.functions,
        }  # fmt: skip
        said = ', '.join(f'{name} {number}' for name, number in counts.items() if number)
        return [
            f'  nodes       {before} -> {after}, opset {self.opset}'
            + (f' ({said})' if said else ''),
            *([f'  operators   {", ".join(changed)}'] if changed else []),
            f'  size        {self.bytes[0]:,} -> {self.bytes[1]:,} bytes, '
            f'{self.weights[0]} -> {self.weights[1]} weights',
            *(
                f'  outputs     {line}'
                for line in (self.agreement.lines() if self.agreement and outputs else ())
            ),
            *(f'  note        {note}' for note in self.notes),
        ]

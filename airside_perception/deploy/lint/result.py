"""What lint found: a verdict for every node, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from airside_perception.deploy.lint.placement import Transfer

ILLEGAL = ('falls back', 'refused')


@dataclass(frozen=True)
class Finding:
    """A rule that a node breaks.

    Attributes:
        rule: its name in the table.
        verdict: 'conditional', 'falls back' or 'refused'.
        limit: what the rule says.
        value: what was found.
        fix: what to do.
        source: where the limit is written.
    """

    rule: str
    verdict: str
    limit: str
    value: str
    fix: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of a node.

    Attributes:
        name: of the node; one without a name is called by operator and place: `Conv_7`.
        verdict: 'runs'; 'conditional' (it depends on what the network does not say, or sources
            disagree); 'falls back' (to the GPU); 'refused' (no engine).
        rule, limit, value, fix, source: of the worst finding; empty where it runs.
        flops: of one run, see `flops.flops`.
        layer: False for what is folded into a constant or removed: no layer of the engine.
        device: 'dla' or 'gpu': where it is predicted to run; '' for what is no layer or refused.
            A conditional layer is taken to run on its target.
        also: the other findings.
    """

    name: str
    op_type: str
    verdict: str = 'runs'
    rule: str = ''
    limit: str = ''
    value: str = ''
    fix: str = ''
    source: str = ''
    flops: int = 0
    layer: bool = True
    device: str = ''
    also: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every rule that the node breaks, the worst first."""
        if self.verdict == 'runs':
            return ()
        worst = Finding(self.rule, self.verdict, self.limit, self.value, self.fix, self.source)
        return (worst, *self.also)


@dataclass(frozen=True)
class Lint:
    """A network against the rules of a target.

    Attributes:
        target: 'dla' or 'gpu'.
        tensorrt: version of the JetPack.
        batch: at which shapes and FLOPs are meant.
        verdicts: of every node, in the order of the graph.
        network: findings about the network as a whole.
        groups: names of the layers of each subgraph on DLA.
        crossings: tensors that cross between DLA and GPU.
        loadable_limit: subgraphs that fit on one DLA core.
        notes: what holds for every network on this JetPack.
    """

    target: str
    jetpack: str
    tensorrt: str
    batch: int
    precision: str
    verdicts: tuple[Verdict, ...]
    network: tuple[Verdict, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    crossings: tuple[Transfer, ...] = ()
    loadable_limit: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def illegal(self) -> tuple[Verdict, ...]:
        """What falls back or is refused; of the whole network first."""
        return tuple(v for v in (*self.network, *self.verdicts) if v.verdict in ILLEGAL)

    @property
    def conditional(self) -> tuple[Verdict, ...]:
        """What may run."""
        return tuple(v for v in (*self.network, *self.verdicts) if v.verdict == 'conditional')

    @property
    def good(self) -> bool:
        """Whether nothing falls back or is refused."""
        return not self.illegal

    @property
    def layers(self) -> tuple[Verdict, ...]:
        """The verdicts of the nodes that become layers."""
        return tuple(verdict for verdict in self.verdicts if verdict.layer)

    @property
    def layer_share(self) -> float:
        """Share of the layers that run on the target, 0 to 1; conditional ones count."""
        return _share([v.device == self.target for v in self.layers], [1] * len(self.layers))

    @property
    def certain_layer_share(self) -> float:
        """Share of the layers that run on the target for certain."""
        return _share([v.verdict == 'runs' for v in self.layers], [1] * len(self.layers))

    @property
    def flop_share(self) -> float:
        """Share of the FLOPs that run on the target, 0 to 1; conditional ones count."""
        return _share(
            [v.device == self.target for v in self.layers], [v.flops for v in self.layers]
        )

    @property
    def flops(self) -> int:
        """Of one run."""
        return sum(verdict.flops for verdict in self.layers)

    @property
    def transfers(self) -> int:
        """Tensors that cross between DLA and GPU; inputs and outputs of the network do not."""
        return len(self.crossings)

    @property
    def transfer_bytes(self) -> int:
        """Bytes that cross, in the precision of the engine."""
        return sum(crossing.bytes for crossing in self.crossings)

    @property
    def subgraphs(self) -> int:
        """Loadables on DLA."""
        return len(self.groups)

    def as_dict(self) -> Mapping[str, Any]:
        """Everything, for JSON."""
        return {
            'target': self.target,
            'jetpack': self.jetpack,
            'tensorrt': self.tensorrt,
            'batch': self.batch,
            'precision': self.precision,
            'good': self.good,
            'layers': len(self.layers),
            'layer_share': self.layer_share,
            'certain_layer_share': self.certain_layer_share,
            'flops': self.flops,
            'flop_share': self.flop_share,
            'transfers': self.transfers,
            'transfer_bytes': self.transfer_bytes,
            'subgraphs': self.subgraphs,
            'loadable_limit': self.loadable_limit,
            'groups': self.groups,
            'crossings': [asdict(crossing) for crossing in self.crossings],
            'notes': self.notes,
            'network': [asdict(verdict) for verdict in self.network],
            'verdicts': [asdict(verdict) for verdict in self.verdicts],
        }


def _share(chosen: list[bool], sizes: list[int]) -> float:
    whole = sum(sizes)
    return sum(size for yes, size in zip(chosen, sizes, strict=True) if yes) / (whole or 1)

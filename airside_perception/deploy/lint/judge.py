"""Every node against the rules of its target."""

from __future__ import annotations

from typing import Any

import onnx

from airside_perception.deploy.lint.checks import shown
from airside_perception.deploy.lint.facts import FACTS, Subject, Unknown
from airside_perception.deploy.lint.flops import flops
from airside_perception.deploy.lint.network import Network, Node
from airside_perception.deploy.lint.placement import groups, transfers
from airside_perception.deploy.lint.result import Finding, Lint, Verdict
from airside_perception.deploy.lint.table import (
    TARGETS,
    VERDICTS,
    Condition,
    Rule,
    Table,
    load_table,
)
from airside_perception.errors import ConfigError, RefusalError

WHOLE = '(network)'
PRECISIONS = ('fp32', 'fp16', 'int8')


def lint(
    model: onnx.ModelProto, target: str, jetpack: str, batch: int = 1, precision: str = 'fp16'
) -> Lint:
    """Says of every node whether it runs.

    Args:
        model: ONNX with its weights.
        target: 'dla' or 'gpu'.
        jetpack: version that has a table, such as '6.2'.
        batch: what a free first dimension of the inputs becomes.
        precision: fp16 or int8; fp32 on the GPU.

    Raises:
        ConfigError: no such target, JetPack or precision.
        EngineError: an input without a rank, or shapes that contradict one another.
        RefusalError: this JetPack has no DLA.
    """
    if target not in TARGETS:
        raise ConfigError(f'target {target!r}: expected {" or ".join(TARGETS)}')
    if precision not in PRECISIONS:
        raise ConfigError(f'precision {precision!r}: expected {", ".join(PRECISIONS)}')
    table = load_table(jetpack)
    if target == 'dla' and not table.dla:
        raise RefusalError(
            f'JetPack {jetpack} (TensorRT {table.tensorrt}) has no DLA: {table.no_dla}'
        )
    return _judged(Network(model, batch), table, target, batch, precision)


def _judged(network: Network, table: Table, target: str, batch: int, precision: str) -> Lint:
    rules = table.of(target, 'node')
    verdicts = tuple(
        _verdict(Subject(network, precision, node), node, rules, target) for node in network.nodes
    )
    dla = {v.name for v in verdicts if v.device == 'dla'}
    gpu = {v.name for v in verdicts if v.device == 'gpu'}
    subgraphs = groups(network, dla)
    whole = Subject(network, precision, loadables=len(subgraphs))
    broken = [f for f in (_broken(whole, rule) for rule in table.of(target, 'network')) if f]
    return Lint(
        target=target,
        jetpack=table.jetpack,
        tensorrt=table.tensorrt,
        batch=batch,
        precision=precision,
        verdicts=verdicts,
        network=tuple(_with((finding,), WHOLE, '') for finding in broken),
        groups=subgraphs,
        crossings=transfers(network, dla, precision, gpu),
        loadable_limit=_limit(table, target),
        notes=table.notes if target == 'dla' else (),
    )


def _limit(table: Table, target: str) -> int:
    found = [r for r in table.of(target, 'network') if r.condition.fact == 'loadables']
    return int(found[0].condition.limits) if found else 0


def _verdict(subject: Subject, node: Node, rules: tuple[Rule, ...], target: str) -> Verdict:
    if not node.layer:
        return Verdict(node.name, node.op_type, layer=False)
    found = [_broken(subject, rule) for rule in rules if rule.is_for(node.op_type)]
    ranked = sorted(filter(None, found), key=lambda f: -VERDICTS.index(f.verdict))
    worst = ranked[0].verdict if ranked else 'runs'
    device = {'falls back': 'gpu', 'refused': ''}.get(worst, target)
    return _with(tuple(ranked), node.name, node.op_type, flops(subject), device)


def _with(
    findings: tuple[Finding, ...], name: str, op_type: str, count: int = 0, device: str = ''
) -> Verdict:
    if not findings:
        return Verdict(name, op_type, flops=count, device=device)
    worst = findings[0]
    return Verdict(
        name, op_type, worst.verdict, worst.rule, worst.limit, worst.value, worst.fix,
        worst.source, count, True, device, findings[1:],
    )  # fmt: skip


def _broken(subject: Subject, rule: Rule) -> Finding | None:
    """The finding, where a rule does not hold; a value that is not known is conditional."""
    verdict = rule.verdict
    try:
        if not all(_holds(subject, condition)[0] for condition in rule.when):
            return None
        holds, value = _holds(subject, rule.condition)
        text = shown(value)
    except Unknown as error:
        holds, verdict, text = False, 'conditional', f'not known: {error}'
    if holds:
        return None
    return Finding(rule.name, verdict, rule.says, text, rule.fix, '; '.join(rule.sources))


def _holds(subject: Subject, condition: Condition) -> tuple[bool, Any]:
    """Whether a condition holds, and the value; a node that has no such fact is fine."""
    value = FACTS[condition.fact](subject)
    if value is None or value in condition.or_equal:
        return True, value
    limits = condition.limits
    if condition.comparison == 'below':
        limits = FACTS[limits](subject)
    return condition.compare(value, limits), value

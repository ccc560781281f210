"""What lint found, as text and as an HTML page."""

from __future__ import annotations

import textwrap
from html import escape

from airside_perception import html
from airside_perception.deploy.lint.network import Network
from airside_perception.deploy.lint.picture import kind_of, legend, picture
from airside_perception.deploy.lint.result import ILLEGAL, Finding, Lint
from airside_perception.deploy.lint.table import VERDICTS

STYLE = """
.key { margin-right: 1.25rem; white-space: nowrap; }
.swatch { display: inline-block; width: .9em; height: .9em; border: 1px solid; margin-right: .35em;
  border-radius: 2px; vertical-align: -.08em; }
.graph { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; padding: .5rem;
  text-align: center; }
.figures thead { display: none; } .figures td:first-child { width: 12rem; color: var(--soft); }
.figures { margin-bottom: .75rem; }
.findings table { table-layout: fixed; } .findings p { margin: 0 0 .25rem; }
.findings th:nth-child(1) { width: 6.5rem; } .findings th:nth-child(2) { width: 15rem; }
.findings th:nth-child(4) { width: 15rem; } .findings th:nth-child(5) { width: 16rem; }
"""
MARKS = {'conditional': 'warn', 'falls back': 'bad', 'refused': 'bad'}
SHOWN = 8


def describe(lint: Lint, path: str) -> str:
    """The findings as text, those with the same rule together."""
    lines = [f'{path}: {_target(lint)}', *(f'  {name}: {text}' for name, text in _figures(lint))]
    lines += [f'  note: {note}' for note in lint.notes]
    verdict = ''
    for finding, nodes in _by_rule(lint):
        if finding.verdict != verdict:
            verdict = finding.verdict
            lines += ['', verdict]
        lines += _entry(finding, nodes)
    return '\n'.join(lines)


def page(lint: Lint, network: Network, path: str) -> str:
    """The findings as one HTML file, with the picture of the graph.

    Args:
        network: the one that `lint` judged.
        path: of the model, for the title.
    """
    kinds = dict.fromkeys(kind_of(v) for v in lint.layers)
    order = [kind for kind in ('dla', 'gpu', 'conditional', *ILLEGAL) if kind in kinds]
    figures = [[escape(name), escape(text)] for name, text in _figures(lint)]
    parts = [
        f'<div class="figures">{html.table(["", ""], figures)}</div>',
        *(html.paragraph(note, 'soft') for note in lint.notes),
        html.section('Findings', _findings(lint)),
        html.section(
            'Graph',
            legend([*order, 'port']),
            html.paragraph(
                'Runs of layers with the same verdict are one box. Rest the pointer on a box for '
                'its nodes. Red edges cross between DLA and GPU.', 'soft',
            ),
            f'<div class="graph">{picture(network, lint)}</div>',
        ),
    ]  # fmt: skip
    return html.page(f'{path}: lint', parts, note=_target(lint), style=STYLE)


def _target(lint: Lint) -> str:
    return (
        f'{lint.target.upper()} of JetPack {lint.jetpack} (TensorRT {lint.tensorrt}), '
        f'{lint.precision}, batch {lint.batch}'
    )


def _figures(lint: Lint) -> list[tuple[str, str]]:
    where = lint.target.upper()
    bad = sum(verdict.verdict in ILLEGAL for verdict in lint.layers)
    perhaps = sum(verdict.verdict == 'conditional' for verdict in lint.layers)
    run = len(lint.layers) - bad - perhaps
    shares = (
        f'{100 * lint.layer_share:.1f} % of {len(lint.layers)} '
        f'({100 * lint.certain_layer_share:.1f} % for certain)'
    )
    found = [
        ('nodes', f'{bad} fall back or are refused, {perhaps} conditional, {run} run'),
        (f'layers on {where}', shares),
        (f'FLOPs on {where}', f'{100 * lint.flop_share:.1f} % of {lint.flops / 1e9:.3g} G'),
    ]  # fmt: skip
    if lint.target == 'dla':
        found += [
            ('subgraphs', f'{lint.subgraphs} (at most {lint.loadable_limit} on a core)'),
            ('transfers', f'{lint.transfers} tensors, {lint.transfer_bytes / 1e6:.3g} MB a run'),
        ]
    return found


def _by_rule(lint: Lint) -> list[tuple[Finding, list[tuple[str, str]]]]:
    """Every broken rule, the worst first, with the nodes that break it and their values."""
    found: dict[tuple[str, str], tuple[Finding, list[tuple[str, str]]]] = {}
    for verdict in (*lint.network, *lint.verdicts):
        for finding in verdict.findings:
            key = finding.verdict, finding.rule
            found.setdefault(key, (finding, []))[1].append((verdict.name, finding.value))
    return sorted(found.values(), key=lambda item: -VERDICTS.index(item[0].verdict))


def _entry(finding: Finding, nodes: list[tuple[str, str]]) -> list[str]:
    shown = nodes[:SHOWN] if finding.verdict == 'conditional' else nodes
    names = [f'{name} ({value})' for name, value in shown]
    if len(nodes) > len(shown):
        names.append(f'{len(nodes) - len(shown)} more')
    return [
        f'  {finding.rule}: {finding.limit}',
        *textwrap.wrap(
            ', '.join(names), 96, initial_indent='    ', subsequent_indent='    ',
            break_long_words=False, break_on_hyphens=False,
        ),
        f'    fix: {finding.fix}',
        *textwrap.wrap(
            f'source: {finding.source}', 96, initial_indent='    ', subsequent_indent='      '
        ),
    ]  # fmt: skip


def _findings(lint: Lint) -> str:
    rows = []
    for finding, nodes in _by_rule(lint):
        by_value: dict[str, list[str]] = {}
        for name, value in nodes:
            by_value.setdefault(value, []).append(name)
        found = ''.join(
            f'<p><b>{escape(value)}</b> {" ".join(f"<code>{escape(n)}</code>" for n in names)}</p>'
            for value, names in by_value.items()
        )
        rows.append(
            [
                f'<span class="{MARKS[finding.verdict]}">{escape(finding.verdict)}</span>',
                f'{escape(finding.limit)}<br><span class="soft">{escape(finding.rule)}</span>',
                found,
                escape(finding.fix),
                f'<span class="soft">{escape(finding.source)}</span>',
            ]
        )
    if not rows:
        return html.paragraph('Every node runs.', 'good')
    head = ['verdict', 'limit and rule', 'found', 'fix', 'source']
    return f'<div class="findings">{html.table(head, rows)}</div>'

"""A comparison as text and as an HTML report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from airside_perception import html
from airside_perception.deploy import plots
from airside_perception.deploy.compare.average_precision import (
    Precision,
    mean_precision,
    weighted_precision,
)
from airside_perception.deploy.compare.comparison import Comparison
from airside_perception.deploy.compare.gate import Gate
from airside_perception.deploy.compare.layers import LayerRow, first_divergent, first_lost
from airside_perception.deploy.compare.overflow import NEAR, Cure, near_overflow
from airside_perception.engine.precision import LARGEST_HALF

MOST_CHANGES, MOST_LAYERS = 20, 15
LEAST_ERROR = 1e-8
GOOD, BAD, WARN = 'var(--good)', 'var(--bad)', 'var(--warn)'


def describe(found: Comparison) -> str:
    """As text."""
    return '\n'.join(_text(found))


def _text(found: Comparison) -> Iterator[str]:
    limit = found.tolerance
    yield f'A  {found.a}'
    yield f'B  {found.b}'
    yield f'on {found.frames} frames of {found.source}'
    yield from (f'   {note}' for note in found.notes)
    yield ''
    yield (
        f'{"output":24} {"cosine":>9} {"max abs":>10} {"max rel":>9} {"mean abs":>10}  '
        f'{"NaN":>5} {"Inf":>5}  worst frame'
    )
    for row in found.outputs:
        item = row.difference
        yield (
            f'{_short(row.name, 24):24} {item.cosine:9.6f} {item.max_abs:10.4g} '
            f'{item.max_rel:9.2e} {item.mean_abs:10.3g}  {item.nan:5} {item.inf:5}  {row.frame}'
            f'{"" if row.good else "  BEYOND TOLERANCE"}'
        )
    yield f'tolerance: max rel {limit.max_rel:g}, cosine {limit.cosine:g}, no NaN or Inf'
    if found.layers:
        yield ''
        yield from _layer_text(found)
    for gate in found.gates:
        yield ''
        yield from gate_text(gate)


def _layer_text(found: Comparison) -> Iterator[str]:
    rows = found.layers
    first, lost = first_divergent(rows), first_lost(rows)
    yield f'layers: {len(rows)} tensors compared'
    if first is None:
        yield '  none is beyond the tolerance'
    else:
        yield f'  first beyond the tolerance: {_layer(first)}'
    grown = max(rows, key=lambda row: row.growth if not row.good else 0.0)
    if grown.growth > 1.0 and not grown.good:
        yield f'  grows most in: {_layer(grown)}, {grown.growth:.1f} times its inputs'
    if lost is not None:
        yield (
            f'  first NaN or Inf: {_layer(lost)}; in A it is {lost.low:g} to {lost.high:g}, and '
            f'fp16 holds up to {LARGEST_HALF:g}'
        )
    for row in [row for row in near_overflow(rows) if not row.lost][:MOST_LAYERS]:
        yield f'  near the end of fp16: {_layer(row)}, {row.low:g} to {row.high:g}'
    if found.cure is not None:
        yield from _cure_text(found.cure)


def _cure_text(cure: Cure) -> Iterator[str]:
    if not cure.nodes:
        yield '  no node in fp32 is known to cure it'
        return
    yield '  cure:' if cure.proven else '  tried, and not enough:'
    yield from (f'    {line}' for line in cure.lines)
    worst = max((row.difference.max_rel for row in cure.outputs), default=math.nan)
    lost = sum(row.difference.nan + row.difference.inf for row in cure.outputs)
    yield f'  run so: {lost} values lost in the outputs, max rel {worst:.2e}'


def gate_text(gate: Gate) -> Iterator[str]:
    """A gate as lines."""
    yield (
        f'accuracy gate on {gate.frames} frames, truth: {gate.truth}; AP at IoU {gate.iou:g}: '
        f'A {gate.a[""].ap:.4f}, B {gate.b[""].ap:.4f}; by class and objects A '
        f'{weighted_precision(gate.a):.4f}, B {weighted_precision(gate.b):.4f}; '
        f'drop {gate.drop:.4f} ({"passes" if gate.good else "FAILS"}, at most {gate.max_drop:g})'
    )
    yield (
        f'  classes unweighted: A {mean_precision(gate.a):.4f}, B {mean_precision(gate.b):.4f}; '
        f'of {gate.kept} boxes of A {gate.lost} lost, {gate.added} added'
    )
    for name in _judged(gate):
        yield (
            f'  {name:18} {gate.a[name].objects:4} objects  A {_ap(gate.a[name])}  '
            f'B {_ap(gate.b[name])}'
        )
    yield from (f'  {item}' for item in gate.changes[:MOST_CHANGES])
    if len(gate.changes) > MOST_CHANGES:
        yield f'  and {len(gate.changes) - MOST_CHANGES} more (--json or --html has all)'


def page(found: Comparison) -> str:
    """As a self-contained HTML page."""
    parts = [_verdict(found), html.section('Outputs', _output_table(found))]
    if found.layers:
        parts.append(html.section('Layers', *_layer_parts(found)))
    for gate in found.gates:
        parts.append(html.section(f'Accuracy, truth: {gate.truth}', *gate_parts(gate)))
    if found.notes:
        items = ''.join(f'<li>{escape(note)}</li>' for note in found.notes)
        parts.append(html.section('Notes', f'<ul>{items}</ul>'))
    note = f'{found.b} against {found.a}, {found.frames} frames of {found.source}'
    return html.page('Comparison of two networks', parts, note, plots.STYLE)


def _verdict(found: Comparison) -> str:
    beyond = [row.name for row in found.outputs if not row.good]
    beyond += [f'gate ({gate.truth})' for gate in found.gates if not gate.good]
    if beyond:
        return html.paragraph(f'Not good: {", ".join(beyond)} beyond the limits.', 'bad')
    return html.paragraph('Good: all outputs and gates are within the limits.', 'good')


def _output_table(found: Comparison) -> str:
    limit = found.tolerance
    rows = []
    for row in found.outputs:
        item = row.difference
        kind = 'good' if row.good else 'bad'
        rows.append([
            escape(row.name), f'{item.cosine:.6f}', f'{item.max_abs:.4g}', f'{item.max_rel:.2e}',
            f'{item.mean_abs:.3g}', str(item.nan), str(item.inf), escape(row.frame),
            f'<span class="{kind}">{"within" if row.good else "beyond"}</span>',
        ])  # fmt: skip
    head = ['output', 'cosine', 'max abs', 'max rel', 'mean abs', 'NaN', 'Inf', 'worst frame', '']
    return html.table(head, rows, range(1, 7)) + html.paragraph(
        f'Tolerance: relative {limit.max_rel:g} of the largest value of A, cosine '
        f'{limit.cosine:g}, no NaN or Inf of one side only. Each number is the worst of all '
        'frames.',
        'soft',
    )


def _layer_parts(found: Comparison) -> Iterator[str]:
    rows, limit = found.layers, found.tolerance.max_rel
    errors = [max(row.difference.max_rel, LEAST_ERROR) for row in rows]
    least = min((error for error in errors if error > LEAST_ERROR), default=LEAST_ERROR)
    low, high = 10.0 ** math.floor(math.log10(least)), 2 * max(limit, 10 * least, *errors)
    axis = plots.Axis('max rel', low, high, log=True)
    points = [
        plots.Point(
            0.0,
            axis.high if row.lost else max(row.difference.max_rel, low),
            f'{row.tensor}\n{row.operator} {row.node}\nmax rel {row.difference.max_rel:.2e}, '
            f'{row.low:g} to {row.high:g}, {row.lost} lost',
            colour=BAD if row.lost else 'var(--accent)' if row.good else WARN,
        )
        for row in rows
    ]
    yield plots.steps(axis, points, limit, 'tolerance', 'tensors in topological order')
    yield html.paragraph(
        'Red: NaN or Inf in B only. Yellow: beyond the tolerance. Point at a column for its name.',
        'soft',
    )
    first, lost = first_divergent(rows), first_lost(rows)
    if first is not None:
        yield html.paragraph(f'First beyond the tolerance: {_layer(first)}.', 'warn')
    if lost is not None:
        yield html.paragraph(
            f'First NaN or Inf: {_layer(lost)}. In A it is {lost.low:g} to {lost.high:g}; fp16 '
            f'holds up to {LARGEST_HALF:g}.',
            'bad',
        )
    if found.cure is not None and found.cure.nodes:
        lines = '<br>'.join(f'<code>{escape(line)}</code>' for line in found.cure.lines)
        said = 'Cured by' if found.cure.proven else 'Tried, and not enough:'
        kind = 'good' if found.cure.proven else 'bad'
        yield f'<p class="{kind}">{said}<br>{lines}</p>'
    table = sorted(rows, key=lambda row: (-row.lost, -row.difference.max_rel))[:MOST_LAYERS]
    yield html.table(
        ['tensor', 'node', 'cosine', 'max rel', 'growth', 'lost', 'smallest in A', 'largest in A'],
        [[
            escape(row.tensor), escape(f'{row.operator} {row.node}'),
            f'{row.difference.cosine:.6f}', f'{row.difference.max_rel:.2e}', f'{row.growth:.1f}',
            str(row.lost), _range(row.low), _range(row.high),
        ] for row in table],
        range(2, 8),
    )  # fmt: skip
    yield html.paragraph(f'The {len(table)} worst of {len(rows)} tensors.', 'soft')


def gate_parts(gate: Gate) -> Iterator[str]:
    """A gate as HTML."""
    kind = 'good' if gate.good else 'bad'
    yield html.paragraph(
        f'AP at IoU {gate.iou:g} over {gate.frames} frames: A {gate.a[""].ap:.4f}, B '
        f'{gate.b[""].ap:.4f}; by class and objects A {weighted_precision(gate.a):.4f}, B '
        f'{weighted_precision(gate.b):.4f}; drop {gate.drop:.4f} of at most {gate.max_drop:g}: '
        f'{"passes" if gate.good else "fails"}. Of {gate.kept} boxes of A {gate.lost} are lost, '
        f'{gate.added} are added.',
        kind,
    )
    yield html.table(
        ['class', 'objects', 'AP of A', 'AP of B', ''],
        [[
            escape(name), str(gate.a[name].objects), _ap(gate.a[name]), _ap(gate.b[name]),
            html.bar(0.0 if math.isnan(gate.b[name].ap) else gate.b[name].ap),
        ] for name in _judged(gate)],
        (1, 2, 3),
    )  # fmt: skip
    if gate.changes:
        yield html.section(
            'Lost and added boxes',
            html.table(
                ['', 'frame', 'class', 'score', 'place', 'score of the other'],
                [[
                    f'<span class="{"bad" if item.lost else "warn"}">'
                    f'{"lost" if item.lost else "added"}</span>',
                    escape(item.frame), escape(item.name), f'{item.score:.2f}',
                    escape(item.place), f'{item.other:.2f}' if item.other else 'none',
                ] for item in gate.changes],
                (3, 5),
            ),
        )  # fmt: skip


def _judged(gate: Gate) -> list[str]:
    """Classes with objects."""
    return sorted(name for name, item in gate.a.items() if name and item.objects)


def _ap(item: Precision) -> str:
    return '    -' if math.isnan(item.ap) else f'{item.ap:.3f}'


def _layer(row: LayerRow) -> str:
    lost = f', {row.lost} values NaN or Inf' if row.lost else ''
    error = f'{row.difference.max_rel:.2e}'
    return f'{row.tensor} of {row.operator} {row.node}, max rel {error}{lost}'


def _range(value: float) -> str:
    kind = (
        ' class="bad"'
        if abs(value) > LARGEST_HALF
        else (' class="warn"' if abs(value) > NEAR * LARGEST_HALF else '')
    )
    return f'<span{kind}>{value:.4g}</span>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f'...{text[3 - most :]}'

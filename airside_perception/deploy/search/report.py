"""A search as text, CSV and HTML."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from html import escape

from airside_perception import html
from airside_perception.deploy import plots
from airside_perception.deploy.search.run import Result
from airside_perception.deploy.search.search import (
    ALL,
    GREEDY,
    HALF,
    KEPT,
    Point,
    Search,
    Sensitivity,
    point_dict,
)

MOST_NODES = 12
COLOURS = {HALF: 'var(--soft)', GREEDY: 'var(--accent)', KEPT: 'var(--warn)', ALL: 'var(--bad)'}
WORDS = {
    HALF: 'all fp16', GREEDY: 'greedy, node by node', KEPT: 'the most sensitive in fp16',
    ALL: 'all INT8',
}  # fmt: skip
LOSSES = {
    'boxes': 'lost AP50 against fp32 boxes',
    'output': 'relative error of the outputs',
}
PREDICTED = 'predicted by a model of the machine, not measured'


def describe(result: Result) -> str:
    """As text."""
    return '\n'.join(_text(result))


def _text(result: Result) -> Iterator[str]:
    found = result.search
    yield (
        f'{found.frames} frames, metric {found.metric} ({LOSSES[found.metric]}), budget '
        f'{found.budget:g}, on top of what fp16 loses; times and bytes for {found.machine} are '
        f'{PREDICTED}'
    )
    yield ''
    count = min(MOST_NODES, len(found.nodes))
    yield f'the {count} most sensitive of {len(found.nodes)} nodes, alone in INT8'
    yield f'{"box drop":>9} {"output error":>13} {"FLOPs":>7}  node'
    for item in found.nodes[:MOST_NODES]:
        yield (
            f'{_drop(item.score.drop):>9} {item.score.error:13.3e} {item.share:7.1%}  '
            f'{item.operator} {item.node}'
        )
    yield ''
    yield (
        f'{"assignment":27} {"INT8 nodes":>10} {"INT8 FLOPs":>10} {"box drop":>9} '
        f'{"output error":>13} {"weights MB":>10} {"pred. ms":>9}'
    )
    for point in found.points:
        yield (
            f'{point.name:27} {len(point.int8):10} {point.cost.share:10.1%} '
            f'{_drop(point.score.drop):>9} {point.score.error:13.3e} '
            f'{point.cost.weight_bytes / 1e6:10.2f} {point.cost.milliseconds:9.3f}'
            f'{"  front" if point.front else ""}{"  CHOSEN" if point is found.chosen else ""}'
        )
    yield ''
    yield _chosen_text(found)
    if found.finer and found.chosen.int8:
        yield 'nodes that stay fp16, as options of engine build (which corrects no biases):'
        yield from (f'  {option}' for option in result.options)
    if result.note:
        yield f'note: {result.note}'


def _chosen_text(found: Search) -> str:
    loss = found.checked.of(found.metric)
    if not found.good:
        return (
            f'NOTHING CHOSEN: with any node in INT8 the network is beyond the budget of '
            f'{found.budget:g}'
        )
    return (
        f'chosen: {found.chosen.name}, {len(found.chosen.int8)} of {len(found.nodes)} nodes in '
        f'INT8 ({found.chosen.cost.share:.1%} of FLOPs); as it is written, with the rest in '
        f'fp16, it loses {loss:.4g}, fp16 alone {found.half.of(found.metric):.4g}: INT8 adds '
        f'{found.added:.4g}, within the budget of {found.budget:g}'
        + (f'; {found.in_vain} faster of the table add more as written' if found.in_vain else '')
    )


def table(found: Search) -> str:
    """The points as CSV."""
    text = io.StringIO()
    rows = [{**point_dict(point), 'chosen': point is found.chosen} for point in found.points]
    for row in rows:
        row['int8_nodes'] = ' '.join(row['int8_nodes'])
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def page(result: Result, model: str) -> str:
    """As a self-contained HTML page."""
    found = result.search
    parts = [
        html.paragraph(_chosen_text(found), 'good' if found.good else 'bad'),
        html.section('Accuracy against time', _plot(found), _legend()),
        html.section('Assignments', _points(found)),
        html.section('Sensitivity: each node alone in INT8', _nodes(found)),
    ]  # fmt: skip
    note = (
        f'{model}, {found.frames} frames, {LOSSES[found.metric]}, budget {found.budget:g}. Times '
        f'and bytes for {found.machine} are {PREDICTED}.'
    )
    if result.note:
        note += f' Note: {result.note}.'
    return html.page('Mixed precision', parts, note, plots.STYLE)


def _plot(found: Search) -> str:
    losses = [_loss(found, point) for point in found.points]
    times = [point.cost.milliseconds for point in found.points]
    room = 0.04 * (max(times) - min(times) or max(times))
    x = plots.Axis('predicted ms', min(times) - room, max(times) + room)
    y = plots.Axis(LOSSES[found.metric], 0.0, 1.08 * max(*losses, found.budget, 1e-6))
    named = {0, len(found.points) - 1}
    points = [
        plots.Point(
            point.cost.milliseconds,
            loss,
            f'{point.name}: {point.cost.milliseconds:.3f} ms, loses {loss:.4g}, '
            f'{point.cost.share:.0%} of FLOPs in INT8',
            point.name if place in named or point is found.chosen or point.kind == ALL else '',
            COLOURS[point.kind],
            7.0 if point is found.chosen else 4.5,
            not point.front,
        )
        for place, (point, loss) in enumerate(zip(found.points, losses, strict=True))
    ]
    front = [
        (point.cost.milliseconds, loss)
        for point, loss in zip(found.points, losses, strict=True)
        if point.front
    ]
    return plots.scatter(x, y, points, front, found.budget, f'budget {found.budget:g}')


def _legend() -> str:
    items = ''.join(
        f'<span style="margin-right:1.5rem"><span class="bar" style="width:.8rem;'
        f'background:{COLOURS[kind]}"></span> {escape(word)}</span>'
        for kind, word in WORDS.items()
    )
    return f'<p class="soft">{items} full: on the Pareto front; large: chosen</p>'


def _points(found: Search) -> str:
    rows = []
    for point in found.points:
        name = escape(point.name)
        rows.append([
            f'<b>{name}</b>' if point is found.chosen else name,
            str(len(point.int8)), f'{point.cost.share:.1%}', _drop(point.score.drop),
            f'{point.score.error:.3e}', f'{point.cost.weight_bytes / 1e6:.2f}',
            f'{point.cost.milliseconds:.3f}', 'yes' if point.front else '',
            '<span class="good">within</span>' if point.within else
            '<span class="bad">beyond</span>',
        ])  # fmt: skip
    head = ['assignment', 'INT8 nodes', 'INT8 FLOPs', 'box drop', 'output error', 'weights MB',
            'predicted ms', 'front', 'budget']  # fmt: skip
    return html.table(head, rows, range(1, 7))


def _nodes(found: Search) -> str:
    worst = max((_of(found, item) for item in found.nodes), default=0.0) or 1.0
    rows = []
    for item in found.nodes:
        kept = item.node not in found.chosen.int8
        rows.append([
            escape(f'{item.operator} {item.node}'), f'{item.share:.1%}', _drop(item.score.drop),
            f'{item.score.error:.3e}',
            html.bar(_of(found, item) / worst, 'var(--warn)' if kept else '', 14.0),
            'fp16' if kept else 'INT8',
        ])  # fmt: skip
    head = ['node', 'FLOPs', 'box drop', 'output error', '', 'chosen']
    return html.table(head, rows, range(1, 4))


def _loss(found: Search, point: Point) -> float:
    loss = point.score.of(found.metric)
    return loss if math.isfinite(loss) else 1.0


def _of(found: Search, item: Sensitivity) -> float:
    loss = item.score.of(found.metric)
    return max(loss, 0.0) if math.isfinite(loss) else 0.0


def _drop(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.4f}'

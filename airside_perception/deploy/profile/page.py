"""A profile as one HTML file: where the time goes, in order and by length."""

from __future__ import annotations

from html import escape

from airside_perception import html
from airside_perception.deploy.profile.layers import (
    COMPUTE,
    REFORMAT,
    TRANSFER,
    WAIT,
    Part,
    category_of,
)
from airside_perception.deploy.profile.report import SAYS
from airside_perception.deploy.profile.run import Profile

COLOURS = {COMPUTE: '#2b5fa8', REFORMAT: '#c98a1b', TRANSFER: '#b3372f', WAIT: '#2e7d4f'}
STYLE = """
.strip { width: 100%; height: 3.2rem; display: block; border-radius: 3px; }
.strip rect:hover { opacity: .65; }
.legend span { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin: 0 .35em 0 1.2em; } .legend span:first-child { margin-left: 0; }
td code { background: none; padding: 0; } .two { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.two > div { flex: 1 1 24rem; } .layers td:nth-child(2) { min-width: 13rem; }
.layers td:not(:last-child), th { white-space: nowrap; overflow-wrap: normal; }
"""
UNKNOWN = {'': 'not known'}
WIDE = 10_000
"""Units of a strip's width."""


def page(found: Profile) -> str:
    """The page; it needs nothing from elsewhere."""
    whole = f'; a whole run {found.run.p50:.3f} ms' if found.run else ''
    facts = [
        html.paragraph(f'{found.runs_on}. Input {", ".join(found.inputs)}, {found.data}.'),
        html.paragraph(
            f'{len(found.layers)} layers, {found.sum_ms:.3f} ms together (medians of '
            f'{found.iterations} runs){whole}.'
        ),
        *(html.paragraph(note, 'warn') for note in found.notes),
    ]
    kinds = {part.name: COLOURS[category_of('', part.name)] for part in found.kinds}
    return html.page(
        f'Layers of {found.path.rpartition("/")[2]}',
        [
            *facts,
            html.section('In the order in which they run', _strip(found), _legend(found)),
            '<div class="two"><div>',
            html.section('What layers do', _parts('', found.categories, SAYS, COLOURS)),
            '</div><div>',
            html.section('Kinds of layers', _parts('kind', found.kinds, UNKNOWN, kinds)),
            '</div></div>',
            html.section('The longest first', _layers(found)),
        ],
        style=STYLE,
    )


def _strip(found: Profile) -> str:
    """Layers side by side in the order in which they run, each as wide as its time."""
    at, boxes = 0.0, []
    for layer in sorted(found.layers, key=lambda each: each.place):
        width = WIDE * layer.share
        title = f'{layer.name}: {layer.ms:.3f} ms, {100 * layer.share:.1f} %, {layer.kind}'
        gap = min(width / 4, 8)
        boxes.append(
            f'<rect x="{at:.1f}" y="0" width="{width - gap:.1f}" height="100" '
            f'fill="{COLOURS[layer.category]}"><title>{escape(title)}</title></rect>'
        )
        at += width
    return (
        f'<svg class="strip" viewBox="0 0 {WIDE} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="layers in order">{"".join(boxes)}</svg>'
    )


def _legend(found: Profile) -> str:
    keys = ''.join(
        f'<span style="background:{COLOURS[part.name]}"></span>{escape(SAYS[part.name])}'
        for part in found.categories
    )
    return f'<p class="legend soft">{keys}</p>'


def _parts(
    title: str, items: tuple[Part, ...], says: dict[str, str], colours: dict[str, str]
) -> str:
    rows = [
        (
            escape(says.get(part.name, part.name)),
            html.bar(part.share, colours.get(part.name, ''), 9.0),
            str(part.count),
            f'{part.ms:.3f}',
            f'{100 * part.share:.1f} %',
        )
        for part in items
    ]
    return html.table([title, '', 'layers', 'ms', 'share'], rows, numbers=[2, 3, 4])


def _layers(found: Profile) -> str:
    longest = max((layer.share for layer in found.layers), default=0.0) or 1.0
    rows = [
        (
            str(layer.place + 1),
            html.bar(layer.share / longest, COLOURS[layer.category], 12.0),
            f'{layer.ms:.3f}',
            f'{100 * layer.share:.1f} %',
            f'{100 * layer.cumulative:.1f} %',
            escape(layer.device),
            escape(layer.precision),
            escape(layer.kind),
            f'<code>{escape(layer.name)}</code>',
        )
        for layer in found.layers
    ]
    head = ['place', '', 'ms', 'share', 'so far', 'on', 'in', 'kind', 'layer']
    table = html.table(head, rows, numbers=[0, 2, 3, 4])
    return f'<div class="layers wide">{table}</div>'

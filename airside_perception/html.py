"""Reports as one self-contained HTML file: no scripts from elsewhere, no fonts, no pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light; --ink: #1d2430; --soft: #5d6878; --line: #d9dfe7; --fill: #f5f7fa;
  --good: #2e7d4f; --warn: #b7791f; --bad: #b3372f; --accent: #2b5fa8; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; padding: 2rem;
  max-width: 76rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; color: var(--soft); } td.number, th.number { text-align: right; }
.bar { display: inline-block; height: .8em; background: var(--accent); border-radius: 2px; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
svg { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
code { font: 13px ui-monospace, monospace; background: var(--fill); padding: 0 .25em; }
"""


def page(title: str, parts: Iterable[str], note: str = '', style: str = '') -> str:
    """A whole page.

    Args:
        title: text; it is escaped.
        parts: HTML, as the other functions here give it.
        note: text below the title.
        style: further CSS.
    """
    below = f'<p class="soft">{escape(note)}</p>' if note else ''
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f'<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n'
        f'<body><h1>{escape(title)}</h1>{below}\n{chr(10).join(parts)}\n</body></html>\n'
    )


def section(title: str, *parts: str) -> str:
    """A heading with what follows it, HTML."""
    return f'<h2>{escape(title)}</h2>\n' + '\n'.join(parts)


def paragraph(text: str, kind: str = '') -> str:
    """Text; `kind` is a class of the style: soft, good, warn, bad."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f'<p>{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table.

    Args:
        head: text of the first row.
        rows: cells as HTML: what is not made by a function here must be escaped.
        numbers: columns that are aligned to the right.
    """

    def cell(kind: str, place: int, content: str) -> str:
        mark = ' class="number"' if place in numbers else ''
        return f'<{kind}{mark}>{content}</{kind}>'

    top = ''.join(cell('th', place, escape(text)) for place, text in enumerate(head))
    body = '\n'.join(
        '<tr>' + ''.join(cell('td', place, text) for place, text in enumerate(row)) + '</tr>'
        for row in rows
    )
    return f'<table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>'


def bar(share: float, colour: str = '', width_rem: float = 18.0) -> str:
    """A bar of this share of the full width, 0 to 1."""
    paint = f';background:{escape(colour)}' if colour else ''
    length = width_rem * min(max(share, 0.0), 1.0)
    return f'<span class="bar" style="width:{length:.2f}rem{paint}"></span>'

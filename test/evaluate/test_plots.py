"""Plots are well-formed, and what is drawn lies where it should."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from airside_perception.evaluate.plots import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bars,
    Line,
    legend,
    panel,
    panels,
)


def test_lines_have_gaps_and_lie_in_the_frame() -> None:
    x = np.array([0.0, 20.0, 40.0, 60.0, 90.0])
    y = np.array([1.0, 0.5, np.nan, 0.25, 0.0])
    text = panel('a < b', ('range', 'recall'), [Line('x & y', x, y, 'red', dots=True)], 80.0)
    svg = ElementTree.fromstring(text)
    lines = [item.get('points', '') for item in svg.iter('polyline')]
    places = [[tuple(map(float, p.split(','))) for p in points.split()] for points in lines]
    assert [len(item) for item in places] == [2, 2]
    assert places[0][0] == (LEFT, TOP)
    middle = TOP + (HEIGHT - BOTTOM - TOP) / 2
    assert places[0][1] == (LEFT + (WIDTH - LEFT - RIGHT) / 4, middle)
    assert places[1][1] == (WIDTH - RIGHT, HEIGHT - BOTTOM)  # 90 is held at the border
    assert len(list(svg.iter('circle'))) == 4
    assert 'a < b' in [item.text for item in svg.iter('text')]


def test_bars_and_the_ideal_line() -> None:
    bars = Bars(np.array([0.0, 0.5]), np.array([0.5, 1.0]), np.array([0.25, 1.0]), ('a', 'b'))
    svg = ElementTree.fromstring(panel('p', ('x', 'y'), [], ideal=True, bars=bars))
    heights = [float(item.get('height', 0)) for item in svg.iter('rect')]
    full = HEIGHT - BOTTOM - TOP
    assert heights == [full / 4, full]
    assert [item.get('class') for item in svg.iter('line')].count('ideal') == 1


def test_many_plots_and_their_key() -> None:
    key = ElementTree.fromstring(legend([('a & b', 'blue'), ('c', 'red')]))
    assert [item.findtext('i') for item in key] == ['', '']
    assert ''.join(key.itertext()) == 'a & bc'
    both = ElementTree.fromstring(panels([panel('p', ('x', 'y'), [])] * 2))
    assert len(both) == 2

"""Reports are one file, escaped, and open in a browser."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from airside_perception import html


def test_text_is_escaped() -> None:
    text = html.page('<a>', [html.section('&', html.paragraph('<b>', 'bad'))], '"c"', 'p { }')
    assert '<title>&lt;a&gt;</title>' in text
    assert '<h2>&amp;</h2>' in text
    assert '<p class="bad">&lt;b&gt;</p>' in text
    assert '&quot;c&quot;' in text
    assert 'p { }</style>' in text


def test_a_table_and_bars() -> None:
    text = html.table(['<name>', 'share'], [['a', html.bar(0.5, '#abc')]], numbers=[1])
    assert '<th>&lt;name&gt;</th><th class="number">share</th>' in text
    assert 'style="width:9.00rem;background:#abc"' in text
    assert 'width:0.00rem' in html.bar(-1.0)
    assert 'width:18.00rem' in html.bar(2.0)


def test_a_page_opens(tmp_path: Path, browser: ModuleType) -> None:
    path = tmp_path / 'page.html'
    rows = [[str(number), html.bar(number / 9)] for number in range(10)]
    path.write_text(html.page('Bars', [html.table(['n', ''], rows)]), encoding='utf-8')
    assert browser.open_page(path, tmp_path / 'page.png') == []


def test_what_a_console_says_is_seen(tmp_path: Path, browser: ModuleType) -> None:
    path = tmp_path / 'page.html'
    path.write_text(html.page('Bad', ['<script>nothing()</script>']), encoding='utf-8')
    (said,) = browser.open_page(path, tmp_path / 'page.png')
    assert 'nothing is not defined' in said

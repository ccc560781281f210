"""The README's tables are those of the code."""

from __future__ import annotations

import pytest

from airside_perception.config import specs
from airside_perception.interface import BEGIN, END, NODES, main, reference, updated


def test_the_readme_shows_the_topics_and_parameters_of_the_code(repository):
    text = (repository / 'README.md').read_text(encoding='utf-8')
    assert updated(text) == text, 'run: python -m airside_perception.interface README.md'


@pytest.mark.parametrize('node', NODES, ids=lambda node: node.name)
def test_every_parameter_and_topic_is_described(node):
    text = reference()
    for item in specs(node.config):
        assert f'| `{item.name}` |' in text
        assert item.description.endswith('.'), item.name
    for topic in (*node.inputs, *node.outputs):
        assert f'`{topic.name}`' in text
        assert topic.about


@pytest.mark.parametrize('node', NODES, ids=lambda node: node.name)
def test_thresholds_have_two_sided_ranges_for_sliders(node):
    numbers = [item for item in specs(node.config) if item.type in (int, float)]
    assert numbers
    for item in numbers:
        assert item.low is not None, item.name
        assert item.high is not None, item.name
        assert item.low <= item.default <= item.high, item.name


def test_only_the_part_between_the_marks_changes(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'before\n{BEGIN}\nstale text\n{END}\nafter\n', encoding='utf-8')
    main([str(page)])
    text = page.read_text(encoding='utf-8')
    assert text.startswith('before\n')
    assert text.endswith('after\n')
    assert 'stale text' not in text
    assert '### `lidar_detector`' in text

"""The faster loader reads what the plain one reads, and refuses what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from airside_perception.resources import resource
from airside_perception.yaml_text import load_yaml


@pytest.mark.parametrize('folder', ['models', 'config'])
def test_files_that_ship(folder: str) -> None:
    files = sorted(Path(resource(folder)).glob('*.yaml'))
    assert len(files) >= 2
    for path in files:
        text = path.read_text(encoding='utf-8')
        assert load_yaml(text) == yaml.safe_load(text) != {}


@pytest.mark.parametrize('text', ['', 'a: [1, 2e3, .inf, no, 0x1f, 1_000]', b'\xef\xbb\xbfa: 1'])
def test_values(text: str | bytes) -> None:
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize('text', ['a: [', 'a: b: c', '\ta: 1', '!!python/object:os.system {}'])
def test_what_is_refused(text: str) -> None:
    for load in (load_yaml, yaml.safe_load):
        with pytest.raises(yaml.YAMLError):
            load(text)

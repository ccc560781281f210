"""The shipped files are found from a source tree, an install prefix and AMENT_PREFIX_PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from airside_perception import resources
from airside_perception.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def make_share(folder: Path) -> Path:
    (folder / 'config').mkdir(parents=True)
    (folder / 'package.xml').write_text('<package/>')
    return folder


def make_module(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / 'resources.py')


def test_source_tree_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_share(tmp_path / 'tree')
    make_share(tmp_path / 'prefix/share/airside_perception')
    monkeypatch.setattr(resources, '__file__', make_module(tree / 'airside_perception'))
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path / 'prefix'))
    assert resources.share_directory() == tree


@pytest.mark.parametrize(
    'site', ['lib/python3.12/site-packages', 'local/lib/python3.10/dist-packages']
)
def test_install_prefix_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str
) -> None:
    share = make_share(tmp_path / 'install/share/airside_perception')
    other = make_share(tmp_path / 'other/share/airside_perception')
    module = make_module(tmp_path / 'install' / site / 'airside_perception')
    monkeypatch.setattr(resources, '__file__', module)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(other.parents[1]))
    assert resources.share_directory() == share


def test_ament_prefix_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = make_share(tmp_path / 'second/share/airside_perception')
    monkeypatch.setattr(resources, '__file__', make_module(tmp_path / 'zip/airside_perception'))
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "first"}::{tmp_path / "second"}')
    assert resources.share_directory() == share


def test_nowhere_names_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, '__file__', make_module(tmp_path / 'zip/airside_perception'))
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/nowhere/at/all')
    with pytest.raises(ConfigError, match=r'/nowhere/at/all/share/airside_perception.*colcon'):
        resources.share_directory()


def test_resource_names_what_is_missing() -> None:
    assert resources.resource('package.xml').read_text().startswith('<?xml')
    with pytest.raises(ConfigError, match=r"no 'config/no_such\.yaml'"):
        resources.resource('config', 'no_such.yaml')


def test_a_plain_name_is_a_model_first_and_a_file_here_on_a_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = resources.share_directory() / 'models'
    name = 'apron_yolox.onnx'
    for path in (tmp_path / name, tmp_path / 'own.onnx', tmp_path / 'nets' / name):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    assert resources.model_file(name) == models / name
    assert resources.model_file(name, here_first=True) == tmp_path / name
    assert resources.model_file(f'./{name}') == tmp_path / name
    assert resources.model_file(f'nets/{name}') == tmp_path / 'nets' / name
    assert resources.model_file('own.onnx') == tmp_path / 'own.onnx'
    assert resources.model_file(str(tmp_path / name)) == tmp_path / name
    assert resources.model_file('/nowhere.onnx') == Path('/nowhere.onnx')
    for gone in ('gone.onnx', 'nets/gone.onnx'):
        with pytest.raises(ConfigError) as caught:
            resources.model_file(gone)
        said = f'{gone}: no such file, neither in {models} nor in {tmp_path}'
        assert str(caught.value) == said
    with pytest.raises(ConfigError, match='is empty'):
        resources.model_file('')


def test_this_tree_is_found_first() -> None:
    source = Path(resources.__file__).resolve().parents[1]
    if source == ROOT:
        assert resources.share_directory() == ROOT
    else:  # an installed package was imported
        assert resources.share_directory().parts[-2:] == ('share', 'airside_perception')

"""What holds for every verb of `engine`."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airside_perception import deploy
from airside_perception.deploy import __main__ as command
from airside_perception.deploy.verb import Answer
from airside_perception.deploy.verbs import VERBS
from airside_perception.errors import ConfigError, RefusalError

FOLDER = Path(deploy.__file__).parent / 'verbs'


def module_of(name: str) -> Any:
    return importlib.import_module(f'airside_perception.deploy.verbs.{name.replace("-", "_")}')


def test_every_verb_has_a_module() -> None:
    modules = {path.stem for path in FOLDER.glob('*.py')} - {'__init__'}
    assert modules == {name.replace('-', '_') for name in VERBS}


@pytest.mark.parametrize('name', VERBS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([name, '--help'])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f'usage: engine {name}' in text
    assert '--json' in text
    assert f'\nexamples:\n  engine {name} ' in text


@pytest.mark.parametrize('name', VERBS)
def test_examples_can_be_parsed(name: str) -> None:
    for line in module_of(name).EXAMPLES.strip().splitlines():
        words = shlex.split(line.split('>')[0])
        assert words[:2] == ['engine', name]
        assert command._parser(words[1:]).parse_args(words[1:]).run


def test_without_a_verb_or_with_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ['fly']):
        with pytest.raises(SystemExit) as ended:
            command.main(words)
        assert ended.value.code == 2
    assert "invalid choice: 'fly'" in capsys.readouterr().err


def test_the_command_itself_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(['--help'])
    text = capsys.readouterr().out
    for name, says in VERBS.items():
        assert name in text
        assert says in ' '.join(text.split())


@pytest.mark.parametrize(
    ('outcome', 'status', 'said'),
    [
        (Answer('fine', {'a': 1}), 0, ''),
        (Answer('no', {'a': 1}, good=False), 1, ''),
        (RefusalError('this machine cannot'), 1, 'engine: this machine cannot\n'),
        (ConfigError('x = 3: expected 4'), 2, 'engine: x = 3: expected 4\n'),
        (KeyboardInterrupt(), 130, 'engine: interrupted; what was there before is still there\n'),
    ],
)
def test_statuses(
    outcome: Any, status: int, said: str, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: Any) -> Answer:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(module_of('resize'), 'run', run)
    words = ['resize', 'a', 'b', '--height', '1', '--width', '1']
    assert command.main(words) == status
    out, err = capsys.readouterr()
    assert err == said
    if isinstance(outcome, Answer):
        assert out == f'{outcome.text}\n'
        assert command.main([*words, '--json']) == status
        assert json.loads(capsys.readouterr().out) == {'a': 1}


def test_help_is_quick() -> None:
    """Nothing heavy is imported for it."""
    code = (
        'import sys; from airside_perception.deploy.__main__ import _parser; _parser([]);'
        'print([m for m in ("onnx", "onnxruntime", "torch", "cv2", "scipy") if m in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == '[]\n'


def test_a_package_that_is_missing_is_named(
    tmp_path: Path,
    tiny_models: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(tiny_models.tiny_camera_model(tmp_path))
    monkeypatch.setitem(sys.modules, 'onnx_graphsurgeon', None)
    monkeypatch.delitem(sys.modules, 'onnx_graphsurgeon.logger', raising=False)
    assert command.main(['sanitize', path, '--out', str(tmp_path / 'clean.onnx')]) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.endswith(': pip install onnx-graphsurgeon\n')
    assert err.count('\n') == 1
    assert not (tmp_path / 'clean.onnx').exists()

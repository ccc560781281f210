"""What the README tells to type, and what it names, is there."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from airside_perception.deploy import __main__ as engine
from airside_perception.deploy.verbs import VERBS
from airside_perception.replay import __main__ as replay

OURS = 'ros2 run airside_perception '


@pytest.fixture(scope='module')
def text(repository: Path) -> str:
    return (repository / 'README.md').read_text(encoding='utf-8')


def commands(text: str) -> list[list[str]]:
    """Words of every line of ours in a block of commands; those that go on are one."""
    blocks = re.findall(r'```bash\n(.*?)```', text, re.DOTALL)
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    ours = (line.partition('>')[0] for line in lines if line.startswith(OURS))
    return [shlex.split(line.removeprefix(OURS), comments=True) for line in ours]


def test_commands_have_the_options_that_are_shown(text: str) -> None:
    found = commands(text)
    assert {name for name, *_ in found} == {'engine', 'replay'}
    for name, *words in found:
        parser = engine._parser(words) if name == 'engine' else replay._parser()
        assert parser.parse_args(words)


def test_every_verb_is_named(text: str) -> None:
    road = text[text.index('### From a checkpoint') : text.index('### Engines that are not')]
    rows = ''.join(line.split('|')[1] for line in road.splitlines() if line.startswith('| '))
    assert set(VERBS) <= set(re.findall(r'`([a-z-]+)`', rows))


def test_every_launch_argument_has_a_row(text: str, repository: Path) -> None:
    source = (repository / 'launch' / 'full.launch.py').read_text(encoding='utf-8')
    names = re.findall(r"(?:text|switch|DeclareLaunchArgument)\(\s*'(\w+)',", source)
    assert 'params_file' in names
    table = text[text.index('| argument | default | what |') : text.index('## Live tuning')]
    rows = ''.join(line.split('|')[1] for line in table.splitlines() if line.startswith('| '))
    assert set(names) <= set(re.findall(r'`(\w+)`', rows))


def test_every_module_stands_in_the_list(text: str, repository: Path) -> None:
    listed = text[
        text.index('airside_perception/   errors') : text.index('launch/ config/ models/')
    ]
    known = set(re.findall(r'(\w+)/?', listed))
    package = repository / 'airside_perception'
    modules = {path.stem for path in package.glob('*.py')} | {
        path.parent.name for path in package.glob('*/__init__.py')
    }
    assert modules - {'__init__'} <= known


def test_modules_files_and_links_are_there(text: str, repository: Path) -> None:
    modules = set(re.findall(r'python -m\s+([\w.]+)', text))
    assert 'benchmarks.gpu' in modules
    for name in modules:
        assert find_spec(name) is not None, name
    folders = '|'.join(('config', 'models', 'resource', 'benchmarks', 'training', 'launch'))
    named = re.findall(rf'(?<![\w/.])(?:{folders})/[\w./-]*[\w/]', text)
    links = [link for link in re.findall(r'\]\(([^)]+)\)', text) if '://' not in link]
    for path in (*named, *(link for link in links if not link.startswith('#'))):
        built = path.endswith('.engine') or 'NAME' in path
        assert built or (repository / path).exists(), path
    headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
    anchors = {re.sub(r'[^\w -]', '', item.lower()).replace(' ', '-') for item in headings}
    for link in links:
        assert not link.startswith('#') or link[1:] in anchors, link

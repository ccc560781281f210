"""The walk of deploy/README.md, line by line, as a reader would type it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import onnx
import pytest

from airside_perception import deploy
from airside_perception.deploy.__main__ import main
from airside_perception.engine.manifest import Manifest

PAGE = Path(deploy.__file__).with_name('README.md')


class Line(NamedTuple):
    """A command of the page: its words, the status it ends with, whether it needs a GPU."""

    words: list[str]
    status: int
    gpu: bool


def lines(data: str) -> Iterator[Line]:
    """Commands of the walk, with the folder for $DATA."""
    text = PAGE.read_text(encoding='utf-8')
    walk = text[text.index('<!-- walk: begin -->') : text.index('<!-- walk: end -->')]
    for block in re.findall(r'```bash\n(.*?)```', walk, re.DOTALL):
        for line in block.strip().splitlines():
            command, _, note = line.partition('  #')
            status = re.search(r'status (\d)', note)
            words = shlex.split(command.replace('$DATA', data))
            yield Line(words, int(status[1]) if status else 0, 'GPU' in note)


def test_every_verb_stands_on_the_page() -> None:
    from airside_perception.deploy.verbs import VERBS

    text = PAGE.read_text(encoding='utf-8')
    for name in VERBS:
        assert re.search(rf'^\|.*`{name}`', text, re.MULTILINE), name


def test_the_lines_can_be_parsed() -> None:
    from airside_perception.deploy.__main__ import _parser

    found = [line for line in lines('data') if line.words[0] == 'engine']
    assert len(found) > 25
    for line in found:
        assert _parser(line.words[1:]).parse_args(line.words[1:])


@pytest.mark.slow
def test_the_walk(
    tmp_path: Path, repository: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], browser: ModuleType,
) -> None:  # fmt: skip
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    monkeypatch.setenv('AIRSIDE_TENSORRT', 'tensorrt_rtx_bindings')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'work').mkdir()
    for name in ('models', 'config'):
        (tmp_path / name).symlink_to(repository / name)
    said = {}
    for line in lines(str(shared_data)):
        if line.gpu:
            continue
        if line.words[0] == 'cp':
            shutil.copyfile(line.words[1], line.words[2])
            continue
        assert line.words[0] == 'engine'
        status = main(line.words[1:])
        out, err = capsys.readouterr()
        assert status == line.status, f'{shlex.join(line.words)}\n{out}\n{err}'
        said[' '.join(line.words[1:3])] = out
    work = tmp_path / 'work'

    assert 'nodes: 12 fall back' in said['lint work/nano.onnx']
    assert 'nodes: 0 fall back' in said['lint work/nano_dla.onnx']
    assert 'layers on DLA: 100.0 %' in said['lint work/nano_dla.onnx']
    assert (work / 'nano.cache').read_text().startswith('TRT-8600-EntropyCalibration2\n')
    scales = json.loads((work / 'nano.scales.json').read_text())
    assert min(scales.values()) > 0
    for name in ('nano_dla.fp16', 'nano_int8.int8', 'apron_yolox.fp16',
                 'yolox_int8.int8',
                 'apron_pointpillars.fp16', 'pointpillars_int8.int8'):  # fmt: skip
        manifest = Manifest.read(work / f'{name}.gpu.engine')
        assert manifest.precision == name.split('.')[1]
        assert manifest.onnx_path(work / 'any').is_file()
    operators = {node.op_type for node in onnx.load(str(work / 'nano_int8.onnx')).graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear'} <= operators
    for name in ('nano', 'layers'):
        assert browser.open_page(work / f'{name}.html', tmp_path / f'{name}.png') == []
    assert '22' in said['checklist --models']
    assert (work / 'release.md').read_text().startswith('# ')

"""What cannot be used: every verb says so in one line, with status 2, and changes no file."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.deploy.__main__ import main
from airside_perception.engine.quantize import quantize

FLOAT = TensorProto.FLOAT

# {verb: its words, MODEL and OUT in place}
VERBS = {
    'sanitize': 'sanitize MODEL --out OUT.onnx',
    'inspect': 'inspect MODEL',
    'lint': 'lint MODEL --target dla --jetpack 6.2',
    'rewrite': 'rewrite MODEL --target dla --jetpack 6.2 --out OUT.onnx',
    'resize': 'resize MODEL OUT.onnx --height 64 --width 64 --card CARD',
    'encoder': 'encoder MODEL',
    'calibrate': 'calibrate MODEL --data DATA --out OUT.json',
    'build': 'build MODEL --out OUT.engine',
    'bench': 'bench MODEL --duration 0.1',
    'profile': 'profile MODEL --iterations 1',
    'compare': 'compare MODEL MODEL --data DATA',
    'search-precision': 'search-precision MODEL --data DATA --out OUT.onnx',
}


def network(folder: Path, **changes: Any) -> onnx.ModelProto:
    """y = relu(conv(x)), x [1, 3, 8, 8]."""
    del folder
    weight = np.full((4, 3, 3, 3), 0.1, np.float32)
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['c'], 'conv', pads=[1, 1, 1, 1]),
        helper.make_node(changes.get('last', 'Relu'), ['c'], ['y'], 'last',
                         domain=changes.get('domain', '')),
    ]  # fmt: skip
    shape = changes.get('shape', [1, 3, 8, 8])
    graph = helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info('x', FLOAT, shape)],
        [helper.make_tensor_value_info('y', FLOAT, None if shape is None else [1, 4, 8, 8])],
        [numpy_helper.from_array(weight, 'w')],
    )  # fmt: skip
    opsets = [helper.make_opsetid('', changes.get('opset', 17))]
    if changes.get('domain'):
        opsets.append(helper.make_opsetid(changes['domain'], 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def write(path: Path, kind: str) -> Path:
    """A file that is no network, or one that cannot be used."""
    model = network(path.parent)
    if kind == 'missing':
        return path
    if kind == 'folder':
        path.mkdir()
    elif kind == 'text':
        path.write_text('this is no network')
    elif kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'cut':
        path.write_bytes(model.SerializeToString()[:-60])
    elif kind == 'external data missing':
        onnx.save(model, str(path), save_as_external_data=True, location='weights.bin',
                  size_threshold=0)  # fmt: skip
        (path.parent / 'weights.bin').unlink()
    elif kind == 'dynamic rank':
        onnx.save(network(path.parent, shape=None), str(path))
    elif kind == 'opset of the future':
        onnx.save(network(path.parent, opset=99), str(path))
    elif kind == 'custom operator':
        onnx.save(network(path.parent, last='Fly', domain='own.domain'), str(path))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / 'data'
    folder.mkdir()
    np.savez(folder / 'a.npz', x=np.ones((1, 3, 8, 8), np.float32))
    return folder


@pytest.fixture(autouse=True)
def _rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AIRSIDE_TENSORRT', 'tensorrt_rtx_bindings')


def state(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


def words_of(verb: str, model: Path, data: Path) -> list[str]:
    card = Path(__file__).resolve().parents[2] / 'config' / 'cards' / 'yolox_nano_coco.yaml'
    replaced = VERBS[verb].replace('MODEL', str(model)).replace('DATA', str(data))
    return replaced.replace('OUT', str(model.parent / 'out')).replace('CARD', str(card)).split()


def cases() -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for kind in ('missing', 'folder', 'text', 'empty', 'cut', 'external data missing'):
        yield from ((kind, verb, (2,)) for verb in VERBS)
    # a linter judges what is there, a sanitizer leaves alone what it does not know
    custom = {'lint': (1,), 'sanitize': (0,), 'rewrite': (1, 2)}
    rank = {'lint': (1, 2), 'rewrite': (1, 2), 'sanitize': (1, 2), 'build': (2,)}
    for verb in VERBS:
        yield 'custom operator', verb, custom.get(verb, (2,))
        yield 'opset of the future', verb, {'lint': (1,)}.get(verb, (2,))
        yield 'dynamic rank', verb, rank.get(verb, (0, 2))


@pytest.mark.parametrize(('kind', 'verb', 'statuses'), list(cases()))
def test_one_line_and_nothing_lost(
    kind: str, verb: str, statuses: tuple[int, ...], tmp_path: Path, data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if verb == 'build':
        pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    model = write(tmp_path / 'net.onnx', kind)
    before = state(tmp_path)
    status = main(words_of(verb, model, data))
    out, err = capsys.readouterr()
    assert status in statuses, (status, out, err)
    if status == 2:
        assert err.startswith('engine: ')
        assert err.count('\n') == 1, err
        assert len(err) > 30
        assert out == ''
        assert state(tmp_path) == before


def test_qdq_with_a_calibration_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    feeds = [{'x': np.ones((1, 3, 8, 8), np.float32)}]
    onnx.save(quantize(network(tmp_path), feeds), str(tmp_path / 'qdq.onnx'))
    (tmp_path / 'scales.json').write_text('{"x": 0.1, "c": 0.1}')
    words = ['build', str(tmp_path / 'qdq.onnx'), '--precision', 'int8', '--calibration']
    before = state(tmp_path)
    assert main([*words, str(tmp_path / 'scales.json')]) == 2
    err = capsys.readouterr().err
    assert 'has Q/DQ nodes with scales of its own' in err
    assert err.count('\n') == 1
    assert state(tmp_path) == before


@pytest.mark.parametrize('verb', ['build', 'calibrate', 'compare'])
def test_a_cache_of_another_network(
    verb: str, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if verb == 'build':
        pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    path = tmp_path / 'net.onnx'
    onnx.save(network(tmp_path), str(path))
    cache = tmp_path / 'other.cache'
    cache.write_text('TRT-8600-EntropyCalibration2\nimages: 3c010a14\nfeatures: 3d5f43b3\n')
    words = {
        'build': ['build', path, '--precision', 'int8', '--calibration', cache],
        'calibrate': ['calibrate', path, '--scales', cache, '--emit-qdq', tmp_path / 'q.onnx'],
        'compare': ['compare', path, '--as', 'int8', '--scales', cache, '--data', data],
    }[verb]
    before = state(tmp_path)
    assert main([str(word) for word in words]) == 2
    err = capsys.readouterr().err
    assert err.count('\n') == 1
    assert 'another network' in err
    assert state(tmp_path) == before


@pytest.mark.parametrize('verb', ['sanitize', 'rewrite', 'calibrate', 'build'])
def test_a_full_disk(
    verb: str, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if verb == 'build':
        pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    path = tmp_path / 'net.onnx'
    onnx.save(network(tmp_path), str(path))
    for name in ('out.onnx', 'out.json', 'out.engine', 'out.engine.json'):
        (tmp_path / name).write_text('what was there before')
    before = state(tmp_path)

    def full(self: Path, content: bytes) -> int:
        self.touch()
        if len(content):
            raise OSError(errno.ENOSPC, 'No space left on device')
        return 0

    monkeypatch.setattr(Path, 'write_bytes', full)
    assert main(words_of(verb, path, data)) == 2
    err = capsys.readouterr().err
    assert 'No space left on device' in err
    assert err.count('\n') == 1
    assert state(tmp_path) == before


def test_an_interrupted_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No half-written engine or manifest, and what was there stays."""
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    from airside_perception.engine import build

    path, engine = tmp_path / 'net.onnx', tmp_path / 'net.engine'
    onnx.save(network(tmp_path), str(path))
    words = ['build', str(path), '--out', str(engine)]
    assert main(words) == 0
    before = state(tmp_path)

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    for step in ('_built', 'write_engine'):
        with monkeypatch.context() as patch:
            patch.setattr(build, step, interrupt)
            assert main([*words, '--precision', 'fp32']) == 130
        assert state(tmp_path) == before
    assert 'interrupted' in capsys.readouterr().err

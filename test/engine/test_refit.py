"""`engine refit` and stripped engines, on fakes of every version's true surface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from airside_perception.deploy import refit as module_under_test
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.refit import refit
from airside_perception.engine import open_engine
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.manifest import Manifest, manifest_path, sha256_of
from airside_perception.engine.structure import (
    structure_difference,
    structure_sha256,
    weight_hashes,
    weight_values,
)
from airside_perception.errors import EngineError, RefusalError

BUILDERS = ['full_8_5', 'full_8_6', 'full_10_0', 'full_10_3', 'full_10_7', 'full_10_16',
            'full_11_0', 'full_11_4', 'rtx_1_7']  # fmt: skip
PARSERS = BUILDERS[2:]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def fake(install: Any, builders: Any, cuda: Any, monkeypatch: Any, tmp_path: Path) -> Any:
    """Function: makes a fake TensorRT with a builder the one that is installed."""
    monkeypatch.setenv('AIRSIDE_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(module_under_test, 'runtime', cuda)
    return lambda name: builders.equip(install(name))


@pytest.fixture
def save(network: Any, tmp_path: Path) -> Any:
    """Function: writes y = x * g, a network whose answer the fake engine computes."""

    def write(gain: float, name: str = 'net.onnx', shape: Any = (1, 2, 3), **weights: Any) -> Path:
        constants = {'g': np.float32([gain]), **weights}
        nodes = [helper.make_node('Mul', ['x', 'g'], ['y'], '/scale')]
        if 'h' in weights:
            nodes[0].output[0] = 'm'
            nodes.append(helper.make_node('Add', ['m', 'h'], ['y'], '/shift'))
        onnx.save(
            network(nodes, {'x': list(shape)}, {'y': list(shape)}, constants), tmp_path / name
        )
        return tmp_path / name

    return write


def built(path: Path, **settings: Any) -> Path:
    engine = path.with_suffix('.engine')
    build_engine(path, engine, BuildSettings(**{'refit': True, **settings}))
    return engine


def files(engine: Path) -> tuple[bytes, bytes]:
    return engine.read_bytes(), manifest_path(engine).read_bytes()


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('name', BUILDERS)
def test_new_weights(fake: Any, save: Any, name: str, precision: str) -> None:
    fake(name)
    engine = built(save(2.0), precision=precision)
    new = save(3.0, 'new.onnx')
    found = refit(engine, new)
    assert found.changed == ('g',)
    assert found.weights == 1
    assert found.compared['y'].max_rel < 1e-2
    assert found.not_checked == ''
    manifest = Manifest.read(engine)
    assert manifest.onnx == 'new.onnx'
    assert manifest.onnx_sha256 == sha256_of(new)
    assert manifest.engine_sha256 == sha256_of(engine)
    assert manifest.refittable
    assert manifest.notes[-1].startswith('refitted from new.onnx on ')
    with open_engine(engine) as opened:
        x = np.ones((1, 2, 3), np.float32)
        assert opened.infer({'x': x})['y'] == pytest.approx(3 * x, rel=1e-3)
    # and again, over the file that it was built from
    assert refit(engine, save(5.0)).changed == ('g',)
    assert [n.split(' on ')[0] for n in Manifest.read(engine).notes] == ['refitted from net.onnx']
    with open_engine(engine) as opened:
        assert opened.infer({'x': x})['y'] == pytest.approx(5 * x, rel=1e-3)


def test_into_another_file(fake: Any, save: Any, capsys: Capture, tmp_path: Path) -> None:
    fake('full_8_6')
    engine = built(save(2.0))
    before = files(engine)
    out = tmp_path / 'deep' / 'b.engine'
    words = ['refit', str(engine), str(save(4.0, 'new.onnx')), '--out', str(out)]
    assert main([*words, '--json']) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table['changed'], table['checked'], table['onnx']) == (['g'], True, '../new.onnx')
    assert table['outputs']['y']['max_rel'] < table['limit'] == 0.03
    assert files(engine) == before
    assert Manifest.read(out).onnx_path(out).resolve() == tmp_path / 'new.onnx'
    assert main(words) == 0
    text = capsys.readouterr().out
    assert 'changed     1 of 1 weights: g\n' in text
    assert 'checked     y: ' in text
    assert main([*words, '--no-check']) == 0
    assert 'not checked it was not asked for' in capsys.readouterr().out


def test_the_same_weights(fake: Any, save: Any, capsys: Capture) -> None:
    fake('full_10_3')
    path = save(2.0)
    assert main(['refit', str(built(path)), str(path)]) == 0
    assert 'changed     0 of 1 weights: none: they were the same' in capsys.readouterr().out


def test_answers_that_differ_keep_what_was_there(fake: Any, save: Any, capsys: Capture) -> None:
    """The fake engine knows nothing of the shift; nor would a TensorRT that dropped a bias."""
    fake('full_10_3')
    shift = np.float32([[[0.0, 0.0, 0.0]]])
    engine = built(save(2.0, h=shift))
    before = files(engine)
    new = save(2.0, 'new.onnx', h=shift + 9)
    assert main(['refit', str(engine), str(new)]) == 1
    err = capsys.readouterr().err
    assert 'does not answer as ONNX Runtime: y is' in err
    assert err.count('\n') == 1
    assert files(engine) == before
    assert [path for path in engine.parent.iterdir() if path.name.startswith('.')] == []
    assert main(['refit', str(engine), str(new), '--no-check']) == 0


@pytest.mark.parametrize('name', BUILDERS)
def test_engines_that_are_not_refittable(fake: Any, save: Any, name: str, capsys: Capture) -> None:
    fake(name)
    path = save(2.0)
    engine = built(path, refit=False)
    assert main(['refit', str(engine), str(path)]) == 1
    err = capsys.readouterr().err
    assert 'its weights are fixed; build it for others: ' in err
    assert err.endswith(' --refit\n')


def test_other_structures(fake: Any, save: Any, network: Any, tmp_path: Path) -> None:
    fake('full_8_6')
    path = save(2.0)
    engine = built(path)
    wide = save(2.0, 'wide.onnx', (1, 2, 4))
    with pytest.raises(RefusalError, match=r'input x: float \[1, 2, 4\], and it was input x: '):
        refit(engine, wide)
    added = save(2.0, 'added.onnx', h=np.zeros((1, 1, 3), np.float32))
    with pytest.raises(RefusalError, match=r'not the network that .* was built from, with other'):
        refit(engine, added)
    path.unlink()  # the hash in the manifest is enough to tell
    with pytest.raises(RefusalError, match='names, operators or shapes are others'):
        refit(engine, wide)


def test_what_structure_is(network: Any) -> None:
    def made(gain: float, axis: int, name: str = '/scale', op: str = 'Mul') -> Any:
        nodes = [
            helper.make_node('Constant', [], ['c'], value=numpy_helper.from_array(
                np.full((2, 1), gain, np.float32))),
            helper.make_node(op, ['x', 'c'], ['m'], name),
            helper.make_node('Unsqueeze', ['m', 'axes'], ['y'], '/wider'),
        ]  # fmt: skip
        axes = {'axes': np.array([axis])}
        shape = [1, 2, 3] if axis == 0 else [2, 1, 3]
        return network(nodes, {'x': [2, 3]}, {'y': shape}, axes)

    base = made(1.0, 0)
    assert structure_sha256(made(7.0, 0)) == structure_sha256(base)
    assert structure_difference(base, made(7.0, 0)) == ''
    assert weight_hashes(made(7.0, 0)).keys() == weight_hashes(base).keys() == {'c'}
    assert weight_hashes(made(7.0, 0)) != weight_hashes(base)
    assert weight_values(base)['c'].tolist() == [[1.0], [1.0]]
    for other, said in [
        (made(1.0, 1), 'output y: float'),
        (made(1.0, 0, 'scale'), "node 'scale' Mul(x, c) -> m, and it was node '/scale' Mul"),
        (made(1.0, 0, op='Add'), "node '/scale' Add(x, c) -> m, and it was"),
    ]:
        assert structure_sha256(other) != structure_sha256(base)
        assert structure_difference(base, other).startswith(said)
    swapped = onnx.ModelProto()
    swapped.CopyFrom(made(1.0, 0))
    first = onnx.NodeProto()
    first.CopyFrom(swapped.graph.node[0])
    del swapped.graph.node[0]
    swapped.graph.node.append(first)
    assert structure_difference(base, swapped) == 'the same nodes in another order'


@pytest.mark.parametrize('name', BUILDERS)
def test_weights_that_the_parser_renamed(fake: Any, save: Any, name: str) -> None:
    """Before 10 they cannot be set; later, TensorRT's own parser knows them."""
    trt = fake(name)
    trt.unnamed = {'g'}
    engine = built(save(2.0), precision='fp32')
    new = save(3.0, 'new.onnx')
    with pytest.raises(RefusalError) as caught:
        refit(engine, new, check=False)
    if name in PARSERS:  # but for batch normalisations, nobody can tell that it was taken
        assert '1 changed weights have no place in it (g)' in str(caught.value)
    else:
        assert "has no weights 'g_folded', which the engine has" in str(caught.value)
        assert 'engine sanitize' in str(caught.value)


@pytest.mark.parametrize('name', ['full_8_6', 'full_10_3'])
def test_weights_that_only_go_together(fake: Any, save: Any, name: str) -> None:
    trt = fake(name)
    engine = built(save(2.0))
    trt.entangled = ('g', 'b1', 'b2')
    with pytest.raises(RefusalError, match=r"the network lacks weights of the engine: 'b1', 'b2'"):
        refit(engine, save(3.0, 'new.onnx'))


@pytest.mark.parametrize('name', ['full_8_6', 'full_10_3', 'rtx_1_7'])
def test_tensorrt_refuses(fake: Any, save: Any, name: str) -> None:
    trt = fake(name)
    engine = built(save(2.0))
    before = files(engine)
    trt.refit_fails = '[r.cpp::refit::1] Error Code 4: kernels of another weight count'
    with pytest.raises(RefusalError, match=r'cannot refit it: .*kernels of another weight count'):
        refit(engine, save(3.0, 'new.onnx'))
    assert files(engine) == before


def test_without_a_gpu_or_on_another_machine(
    fake: Any, cuda: Any, save: Any, monkeypatch: Any
) -> None:
    fake('full_10_3')
    engine = built(save(2.0))
    new = save(3.0, 'new.onnx')
    fake('full_10_7')
    with pytest.raises(RefusalError, match=r'built by TensorRT full 10\.3\.0, this is .*10\.7\.0'):
        refit(engine, new)
    fake('full_10_3')
    engine.write_bytes(engine.read_bytes() + b' ')
    with pytest.raises(RefusalError, match='its bytes are not those that were built'):
        refit(engine, new)
    monkeypatch.setattr(cuda, 'reason', 'no CUDA GPU: nothing there')
    with pytest.raises(RefusalError, match='changed on the GPU that it is for: no CUDA GPU'):
        refit(engine, new)
    manifest_path(engine).unlink()
    with pytest.raises(EngineError, match='no manifest'):
        refit(engine, new)
    with pytest.raises(EngineError, match='not readable: No such file'):
        refit(engine.with_name('none.engine'), new)


def test_a_version_compatible_engine_is_refitted_where_it_was_built(fake: Any, save: Any) -> None:
    fake('full_8_6')
    engine = built(save(2.0), version_compatible=True)
    new = save(3.0, 'new.onnx')
    with pytest.raises(RefusalError, match='--allow-host-code allows it'):
        refit(engine, new)
    fake('full_10_3')
    with pytest.raises(RefusalError, match=r'built by TensorRT 8\.6\.0: refit it there'):
        refit(engine, new, allow_host_code=True)
    fake('full_8_6')
    assert refit(engine, new, allow_host_code=True).changed == ('g',)


def test_scales_that_are_gone(fake: Any, network: Any, tmp_path: Path, capsys: Capture) -> None:
    fake('full_10_3')
    weights = {'w': np.ones((4, 4, 1, 1), np.float32)}
    nodes = [helper.make_node('Conv', ['x', 'w'], ['y'], '/conv')]
    path = tmp_path / 'net.onnx'
    onnx.save(network(nodes, {'x': [1, 4, 2, 2]}, {'y': [1, 4, 2, 2]}, weights), path)
    scales = tmp_path / 'scales.json'
    scales.write_text('{"x": 0.1}')
    engine = built(path, precision='int8', calibration=scales)
    scales.write_text('{"x": 0.2}')
    assert main(['refit', str(engine), str(path)]) == 2
    assert 'scales.json: has changed since' in capsys.readouterr().err
    scales.unlink()
    assert main(['refit', str(engine), str(path)]) == 2
    assert 'scales.json: no such calibration' in capsys.readouterr().err


@pytest.mark.parametrize('name', PARSERS)
@pytest.mark.parametrize('also', [False, True])
def test_stripped_engines(fake: Any, save: Any, name: str, also: bool, capsys: Capture) -> None:
    trt = fake(name)
    path = save(2.0)
    engine = built(path, refit=also, strip=True)
    assert trt.told.flags() >= {'STRIP_PLAN', 'REFIT' if also else 'REFIT_IDENTICAL'}
    assert ('REFIT' in trt.told.flags()) == also
    manifest = Manifest.read(engine)
    assert (manifest.stripped, manifest.refittable) == (True, True)
    with pytest.raises(EngineError, match=r'its weights were left out .* refit \S+net\.engine'):
        open_engine(engine)
    assert refit(engine, path).changed == ()
    manifest = Manifest.read(engine)
    assert not manifest.stripped
    open_engine(engine).close()
    new = save(3.0, 'new.onnx')
    if also:
        assert refit(engine, new).changed == ('g',)
        return
    with pytest.raises(RefusalError, match='only the same weights may come back, and 1 differ'):
        refit(engine, new)


def test_shapes_that_vary_are_checked_at_the_usual_one(fake: Any, save: Any) -> None:
    trt = fake('full_10_3')
    bounds = ((1, 2, 3), (4, 2, 3), (8, 2, 3))
    engine = built(save(2.0, shape=('n', 2, 3)), profiles=({'x': bounds},))
    trt.ran.clear()
    found = refit(engine, save(3.0, 'new.onnx', ('n', 2, 3)))
    assert found.compared['y'].max_rel < 1e-2
    assert (0, (4, 2, 3)) in trt.ran


def test_interrupted_between_engine_and_manifest(
    fake: Any, save: Any, monkeypatch: Any, capsys: Capture
) -> None:
    """The manifest of before does not know the bytes: the engine is refused."""
    fake('full_8_6')
    engine = built(save(2.0))
    replace, done = Path.replace, []

    def once(self: Path, target: Path) -> Path:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, 'replace', once)
    assert main(['refit', str(engine), str(save(3.0, 'new.onnx')), '--no-check']) == 130
    assert done == [engine]
    monkeypatch.setattr(Path, 'replace', replace)
    assert not [path for path in engine.parent.iterdir() if path.name.startswith('.')]
    with pytest.raises(EngineError, match=r'its bytes are not those that were built .*Build it'):
        open_engine(engine)


def test_a_full_disk(fake: Any, save: Any, monkeypatch: Any, capsys: Capture) -> None:
    fake('full_8_6')
    engine = built(save(2.0))
    new = save(3.0, 'new.onnx')
    before = files(engine)
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name.startswith('.net.engine.json'):
            write(self, data[:10])
            raise OSError(28, 'No space left on device')
        return write(self, data)

    monkeypatch.setattr(Path, 'write_bytes', full)
    assert main(['refit', str(engine), str(new), '--no-check']) == 2
    assert capsys.readouterr().err == (
        f'engine: {engine}.json: cannot be written: No space left on device\n'
    )
    assert files(engine) == before
    assert not [path for path in engine.parent.iterdir() if path.name.startswith('.')]

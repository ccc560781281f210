"""`engine inspect` of engines: with a GPU (a fake one) and without; beside the fakes it needs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from airside_perception.deploy import inspect_engine as module_under_test
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.inspect_engine import inspect_engine
from airside_perception.deploy.inspect_text import describe_engine
from airside_perception.engine import open_engine
from airside_perception.engine.capabilities import MODULES
from airside_perception.engine.manifest import Manifest
from airside_perception.errors import EngineError


@pytest.fixture(autouse=True)
def gpu(cuda, monkeypatch):
    monkeypatch.setattr(module_under_test, 'runtime', cuda)
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    return cuda


@pytest.fixture
def engine(fakes, tmp_path):
    """An engine of the tiny camera network's shape, with its manifest."""
    x = fakes.tensor('images', 'INPUT', [1, 3, 64, 96], dtype='HALF', format='HWC8')
    y = fakes.tensor('output', 'OUTPUT', [1, 6, 7])
    data = fakes.plan(x, y)
    path = tmp_path / 'camera.engine'
    path.write_bytes(data)
    (tmp_path / 'camera.onnx').write_bytes(b'network')
    entry = {'name': 'images', 'dtype': 'float16', 'shape': [1, 3, 64, 96], 'layout': 'hwc8'}
    Manifest(
        onnx='camera.onnx',
        onnx_sha256=hashlib.sha256(b'network').hexdigest(),
        engine_sha256=hashlib.sha256(data).hexdigest(),
        tensorrt='10.3.0',
        flavor='full',
        cuda='12.6',
        gpu='Fake GPU',
        sm='sm_90',
        precision='fp16',
        inputs=(entry,),
        outputs=({'name': 'output', 'dtype': 'float32', 'shape': [1, 6, 7], 'layout': 'linear'},),
        built='2026-11-22T12:00:00Z',
    ).write(path)
    return path


def run(monkeypatch, capsys, *words):
    status = main(['inspect', *map(str, words)])
    return status, capsys.readouterr()


@pytest.fixture
def unopened(fakes, monkeypatch):
    """The fake network answers in the shape of its input: it is opened and not run."""
    monkeypatch.setattr(fakes.IExecutionContext, 'execute_async_v3', lambda self, stream: True)


def test_an_engine_that_belongs_here(install, engine, unopened):
    install('full_10_3')
    found = inspect_engine(engine)
    assert found.problem == ''
    assert found.tensorrt == 'TensorRT 10.3.0 (tensorrt)'
    assert found.tried == ('tensorrt: TensorRT 10.3.0, chosen',)
    assert found.capabilities['strongly_typed'] == 'flag'
    assert found.gpu == 'Fake GPU (sm_90)'
    assert found.not_opened == ''
    assert found.inputs == ('images: float16 [1, 3, 64, 96] hwc8',)
    assert found.outputs == ('output: float32 [1, 6, 7] linear',)
    assert found.device_bytes == 64 * 96 * 8 * 2 + 6 * 7 * 4 + 1000
    text = describe_engine(found)
    assert 'tried     tensorrt: TensorRT 10.3.0, chosen' in text
    assert 'by        TensorRT full 10.3.0, 2026-11-22T12:00:00Z' in text
    assert 'belongs   here' in text
    assert 'card        none beside it' in text


def test_what_was_tried_is_told_in_order(install, engine, unopened):
    install('lean_10_16')
    found = inspect_engine(engine)
    tried = [item.partition(':')[0] for item in found.tried]
    assert tried == list(MODULES)[: tried.index('tensorrt_lean') + 1]
    assert found.tried[-1] == 'tensorrt_lean: TensorRT lean 10.16.1.11, chosen'
    assert 'not version compatible' in found.problem
    assert f'rebuild     python -m airside_perception.deploy build {engine.parent}' in (
        describe_engine(found)
    )


def test_without_a_gpu_the_manifest_speaks(install, engine, cuda, tiny_models):
    install('full_10_3')
    cuda.reason = 'no NVIDIA driver'
    tiny_models.tiny_camera_model(engine.parent)
    card = next(path for path in engine.parent.glob('*.yaml'))
    found = inspect_engine(engine, str(card))
    assert found.problem == ''
    assert 'an engine runs on a GPU: no NVIDIA driver' in found.not_opened
    assert found.inputs == ('images: float16 [1, 3, 64, 96] hwc8',)
    assert found.card['input'] == '96 x 64, bgr'
    assert 'belongs   as far as can be told without a GPU' in describe_engine(found)
    broken = card.with_name('wide.yaml')
    broken.write_text(card.read_text().replace('width: 96', 'width: 128'))
    assert 'needs' in inspect_engine(engine, str(broken)).card_problem


def test_without_any_tensorrt(install, engine, cuda, monkeypatch):
    install('rtx_1_7')
    cuda.reason = 'no NVIDIA driver'
    found = inspect_engine(engine)
    assert found.tensorrt == ''
    assert 'no TensorRT here' in found.tried[0]
    assert 'TensorRT    none here' in describe_engine(found)


def test_differences_and_exit_status(install, engine, unopened, monkeypatch, capsys):
    install('full_10_7')
    status, said = run(monkeypatch, capsys, engine)
    assert status == 1
    assert 'PROBLEM     built by TensorRT full 10.3.0, this is TensorRT full 10.7.0' in said.out
    assert 'rebuild     python -m airside_perception.deploy build' in said.out
    install('full_10_3')
    status, said = run(monkeypatch, capsys, engine, '--json')
    assert status == 0
    table = json.loads(said.out)
    assert table['manifest']['precision'] == 'fp16'
    assert table['capabilities']['precision_flags'] == ['BF16', 'FP16', 'FP8', 'INT4', 'INT8']


def test_an_engine_that_tensorrt_refuses(install, engine, monkeypatch, capsys):
    install('full_10_3').errors.append('broken')
    status, said = run(monkeypatch, capsys, engine)
    assert status == 1
    assert 'not opened' in said.out
    assert 'broken' in said.out
    status, said = run(monkeypatch, capsys, engine.with_name('missing.engine'))
    assert status == 2
    assert 'missing.engine: not readable' in said.err


def test_a_manifest_for_an_engine_that_came_without(
    install, engine, unopened, monkeypatch, capsys
):
    install('full_10_3')
    beside = Path(f'{engine}.json')
    beside.unlink()
    status, said = run(monkeypatch, capsys, engine)
    assert status == 1
    assert 'PROBLEM' in said.out
    assert '--write-manifest' in said.out
    onnx = engine.with_suffix('.onnx')
    status, said = run(monkeypatch, capsys, engine, '--write-manifest', onnx)
    assert status == 0
    assert 'camera.engine.json: says that this engine belongs to this machine' in said.err
    written = Manifest.read(engine)
    assert written.onnx == 'camera.onnx'
    assert (written.gpu, written.sm, written.tensorrt) == ('Fake GPU', 'sm_90', '10.3.0')
    assert written.inputs[0]['layout'] == 'hwc8'
    open_engine(engine).close()
    with pytest.raises(EngineError, match='its precision is unknown, asked for fp16'):
        open_engine(engine, precision='fp16')


def test_a_manifest_that_makes_no_sense(install, engine):
    install('full_10_3')
    beside = Path(f'{engine}.json')
    text = json.loads(beside.read_text())
    text['inputs'] = [{'name': 'x', 'shape': [1], 'dtype': 'nonsense'}]
    beside.write_text(json.dumps(text))
    with pytest.raises(EngineError, match='the manifest describes a tensor as'):
        inspect_engine(engine)


# --- profiles, layers, weights ---

LAYERS = [
    {'Name': '/stem + /relu', 'LayerType': 'CaskConvolution', 'Weights': {'Type': 'Half'}},
    {'Name': '/head', 'LayerType': 'CaskConvolution', 'Weights': {'Type': 'Int8'},
     'Outputs': [{'Name': 'y', 'Format/Datatype': 'Row major linear FP32'}]},
    {'Name': 'Reformatting CopyNode for y', 'LayerType': 'Reformat',
     'Outputs': [{'Name': 'y', 'Format/Datatype': 'Channel major FP16 format'}]},
]  # fmt: skip
BOUNDS = [[[1, 3, 4], [1, 3, 4], [2, 3, 4]], [[3, 3, 4], [4, 3, 4], [8, 3, 4]]]


@pytest.fixture
def varying(engine, fakes):
    """An engine with two profiles that can be refitted; its manifest knows less of it."""
    x = fakes.tensor('x', 'INPUT', [-1, 3, 4], profiles=BOUNDS)
    data = fakes.plan(x, fakes.tensor('y', 'OUTPUT', [-1, 3, 4]), profiles=2, refittable=True,
                      weights={})  # fmt: skip
    engine.write_bytes(data)
    manifest = Manifest.read(engine)
    ports = [
        {'name': n, 'dtype': 'float32', 'shape': [-1, 3, 4], 'layout': 'linear'} for n in 'xy'
    ]
    told = dataclasses.replace(
        manifest,
        engine_sha256=hashlib.sha256(data).hexdigest(),
        inputs=(ports[0],),
        outputs=(ports[1],),
        profiles=({'x': BOUNDS[0]},),
        memory_bytes=77,
    )
    told.write(engine)
    return engine


@pytest.mark.parametrize('name', ['full_8_5', 'full_8_6', 'full_10_3', 'full_10_16', 'full_11_4'])
def test_an_open_engine_says_it_all(install, varying, name, capsys):
    trt = install(name)
    trt.layers = LAYERS
    manifest = dataclasses.replace(Manifest.read(varying), tensorrt=trt.__version__)
    manifest.write(varying)
    found = inspect_engine(varying)
    assert found.problem == ''
    assert found.profiles == (
        {'x': ((1, 3, 4), (1, 3, 4), (2, 3, 4))},
        {'x': ((3, 3, 4), (4, 3, 4), (8, 3, 4))},
    )
    assert found.refittable
    assert found.memory_bytes == 1000
    rows = [(layer['device'], layer['precision'], layer['kind']) for layer in found.layers]
    assert rows == [
        ('gpu', 'fp16', 'CaskConvolution'),
        ('gpu', 'int8', 'CaskConvolution'),
        ('gpu', 'fp16', 'Reformat'),
    ]
    assert main(['inspect', str(varying)]) == 0
    text = capsys.readouterr().out
    assert '  profile 1   x: 3x3x4 to 8x3x4, best 4x3x4\n' in text
    assert '  memory      1,000 bytes for the layers to work in\n' in text
    assert '  weights     can be changed: engine refit\n' in text
    assert '  layers      3: gpu 3; fp16 2, int8 1 (from the engine)\n' in text
    assert '/stem + /relu' not in text
    assert main(['inspect', str(varying), '--layers']) == 0
    text = capsys.readouterr().out
    assert '    gpu  fp16  CaskConvolution  /stem + /relu\n' in text
    assert '    gpu  int8  CaskConvolution  /head\n' in text
    assert main(['inspect', str(varying), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['layers'][1]['precision'] == 'int8'


def test_a_manifest_leads_to_its_engine(install, varying, capsys):
    install('full_10_3')
    assert main(['inspect', f'{varying}.json']) == 0
    text = capsys.readouterr().out
    assert text.startswith(f'{varying}\n')
    assert 'opened      and ran' in text


def test_a_manifest_alone(install, varying, cuda, capsys):
    """What it says, with a GPU and without one."""
    install('full_10_3')
    varying.unlink()
    for cuda.reason in ('', 'no NVIDIA driver'):
        assert main(['inspect', f'{varying}.json', '--layers']) == 0
        text = capsys.readouterr().out
        assert 'not opened  there is no camera.engine beside its manifest' in text
        assert '  profile 0   x: 1x3x4 to 2x3x4, best 1x3x4\n' in text
        assert '  memory      77 bytes' in text
        assert '  weights     fixed\n' in text
        assert 'layers      said by nothing: open it on its GPU' in text
        assert '  size ' not in text
    install('full_10_7')
    assert main(['inspect', f'{varying}.json', '--json']) == 1
    table = json.loads(capsys.readouterr().out)
    assert table['differences'] == ['built by TensorRT full 10.3.0, this is TensorRT full 10.7.0']


def test_what_is_no_manifest(engine, tmp_path, capsys):
    (tmp_path / 'other.engine.json').write_text('[]')
    for name, said in [
        ('other.engine.json', 'not a manifest of format 1'),
        ('none.engine.json', 'no manifest none.engine.json'),
        ('scales.json', 'expected the name of a manifest, NAME.engine.json'),
    ]:
        assert main(['inspect', str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count('\n') == 1

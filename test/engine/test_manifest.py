"""Manifests: what they hold, and each way in which an engine may not belong where it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from airside_perception.engine.manifest import (
    Machine,
    Manifest,
    manifest_path,
    sha256_of,
    sm_number,
)
from airside_perception.engine.rebuild import command, rebuild_command
from airside_perception.errors import EngineError

ORIN = Machine('Orin', 'sm_87', '10.3.0', 'full', -1)


@pytest.fixture(autouse=True)
def no_ros(monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)


@pytest.fixture
def engine(tmp_path):
    (tmp_path / 'net.onnx').write_bytes(b'network')
    path = tmp_path / 'net.engine'
    path.write_bytes(b'engine')
    return path


@pytest.fixture
def manifest():
    return Manifest(
        onnx='net.onnx',
        onnx_sha256=hashlib.sha256(b'network').hexdigest(),
        engine_sha256=hashlib.sha256(b'engine').hexdigest(),
        tensorrt='10.3.0',
        flavor='full',
        cuda='12.6',
        gpu='Orin',
        sm='sm_87',
        precision='fp16',
        inputs=({'name': 'x', 'dtype': 'float16', 'shape': [1, 3, -1], 'layout': 'hwc8'},),
        profiles=({'x': [[1, 3, 1], [1, 3, 4], [1, 3, 8]]},),
        options=('--precision', 'fp16', '--profile', 'x:1x3x1:1x3x4:1x3x8'),
        settings={'workspace_mb': 1024},
    )


def test_written_and_read(engine, manifest):
    full = dataclasses.replace(
        manifest, dla_core=1, dla_layer_pct=87.5, not_on_dla=('Resize_3',), build_seconds=3.5
    )
    assert full.write(engine) == manifest_path(engine) == engine.parent / 'net.engine.json'
    assert [path.name for path in engine.parent.glob('*json*')] == ['net.engine.json']
    again = Manifest.read(engine)
    assert dataclasses.asdict(again) == json.loads(json.dumps(dataclasses.asdict(full))) | {
        name: tuple(getattr(full, name))
        for name in ('not_on_dla', 'inputs', 'outputs', 'options', 'notes')
    } | {'profiles': full.profiles}
    assert again.onnx_path(engine) == engine.parent / 'net.onnx'


def test_an_engine_that_belongs_here(engine, manifest):
    assert manifest.check(engine, ORIN) == []
    assert manifest.remarks(ORIN) == ()
    manifest.require(engine, ORIN)
    (engine.parent / 'net.onnx').unlink()
    assert manifest.check(engine, ORIN) == []  # a vehicle need not have the ONNX
    assert manifest.check(engine, Machine()) == []  # where nothing is known of the machine


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'sm': 'sm_90', 'gpu': 'H200'}, r'built for Orin \(sm_87\), this is H200 \(sm_90\)'),
        (
            {'tensorrt': '10.7.0'},
            r'built by TensorRT full 10\.3\.0, this is TensorRT full 10\.7\.0',
        ),
        ({'tensorrt': '8.6.2.3'}, r'this is TensorRT full 8\.6\.2\.3'),
        ({'flavor': 'rtx', 'tensorrt': '1.7.1'}, 'these run no plans of each other'),
        (
            {'flavor': 'lean', 'tensorrt': '10.3.0'},
            'not version compatible, this is TensorRT lean .* runs no others',
        ),
        ({'dla_core': 1}, 'built for the GPU, asked for DLA core 1'),
        ({'precision': 'int8'}, 'its precision is fp16, asked for int8'),
    ],
)
def test_what_differs_is_named(engine, manifest, change, said):
    machine = dataclasses.replace(ORIN, **change)
    assert len(manifest.check(engine, machine)) == 1
    with pytest.raises(EngineError, match=said) as caught:
        manifest.require(engine, machine)
    assert (
        f'Build it again: python -m airside_perception.deploy build {engine.parent}/net.onnx'
        in str(caught.value)
    )


def test_changed_bytes_and_a_changed_onnx(engine, manifest):
    engine.write_bytes(b'engine!')
    with pytest.raises(EngineError, match=r'its bytes are not those .* damaged or was replaced'):
        manifest.require(engine, ORIN)
    assert len(manifest.check(engine, ORIN, manifest.engine_sha256)) == 0
    (engine.parent / 'net.onnx').write_bytes(b'another')
    with pytest.raises(EngineError, match=r'net\.onnx has changed since it was built'):
        manifest.require(engine, ORIN, manifest.engine_sha256)


def test_everything_that_differs_is_named_at_once(engine, manifest):
    other = Machine('H200', 'sm_90', '11.4.0', 'full', 0, 'fp32')
    engine.write_bytes(b'engine!')
    assert len(manifest.check(engine, other)) == 5


def test_the_same_fix_level_is_the_same_version(engine, manifest):
    assert manifest.check(engine, dataclasses.replace(ORIN, tensorrt='10.3.0.26')) == []


def test_version_compatible_engines(engine, manifest):
    made = dataclasses.replace(manifest, tensorrt='8.6.0', version_compatible=True)
    for flavor, version in (('full', '10.3.0'), ('lean', '10.16.1.11'), ('dispatch', '8.6.0')):
        machine = dataclasses.replace(ORIN, tensorrt=version, flavor=flavor)
        assert made.check(engine, machine) == []
    older = dataclasses.replace(ORIN, tensorrt='8.5.2.2')
    assert 'this is the older TensorRT full 8.5.2.2' in made.check(engine, older)[0]


@pytest.mark.parametrize(
    ('built', 'here', 'fine'),
    [
        ('sm_80', 'sm_87', True),
        ('sm_87', 'sm_90', True),
        ('sm_90', 'sm_87', False),
        ('sm_72', 'sm_75', False),
        ('', 'sm_87', True),
    ],
)
def test_hardware_compatible_engines(engine, manifest, built, here, fine):
    made = dataclasses.replace(manifest, sm=built, hardware_compatible='ampere_plus')
    assert (made.check(engine, dataclasses.replace(ORIN, sm=here)) == []) == fine


def test_another_gpu_of_the_same_architecture_is_only_remarked(engine, manifest):
    machine = dataclasses.replace(ORIN, gpu='Orin NX')
    assert manifest.check(engine, machine) == []
    assert 'built on Orin, runs on Orin NX' in manifest.remarks(machine)[0]


def test_rebuild_commands(engine, manifest, monkeypatch):
    source = f'build {engine.parent}/net.onnx'
    start = 'python -m airside_perception.deploy'
    assert rebuild_command(engine) == f'{start} {source} --out {engine}'
    profile = '--profile x:1x3x1:1x3x4:1x3x8'
    assert (
        rebuild_command(engine, manifest)
        == f'{start} {source} --precision fp16 {profile} --out {engine}'
    )
    asked = dataclasses.replace(ORIN, dla_core=1, precision='int8')
    assert (
        rebuild_command(engine, manifest, asked)
        == f'{start} {source} --precision int8 {profile} --device dla1 --out {engine}'
    )
    plain = dataclasses.replace(manifest, options=(), dla_core=0)
    assert '--precision fp16 --device dla0 --out' in rebuild_command(engine, plain)
    assert '--device gpu --out' in rebuild_command(engine, plain, ORIN)
    elsewhere = dataclasses.replace(plain, precision='unknown')
    assert rebuild_command(engine, elsewhere) == f'{start} {source} --device dla0 --out {engine}'
    named = engine.with_name('net.int8.dla1.engine')
    assert rebuild_command(named) == (
        f'{start} {source} --precision int8 --device dla1 --out {named}'
    )
    fast = ('--precision', 'fp16', '--io-format', 'x:hwc8', '--io-format', 'y:hwc8', '--tf32')
    fast = dataclasses.replace(manifest, options=(*fast, '--device', 'gpu'))
    assert '--io-format y:hwc8 --tf32' in rebuild_command(named, fast, ORIN)
    asked = dataclasses.replace(ORIN, precision='fp32')
    assert rebuild_command(named, fast, asked) == (
        f'{start} {source} --precision fp32 --tf32 --device gpu '
        f'--out {engine.parent}/net.fp32.gpu.engine'
    )
    words = '--io-format x:chw16 --precision int8 --device dla0 --calibration s.json'
    int8 = dataclasses.replace(manifest, options=tuple(words.split()))
    core = dataclasses.replace(ORIN, dla_core=1)
    assert words.replace('dla0', 'dla1') in rebuild_command(named, int8, core)
    assert f'{source} --precision int8 --device gpu --calibration s.json --out ' in (
        rebuild_command(named, int8, dataclasses.replace(ORIN, dla_core=-1))
    )
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/opt/ros/humble')
    assert command() == 'ros2 run airside_perception engine'
    assert rebuild_command('/a b/net.engine').endswith("--out '/a b/net.engine'")


def test_without_a_manifest(engine):
    with pytest.raises(EngineError, match=r'no manifest net\.engine\.json beside it') as caught:
        Manifest.read(engine)
    assert f'build {engine.parent}/net.onnx --out {engine}' in str(caught.value)
    assert '--write-manifest MODEL.onnx' in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{', 'not readable as a manifest'),
        ('[]', 'not a manifest of format 1'),
        ('{"format": 2}', 'not a manifest of format 1'),
        ('{"format": 1}', "missing .* required positional arguments: 'onnx'"),
        ('{"format": 1, "colour": 3}', "unexpected keyword argument 'colour'"),
        ('{"format": 1, "sm": 87}', 'sm is 87'),
        ('{"format": 1, "profiles": {}}', 'profiles is {}'),
        ('{"format": 1, "version_compatible": "no"}', "version_compatible is 'no'"),
        ('{"format": 1, "dla_core": "0"}', "dla_core is '0'"),
        ('{"format": 1, "tensorrt": "new"}', "version 'new' is no version"),
    ],
)
def test_files_that_are_no_manifest(engine, text, said):
    manifest_path(engine).write_text(text)
    with pytest.raises(EngineError, match=said) as caught:
        Manifest.read(engine)
    assert 'build the engine again: python -m' in str(caught.value)


def test_files_that_cannot_be_read_or_written(engine, manifest, tmp_path):
    with pytest.raises(EngineError, match='cannot be written'):
        manifest.write(engine / 'net.engine')  # a file is no folder
    with pytest.raises(EngineError, match='not readable: No such file'):
        sha256_of(tmp_path / 'missing')
    assert (sm_number('sm_87'), sm_number('')) == (87, 0)

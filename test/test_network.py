"""Which files a network is made of, and when and how its engine is built."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import replace

import pytest

from airside_perception import network
from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.cuda import runtime
from airside_perception.engine import EngineInfo, build, capabilities
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.manifest import Manifest, sha256_of
from airside_perception.errors import CardError, ConfigError, DeviceError, EngineError
from airside_perception.network import find_network
from airside_perception.resources import resource


class Device:
    name, sm = 'a GPU', 'sm_87'


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(runtime, 'unavailable', lambda: '')
    monkeypatch.setattr(runtime, 'use_device', lambda index=0: Device())

    class TensorRT:
        version_text, flavor = '10.3.0', 'full'

    monkeypatch.setattr(capabilities, 'load_tensorrt', lambda *_, **__: TensorRT())


@pytest.fixture
def folder(tmp_path, tiny_models):
    tiny_models.tiny_lidar_model(tmp_path)
    return tmp_path


def find(folder, name='tiny_lidar.fp16.gpu.engine', **values):
    return find_network(LidarConfig, LidarCard, {'engine_path': str(folder / name), **values})


def write_engine(folder, name='tiny_lidar.fp16.gpu.engine', **changes):
    """An engine with a manifest that belongs to the machine of `gpu`."""
    path = folder / name
    path.write_bytes(b'plan')
    source = folder / 'tiny_lidar.onnx'
    manifest = Manifest(
        onnx=source.name, onnx_sha256=sha256_of(source), engine_sha256=sha256_of(path),
        tensorrt='10.3.0', flavor='full', cuda='12.6', gpu='a GPU', sm='sm_87', precision='fp16',
        settings=BuildSettings(io_precision='fp16').record(),
    )  # fmt: skip
    replace(manifest, **changes).write(path)
    return path


@pytest.mark.parametrize('name', ['tiny_lidar.fp16.gpu.engine', 'tiny_lidar.engine'])
def test_an_engine_shares_card_and_onnx_with_the_network_that_it_was_built_from(folder, name):
    found = find(folder, name)
    assert found.path == folder / name
    assert found.source == folder / 'tiny_lidar.onnx'
    assert found.card.path == str(folder / 'tiny_lidar.yaml')


def test_a_card_of_its_own_comes_first(folder):
    text = (folder / 'tiny_lidar.yaml').read_text()
    own = folder / 'tiny_lidar.fp16.gpu.yaml'
    own.write_text(text)
    assert find(folder).card.path == str(own)


def test_a_relative_engine_belongs_beside_its_onnx_in_the_models_folder():
    found = find_network(
        LidarConfig, LidarCard, {'engine_path': 'apron_pointpillars.fp16.gpu.engine'}
    )
    assert found.source.is_file()
    assert found.path.parent == found.source.parent
    assert found.card.name


def test_a_plain_name_is_not_that_of_a_file_where_the_node_was_started(folder, monkeypatch):
    name = 'apron_pointpillars.fp16.gpu.engine'
    for other in ('apron_pointpillars.onnx', 'apron_pointpillars.yaml', name):
        (folder / other).write_bytes(b'another')
    monkeypatch.chdir(folder)
    models = resource('models')
    for plain in ('apron_pointpillars.onnx', name):
        found = find_network(LidarConfig, LidarCard, {'engine_path': plain})
        assert found.path == models / plain
        assert found.card.path == str(models / 'apron_pointpillars.yaml')
    here = find_network(LidarConfig, LidarCard, {'engine_path': 'tiny_lidar.onnx'})
    assert here.path == folder / 'tiny_lidar.onnx'  # as absolute as it is logged


def test_an_engine_of_a_network_for_the_cpu_is_refused_before_it_is_built(folder, monkeypatch):
    assert find(folder).card.only_cpu == ''
    both = ('x', 'y', 'z', 'intensity', 'time_lag')
    monkeypatch.setattr(LidarCard, 'point_columns', both)
    with pytest.raises(ConfigError, match=r'needs intensity and time_lag .* to its \.onnx'):
        find(folder, engine_build='missing')
    assert find(folder, 'tiny_lidar.onnx').card.only_cpu


def test_a_missing_engine_says_how_it_is_built(folder):
    with pytest.raises(EngineError, match='no such engine') as caught:
        find(folder).open()
    said = str(caught.value)
    assert f'build {folder}/tiny_lidar.onnx --precision fp16 --device gpu' in said
    assert f'--out {folder}/tiny_lidar.fp16.gpu.engine' in said
    assert 'engine_build' in said
    with pytest.raises(EngineError, match='neither its name'):
        find(folder, 'tiny_lidar.engine').open()
    (folder / 'tiny_lidar.onnx').unlink()
    with pytest.raises(EngineError, match=r'nor is there a tiny_lidar\.onnx beside it'):
        find(folder).open()


def test_nothing_is_built_unless_the_setting_says_so(folder, gpu):
    assert find(folder).why_build() == ''
    assert find(folder, 'tiny_lidar.onnx', engine_build='missing').why_build() == ''
    assert find(folder, engine_build='missing').why_build() == 'there is no such file'


def test_an_engine_that_fits_is_left_alone_and_a_stale_one_is_not(folder, gpu):
    write_engine(folder)
    assert find(folder, engine_build='missing').why_build() == ''
    write_engine(folder, sm='sm_72')
    assert 'sm_72' in find(folder, engine_build='missing').why_build()
    write_engine(folder, tensorrt='8.6.1')
    assert '8.6.1' in find(folder, engine_build='missing').why_build()
    path = write_engine(folder)
    path.write_bytes(b'cut')
    assert 'bytes' in find(folder, engine_build='missing').why_build()
    path.with_name(f'{path.name}.json').unlink()  # somebody else's: his to replace
    assert find(folder, engine_build='missing').why_build() == ''


@pytest.mark.parametrize(
    ('name', 'values', 'said'),
    [
        ('tiny_lidar.fp16.gpu.engine', {'precision': 'int8'}, "precision = 'int8', but"),
        ('tiny_lidar.fp16.gpu.engine', {'dla_core': 0}, 'dla_core = 0, but'),
        ('tiny_lidar.fp16.dla1.engine', {'dla_core': 0}, 'names an engine for dla1'),
        ('tiny_lidar.engine', {}, 'neither its name'),
        ('tiny_lidar.plan', {}, 'neither its name'),
    ],
)
def test_wishes_that_contradict_the_name_are_refused(folder, gpu, name, values, said):
    with pytest.raises(ConfigError, match=said):
        find(folder, name, engine_build='missing', **values).why_build()


def test_without_onnx_or_gpu_there_is_nothing_to_build(folder, gpu, monkeypatch):
    found = find(folder, engine_build='missing')
    monkeypatch.setattr(runtime, 'unavailable', lambda: 'no driver')
    with pytest.raises(DeviceError, match='no driver'):
        found.why_build()
    (folder / 'tiny_lidar.onnx').unlink()
    with pytest.raises(ConfigError, match=r'no tiny_lidar\.onnx beside it'):
        found.why_build()


def test_an_engine_is_not_built_from_another_onnx_than_the_card_describes(
    folder, gpu, tiny_models
):
    tiny_models.tiny_lidar_model(folder, sha256='0' * 64)
    with pytest.raises(CardError, match='SHA-256'):
        find(folder, engine_build='missing')


def test_a_new_network_with_its_card_replaces_the_engine_of_the_old_one(folder, gpu, tiny_models):
    write_engine(folder)
    onnx = folder / 'tiny_lidar.onnx'
    tiny_models.tiny_lidar_model(folder, own_labels=True)
    tiny_models.tiny_lidar_model(folder, own_labels=True, sha256=sha256_of(onnx))
    with pytest.raises(CardError, match='built from an ONNX whose'):
        find(folder)
    assert 'has changed' in find(folder, engine_build='missing').why_build()


class Builds:
    """In the place of `build_engine`."""

    def __init__(self, monkeypatch, write=True):
        self.calls, self._write = [], write
        monkeypatch.setattr(build, 'build_engine', self)

    def __call__(self, source, path, settings, progress):
        progress('building', 0.4)
        self.calls.append((source, path, settings))
        if self._write:
            write_engine(path.parent, path.name, settings=settings.record())


def test_a_build_takes_precision_and_device_from_the_name(folder, gpu, monkeypatch):
    builds = Builds(monkeypatch)
    said = []
    find(folder, engine_build='missing').build(lambda *step: said.append(step))
    source, path, settings = builds.calls[0]
    assert source == folder / 'tiny_lidar.onnx'
    assert path == folder / 'tiny_lidar.fp16.gpu.engine'
    assert (settings.precision, settings.device) == ('fp16', 'gpu')
    assert said == [('building', 0.4)]


def test_a_lidar_network_in_fp16_is_built_with_the_layout_of_its_kernels(folder, gpu, monkeypatch):
    builds = Builds(monkeypatch)
    find(folder, engine_build='missing').build(lambda *step: None)
    fast = dict.fromkeys(('canvas', 'scores', 'boxes', 'directions'), 'hwc8')
    assert builds.calls[0][2] == BuildSettings('fp16', 'gpu', io_formats=fast)
    find(folder, 'tiny_lidar.fp32.gpu.engine', engine_build='missing').build(lambda *step: None)
    assert builds.calls[1][2] == BuildSettings('fp32', 'gpu')
    with pytest.raises(EngineError, match='--io-format canvas:hwc8 --io-format scores:hwc8'):
        find(folder, 'tiny_lidar.fp16.gpu.plan').open()


def test_what_an_engine_had_for_its_precision_is_not_taken_to_another(folder, gpu, monkeypatch):
    builds = Builds(monkeypatch)
    before = BuildSettings(
        'int8', calibration='scales.json', io_formats={'canvas': 'chw16'}, opt_level=2
    )
    name = 'tiny_lidar.engine'
    write_engine(folder, name, precision='int8', settings=before.record())
    find(folder, name, engine_build='missing', precision='fp32').build(lambda *step: None)
    assert builds.calls[0][2] == BuildSettings('fp32', 'gpu', opt_level=2)


def test_an_engine_built_elsewhere_tells_no_precision(folder, gpu, monkeypatch):
    builds = Builds(monkeypatch)
    elsewhere = {'precision': 'unknown', 'settings': {}, 'sm': 'sm_72'}
    write_engine(folder, 'tiny_lidar.engine', **elsewhere)
    with pytest.raises(ConfigError, match='set precision to fp32, fp16 or int8'):
        find(folder, 'tiny_lidar.engine', engine_build='missing').why_build()
    write_engine(folder, **elsewhere)
    find(folder, engine_build='missing').build(lambda *step: None)
    assert builds.calls[0][2].precision == 'fp16'


def test_a_network_that_is_not_there_is_named(folder):
    with pytest.raises(ConfigError, match=r'none\.onnx: no such network'):
        find(folder, 'none.onnx')


@pytest.mark.parametrize('name', ['none.engine', 'none.fp16.gpu.engine', 'none.plan'])
def test_an_engine_that_is_not_there_is_named_and_what_it_could_be_built_from(
    folder, monkeypatch, name
):
    with pytest.raises(ConfigError) as caught:
        find(folder, name)
    said = f'{folder}/{name}: no such engine, nor is there a none.onnx beside it'
    assert said in str(caught.value)
    monkeypatch.chdir(folder)
    models = resource('models')
    for given in (name, f'nets/{name}'):
        source = given.replace(name, 'none.onnx')
        with pytest.raises(ConfigError) as caught:
            find_network(LidarConfig, LidarCard, {'engine_path': given})
        assert str(caught.value) == (
            f'{given}: no such engine, nor its network: {source}: no such file, neither in '
            f'{models} nor in {folder}'
        )


def test_a_build_for_a_dla_keeps_the_strictness_of_the_node(folder, gpu, monkeypatch):
    builds = Builds(monkeypatch)
    name = 'tiny_lidar.int8.dla1.engine'
    find(folder, name, engine_build='missing', dla_core=1, dla_strict=True).build(
        lambda *step: None
    )
    assert builds.calls[0][2] == BuildSettings('int8', 'dla1', dla_strict=True)


def test_a_stale_engine_is_built_as_it_was_before(folder, gpu, monkeypatch):
    builds = Builds(monkeypatch)
    before = BuildSettings(
        'fp16',
        profiles=({'canvas': ((1, 4, 8, 8), (1, 4, 80, 80), (2, 4, 80, 80))},),
        io_formats={'canvas': 'hwc8'},
        tactic_sources=('CUDNN',),
    )
    path = write_engine(folder, sm='sm_72', settings=before.record())
    record = json.loads(path.with_name(f'{path.name}.json').read_text())
    assert record['settings']['profiles'] == [
        {'canvas': [[1, 4, 8, 8], [1, 4, 80, 80], [2, 4, 80, 80]]}
    ]
    find(folder, engine_build='missing').build(lambda *step: None)
    assert builds.calls[0][2] == before
    with pytest.raises(ConfigError, match='settings of a build'):
        BuildSettings.of_record({'profiles': 3})


def test_who_waits_for_another_build_finds_its_engine(folder, gpu, monkeypatch):
    monkeypatch.setattr(network, 'WAIT_S', 0.01)
    builds = Builds(monkeypatch)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    waiting, steps = threading.Event(), []

    def progress(step, share):
        steps.append(step)
        waiting.set()

    thread = threading.Thread(target=find(folder, engine_build='missing').build, args=(progress,))
    thread.start()
    assert waiting.wait(5.0)
    write_engine(folder)
    os.close(handle)
    thread.join(5.0)
    assert not thread.is_alive()
    assert not builds.calls
    assert set(steps) == {network.WAITING}


def test_a_wait_can_be_given_up(folder, gpu, monkeypatch):
    builds = Builds(monkeypatch)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)

    def progress(step, share):
        raise EngineError('no longer wanted')

    with pytest.raises(EngineError, match='no longer wanted'):
        find(folder, engine_build='missing').build(progress)
    os.close(handle)
    assert not builds.calls


class Opened:
    def __init__(self, share):
        self.info = EngineInfo('x', 'tensorrt', '10.3', 'DLA', 'fp16', dla_layer_pct=share)
        self.closed = False

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ('share', 'strict', 'refused'),
    [(None, True, False), (100.0, True, False), (87.5, True, True), (87.5, False, False)],
)
def test_strict_users_get_no_engine_that_falls_back(folder, monkeypatch, share, strict, refused):
    engine = Opened(share)
    keywords = {}

    def opening(path, *arguments, **given):
        keywords.update(given)
        return engine

    monkeypatch.setattr(network, 'open_engine', opening)
    (folder / 'tiny_lidar.fp16.dla0.engine').touch()
    found = find(
        folder, 'tiny_lidar.fp16.dla0.engine', dla_core=0, dla_strict=strict, allow_host_code=True
    )
    if refused:
        with pytest.raises(EngineError, match=r'87\.5 % of its layers are on DLA core 0'):
            found.open()
    else:
        assert found.open() is engine
    assert engine.closed == refused
    assert keywords == {'allow_host_code': True}

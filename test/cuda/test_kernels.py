"""Compiling, keeping and launching kernels where there is no GPU."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from airside_perception.cuda import __main__ as command
from airside_perception.cuda import kernels, runtime
from airside_perception.errors import DeviceError

TESTS = Path(__file__).resolve().parents[1]
SOURCES = sorted(path.name for path in kernels.SOURCES.glob('*.cu'))
LIMITS = {
    # What the launchers define, in the sizes of a small network; other files need nothing.
    'anchors.cu': (
        '-DANCHORS=2', '-DCHANNELS=2', '-DROWS=8', '-DCOLUMNS=8', '-DOWNERS=0,1', '-DLABELS=0,1',
        '-DFIRST=0,1,2', '-DTOGETHER=1', '-DSCORES=LINEAR_FLOAT', '-DBOXES=LINEAR_HALF',
        '-DFRONTS=HWC8_HALF',
    ),
    'centers.cu': (
        '-DLABELS=3', '-DPEAKS=1', '-DCELLS=4', '-DHEATMAP=FP32', '-DOFFSET=FP16', '-DHEIGHT=HWC8',
        '-DSIZE=FP32', '-DROTATION=FP16', '-DVELOCITY=HWC8',
    ),
    'image.cu': ('-DSOURCE=NV12', '-DLAYOUT=PADDED', '-DCHANNELS=8'),
    'pillars.cu': (
        '-DCHANNELS=64', '-DMAX_POINTS=32', '-DFOURTH=1', '-DHALF=1', '-DHWC8=1',
    ),
    'yolox.cu': ('-DHALF=1', '-DACTIVATED=0'),
}  # fmt: skip
ELF = b'\x7fELF and more'


pytestmark = pytest.mark.skipif(
    os.environ.get('AIRSIDE_EMULATED_GPU') == '1', reason='kernels are compiled for the emulator'
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('AIRSIDE_PERCEPTION_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def selftest(tmp_path, monkeypatch):
    """The emulator's test kernels in place of the package's sources."""
    folder = tmp_path / 'sources'
    folder.mkdir()
    for path in (TESTS / 'emulator' / 'selftest.cu', kernels.SOURCES / 'common.cuh'):
        (folder / path.name).write_text(path.read_text())
    monkeypatch.setattr(kernels, 'SOURCES', folder)
    return folder


@pytest.fixture
def compiler():
    try:
        return kernels._nvrtc()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(kernels, '_nvrtc', _missing)


def _missing():
    raise DeviceError('kernels cannot be compiled here')


@pytest.mark.parametrize('arch', ['sm_87', 'sm_90'])
@pytest.mark.parametrize('name', SOURCES)
def test_every_kernel_compiles(compiler, name, arch):
    cubin = kernels.compile_source(name, LIMITS.get(name, ()), arch)
    assert cubin[:4] == b'\x7fELF'
    assert struct.unpack_from('<H', cubin, 18)[0] == 190  # the ELF machine: CUDA
    assert kernels.cached_path(name, LIMITS.get(name, ()), arch).read_bytes() == cubin


@pytest.mark.parametrize('arch', ['sm_87', 'sm_90'])
@pytest.mark.parametrize('scores', ['LINEAR_HALF', 'HWC8_HALF'])
def test_anchors_compile_for_every_format_of_scores(compiler, scores, arch):
    options = [o for o in LIMITS['anchors.cu'] if 'SCORES' not in o] + [f'-DSCORES={scores}']
    assert kernels.compile_source('anchors.cu', options, arch)[:4] == b'\x7fELF'


@pytest.mark.parametrize('arch', ['sm_87', 'sm_90'])
def test_suppression_compiles_with_velocities(compiler, arch):
    cubin = kernels.compile_source('nms.cu', ('-DVELOCITIES',), arch)
    assert cubin[:4] == b'\x7fELF'
    assert cubin != kernels.compile_source('nms.cu', (), arch)


def test_the_test_kernels_compile_for_all(compiler, selftest):
    for arch in ('sm_87', 'sm_90'):
        assert kernels.compile_source('selftest.cu', (), arch).startswith(b'\x7fELF')
    assert 'registers' in kernels.resources('selftest.cu', (), 'sm_87')


def test_what_is_kept_needs_no_compiler(selftest, no_compiler):
    with pytest.raises(DeviceError, match='cannot be compiled here'):
        kernels.compile_source('selftest.cu')
    path = kernels.cached_path('selftest.cu', (), 'sm_90')
    path.parent.mkdir(parents=True)
    path.write_bytes(ELF)
    assert kernels.compile_source('selftest.cu', (), 'sm_90') == ELF


def test_the_key_is_source_headers_options_and_architecture(selftest):
    def path(options=(), arch='sm_90'):
        return kernels.cached_path('selftest.cu', options, arch)

    first = path()
    assert path() == first
    paths = {first, path(('-DA=1',)), path(('-DA=2',)), path(arch='sm_87')}
    (selftest / 'common.cuh').write_text((selftest / 'common.cuh').read_text() + '\n')
    paths.add(path())
    (selftest / 'selftest.cu').write_text('KERNEL other() {}')
    paths.add(path())
    assert len(paths) == 6


def test_a_damaged_file_is_compiled_again(selftest, monkeypatch):
    monkeypatch.setattr(kernels, '_compile', lambda *_: (ELF, ''))
    path = kernels.cached_path('selftest.cu')
    path.parent.mkdir(parents=True)
    path.write_bytes(b'')
    assert kernels.compile_source('selftest.cu') == ELF
    assert path.read_bytes() == ELF
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_the_driver_refuses_is_compiled_again(fake, selftest, monkeypatch, caplog):
    good = ELF + b', whole'
    path = kernels.cached_path('selftest.cu', (), 'sm_87')
    path.parent.mkdir(parents=True)
    path.write_bytes(ELF)
    invalid = type('Code', (int,), {'name': 'CUDA_ERROR_INVALID_IMAGE'})(200)
    monkeypatch.setattr(
        type(fake), 'cuModuleLoadData',
        lambda self, cubin: 7 if cubin == good else (invalid, None),
    )  # fmt: skip
    monkeypatch.setattr(kernels, '_nvrtc', _missing)
    runtime.use_device()
    with pytest.raises(DeviceError, match=r'INVALID_IMAGE: .*cannot be compiled here') as caught:
        kernels.load('selftest.cu')
    assert str(path) in str(caught.value)
    assert path.read_bytes() == ELF
    monkeypatch.setattr(kernels, '_compile', lambda *_: (good, ''))
    with caplog.at_level(logging.WARNING):
        kernels.load('selftest.cu')
    assert 'was damaged' in caplog.text
    assert path.read_bytes() == good


def test_a_disk_that_is_full_leaves_nothing(selftest, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(kernels, '_compile', lambda *_: (ELF, ''))
    monkeypatch.setattr(os, 'replace', full)
    with caplog.at_level(logging.WARNING):
        assert kernels.compile_source('selftest.cu') == ELF
    assert 'No space left' in caplog.text
    assert not list(kernels.cache_folder().iterdir())


def test_a_folder_that_cannot_be_written_is_no_error(selftest, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(kernels, '_compile', lambda *_: (ELF, ''))
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('AIRSIDE_PERCEPTION_CACHE', str(tmp_path / 'file' / 'below'))
    with caplog.at_level(logging.WARNING):
        assert kernels.compile_source('selftest.cu') == ELF
    assert 'not kept' in caplog.text


def test_where_kernels_are_kept(monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/x')
    monkeypatch.setenv('AIRSIDE_PERCEPTION_CACHE', '/c')
    assert kernels.cache_folder() == Path('/c/kernels')
    monkeypatch.delenv('AIRSIDE_PERCEPTION_CACHE')
    assert kernels.cache_folder() == Path('/x/airside_perception/kernels')
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert kernels.cache_folder() == Path.home() / '.cache/airside_perception/kernels'


def test_the_compilers_words_are_in_the_error(compiler, selftest):
    (selftest / 'wrong.cu').write_text('#include "common.cuh"\nKERNEL wrong() { nothing(); }\n')
    with pytest.raises(DeviceError, match=r'wrong\.cu does not compile for sm_87(.|\n)*nothing'):
        kernels.compile_source('wrong.cu', ('-DX=1',), 'sm_87')


def test_unknown_names_are_refused(selftest):
    with pytest.raises(DeviceError, match=r"no kernels 'none\.cu'; there are selftest\.cu"):
        kernels.compile_source('none.cu')
    with pytest.raises(DeviceError, match=r"'8\.7' is no architecture"):
        kernels.compile_source('selftest.cu', (), '8.7')


def test_the_command_compiles_ahead(compiler, selftest, tmp_path, capsys):
    source = 'selftest.cu -DLIST=1,2'
    folder = str(tmp_path / 'ahead')
    assert command.main(['--arch', 'sm_87', '--arch', 'sm_90', '--cache', folder, source]) == 0
    names = {path.name.split('-')[1] for path in (tmp_path / 'ahead' / 'kernels').iterdir()}
    assert names == {'sm_87', 'sm_90'}
    assert 'sm_87' in capsys.readouterr().out
    assert command.main(['--arch', 'sm_90', 'none.cu']) == 1
    assert 'none.cu' in capsys.readouterr().err


@pytest.fixture
def kernel(fake, selftest, monkeypatch):
    monkeypatch.setattr(kernels, 'compile_source', lambda *_: ELF)
    runtime.use_device()
    return kernels.load('selftest.cu').kernel('sums')


def test_arguments_reach_the_kernel_as_their_bytes(fake, kernel):
    fake_sizes = (8, 4)
    assert fake.parameters == fake_sizes
    with runtime.Stream() as stream, runtime.DeviceArray(4, np.float32) as array:
        kernel(stream, (7, 2), 64, array, np.float32(1.5))
        kernel(stream, np.int64(3), (8, 4), np.uint64(array.address + 4), np.int32(-2))
        address = array.address
    first, second = fake.launches
    assert first['sizes'] == (7, 2, 1, 64, 1, 1)
    assert second['sizes'] == (3, 1, 1, 8, 4, 1)
    assert first['values'] == [struct.pack('<Q', address), struct.pack('<f', 1.5)]
    assert second['values'] == [struct.pack('<Q', address + 4), struct.pack('<i', -2)]


def test_wrong_arguments_are_refused(kernel):
    with runtime.Stream() as stream:
        with pytest.raises(TypeError, match='argument 1: 3 has no address and is no NumPy scalar'):
            kernel(stream, 1, 1, np.uint64(0), 3)
        with pytest.raises(DeviceError, match=r'arguments of \(8, 4\) bytes, given were \(8, 8\)'):
            kernel(stream, 1, 1, np.uint64(0), np.float64(3))
        with pytest.raises(DeviceError, match=r'given were \(8,\)'):
            kernel(stream, 1, 1, np.uint64(0))


def test_a_driver_that_does_not_tell_sizes(fake, selftest, monkeypatch):
    def missing(self, function, index):
        raise RuntimeError('Function "cuFuncGetParamInfo" not found')

    monkeypatch.setattr(type(fake), 'cuFuncGetParamInfo', missing)
    monkeypatch.setattr(kernels, 'compile_source', lambda *_: ELF)
    runtime.use_device()
    kernel = kernels.load('selftest.cu').kernel('sums')
    with runtime.Stream() as stream:
        kernel(stream, 1, 1, np.uint64(0), np.int32(3))
    assert len(fake.launches) == 1


def test_much_shared_memory_is_asked_for_once(fake, kernel):
    with runtime.Stream() as stream:
        for size in (47 << 10, 48 << 10, 48 << 10, 100 << 10, 60 << 10):
            kernel(stream, 1, 1, np.uint64(0), np.int32(0), shared=size)
    assert fake.calls.count('cuFuncSetAttribute') == 2
    assert [launch['shared'] >> 10 for launch in fake.launches] == [47, 48, 48, 100, 60]


def test_a_file_is_loaded_once_and_unknown_kernels_are_named(fake, kernel):
    assert kernels.load('selftest.cu').kernel('sums') is kernel
    assert fake.calls.count('cuModuleLoadData') == 1
    with pytest.raises(DeviceError, match=r"selftest\.cu has no kernel 'nothing'"):
        kernels.load('selftest.cu').kernel('nothing')


def test_a_launch_that_fails_names_the_kernel(fake, kernel):
    fake.fails['cuLaunchKernel'] = type('Code', (int,), {'name': 'CUDA_ERROR_INVALID_VALUE'})(1)
    with (
        runtime.Stream() as stream,
        pytest.raises(DeviceError, match=r'selftest\.cu:sums, grid 1'),
    ):
        kernel(stream, 1, 2000, np.uint64(0), np.int32(0))

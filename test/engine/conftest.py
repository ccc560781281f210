"""A GPU and a TensorRT that are none: for tests of what drives them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import airside_perception.cuda
from airside_perception.engine import capabilities

HERE = Path(__file__).resolve().parent


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


fake_cuda = _load('fake_cuda')
fake_tensorrt = _load('fake_tensorrt')
graphs = _load('graphs')
fake_builder = _load('fake_builder')


@pytest.fixture(scope='session')
def network():
    """Makes a small ONNX model; see graphs.network."""
    return graphs.network


@pytest.fixture(scope='session')
def run():
    """Runs an ONNX model: run(model, input=array, ...) -> outputs."""
    return graphs.run


@pytest.fixture(scope='session')
def fakes():
    """The module fake_tensorrt: `plan`, `tensor`, `surface`, NAMES."""
    return fake_tensorrt


@pytest.fixture(scope='session')
def builders():
    """The module fake_builder: `equip` gives a fake TensorRT its builder."""
    return fake_builder


@pytest.fixture
def cuda(monkeypatch):
    """A `cuda.runtime` in host memory, in the place of the true one."""
    fake = fake_cuda.FakeCuda()
    monkeypatch.setitem(sys.modules, 'airside_perception.cuda.runtime', fake)
    monkeypatch.setattr(airside_perception.cuda, 'runtime', fake, raising=False)
    return fake


@pytest.fixture
def install(cuda, monkeypatch):
    """Function: makes the TensorRT of a surface the one that is installed, and returns it."""

    def put(name: str):
        module = fake_tensorrt.FakeTensorRT(name, cuda)

        plain = importlib.import_module

        def import_module(wanted: str):
            if wanted == module.__name__:
                return module
            if wanted.startswith('airside_perception.'):
                return plain(wanted)
            raise ModuleNotFoundError(f'No module named {wanted!r}', name=wanted)

        monkeypatch.delenv(capabilities.ENVIRONMENT, raising=False)
        monkeypatch.setattr(capabilities.importlib, 'import_module', import_module)
        capabilities._load.cache_clear()
        return module

    yield put
    capabilities._load.cache_clear()

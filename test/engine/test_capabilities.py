"""Which TensorRT is chosen, and what is concluded from the names that each version has."""

from __future__ import annotations

import pytest

from airside_perception.engine.capabilities import (
    ENVIRONMENT,
    MODULES,
    capabilities_of,
    choose,
    load_tensorrt,
    version_of,
)
from airside_perception.errors import EngineError

# One row a surface: strongly typed, explicit batch, calibrator, layer precision, FP16 flag,
# version compatible, hardware compatible, optimisation level, progress, host code switch,
# attribute of the memory size.
BUILDERS = {
    'full_8_5': ('no', 1, 1, 1, 1, 0, 0, 0, 0, 0, 'device_memory_size'),
    'full_8_6': ('no', 1, 1, 1, 1, 1, 1, 1, 0, 1, 'device_memory_size'),
    'full_10_0': ('flag', 0, 1, 1, 1, 1, 1, 1, 1, 1, 'device_memory_size'),
    'full_10_3': ('flag', 0, 1, 1, 1, 1, 1, 1, 1, 1, 'device_memory_size_v2'),
    'full_10_7': ('flag', 0, 1, 1, 1, 1, 1, 1, 1, 1, 'device_memory_size_v2'),
    'full_10_16': ('flag', 0, 1, 1, 1, 1, 1, 1, 1, 1, 'device_memory_size_v2'),
    'full_11_0': ('always', 0, 0, 0, 0, 1, 1, 1, 1, 1, 'device_memory_size_v2'),
    'full_11_4': ('always', 0, 0, 0, 0, 1, 1, 1, 1, 1, 'device_memory_size_v2'),
    'rtx_1_7': ('always', 0, 0, 0, 0, 1, 1, 1, 1, 1, 'device_memory_size_v2'),
}
RUNNERS = {
    'lean_8_6': 'device_memory_size',
    'lean_10_3': 'device_memory_size_v2',
    'lean_10_16': 'device_memory_size_v2',
    'lean_11_4': 'device_memory_size_v2',
    'dispatch_8_6': 'device_memory_size',
    'dispatch_10_3': 'device_memory_size_v2',
    'dispatch_10_16': 'device_memory_size_v2',
}


def importer(modules):
    def import_module(name):
        if name not in modules:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
        if isinstance(modules[name], Exception):
            raise modules[name]
        return modules[name]

    return import_module


@pytest.fixture
def module(fakes, cuda):
    return lambda name: fakes.FakeTensorRT(name, cuda)


def test_every_surface_has_its_row(fakes):
    assert sorted([*BUILDERS, *RUNNERS]) == fakes.NAMES


@pytest.mark.parametrize('name', BUILDERS)
def test_what_a_builder_can_do(module, name):
    can = capabilities_of(module(name))
    found = (
        can.strongly_typed,
        can.explicit_batch_flag,
        can.int8_calibrator,
        can.layer_precision,
        'FP16' in can.precision_flags,
        can.version_compatible,
        can.hardware_compatible,
        can.optimization_level,
        can.progress_monitor,
        can.host_code_switch,
        can.memory_size,
    )
    assert found == BUILDERS[name]
    assert can.can_build
    assert can.timing_cache
    assert can.io_formats
    assert can.tensor_format
    assert can.inspector
    assert can.refit
    assert can.sparsity
    assert can.refitter
    assert can.strip_plan == can.parser_refitter == (not name.startswith('full_8'))
    assert ('EXCLUDE_WEIGHTS' in can.serialization_flags) == can.strip_plan
    assert ('INCLUDE_REFIT' in can.serialization_flags) == (
        name in ('full_10_16', 'full_11_0', 'full_11_4', 'rtx_1_7')
    )
    assert can.stream_capturable == can.compute_capability == (name == 'rtx_1_7')
    assert ('CUBLAS' in can.tactic_sources) == bool(can.precision_flags)
    assert 'JIT_CONVOLUTIONS' in can.tactic_sources
    assert 'DLA_LOCAL_DRAM' in can.memory_pools
    assert ('AMPERE_PLUS' in can.hardware_levels) == can.hardware_compatible
    assert ('ADJUST_FOR_DLA' in can.parser_flags) == (
        name in ('full_10_16', 'full_11_0', 'full_11_4', 'rtx_1_7')
    )


@pytest.mark.parametrize('name', RUNNERS)
def test_runtimes_build_nothing(module, name):
    can = capabilities_of(module(name))
    assert not can.can_build
    assert can.strongly_typed == 'no'
    assert can.builder_flags == can.tactic_sources == can.memory_pools == frozenset()
    assert not can.parser_refitter
    assert can.refitter == ('8_6' not in name)
    for name_of in ('int8_calibrator', 'version_compatible', 'refit', 'timing_cache', 'sparsity'):
        assert getattr(can, name_of) is False
    assert (can.tensor_format, can.inspector) == (False, False)
    assert can.host_code_switch
    assert can.memory_size == RUNNERS[name]


def test_creation_flags(module):
    def flags(name, strong):
        fake = module(name)
        found = choose('', '', True, importer({fake.__name__: fake}))
        kinds = fake.NetworkDefinitionCreationFlag.__members__
        value = found.creation_flags(strong)
        return {kind for kind, place in kinds.items() if value >> place & 1}

    assert flags('full_8_5', False) == flags('full_8_6', False) == {'EXPLICIT_BATCH'}
    assert flags('full_10_3', False) == set()
    for name in ('full_10_3', 'full_10_16', 'full_11_4', 'rtx_1_7'):
        assert flags(name, True) == {'STRONGLY_TYPED'}
    with pytest.raises(EngineError, match=r'TensorRT 8\.6\.0 has no strongly typed networks'):
        flags('full_8_6', True)
    with pytest.raises(
        EngineError, match=r'TensorRT 11\.4\.0\.106 takes every type from the ONNX'
    ):
        flags('full_11_4', False)


def test_the_first_in_order_is_taken_and_the_way_to_it_told(module):
    everything = {
        'tensorrt_lean': module('lean_10_16'),
        'tensorrt_rtx_bindings': module('rtx_1_7'),
        'tensorrt': ImportError('libnvinfer.so.10: cannot open shared object file\nmore'),
    }
    found = choose('', '', False, importer(everything))
    assert (found.name, found.flavor, found.version) == (
        'tensorrt_rtx_bindings',
        'rtx',
        (1, 7, 1, 116),
    )
    assert str(found) == 'TensorRT rtx 1.7.1.116'
    assert found.tried == (
        'tensorrt: libnvinfer.so.10: cannot open shared object file',
        'tensorrt_bindings: not installed',
        'tensorrt_rtx: not installed',
        'tensorrt_rtx_bindings: TensorRT rtx 1.7.1.116, chosen',
    )
    assert choose('', 'tensorrt', False, importer(everything)).name == 'tensorrt_lean'
    assert choose('', 'rtx', True, importer(everything)).flavor == 'rtx'
    assert choose('tensorrt_lean', '', False, importer(everything)).version == (10, 16, 1, 11)
    with pytest.raises(EngineError, match='runs engines and builds none'):
        choose('', 'tensorrt', True, importer(everything))


def test_a_missing_part_is_not_called_a_missing_module():
    broken = {'tensorrt': ModuleNotFoundError("No module named 'tensorrt_libs'", name='x')}
    with pytest.raises(EngineError, match="tensorrt: No module named 'tensorrt_libs'"):
        choose('', '', False, importer(broken))


def test_without_any(monkeypatch):
    with pytest.raises(EngineError) as caught:
        choose('', '', False, importer({}))
    for name in MODULES:
        assert f'{name}: not installed' in str(caught.value)
    assert 'pip install tensorrt' in str(caught.value)
    monkeypatch.setenv(ENVIRONMENT, 'nonsense')
    with pytest.raises(EngineError, match='AIRSIDE_TENSORRT=nonsense: expected one of tensorrt,'):
        load_tensorrt()


def test_a_module_that_is_no_tensorrt(module):
    fake = module('full_8_6')
    fake.__version__ = 'unknown'
    with pytest.raises(EngineError, match="version 'unknown' is no version"):
        choose('', '', False, importer({'tensorrt': fake}))
    del fake.__version__
    with pytest.raises(EngineError, match='__version__'):
        choose('', '', False, importer({'tensorrt': fake}))


@pytest.mark.parametrize(
    ('text', 'version'),
    [('8.6.0', (8, 6, 0)), ('10.7.0.post1', (10, 7, 0)), ('11.4.0.106', (11, 4, 0, 106))],
)
def test_versions(text, version):
    assert version_of(text) == version


def test_the_true_rtx():
    """The surface of the table is what the installed bindings have."""
    pytest.importorskip('tensorrt_rtx_bindings')
    found = choose('tensorrt_rtx_bindings', '', True, __import__)
    assert found.can.strongly_typed == 'always'
    assert found.can.compute_capability
    assert found.creation_flags(True) > 0

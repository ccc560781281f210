"""Which TensorRT is here, and what it can do: the one place that looks at its versions.

Bindings come in four flavours: `full` (builder and runtime), `rtx` (TensorRT-RTX: builder and
runtime with plans of its own), `lean` (runs version-compatible plans) and `dispatch` (runs plans
that carry their own runtime). They are tried in the order of `MODULES`; the environment variable
AIRSIDE_TENSORRT names one module to use instead, e.g. `tensorrt_lean`. What one can do is read
from the names that it has, never concluded from its version.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from airside_perception.errors import EngineError, first_line

Flavor = Literal['full', 'rtx', 'lean', 'dispatch']

ENVIRONMENT = 'AIRSIDE_TENSORRT'
MODULES: Mapping[str, Flavor] = MappingProxyType(
    {
        'tensorrt': 'full',
        'tensorrt_bindings': 'full',
        'tensorrt_rtx': 'rtx',
        'tensorrt_rtx_bindings': 'rtx',
        'tensorrt_lean': 'lean',
        'tensorrt_lean_bindings': 'lean',
        'tensorrt_dispatch': 'dispatch',
        'tensorrt_dispatch_bindings': 'dispatch',
    }
)
"""Module names in the order in which they are tried."""

INSTALL = (
    'install TensorRT (JetPack has it; elsewhere `pip install tensorrt`, `tensorrt-lean` to run '
    f'only, or `tensorrt-rtx`), or name its module in {ENVIRONMENT}'
)
IMPORT_ERRORS = (ImportError, OSError, RuntimeError, AttributeError)
PRECISIONS = frozenset({'FP16', 'BF16', 'INT8', 'FP8', 'INT4', 'FP4'})


@dataclass(frozen=True)
class Capabilities:
    """What one TensorRT can do, by the names that its bindings have.

    Attributes:
        can_build: it has a builder and an ONNX parser.
        strongly_typed: types come from the ONNX: `no` (8.x), `flag` (where the network is created
            with STRONGLY_TYPED) or `always`.
        explicit_batch_flag: networks must be created with EXPLICIT_BATCH.
        precision_flags: those of `PRECISIONS` that `BuilderFlag` has; none where types are always
            strong.
        builder_flags, tactic_sources, memory_pools, parser_flags: names of these enumerations;
            none where nothing can be built.
        int8_calibrator: INT8 by calibration (the only way to INT8 on a DLA as long as it exists).
        layer_precision: a layer's precision can be set.
        refit, strip_plan, version_compatible, hardware_compatible: plans of these kinds can be
            built.
        sparsity: kernels for weights with two zeros in every four can be taken.
        refitter: weights of an engine can be changed.
        parser_refitter: and are taken from an ONNX by its own parser.
        serialization_flags: names of `SerializationFlag`: what a plan is written with.
        hardware_levels: names of `HardwareCompatibilityLevel`.
        optimization_level, progress_monitor, timing_cache, io_formats: settings of the builder.
        compute_capability: the SM to build for is a setting (so that no GPU is needed).
        host_code_switch: the runtime refuses plans with host code until it is told otherwise.
        tensor_format: `get_tensor_format` works; otherwise only its description in words does.
        tensor_location: `get_tensor_location` works.
        inspector: layers can be listed.
        stream_capturable: the context itself says whether its work can go into a CUDA graph.
        memory_size: name of the engine's attribute for its working memory, bytes; empty: none.
    """

    can_build: bool
    strongly_typed: Literal['no', 'flag', 'always']
    explicit_batch_flag: bool
    precision_flags: frozenset[str]
    builder_flags: frozenset[str]
    tactic_sources: frozenset[str]
    memory_pools: frozenset[str]
    parser_flags: frozenset[str]
    int8_calibrator: bool
    layer_precision: bool
    refit: bool
    strip_plan: bool
    version_compatible: bool
    hardware_compatible: bool
    sparsity: bool
    refitter: bool
    parser_refitter: bool
    serialization_flags: frozenset[str]
    hardware_levels: frozenset[str]
    optimization_level: bool
    progress_monitor: bool
    timing_cache: bool
    io_formats: bool
    compute_capability: bool
    host_code_switch: bool
    tensor_format: bool
    tensor_location: bool
    inspector: bool
    stream_capturable: bool
    memory_size: str


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT.

    Attributes:
        module: the Python module.
        name: its name.
        version: e.g. (10, 3, 0).
        tried: what was tried, in order, each as `name: what came of it`.
    """

    module: Any
    name: str
    flavor: Flavor
    version: tuple[int, ...]
    can: Capabilities
    tried: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = '' if self.flavor == 'full' else f' {self.flavor}'
        return f'TensorRT{kind} {self.version_text}'

    @property
    def version_text(self) -> str:
        return '.'.join(map(str, self.version))

    def creation_flags(self, strongly_typed: bool) -> int:
        """Flags for `create_network`.

        Raises:
            EngineError: this TensorRT has no strongly typed networks, or no others.
        """
        kind = self.can.strongly_typed
        if strongly_typed and kind == 'no':
            raise EngineError(f'{self} has no strongly typed networks: set precisions by flags')
        if not strongly_typed and kind == 'always':
            raise EngineError(f'{self} takes every type from the ONNX: put the precision there')
        flags = self.module.NetworkDefinitionCreationFlag
        value = 1 << int(flags.STRONGLY_TYPED) if strongly_typed else 0
        return value | (1 << int(flags.EXPLICIT_BATCH) if self.can.explicit_batch_flag else 0)


def load_tensorrt(family: str = '', build: bool = False) -> TensorRT:
    """The first TensorRT that can be imported and that serves.

    Args:
        family: `tensorrt` or `rtx`: whose plans it must be able to run; empty: any.
        build: it must be able to build.

    Raises:
        EngineError: there is none; says what was tried, and why each did not serve.
    """
    return _load(os.environ.get(ENVIRONMENT, ''), family, build)


@functools.cache
def _load(named: str, family: str, build: bool) -> TensorRT:
    return choose(named, family, build, importlib.import_module)


def choose(named: str, family: str, build: bool, import_module: Callable[[str], Any]) -> TensorRT:
    """As `load_tensorrt`, with `named` for the environment variable and any importer."""
    if named and named not in MODULES:
        raise EngineError(f'{ENVIRONMENT}={named}: expected one of {", ".join(MODULES)}')
    tried: list[str] = []
    for name in [named] if named else MODULES:
        flavor = MODULES[name]
        if family and family_of(flavor) != family:
            tried.append(f'{name}: runs no plans of the family {family}')
            continue
        try:
            module = import_module(name)
            version = version_of(module.__version__)
            can = capabilities_of(module)
        except IMPORT_ERRORS as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == name
            tried.append(f'{name}: {"not installed" if missing else first_line(error)}')
            continue
        found = TensorRT(module, name, flavor, version, can)
        if build and not can.can_build:
            tried.append(f'{name}: {found} runs engines and builds none')
            continue
        return TensorRT(module, name, flavor, version, can, (*tried, f'{name}: {found}, chosen'))
    purpose = 'that can build ' if build else ''
    raise EngineError(f'no TensorRT {purpose}here ({"; ".join(tried)}): {INSTALL}')


def family_of(flavor: str) -> str:
    """Whose plans a flavour runs: `rtx` its own, every other those of `tensorrt`."""
    return 'rtx' if flavor == 'rtx' else 'tensorrt'


def version_of(text: str) -> tuple[int, ...]:
    """(10, 7, 0) of '10.7.0.post1'.

    Raises:
        RuntimeError: the text does not begin with a number.
    """
    found = re.match(r'\d+(\.\d+)*', text)
    if not found:
        raise RuntimeError(f'version {text!r} is no version')
    return tuple(map(int, found.group().split('.')))


def capabilities_of(module: Any) -> Capabilities:
    """What a module of bindings can do."""
    builds = _has(module, 'Builder') and _has(module, 'OnnxParser')
    flags = _members(module, 'BuilderFlag') if builds else frozenset()
    creation = _members(module, 'NetworkDefinitionCreationFlag')
    typed: Literal['no', 'flag', 'always'] = 'no'
    if 'STRONGLY_TYPED' in creation:
        typed = 'flag' if flags & PRECISIONS else 'always'
    return Capabilities(
        can_build=builds,
        strongly_typed=typed,
        explicit_batch_flag='EXPLICIT_BATCH' in creation and typed == 'no',
        precision_flags=flags & PRECISIONS,
        builder_flags=flags,
        tactic_sources=_members(module, 'TacticSource') if builds else frozenset(),
        memory_pools=_members(module, 'MemoryPoolType') if builds else frozenset(),
        parser_flags=_members(module, 'OnnxParserFlag'),
        int8_calibrator=_has(module, 'IBuilderConfig.int8_calibrator'),
        layer_precision=_has(module, 'ILayer.precision'),
        refit='REFIT' in flags,
        strip_plan='STRIP_PLAN' in flags,
        version_compatible='VERSION_COMPATIBLE' in flags,
        hardware_compatible=_has(module, 'IBuilderConfig.hardware_compatibility_level'),
        sparsity='SPARSE_WEIGHTS' in flags,
        refitter=_has(module, 'Refitter'),
        parser_refitter=_has(module, 'OnnxParserRefitter'),
        serialization_flags=_members(module, 'SerializationFlag'),
        hardware_levels=_members(module, 'HardwareCompatibilityLevel') if builds else frozenset(),
        optimization_level=_has(module, 'IBuilderConfig.builder_optimization_level'),
        progress_monitor=_has(module, 'IBuilderConfig.progress_monitor'),
        timing_cache=_has(module, 'IBuilderConfig.create_timing_cache'),
        io_formats=_has(module, 'ITensor.allowed_formats'),
        compute_capability=_has(module, 'IBuilderConfig.set_compute_capability'),
        host_code_switch=_has(module, 'Runtime.engine_host_code_allowed'),
        # the lean and dispatch bindings have the methods and not the classes that they return
        tensor_format=_has(module, 'TensorFormat'),
        tensor_location=_has(module, 'TensorLocation'),
        inspector=_has(module, 'EngineInspector'),
        stream_capturable=_has(module, 'IExecutionContext.is_stream_capturable'),
        memory_size=next(
            (
                name
                for name in ('device_memory_size_v2', 'device_memory_size')
                if _has(module, f'ICudaEngine.{name}')
            ),
            '',
        ),
    )


def _has(module: Any, path: str) -> bool:
    thing = module
    for name in path.split('.'):
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


def _members(module: Any, name: str) -> frozenset[str]:
    enumeration = getattr(module, name, None)
    return frozenset(getattr(enumeration, '__members__', ()))

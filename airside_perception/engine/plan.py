"""From the bytes of an engine to TensorRT's objects, and what these say of their tensors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from airside_perception.engine.base import TensorSpec
from airside_perception.engine.buffers import layout_name, memory_shape
from airside_perception.engine.capabilities import TensorRT
from airside_perception.engine.trt_log import collect, logger
from airside_perception.errors import EngineError

DTYPES = MappingProxyType(
    {
        'FLOAT': np.float32, 'HALF': np.float16, 'INT8': np.int8, 'INT32': np.int32,
        'INT64': np.int64, 'BOOL': np.bool_, 'UINT8': np.uint8,
    }
)  # fmt: skip


@dataclass
class Plan:
    """TensorRT's objects of one engine. To be freed in the order context, engine, runtime."""

    runtime: Any
    engine: Any
    context: Any
    warnings: tuple[str, ...]

    def free(self) -> None:
        self.context = None
        self.engine = None
        self.runtime = None


@dataclass(frozen=True)
class Port:
    """An input or output as the engine has it.

    Attributes:
        ranges: for each profile (min, opt, max) of an input's shape; empty for an output.
    """

    spec: TensorSpec
    is_input: bool
    layout: str
    ranges: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]


def load_plan(
    tensorrt: TensorRT,
    path: str,
    data: bytes,
    dla_core: int,
    host_code: bool,
    to_run: bool = True,
) -> Plan:
    """Deserialises an engine and makes it ready to run.

    Args:
        path: for messages.
        dla_core: set before anything is read: afterwards it has no effect. -1: none.
        host_code: the plan may bring code that runs on the host.
        to_run: False: there is no context, so it is only looked at, or given other weights.

    Raises:
        EngineError: no such DLA core, or TensorRT refuses the bytes; gives its first error.
    """
    with collect() as said:
        try:
            runtime = tensorrt.module.Runtime(logger(tensorrt))
            if said.errors:
                # It is an empty shell then: to use or to destroy it ends the process.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
                raise EngineError(f'{path}: {tensorrt} does not start: {said.reason()}')
            if dla_core >= 0:
                _set_core(runtime, path, dla_core)
            if host_code and tensorrt.can.host_code_switch:
                runtime.engine_host_code_allowed = True
            engine = runtime.deserialize_cuda_engine(data)
            context = engine.create_execution_context() if engine and to_run else None
        except EngineError:
            raise
        except Exception as error:  # what the bindings raise has no nearer common base
            reason = said.reason() or f'{type(error).__name__}: {error}'
            raise EngineError(f'{path}: {tensorrt} cannot load it: {reason}') from error
    if engine is None:
        reason = said.reason() or 'it gives no reason; is it an engine, built by this version?'
        raise EngineError(f'{path}: {tensorrt} cannot load it: {reason}')
    if context is None and to_run:
        reason = said.reason() or 'it gives no reason; is there GPU memory left?'
        raise EngineError(f'{path}: {tensorrt} cannot make it ready to run: {reason}')
    if said.errors:  # it went on all the same, which is not to be relied on
        raise EngineError(f'{path}: {tensorrt} reports while loading: {said.reason()}')
    return Plan(runtime, engine, context, tuple(said.warnings))


def _set_core(runtime: Any, path: str, core: int) -> None:
    cores = runtime.num_DLA_cores
    if core >= cores:
        raise EngineError(
            f'{path}: DLA core {core} is asked for, this machine has {cores}'
            + ('; a container needs the NVIDIA runtime to see them' if not cores else '')
        )
    runtime.DLA_core = core
    if runtime.DLA_core != core:
        raise EngineError(f'{path}: TensorRT did not take DLA core {core}')


def ports(tensorrt: TensorRT, path: str, engine: Any) -> tuple[Port, ...]:
    """Inputs and outputs of an engine, in its order.

    Raises:
        EngineError: a dtype or layout that is not supported, or a tensor that lies on the host.
    """
    names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
    return tuple(_port(tensorrt, path, engine, name) for name in names)


def _port(tensorrt: TensorRT, path: str, engine: Any, name: str) -> Port:
    kind = engine.get_tensor_dtype(name).name
    if kind not in DTYPES:
        raise EngineError(f'{path}: {name} has dtype {kind}, which NumPy does not have')
    if engine.is_shape_inference_io(name):
        raise EngineError(f'{path}: {name} is a shape, not data: such networks are not supported')
    is_input = engine.get_tensor_mode(name) == tensorrt.module.TensorIOMode.INPUT
    shape = tuple(engine.get_tensor_shape(name))
    ranges = []
    for profile in range(max(1, engine.num_optimization_profiles)) if is_input else ():
        bounds = [shape] * 3
        if any(size < 0 for size in shape):
            bounds = [tuple(bound) for bound in engine.get_tensor_profile_shape(name, profile)]
        low, best, high = bounds
        ranges.append((low, best, high))
    spec = TensorSpec(name, shape, np.dtype(DTYPES[kind]))
    layout = _layout(tensorrt, engine, name)
    try:
        memory_shape(shape, layout)
    except EngineError as error:
        raise EngineError(f'{path}: {name}: {error}') from error
    return Port(spec, is_input, layout, tuple(ranges))


def _layout(tensorrt: TensorRT, engine: Any, name: str) -> str:
    if tensorrt.can.tensor_format:
        return str(engine.get_tensor_format(name).name).lower()
    return layout_name(engine.get_tensor_format_desc(name))

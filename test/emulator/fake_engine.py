"""An engine whose tensors lie on the device of a queue and whose network runs on ONNX Runtime.

It stands for `engine.tensorrt.TensorRTEngine` where detectors on the GPU are tested: with an
EmulatorQueue all of it is NumPy memory, with a DeviceQueue inputs are fetched from the GPU and
outputs put back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from emulator_queue import EmulatorQueue

from airside_perception.engine.base import EngineInfo, TensorSpec
from airside_perception.engine.buffers import (
    DeviceTensor,
    memory_shape,
    pack,
    padded_channels,
    unpack,
)
from airside_perception.engine.onnx import OnnxEngine
from airside_perception.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


class FakeEngine:
    """Opens an ONNX file.

    Args:
        queue: whose memory the tensors are in; stays open.
        layouts: {tensor: 'hwc8', ...}; the others are linear.
        half: tensors that are float16 on the device, whatever the file says.
        capturable: whether it may be recorded; a network that runs on the host of a real GPU
            never can.

    Attributes:
        runs: how often the network ran.
    """

    def __init__(
        self,
        path: Path,
        queue: Any,
        layouts: Mapping[str, str] | None = None,
        half: Collection[str] = (),
        capturable: bool = True,
    ) -> None:
        self._onnx = OnnxEngine(path, threads=1)
        self._queue = queue
        self._emulated = isinstance(queue, EmulatorQueue)
        self._closed = False
        self.runs = 0
        self.capturable = capturable and self._emulated
        self.stream = None if self._emulated else queue.stream
        self.inputs = tuple(_changed(spec, half) for spec in self._onnx.inputs)
        self.outputs = tuple(_changed(spec, half) for spec in self._onnx.outputs)
        self._memory: dict[str, Any] = {}
        self._tensors: dict[str, DeviceTensor] = {}
        for spec in (*self.inputs, *self.outputs):
            layout = (layouts or {}).get(spec.name, 'linear')
            memory = queue.alloc(memory_shape(spec.shape, layout), spec.dtype)
            self._memory[spec.name] = memory
            self._tensors[spec.name] = DeviceTensor(
                spec, memory.address, layout, spec.shape, padded_channels(spec.shape, layout),
                memory.nbytes,
            )  # fmt: skip

    @property
    def info(self) -> EngineInfo:
        return self._onnx.info

    def tensor(self, name: str) -> DeviceTensor:
        if self._closed:
            raise EngineError(f'{self.info.path}: the engine is closed')
        return self._tensors[name]

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """What a tensor holds, in its logical shape."""
        tensor = self._tensors[name]
        memory = np.asarray(self._queue.download(self._memory[name]))
        return unpack(memory, tensor.shape, tensor.layout)

    def enqueue(self, stream: Any) -> None:
        del stream  # the network runs on the host, at once
        self.runs += 1
        feeds = {
            spec.name: self._fetch(spec.name).astype(spec.dtype, copy=False)
            for spec in self._onnx.inputs
        }
        for name, value in self._onnx.infer(feeds).items():
            self._store(name, value)

    def _fetch(self, name: str) -> np.ndarray[Any, Any]:
        tensor, memory = self._tensors[name], self._memory[name]
        if self._emulated:
            return unpack(np.asarray(memory), tensor.shape, tensor.layout)
        return self.read(name)

    def _store(self, name: str, value: np.ndarray[Any, Any]) -> None:
        tensor, memory = self._tensors[name], self._memory[name]
        value = value.astype(tensor.dtype, copy=False)
        if self._emulated:
            pack(value, np.asarray(memory), tensor.layout)
            return
        packed = np.empty(memory.shape, memory.dtype)
        pack(value, packed, tensor.layout)
        memory.copy_from(packed, self._queue.stream)
        self._queue.synchronize()

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        return self._onnx.infer(feeds)

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _changed(spec: TensorSpec, half: Collection[str]) -> TensorSpec:
    dtype = np.dtype(np.float16) if spec.name in half else spec.dtype
    return TensorSpec(spec.name, spec.shape, dtype)

"""ONNX Runtime on the CPU: runs everywhere, and is the reference for every other backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from airside_perception.engine.base import Backend, EngineInfo, Tensors, TensorSpec, check_feeds
from airside_perception.errors import EngineError, first_line

DTYPES = {
    'tensor(float)': np.float32, 'tensor(float16)': np.float16, 'tensor(double)': np.float64,
    'tensor(int8)': np.int8, 'tensor(uint8)': np.uint8, 'tensor(int32)': np.int32,
    'tensor(int64)': np.int64, 'tensor(bool)': np.bool_,
}  # fmt: skip


class OnnxEngine(Backend):
    """An ONNX file on ONNX Runtime's CPU provider; satisfies `engine.base.Engine`."""

    def __init__(
        self, path: Path, dla_core: int = -1, precision: str = 'auto', threads: int = 0
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what fails is raised; it is not logged as well
        # threads that wait actively take the cores from the other nodes, and from ours afterwards
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
            self._inputs = tuple(map(_spec, self._session.get_inputs()))
            self._outputs = tuple(map(_spec, self._session.get_outputs()))
        except Exception as error:  # onnxruntime's exceptions have no common base below Exception
            raise EngineError(
                f'{path}: ONNX Runtime cannot load it: {first_line(error)}'
            ) from error
        notes = []
        if dla_core >= 0:
            notes.append(f'dla_core {dla_core}: not applicable to ONNX Runtime, runs on the CPU')
        if precision not in ('auto', 'fp32'):
            notes.append(
                f'precision {precision}: not applicable to ONNX Runtime, runs as in the file'
            )
        self._info = EngineInfo(
            str(path),
            'onnxruntime',
            onnxruntime.__version__,
            'cpu',
            _precision(self._inputs),
            tuple(notes),
        )

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Runs the network once; see `engine.base.Engine.infer`."""
        if self._session is None:
            raise EngineError(f'{self._info.path}: the engine is closed')
        check_feeds(self._info.path, self._inputs, feeds)
        names = [spec.name for spec in self._outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # as above
            raise EngineError(
                f'{self._info.path}: inference failed: {first_line(error)}'
            ) from error

    def close(self) -> None:
        """Frees the session; may be called again."""
        self._session = None


def _spec(node: Any) -> TensorSpec:
    if node.type not in DTYPES:
        raise EngineError(f'{node.name}: tensors of type {node.type} are not supported')
    shape = tuple(n if isinstance(n, int) else -1 for n in node.shape)
    return TensorSpec(node.name, shape, np.dtype(DTYPES[node.type]))


def _precision(inputs: tuple[TensorSpec, ...]) -> str:
    return 'fp16' if any(spec.dtype == np.float16 for spec in inputs) else 'fp32'

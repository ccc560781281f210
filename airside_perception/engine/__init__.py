"""Networks behind one interface: ONNX Runtime and TensorRT."""

from __future__ import annotations

from pathlib import Path

from airside_perception.engine.base import Engine, EngineInfo, TensorSpec, check_feeds, require
from airside_perception.errors import EngineError

__all__ = ['Engine', 'EngineInfo', 'TensorSpec', 'check_feeds', 'open_engine', 'require']


def open_engine(
    path: str | Path, dla_core: int = -1, precision: str = 'auto', threads: int = 0
) -> Engine:
    """Opens a network by the ending of its file: `.onnx` on ONNX Runtime.

    Args:
        path: the network.
        dla_core: DLA core (TensorRT only), -1: none.
        precision: what the caller expects: auto, fp32, fp16 or int8.
        threads: CPU threads of ONNX Runtime; 0: all.

    Raises:
        EngineError: missing, unreadable, of an unknown kind, or its backend is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(
            f'{path}: no such network; engine_path names a .onnx file or an engine built from one'
        )
    if path.suffix == '.onnx':
        from airside_perception.engine.onnx import (
            OnnxEngine,
        )  # ONNX Runtime loads only when it is used

        return OnnxEngine(path, dla_core=dla_core, precision=precision, threads=threads)
    raise EngineError(f'{path}: unknown kind of network {path.suffix!r}; expected .onnx')

"""Networks behind one interface: ONNX Runtime and TensorRT."""

from __future__ import annotations

from pathlib import Path

from airside_perception.engine.base import Engine, EngineInfo, TensorSpec, check_feeds, require
from airside_perception.errors import EngineError

__all__ = [
    'ENGINE_SUFFIXES',
    'Engine',
    'EngineInfo',
    'TensorSpec',
    'check_feeds',
    'open_engine',
    'require',
]


ENGINE_SUFFIXES = ('.engine', '.plan')


def open_engine(
    path: str | Path,
    dla_core: int = -1,
    precision: str = 'auto',
    threads: int = 0,
    *,
    allow_host_code: bool = False,
    check_manifest: bool = True,
) -> Engine:
    """Opens a network by the ending of its file: `.onnx` on ONNX Runtime, else on TensorRT.

    Args:
        path: the network: .onnx, .engine or .plan.
        dla_core: DLA core (TensorRT only), -1: none.
        precision: what the caller expects: auto, fp32, fp16 or int8.
        threads: CPU threads of ONNX Runtime; 0: all.
        allow_host_code: an engine may bring code that runs on the host (TensorRT only).
        check_manifest: an engine must belong to this machine, by its manifest (TensorRT only).

    Raises:
        EngineError: missing, unreadable, of an unknown kind, not of this machine, or its backend
            is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(
            f'{path}: no such network; engine_path names a .onnx file or an engine built from one'
        )
    # backends load only when they are used
    if path.suffix == '.onnx':
        from airside_perception.engine.onnx import OnnxEngine

        return OnnxEngine(path, dla_core=dla_core, precision=precision, threads=threads)
    if path.suffix in ENGINE_SUFFIXES:
        from airside_perception.engine.tensorrt import TensorRTEngine

        return TensorRTEngine(
            path,
            dla_core,
            precision,
            allow_host_code=allow_host_code,
            check_manifest=check_manifest,
        )
    raise EngineError(
        f'{path}: unknown kind of network {path.suffix!r}; expected .onnx, .engine or .plan'
    )

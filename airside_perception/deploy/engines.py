"""Engines, for the tools that open them: whether they run here, and on which core."""

from __future__ import annotations

from pathlib import Path

from airside_perception.errors import EngineError, RefusalError


def require_gpu(path: Path) -> None:
    """Engines run on a GPU.

    Raises:
        RefusalError: there is none, or no TensorRT.
    """
    from airside_perception.cuda import runtime
    from airside_perception.engine.capabilities import load_tensorrt

    reason = runtime.unavailable()
    if reason:
        raise RefusalError(
            f'{path}: an engine runs on a GPU: {reason}. The .onnx that it was built from runs '
            'on ONNX Runtime'
        )
    try:
        load_tensorrt()
    except EngineError as error:
        raise RefusalError(f'{path}: {error}') from error


def core_of(path: Path, dla_core: int | None) -> int:
    """DLA core that an engine is opened on, -1: none.

    Args:
        dla_core: if asked for; None: as its manifest says, none where it has no manifest.

    Raises:
        EngineError: a manifest that cannot be read.
    """
    from airside_perception.engine.manifest import Manifest, manifest_path

    if dla_core is not None:
        return dla_core
    return Manifest.read(path).dla_core if manifest_path(path).is_file() else -1

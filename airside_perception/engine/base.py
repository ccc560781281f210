"""What every inference backend offers, and the checks that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.closing import Closing
from airside_perception.errors import EngineError

Tensors = Mapping[str, NDArray[Any]]


def _dimensions(shape: tuple[int, ...]) -> str:
    return ', '.join('?' if n < 0 else str(n) for n in shape)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: -1 in `shape` is a dimension that may vary."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f'{self.name}: {self.dtype.name} [{_dimensions(self.shape)}]'

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape fits."""
        return len(shape) == len(self.shape) and all(
            n < 0 or n == m for n, m in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class EngineInfo:
    """What runs where: goes to diagnostics and into the header of every result."""

    path: str
    backend: str
    version: str
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    """Settings that do not apply to this backend, and what it warns of, in plain words."""
    dla_layer_pct: float | None = None
    """Share of the layers that really are on the DLA, 0 to 100; None where none should be."""
    trt_version: str = ''
    """Version of TensorRT; empty: it is not TensorRT that runs it."""
    manifest: str = ''
    """Path of the engine's manifest; empty: there is none."""
    device_bytes: int = 0
    """Device memory of tensors and layers, without the weights."""


class Engine(Protocol):
    """A network, opened: a context manager that infers until it is closed.

    The arrays that `infer` returns belong to the caller. Feeds are read during the call only.
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Runs the network once.

        Raises:
            EngineError: a feed is missing, unknown or of the wrong shape or dtype; the engine is
                closed; the backend failed.
        """
        ...

    def close(self) -> None:
        """Frees everything; may be called again."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Backend(Closing):
    """What all kinds of engines have alike: they know what they are, take and give."""

    _info: EngineInfo
    _inputs: tuple[TensorSpec, ...]
    _outputs: tuple[TensorSpec, ...]

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs


def check_feeds(path: str, inputs: tuple[TensorSpec, ...], feeds: Tensors) -> None:
    """Compares feeds with the inputs of a network.

    Raises:
        EngineError: names the first input that is missing, unknown, of wrong shape or dtype.
    """
    names = {spec.name for spec in inputs}
    unknown = sorted(set(feeds) - names)
    if unknown:
        raise EngineError(
            f'{path}: no input {unknown[0]!r}; inputs are {", ".join(map(str, inputs))}'
        )
    for spec in inputs:
        if spec.name not in feeds:
            raise EngineError(f'{path}: input {spec.name!r} is missing from the feeds')
        value = feeds[spec.name]
        if value.dtype != spec.dtype or not spec.accepts(value.shape):
            raise EngineError(
                f'{path}: input {spec.name!r} is {value.dtype.name} {list(value.shape)}, '
                f'expected {spec}'
            )


def require(engine: Engine, kind: str, name: str, shape: tuple[int, ...]) -> TensorSpec:
    """The input or output `name` of an engine, checked against `shape` (-1: any).

    Args:
        kind: 'input' or 'output'.

    Raises:
        EngineError: there is none of that name, or its shape contradicts.
    """
    specs = engine.inputs if kind == 'input' else engine.outputs
    for spec in specs:
        if spec.name == name:
            fits = len(spec.shape) == len(shape) and all(
                n < 0 or m < 0 or n == m for n, m in zip(spec.shape, shape, strict=True)
            )
            if not fits:
                raise EngineError(
                    f'{engine.info.path}: {kind} {spec} contradicts its model card, '
                    f'which needs [{_dimensions(shape)}]'
                )
            return spec
    raise EngineError(
        f'{engine.info.path}: no {kind} {name!r}; it has {", ".join(map(str, specs))}. '
        'Does the model card belong to it?'
    )

"""A network or engine to be compared: in which precision, and how it is opened."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.engines import core_of, require_gpu
from airside_perception.deploy.outputs import OnnxRunner
from airside_perception.engine import ENGINE_SUFFIXES, Engine, EngineInfo, open_engine
from airside_perception.engine.base import Backend, Tensors, check_feeds
from airside_perception.engine.calibration_cache import read_scales
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import has_qdq, inputs, is_half, name_nodes, spec
from airside_perception.engine.precision import to_half
from airside_perception.engine.qdq import insert_qdq
from airside_perception.engine.rounding import rounded_half
from airside_perception.engine.typed import matching_layers, read_network
from airside_perception.errors import ConfigError, EngineError

PRECISIONS = ('auto', 'fp32', 'fp16', 'int8')
LAYER_PRECISIONS = ('fp32', 'fp16')


@dataclass(frozen=True)
class Side:
    """One of two that are compared.

    Attributes:
        path: .onnx, .engine or .plan.
        precision: fp32, fp16 or int8; of an engine what it must have, `auto` any.
        model: the ONNX network in that precision; None for an engine, whose inside nobody sees.
        plain: the network as its file has it; None for an engine.
        layers: {node: fp32 or fp16}, nodes that stay in a higher precision than the rest.
        scales: {tensor: scale} that int8 was made from.
        notes: how it is computed.
        dla_core: of an engine, -1: none; None: as its manifest says.
        allow_host_code: of an engine, as for `open_engine`.
    """

    path: Path
    precision: str
    model: Any = None
    plain: Any = None
    layers: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dla_core: int | None = None
    allow_host_code: bool = False

    @property
    def label(self) -> str:
        """Its file and precision."""
        return f'{self.path.name} ({self.precision})'

    def open(self) -> Engine:
        """Opens it for inference.

        Raises:
            EngineError: its backend refuses it.
            RefusalError: an engine, and there is no GPU or no TensorRT here that runs it.
        """
        if self.model is None:
            if self.path.is_file():
                require_gpu(self.path)
            return open_engine(
                self.path,
                core_of(self.path, self.dla_core),
                self.precision,
                allow_host_code=self.allow_host_code,
            )
        return ModelEngine(str(self.path), self.model, self.precision, self.notes)


def open_side(
    path: str | Path,
    precision: str = 'auto',
    scales: str | Path | Mapping[str, float] = '',
    layers: Mapping[str, str] | None = None,
    dla_core: int | None = None,
    allow_host_code: bool = False,
) -> Side:
    """A network or engine in a precision.

    fp16 becomes a network that rounds after every node (`rounded_half`). int8 becomes what `build`
    makes of it: Q/DQ before every convolution and matrix product, deconvolutions split where that
    is exact, and the rest in fp16.

    Args:
        path: .onnx, .engine or .plan.
        precision: `auto`: as the file is.
        scales: for int8, {tensor: scale}, or a file of them: JSON or a calibration cache.
        layers: {node or pattern with *: fp32 or fp16}.
        dla_core, allow_host_code: of an engine.

    Raises:
        EngineError: not a network, or it cannot be converted.
        ConfigError: no scales, an unknown node, or a precision that the file cannot have.
    """
    path, layers = Path(path), dict(layers or {})
    if precision not in PRECISIONS:
        raise ConfigError(f'precision {precision!r} is not one of {", ".join(PRECISIONS)}')
    if path.suffix in ENGINE_SUFFIXES:
        if layers or scales:
            raise ConfigError(
                f'{path}: an engine is as it was built; layer precisions and scales are for .onnx'
            )
        return Side(path, precision, dla_core=dla_core, allow_host_code=allow_host_code)
    if path.suffix != '.onnx':
        raise ConfigError(f'{path}: expected .onnx, .engine or .plan')
    plain = read_network(path)
    name_nodes(plain.graph)
    own = 'int8' if has_qdq(plain) else 'fp16' if is_half(plain) else 'fp32'
    precision = own if precision == 'auto' else precision
    if precision != own and own != 'fp32':
        raise ConfigError(f'{path}: is {own} already, and precision {precision} was asked for')
    if scales and precision != 'int8':
        raise ConfigError(f'{path}: scales are for int8, and this is {precision}')
    if layers and (own != 'fp32' or precision == 'fp32'):
        raise ConfigError(
            f'{path}: is {own}, and stays so; layer precisions are for what is converted from '
            'fp32: say --as fp16 or --as int8'
        )
    for name, kind in layers.items():
        if kind not in LAYER_PRECISIONS:
            raise ConfigError(f'layer precision of {name!r} = {kind!r}: expected fp32 or fp16')
    layers = matching_layers(plain, layers)
    if precision == own:
        return _side(path, precision, plain, plain, {}, {})
    known = _scales(path, precision, scales)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always', RuntimeWarning)
        model = convert(plain, precision, known, layers)
    notes = tuple(str(item.message) for item in said if item.category is RuntimeWarning)
    return _side(path, precision, model, plain, layers, known, notes)


def convert(
    model: Any,
    precision: str,
    scales: Mapping[str, float] | None = None,
    layers: Mapping[str, str] | None = None,
) -> Any:
    """A copy of an fp32 network in another precision; inputs and outputs stay fp32.

    Args:
        precision: fp16, or int8 with the rest in fp16.
        scales: {tensor: scale} for int8.
        layers: {node: fp32 or fp16}: nodes that stay fp32, or out of int8.

    Raises:
        EngineError: it cannot be converted, or no scale fits.

    Warns:
        RuntimeWarning: weights beyond what fp16 holds are clipped.
    """
    layers = dict(layers or {})
    if precision == 'int8':
        model = insert_qdq(split_deconvolutions(model, layers), scales or {}, layers)
    return to_half(model, True, [name for name, kind in layers.items() if kind == 'fp32'])


def _side(
    path: Path,
    precision: str,
    model: Any,
    plain: Any,
    layers: Mapping[str, str],
    scales: Mapping[str, float],
    notes: tuple[str, ...] = (),
) -> Side:
    if is_half(model):
        model = rounded_half(model)
        notes = (*notes, 'fp16 is computed in fp32 with every result rounded to fp16, on the CPU')
    return Side(path, precision, model, plain, layers, scales, notes)


def _scales(
    path: Path, precision: str, scales: str | Path | Mapping[str, float]
) -> dict[str, float]:
    if precision != 'int8':
        return {}
    if isinstance(scales, Mapping):
        return dict(scales)
    if not str(scales):
        raise ConfigError(
            f'{path}: int8 needs --scales, a JSON file {{tensor: scale}} or a calibration cache, '
            'as `engine calibrate` writes them; or name a network with Q/DQ nodes'
        )
    return read_scales(scales)


class ModelEngine(Backend):
    """An ONNX network in memory, on ONNX Runtime; satisfies `engine.base.Engine`."""

    def __init__(
        self, label: str, model: Any, precision: str = '', notes: tuple[str, ...] = ()
    ) -> None:
        self._runner: OnnxRunner | None = OnnxRunner(model)
        self._inputs = tuple(map(spec, inputs(model)))
        self._outputs = tuple(map(spec, model.graph.output))
        self._info = EngineInfo(label, 'ONNX Runtime', '', 'CPU', precision, notes)

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Runs the network once; see `engine.base.Engine.infer`."""
        if self._runner is None:
            raise EngineError(f'{self._info.path}: the engine is closed')
        check_feeds(self._info.path, self._inputs, feeds)
        return self._runner.run(feeds)

    def close(self) -> None:
        """Frees the session; may be called again."""
        self._runner = None


def fitted(feeds: Tensors, engine: Engine) -> dict[str, NDArray[Any]]:
    """Feeds in the types of an engine's inputs: one of the two may take fp16."""
    kinds = {spec.name: spec.dtype for spec in engine.inputs}
    with np.errstate(over='ignore'):
        return {
            name: value.astype(kinds[name], copy=False) if name in kinds else value
            for name, value in feeds.items()
        }

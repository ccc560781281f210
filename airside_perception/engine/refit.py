"""Other weights in an engine that was built for that, by whichever way a TensorRT has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from airside_perception.engine.capabilities import TensorRT
from airside_perception.engine.plan import Plan, load_plan
from airside_perception.engine.structure import weight_values
from airside_perception.engine.trt_log import Messages, collect, logger
from airside_perception.errors import EngineError

NARROWED: Mapping[str, type[np.generic]] = {'float64': np.float32, 'int64': np.int32}
"""What the ONNX parser of TensorRT 8 makes of numbers that it does not have."""
NAMED = 5


@dataclass(frozen=True)
class Refitted:
    """An engine with other weights.

    Attributes:
        data: the plan.
        weights: names of the weights that can be changed in it.
        refittable: whether that can be done again.
    """

    data: bytes
    weights: tuple[str, ...]
    refittable: bool


def refit_plan(
    tensorrt: TensorRT, path: str, data: bytes, source: bytes, dla_core: int, host_code: bool
) -> Refitted:
    """The engine with the weights of an ONNX.

    From version 10 on TensorRT takes them from the ONNX itself, and knows what its parser makes of
    them. Before, every weight is set by the name of its initialiser or constant.

    Args:
        path: of the engine, for messages.
        data: the plan.
        source: the ONNX as the builder got it (`typed_network`), with other weights.
        dla_core, host_code: as for `load_plan`.

    Raises:
        EngineError: this TensorRT cannot, the engine is not made for it, or a weight is missing,
            unknown or of another size; names the weights.
    """
    if not tensorrt.can.refitter:
        raise EngineError(f'{path}: {tensorrt} cannot change weights of an engine')
    plan = load_plan(tensorrt, path, data, dla_core, host_code, to_run=False)
    try:
        if not plan.engine.refittable:
            raise EngineError(f'{path}: its weights are fixed: build it with --refit')
        with collect() as said:
            try:
                names = _refit(tensorrt, path, plan, source, said)
                changed = _serialized(tensorrt, plan.engine)
            except EngineError:
                raise
            except Exception as error:  # what the bindings raise has no nearer common base
                reason = said.reason() or f'{type(error).__name__}: {error}'
                raise EngineError(f'{path}: {tensorrt} cannot refit it: {reason}') from error
    finally:
        plan.free()
    if not changed:
        reason = said.reason() or 'it says not why'
        raise EngineError(f'{path}: {tensorrt} cannot write it with its weights: {reason}')
    again = load_plan(tensorrt, path, changed, dla_core, host_code)  # it is ready to run
    try:
        return Refitted(changed, names, bool(again.engine.refittable))
    finally:
        again.free()


def _refit(
    tensorrt: TensorRT, path: str, plan: Plan, source: bytes, said: Messages
) -> tuple[str, ...]:
    """Sets the weights in the engine; the names of those that can be set."""
    refitter = tensorrt.module.Refitter(plan.engine, logger(tensorrt))
    names = tuple(filter(None, refitter.get_all_weights()))  # some have no name
    if not names:
        raise EngineError(f'{path}: it has no weight that can be changed')
    if tensorrt.can.parser_refitter:
        parser = tensorrt.module.OnnxParserRefitter(refitter, logger(tensorrt))
        done = parser.refit_from_bytes(source)
        errors = [parser.get_error(place).desc() for place in range(parser.num_errors)]
        kept: list[Any] = [parser, source]
    else:
        kept, errors = _set_by_name(tensorrt, path, refitter, names, source)
        done = not errors
    missing = tuple(refitter.get_missing_weights())
    if missing:
        raise EngineError(
            f'{path}: the network lacks weights of the engine: {_few(missing)}; a batch '
            'normalisation that the parser folded has other names: fold it first (engine '
            'sanitize), then build and refit that network'
        )
    if not done:
        reason = (errors or [said.reason() or 'it says not why'])[0]
        raise EngineError(f'{path}: {tensorrt} does not take the weights: {reason}')
    if not refitter.refit_cuda_engine():
        reason = said.reason() or 'it says not why'
        raise EngineError(f'{path}: {tensorrt} cannot refit it: {reason}')
    del kept  # TensorRT reads these until now
    return names


def _set_by_name(
    tensorrt: TensorRT, path: str, refitter: Any, names: tuple[str, ...], source: bytes
) -> tuple[list[Any], list[str]]:
    """Sets every weight; what TensorRT goes on reading, and what it did not take."""
    values = weight_values(onnx.load_model_from_string(source))
    unknown = tuple(name for name in names if name not in values)
    if unknown:
        raise EngineError(
            f'{path}: the network has no weights {_few(unknown)}, which the engine has; a batch '
            'normalisation that the parser folded has other names: fold it first (engine '
            'sanitize), then build and refit that network'
        )
    kept: list[Any] = []
    for name in names:
        value = _as_parsed(values[name])
        weights = tensorrt.module.Weights(value)
        kept += [value, weights]
        if not refitter.set_named_weights(name, weights):
            return kept, [f'{name}: {value.dtype.name} {list(value.shape)}']
    return kept, []


def _as_parsed(value: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(value, NARROWED.get(value.dtype.name, value.dtype.type))


def _serialized(tensorrt: TensorRT, engine: Any) -> bytes:
    """The plan, with all its weights, and open for others where it was."""
    flags = tensorrt.can.serialization_flags
    if 'EXCLUDE_WEIGHTS' not in flags:
        return bytes(engine.serialize() or b'')
    known = tensorrt.module.SerializationFlag
    config = engine.create_serialization_config()
    config.clear_flag(known.EXCLUDE_WEIGHTS)  # which is set for an engine that came without
    if 'INCLUDE_REFIT' in flags:
        config.set_flag(known.INCLUDE_REFIT)
    return bytes(engine.serialize_with_config(config) or b'')


def _few(names: tuple[str, ...]) -> str:
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(map(repr, names[:NAMED])) + more

"""The opset of a network in the range that a TensorRT release reads."""

from __future__ import annotations

from typing import Any

import onnx

from airside_perception.deploy.lint import load_table
from airside_perception.deploy.outputs import one_line
from airside_perception.engine.graph import opset, raised
from airside_perception.errors import ConfigError, EngineError

RESIZE_OPSET = 11
"""Upsample became Resize in 10, and got its present form in 11."""


def opset_range(jetpack: str) -> tuple[int, int]:
    """(lowest, highest) opset that the parser of a JetPack's TensorRT reads, as lint has it.

    Raises:
        ConfigError: unknown JetPack.
    """
    for rule in load_table(jetpack).of('dla', 'network'):
        if rule.name == 'opset':
            lowest, highest = rule.condition.limits
            return int(lowest), int(highest)
    raise ConfigError(f'jetpack {jetpack}: its rules say nothing of opsets')


def fit_opset(model: Any, jetpack: str) -> tuple[Any, tuple[str, ...]]:
    """Raises or lowers the opset into the range of a JetPack's TensorRT, by onnx's converter.

    Upsample, which later versions do not have, raises it to 11.

    Returns:
        The new model, and what was changed.

    Raises:
        ConfigError: unknown JetPack.
        EngineError: an operator has no counterpart there.
    """
    lowest, highest = opset_range(jetpack)
    if any(node.op_type == 'Upsample' for node in model.graph.node):
        lowest = RESIZE_OPSET
    old = opset(model)
    new = min(max(old, lowest), highest)
    if new == old:
        return model, ()
    if new > old:
        return raised(model, new, f'JetPack {jetpack}'), (f'opset {old} -> {new}',)
    try:
        lowered = onnx.version_converter.convert_version(model, new)
    except Exception as error:  # the converter raises RuntimeError and its own, with no base
        raise EngineError(
            f'opset {old} cannot be lowered to {new}, the highest of JetPack {jetpack}: '
            f'{one_line(error)}'
        ) from error
    return lowered, (f'opset {old} -> {new}',)

"""Dynamic dimensions made static, and what follows from them stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from airside_perception.deploy.fold import fold_constants
from airside_perception.deploy.tidy import infer_types, name_nodes, set_input_shapes
from airside_perception.engine.graph import inputs
from airside_perception.errors import ConfigError

LARGEST_CONSTANT = 1 << 20
"""Bytes: nothing larger is stored in place of the nodes that make it."""

ANY_RANK = 'of any rank'
Shapes = Mapping[str, Sequence[int]]


def freeze_shapes(model: Any, batch: int | None, shapes: Shapes) -> tuple[Any, tuple[str, ...]]:
    """Gives every dimension of every input a size.

    Args:
        batch: of leading dimensions that vary; None: 1.
        shapes: {input: shape} for the others; what is fixed already must agree.

    Returns:
        The new model, and what was changed.

    Raises:
        ConfigError: an unknown input, a shape that contradicts the network, or a dimension that
            varies and has no size.
    """
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    before = {value.name: describe(value) for value in inputs(frozen)}
    unknown = [name for name in shapes if name not in before]
    if unknown:
        raise ConfigError(f'shape of {unknown[0]!r}: inputs are {", ".join(before)}')
    wanted: dict[str, list[int]] = {}
    for value in inputs(frozen):
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value if dim.HasField('dim_value') else -1 for dim in dims]
        given = list(shapes.get(value.name, ()))
        if given and (
            (sizes and len(given) != len(sizes))
            or any(size < 1 for size in given)
            or any(old not in (-1, new) for old, new in zip(sizes, given, strict=False))
        ):
            raise ConfigError(
                f'shape {"x".join(map(str, given))}: input {value.name!r} is '
                f'{before[value.name]}; only ? can be given, --batch changes the batch, and '
                '`engine resize` the size of an image'
            )
        if sizes and sizes[0] < 0 and not given:
            sizes[0] = batch or 1
        wanted[value.name] = given or sizes
    changed = [name for name in wanted if '?' in before[name] or before[name] == ANY_RANK]
    if not changed:
        return model, ()
    set_input_shapes(frozen, wanted)
    for value in inputs(frozen):
        said = describe(value)
        if '?' in said or said == ANY_RANK:
            raise ConfigError(
                f'input {value.name!r} is {before[value.name]}: give what varies, as '
                f'--shape {value.name}:1x3x416x416'
            )
    infer_types(frozen)
    after = {value.name: describe(value) for value in inputs(frozen)}
    return frozen, tuple(f'{name}: {before[name]} -> {after[name]}' for name in changed)


def store_constants(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Stores what no longer depends on an input, such as shapes of tensors that do not vary.

    Returns:
        The new model, and what was changed.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy)
    count = sum(node.op_type != 'Constant' for node in copy.graph.node)
    folded = fold_constants(copy, LARGEST_CONSTANT)
    fewer = count - sum(node.op_type != 'Constant' for node in folded.graph.node)
    return (folded, (f'{fewer} nodes -> constants',)) if fewer > 0 else (model, ())


def describe(value: Any) -> str:
    """The shape of an input as 1x3x?x?."""
    tensor = value.type.tensor_type
    if not tensor.HasField('shape'):
        return ANY_RANK
    return 'x'.join(
        str(dim.dim_value) if dim.HasField('dim_value') else '?' for dim in tensor.shape.dim
    )

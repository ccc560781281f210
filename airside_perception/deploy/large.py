"""Networks of more than 2 GB: protobuf neither measures nor copies them in one piece."""

from __future__ import annotations

import math
from typing import Any

import onnx
from onnx import helper

LIMIT = int(onnx.checker.MAXIMUM_PROTOBUF) - (1 << 20)
"""Bytes that protobuf takes in one message, and so an ONNX file without others beside it,
with room for what is not counted."""


def stored_bytes(model: Any) -> int:
    """Bytes that a network takes as a file, within some per mille."""
    total = sum(map(_weight_bytes, model.graph.initializer))
    return total + int(copy_rest(model).ByteSize())


def copy_rest(model: Any) -> Any:
    """A copy of a network without the weights of its outermost graph."""
    copy = onnx.ModelProto()
    _copy_fields(model, copy, 'graph')
    _copy_fields(model.graph, copy.graph, 'initializer')
    return copy


def copy_whole(model: Any) -> Any:
    """A copy of a network, however large it is."""
    copy = copy_rest(model)
    for tensor in model.graph.initializer:
        copy.graph.initializer.add().CopyFrom(tensor)
    return copy


def _copy_fields(source: Any, target: Any, without: str) -> None:
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if hasattr(value, 'extend'):
            getattr(target, field.name).extend(value)
        elif hasattr(value, 'CopyFrom'):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _weight_bytes(tensor: Any) -> int:
    try:
        return int(tensor.ByteSize())
    except Exception:  # noqa: BLE001  protobuf's EncodeError: one weight of more than 2 GB
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return int(math.prod(tensor.dims) * dtype.itemsize)

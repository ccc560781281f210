"""Networks of more than 2 GB: protobuf neither measures nor copies them in one piece."""

from __future__ import annotations

import math
from typing import Any

import onnx
from onnx import helper

LIMIT = int(onnx.checker.MAXIMUM_PROTOBUF) - (1 << 20)
"""Bytes that protobuf takes in one message, and so an ONNX file without others beside it,
with room for what is not counted."""
REST = (
    'node', 'input', 'output', 'value_info', 'sparse_initializer', 'quantization_annotation',
)  # fmt: skip
"""What a graph has beside its weights."""
MODEL = (
    'ir_version', 'producer_name', 'producer_version', 'domain', 'model_version', 'doc_string',
)  # fmt: skip
MODEL_LISTS = ('opset_import', 'metadata_props', 'functions', 'training_info')


def stored_bytes(model: Any) -> int:
    """Bytes that a network takes as a file, within some per mille."""
    graph = model.graph
    lists = [getattr(graph, name) for name in REST] + [model.functions, model.metadata_props]
    total = sum(map(_weight_bytes, graph.initializer))
    for items in lists:
        total += sum(int(item.ByteSize()) for item in items)
    return total


def copy_rest(model: Any) -> Any:
    """A copy of a network without the weights of its outermost graph."""
    copy = onnx.ModelProto()
    for name in MODEL:
        if model.HasField(name):
            setattr(copy, name, getattr(model, name))
    for name in MODEL_LISTS:
        getattr(copy, name).extend(getattr(model, name))
    graph, whole = copy.graph, model.graph
    graph.name, graph.doc_string = whole.name, whole.doc_string
    for name in REST:
        getattr(graph, name).extend(getattr(whole, name))
    return copy


def copy_whole(model: Any) -> Any:
    """A copy of a network, however large it is."""
    copy = copy_rest(model)
    for tensor in model.graph.initializer:
        copy.graph.initializer.add().CopyFrom(tensor)
    return copy


def _weight_bytes(tensor: Any) -> int:
    try:
        return int(tensor.ByteSize())
    except Exception:  # noqa: BLE001  protobuf's EncodeError: one weight of more than 2 GB
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return int(math.prod(tensor.dims) * dtype.itemsize)

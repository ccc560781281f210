"""A YOLOX-like card, and networks of a few bytes that answer what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import CameraCard

SIZES = {
    'person': (0.5, 0.5, 1.75), 'car': (4.3, 1.8, 1.55), 'truck': (8.0, 2.5, 3.2),
}  # fmt: skip


@pytest.fixture
def make_card() -> Callable[..., CameraCard]:
    """A card of input 64 x 96, strides 8 and 16, classes person, cat, car, train."""

    def make(**changes: Any) -> CameraCard:
        values: dict[str, Any] = {
            'path': 'tiny.yaml',
            'name': 'tiny',
            'architecture': 'yolox',
            'classes': ('person', 'cat', 'car', 'train'),
            'publish': {'person': 'person', 'car': 'car', 'train': 'truck'},
            'thresholds': {},
            'height': 64,
            'width': 96,
            'strides': (8, 16),
            'sizes': SIZES,
        }
        return CameraCard(**{**values, **changes})

    return make


@pytest.fixture
def make_network(tmp_path: Path) -> Callable[..., Path]:
    """An ONNX file with the inputs and outputs of a card that returns `rows` for every image."""

    def make(
        card: CameraCard,
        rows: np.ndarray,
        dtype: int = TensorProto.FLOAT,
        input_name: str = '',
    ) -> Path:
        name = input_name or card.input_name
        shape = [1, 3, card.height, card.width]
        answer = rows[None].astype(helper.tensor_dtype_to_np_dtype(dtype))
        graph = helper.make_graph(
            [
                helper.make_node('Shape', [name], ['shape']),  # so that the input is used
                helper.make_node('Cast', ['shape'], ['numbers'], to=dtype),
                helper.make_node('ReduceMin', ['numbers'], ['one'], keepdims=0),
                helper.make_node('Mul', ['answer', 'one'], [card.output_name]),
            ],
            'tiny',
            [helper.make_tensor_value_info(name, dtype, shape)],
            [helper.make_tensor_value_info(card.output_name, dtype, list(answer.shape))],
            [numpy_helper.from_array(answer, 'answer')],
        )
        path = tmp_path / 'tiny.onnx'
        save(graph, path)
        return path

    return make


@pytest.fixture
def cells(make_card: Callable[..., CameraCard]) -> np.ndarray:
    """Output rows of the tiny card, float32 [120, 9], in which no cell sees anything."""
    return np.zeros((8 * 12 + 4 * 6, 9), np.float32)


def save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))

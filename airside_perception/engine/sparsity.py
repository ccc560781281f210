"""Weights with two zeros in every four: what sparse tensor cores and DLA cores can make use of."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from airside_perception.engine.graph import weights

GROUP, ZEROS = 4, 2
CHANNEL_AXES = {'Conv': 1, 'ConvTranspose': 0}
"""Along which axis of the weights the input channels lie."""


def sparsity_note(data: bytes) -> tuple[str, ...]:
    """What the setting `sparsity` can do for this ONNX: a line, as a tuple to be added to notes.

    TensorRT says nothing where no weights are sparse, and takes its usual kernels.
    """
    sparse, total = sparse_weights(onnx.load_model_from_string(data))
    if sparse:
        return (f'sparsity: {len(sparse)} of {total} weights have 2 zeros in every 4 channels',)
    return (
        f'sparsity has no effect: none of {total} weights has 2 zeros in every 4 input channels; '
        'train the network with 2:4 sparsity first',
    )


def sparse_weights(model: Any) -> tuple[tuple[str, ...], int]:
    """Names of the weights that are 2:4 sparse, and how many could be.

    Those of convolutions and matrix products count, which have at least 4 input channels. The
    pattern: of every 4 consecutive input channels, 2 at least are zero, at every place of the
    kernel and for every output channel.
    """
    stored = weights(model)
    found, total = [], 0
    for node in model.graph.node:
        if node.op_type not in ('Conv', 'ConvTranspose', 'Gemm', 'MatMul'):
            continue
        for place, name in enumerate(node.input[:2]):
            value = stored.get(name)
            if value is None or value.ndim < 2:
                continue
            axis = CHANNEL_AXES.get(node.op_type, _inner(node, place, value))
            if value.shape[axis] >= GROUP:
                total += 1
                found += [name] if is_sparse(value, axis) else []
    return tuple(found), total


def is_sparse(value: NDArray[Any], axis: int) -> bool:
    """Whether of every 4 consecutive numbers along an axis 2 are zero; not of zeros alone."""
    moved = np.moveaxis(value, axis, -1)
    size = moved.shape[-1] // GROUP * GROUP
    groups = moved[..., :size].reshape(-1, GROUP)
    return bool(np.any(groups)) and int(np.count_nonzero(groups, axis=1).max()) <= GROUP - ZEROS


def _inner(node: Any, place: int, value: NDArray[Any]) -> int:
    """The axis of a matrix that is summed over, for the factor at this place."""
    turned = any(item.name == ('transA', 'transB')[place] and item.i for item in node.attribute)
    return value.ndim - (2 if turned == (place == 0) else 1)

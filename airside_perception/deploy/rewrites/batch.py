"""Another fixed batch size."""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.tidy import infer_types
from airside_perception.engine.graph import copied, inferred, inputs, store, weights


def batch_of(model: Any) -> int | None:
    """The leading dimension of all inputs; None where they differ, vary, or have none."""
    sizes = set()
    for value in inputs(model):
        dims = value.type.tensor_type.shape.dim
        sizes.add(dims[0].dim_value if len(dims) and dims[0].HasField('dim_value') else 0)
    size = sizes.pop() if len(sizes) == 1 else 0
    return size or None


def set_batch(model: Any, batch: int) -> tuple[Any, tuple[str, ...]]:
    """Gives all inputs this leading dimension; Reshape then copies it in place of a number.

    Whether every sample is treated on its own is not looked at here: run both and see.

    Args:
        model: with one batch size for all inputs.
        batch: 1 or more.

    Returns:
        The new model, and what was changed; nothing where it has that batch or no single one.
    """
    old = batch_of(model)
    if old is None or old == batch:
        return model, ()
    model = inferred(copied(model))
    graph, stored = model.graph, weights(model)
    leading = {
        value.name: value.type.tensor_type.shape.dim[0].dim_value
        for value in (*graph.value_info, *graph.input, *graph.output)
        if len(value.type.tensor_type.shape.dim)
    }
    for node in graph.node:
        target = stored.get(node.input[1]) if node.op_type == 'Reshape' else None
        if target is None or not target.size or leading.get(node.input[0]) != old:
            continue
        if target[0] == old and not any(item.name == 'allowzero' for item in node.attribute):
            shape = np.array([0, *target[1:]], np.int64)
            node.input[1] = store(graph, f'{node.output[0]}_any_batch', shape)
    for value in inputs(model):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField('shape')
    infer_types(model)
    return model, (f'batch {old} -> {batch}',)

"""Constant folding and dead nodes, by ONNX GraphSurgeon and ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from airside_perception.deploy.outputs import one_line
from airside_perception.deploy.tidy import all_nodes, graphs, infer_types, unknown_operators
from airside_perception.engine.graph import VALUES
from airside_perception.errors import EngineError

RANDOM = frozenset(
    ('RandomNormal', 'RandomNormalLike', 'RandomUniform', 'RandomUniformLike', 'Bernoulli',
     'Multinomial')
)  # fmt: skip
"""Operators with other values every time: they have no inputs that vary, and are no constants."""
PASSES = 20


def random_operators(model: Any) -> list[str]:
    """Those of its nodes that give other values every time, as `name (operator)`."""
    return [
        f'{node.name or "node"} ({node.op_type})'
        for node in all_nodes(model)
        if node.op_type in RANDOM or _drops(node)
    ]


def without_dead(model: Any) -> Any:
    """A copy of `model` without nodes and weights that no output needs.

    Raises:
        EngineError: it is not a graph that can be followed.
    """
    with _quiet():
        return _exported(_imported(model), model)


def fold_constants(model: Any, limit: int, flatten: bool = True) -> Any:
    """A copy of `model` in which what depends on no input is stored as a weight.

    Shapes of tensors that do not vary are constants too. Q/DQ nodes stay: they say the precision.

    Args:
        model: with names for its nodes (`tidy.name_nodes`); it may be changed.
        limit: bytes: no tensor that is larger is stored in place of the nodes that make it.
        flatten: an If whose condition is known becomes its branch.

    Raises:
        EngineError: it is not a graph that can be followed, or its shapes contradict.
    """
    strange = {name.rpartition('::')[2] for name in unknown_operators(model)}
    keep = RANDOM | strange
    inside = {node.op_type for node in all_nodes(model)} - {n.op_type for n in model.graph.node}
    _plain_constants(model)
    with _quiet():
        for _ in range(PASSES):
            infer_types(model)
            before = sum(1 for _ in all_nodes(model))
            graph = _imported(model)
            try:
                graph.fold_constants(
                    # inner graphs do not know which nodes to leave
                    recurse_subgraphs=not inside & keep,
                    partitioning='recursive',
                    flatten_subgraphs=flatten,
                    size_threshold=limit,
                    should_exclude_node=lambda node: node.op in keep or _bytes(node) > limit,
                )
            except Exception as error:  # what a library raises on a graph that it cannot follow
                raise EngineError(f'constants cannot be folded: {one_line(error)}') from error
            model = _exported(graph, model)
            if sum(1 for _ in all_nodes(model)) == before:
                break
    _restore_outputs(model)
    return model


def _plain_constants(model: Any) -> None:
    """Every Constant holds a tensor: GraphSurgeon makes float64 of a list of floats."""
    for node in all_nodes(model):
        if node.op_type != 'Constant' or node.attribute[0].name not in VALUES:
            continue
        name = node.attribute[0].name
        value = helper.get_attribute_value(node.attribute[0])
        tensor = numpy_helper.from_array(np.array(value, VALUES[name]))
        node.attribute[0].CopyFrom(helper.make_attribute('value', tensor))


def _drops(node: Any) -> bool:
    """A Dropout with a third input: it may be in training."""
    return node.op_type == 'Dropout' and len(node.input) > 2 and bool(node.input[2])


def _bytes(node: Any) -> int:
    """Of the outputs of a node, as far as their size is known."""
    total = 0
    for tensor in node.outputs:
        shape, kind = tensor.shape, tensor.dtype
        if shape is None or kind is None or not all(isinstance(size, int) for size in shape):
            continue
        # types that NumPy does not have are numbers of ONNX here
        dtype = helper.tensor_dtype_to_np_dtype(kind) if isinstance(kind, int) else kind
        total += math.prod(shape) * np.dtype(dtype).itemsize
    return total


def _imported(model: Any) -> Any:
    import onnx_graphsurgeon

    try:
        graph = onnx_graphsurgeon.import_onnx(model)
        if not _in_order(model.graph):
            graph.toposort(recurse_subgraphs=True)
    except Exception as error:  # what a library raises on a graph that it cannot follow
        raise EngineError(f'not a graph that can be followed: {one_line(error)}') from error
    return graph


def _exported(graph: Any, model: Any) -> Any:
    """ONNX of a GraphSurgeon graph; what that does not keep comes from `model`."""
    import onnx_graphsurgeon

    try:
        new = onnx_graphsurgeon.export_onnx(
            graph.cleanup(), do_type_check=False, opset_imports=list(model.opset_import)
        )
    except Exception as error:  # as above
        raise EngineError(f'not a graph that can be written: {one_line(error)}') from error
    new.ir_version, new.domain = model.ir_version, model.domain
    new.model_version, new.doc_string = model.model_version, model.doc_string
    new.metadata_props.extend(model.metadata_props)
    there = {name for node in new.graph.node for name in (*node.input, *node.output)}
    new.graph.quantization_annotation.extend(
        item for item in model.graph.quantization_annotation if item.tensor_name in there
    )
    return new


def _restore_outputs(model: Any) -> None:
    """Outputs that are constants stay outputs of a node: not every runtime takes weights there."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    for tensor in graph.initializer:
        if tensor.name not in outputs:
            continue
        name, stored = tensor.name, f'{tensor.name}_constant'
        for inner in graphs(graph):
            for node in inner.node:
                for index, source in enumerate(node.input):
                    if source == name:
                        node.input[index] = stored
        tensor.name = stored
        graph.node.append(helper.make_node('Identity', [stored], [name], name=f'{name}_output'))


def _in_order(graph: Any) -> bool:
    """Whether every node comes after those that it needs."""
    later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if any(name in later for name in node.input):
            return False
        later.difference_update(node.output)
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither library talks to the terminal: what counts is raised, or in the report."""
    import onnxruntime
    from onnx_graphsurgeon.logger import G_LOGGER

    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.CRITICAL + 1
    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        G_LOGGER.severity = before
        onnxruntime.set_default_logger_severity(2)


def inlined(model: Any) -> tuple[Any, int]:
    """`model` with its own functions in place of their calls, and how many functions it had.

    Raises:
        EngineError: onnx cannot do it.
    """
    count = len(model.functions)
    if not count:
        return model, 0
    try:
        from onnx import inliner

        return inliner.inline_local_functions(model), count
    except Exception as error:  # onnx raises RuntimeError and its own, with no base
        raise EngineError(f'functions cannot be inlined: {one_line(error)}') from error

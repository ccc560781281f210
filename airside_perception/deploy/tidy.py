"""Repairs of an ONNX file that change no number: names, weights, shapes, and its check."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from airside_perception.deploy.large import copy_rest
from airside_perception.deploy.outputs import one_line
from airside_perception.engine.graph import opset
from airside_perception.errors import ConfigError, EngineError

STANDARD = ('', 'ai.onnx')
ONNX_DOMAINS = (*STANDARD, 'ai.onnx.ml')
SMALL = 1024
"""Values: larger weights are no shapes, so nothing about types or shapes follows from them."""
WEIGHTS_APART = 4
"""First version of the file format in which weights need not be inputs as well."""
STAND_IN = 'stand_in'
"""Domain of operators that onnx does not know, while it checks the rest."""


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for inner in [item.g] if item.type == onnx.AttributeProto.GRAPH else item.graphs:
                yield from graphs(inner)


def all_nodes(model: Any) -> Iterator[Any]:
    """Its nodes, with those inside branches and loops."""
    for graph in graphs(model.graph):
        yield from graph.node


def unknown_operators(model: Any) -> list[str]:
    """Operators that neither onnx nor the model itself defines, as `domain::Operator`."""
    own = {(function.domain, function.name) for function in model.functions}
    found: dict[str, None] = {}
    for node in all_nodes(model):
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in ONNX_DOMAINS or not onnx.defs.has(
            node.op_type, '' if node.domain in STANDARD else node.domain
        ):
            found[f'{node.domain or "ai.onnx"}::{node.op_type}'] = None
    return list(found)


def check_opset(model: Any, label: str) -> None:
    """Refuses a network that is newer than the installed onnx.

    Raises:
        EngineError: its opset is, or it says none.
    """
    version, newest = opset(model), onnx.defs.onnx_opset_version()
    if version > newest:
        raise EngineError(
            f'{label}: opset {version} is newer than onnx {onnx.__version__} knows ({newest}); '
            'export it with an older one, e.g. 17, or upgrade onnx'
        )
    if not version and any(node.domain in STANDARD for node in model.graph.node):
        raise EngineError(f'{label}: does not say its opset: it is no complete ONNX file')


def name_nodes(model: Any) -> int:
    """Gives every node a name of its own; how many got one. Calibration and lint go by them."""
    taken: set[str] = set()
    nameless = []
    for node in all_nodes(model):
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            nameless.append(node)
    for node in nameless:
        base = node.name or node.op_type
        number = 0
        while f'{base}_{number}' in taken:
            number += 1
        node.name = f'{base}_{number}'
        taken.add(node.name)
    return len(nameless)


def free_inputs(model: Any) -> list[str]:
    """Takes weights off the list of inputs, where old exporters put them; their names."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {tensor.values.name for tensor in graph.sparse_initializer}
    listed = [value.name for value in graph.input if value.name in stored]
    kept = [value for value in graph.input if value.name not in stored]
    if listed:
        _replace(graph.input, kept)
    model.ir_version = max(model.ir_version, WEIGHTS_APART)
    return listed


def set_input_shapes(model: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Gives inputs these shapes; -1 leaves a dimension. Shapes of all else follow anew.

    A named dimension gets its size wherever its name occurs. Outputs keep their rank.

    Raises:
        ConfigError: no such input, another rank, or sizes that contradict one another.
    """
    sizes: dict[str, int] = {}
    there = {value.name: value for value in model.graph.input}
    for name, shape in shapes.items():
        if name not in there:
            raise ConfigError(f'input shape of {name!r}: inputs are {", ".join(there)}')
        tensor = there[name].type.tensor_type
        if not tensor.HasField('shape'):
            tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in shape)
        if len(tensor.shape.dim) != len(shape):
            raise ConfigError(
                f'input shape of {name!r}: {len(shape)} dimensions, the network has '
                f'{len(tensor.shape.dim)}'
            )
        for dim, size in zip(tensor.shape.dim, shape, strict=True):
            if size < 0:
                continue
            if dim.dim_param and sizes.setdefault(dim.dim_param, size) != size:
                raise ConfigError(
                    f'input shape of {name!r}: dimension {dim.dim_param!r} is both '
                    f'{sizes[dim.dim_param]} and {size}'
                )
            dim.dim_value = size
    if shapes:
        for value in model.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
        del model.graph.value_info[:]
        for value in model.graph.output:
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()


def merge_duplicates(model: Any) -> int:
    """Makes equal weights one; how many went. Only those of the outermost graph."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    first: dict[tuple[Any, ...], str] = {}
    instead: dict[str, str] = {}
    for tensor in graph.initializer:
        bare = TensorProto()
        bare.CopyFrom(tensor)
        bare.name, bare.doc_string = '', ''
        digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
        kept = first.setdefault((tensor.data_type, *tensor.dims, digest), tensor.name)
        if kept != tensor.name and tensor.name not in outputs:
            instead[tensor.name] = kept
    for inner in graphs(graph):
        own = set() if inner is graph else {tensor.name for tensor in inner.initializer}
        for node in inner.node:
            for index, name in enumerate(node.input):
                if name in instead and name not in own:
                    node.input[index] = instead[name]
    _replace(graph.initializer, [one for one in graph.initializer if one.name not in instead])
    return len(instead)


def skeleton(model: Any) -> Any:
    """A copy whose large weights are inputs: as good for shapes and checks, without the bytes."""
    light = copy_rest(model)
    graph = light.graph
    listed = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light


def infer_types(model: Any) -> None:
    """Writes types and shapes of all tensors into `model`, as far as they follow.

    Raises:
        EngineError: they contradict one another.
    """
    light = skeleton(model)
    try:
        known = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception as error:  # InferenceError and protobuf's have no nearer common base
        raise EngineError(f'shapes do not follow from the graph: {one_line(error)}') from error
    _replace(model.graph.value_info, known.graph.value_info)
    declared = {value.name: value for value in model.graph.output}
    for value in known.graph.output:
        if value.type.WhichOneof('value'):
            declared[value.name].CopyFrom(value)


def check(model: Any, types: bool = False) -> None:
    """onnx's checker, on everything but operators that onnx does not know.

    Args:
        types: whether the types and shapes of all tensors are checked as well.

    Raises:
        EngineError: what it says.
    """
    light = skeleton(model)
    for value in light.graph.output:
        if value.type.HasField('tensor_type'):  # a rank that nobody knows is no fault
            value.type.tensor_type.shape.SetInParent()
    own = {(function.domain, function.name) for function in model.functions}
    alien = False
    for node in all_nodes(light):
        unknown = node.domain in STANDARD and not onnx.defs.has(node.op_type)
        if unknown and (node.domain, node.op_type) not in own:
            node.domain, alien = STAND_IN, True
    if alien:
        light.opset_import.append(helper.make_opsetid(STAND_IN, 1))
    try:
        onnx.checker.check_model(light)
        if types:
            onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True)
    except Exception as error:  # ValidationError and protobuf's have no nearer common base
        raise EngineError(f'not valid ONNX: {one_line(error)}') from error


def prune_imports(model: Any) -> None:
    """Leaves the opsets of domains that a node is of."""
    used = {'' if node.domain in STANDARD else node.domain for node in all_nodes(model)}
    used |= {function.domain for function in model.functions} | {''}
    kept = [
        item
        for item in model.opset_import
        if ('' if item.domain in STANDARD else item.domain) in used
    ]
    _replace(model.opset_import, kept)


def _replace(field: Any, items: Any) -> None:
    """Makes these the items of a repeated field: some of them may be its own."""
    kept = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)
        kept.append(copy)
    del field[:]
    field.extend(kept)

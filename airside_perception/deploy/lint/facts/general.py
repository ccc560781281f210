"""Facts of the whole network and of any node."""

from __future__ import annotations

import math
from typing import Any

from airside_perception.deploy.lint.facts.subject import Subject, Unknown, fact, fixed_part
from airside_perception.deploy.lint.folding import Shape
from airside_perception.deploy.lint.network import Network


@fact
def opset(s: Subject) -> Any:
    """Version of the standard operators."""
    return s.network.opset


@fact
def precision(s: Subject) -> Any:
    """fp32, fp16 or int8."""
    return s.precision


@fact
def free_input_dimensions(s: Subject) -> Any:
    """Free dimensions of the inputs, the batch not counted."""
    return tuple(_free(s.network, s.network.inputs))


@fact
def free_batch(s: Subject) -> Any:
    """Inputs whose batch is free."""
    return s.network.free_batch


@fact
def free_dimensions(s: Subject) -> Any:
    """Free dimensions of a node's tensors, or of the inputs of the network as they are written."""
    if s.node is None:
        return (*s.network.free_batch, *_free(s.network, s.network.inputs))
    return tuple(_free(s.network, s.data))


@fact
def quantized(s: Subject) -> Any:
    """Whether the network has Q/DQ nodes."""
    kinds = {node.op_type for node in s.network.nodes}
    return 'yes' if 'QuantizeLinear' in kinds or 'DequantizeLinear' in kinds else 'no'


@fact
def loadables(s: Subject) -> Any:
    """Subgraphs on DLA."""
    return s.loadables


@fact
def operator(s: Subject) -> Any:
    """Type of the node."""
    return s.at.op_type


@fact
def domain(s: Subject) -> Any:
    """Of the operator."""
    return s.at.domain


@fact
def ranks(s: Subject) -> Any:
    """Numbers of dimensions."""
    return _ranks(s, s.data)


@fact
def input_ranks(s: Subject) -> Any:
    """Numbers of dimensions of the inputs that are not constant."""
    return _ranks(s, [name for name in s.data if name in s.at.inputs])


@fact
def output_ranks(s: Subject) -> Any:
    """Numbers of dimensions of the outputs."""
    return _ranks(s, [name for name in s.at.outputs if name])


@fact
def batch(s: Subject) -> Any:
    """For each tensor the product of all dimensions before C, H, W."""
    shapes = [fixed_part(shape[:-3]) for shape in _shapes(s, s.data) if len(shape) > 3]
    return tuple(math.prod(shape) for shape in shapes) or None


@fact
def dimensions(s: Subject) -> Any:
    """Of all tensors: C, H, W, and of those with fewer dimensions all but the first."""
    return tuple(
        size
        for shape in _shapes(s, s.data)
        for size in fixed_part(shape[-3:] if len(shape) > 3 else shape[1:])
    )


@fact
def types(s: Subject) -> Any:
    """Of the tensors."""
    return tuple(s.network.types[name] for name in s.data if name in s.network.types)


@fact
def neighbours(s: Subject) -> Any:
    """Operators right before and after."""
    before = [node.op_type for _, node in s.network.sources(s.at)]
    return (*before, *(node.op_type for node in s.network.readers[s.at.name]))


@fact
def used_outputs(s: Subject) -> Any:
    """How many outputs have a name."""
    return sum(bool(name) for name in s.at.outputs)


def _shapes(s: Subject, names: Any) -> list[Shape]:
    found = [s.network.shape(name) for name in names]
    if any(shape is None for shape in found):
        raise Unknown('a shape')
    return [shape for shape in found if shape is not None]


def _ranks(s: Subject, names: Any) -> tuple[int, ...]:
    return tuple(dict.fromkeys(len(shape) for shape in _shapes(s, names)))


def _free(network: Network, names: Any) -> list[str]:
    return [
        f'{name}[{place}] = {size}'
        for name in names
        for place, size in enumerate(network.shape(name) or ())
        if isinstance(size, str)
    ]

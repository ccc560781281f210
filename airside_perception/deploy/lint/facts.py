"""What the rules measure at a node, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airside_perception.deploy.lint.network import Network, Node, Shape


class Unknown(Exception):  # noqa: N818  no error: a value that does not follow from the graph
    """The fact depends on what is not known before the network runs; says on what."""


@dataclass(frozen=True)
class Subject:
    """A node, or without one the whole network, and what it is meant for.

    Attributes:
        precision: fp32, fp16 or int8.
        loadables: subgraphs on DLA, once these are known.
    """

    network: Network
    precision: str
    node: Node | None = None
    loadables: int = 0

    @property
    def at(self) -> Node:
        """The node."""
        if self.node is None:
            raise Unknown('no node')
        return self.node

    def attribute(self, name: str, default: Any = None) -> Any:
        """Of the node."""
        return self.at.attributes.get(name, default)

    def shape(self, place: int = 0, output: bool = False) -> Shape:
        """Of an input or output."""
        names = self.at.outputs if output else self.at.inputs
        name = names[place] if place < len(names) else ''
        shape = self.network.shape(name)
        if shape is None:
            raise Unknown(f'shape of {name}')
        return shape

    def fixed(self, place: int = 0, output: bool = False) -> tuple[int, ...]:
        """A shape without free dimensions."""
        return tuple(map(_number, self.shape(place, output)))

    def operand(self, place: int) -> Any:
        """Value of a constant input; None where it is left out.

        Raises:
            Unknown: it is computed.
        """
        name = self.at.inputs[place] if place < len(self.at.inputs) else ''
        if not name:
            return None
        value = self.network.value(name)
        if value is None:
            raise Unknown(f'value of {name}')
        return value

    @property
    def data(self) -> tuple[str, ...]:
        """The tensors through which data flows: inputs that are not constant, and outputs."""
        inputs = [n for n in self.at.inputs if n and not self.network.is_constant(n)]
        return (*inputs, *(name for name in self.at.outputs if name))


Fact = Callable[[Subject], Any]
FACTS: dict[str, Fact] = {}
"""{name in the YAML: function}. A fact is one value or a tuple; None where the node has none."""


def fact(function: Fact) -> Fact:
    """Makes a function a fact."""
    FACTS[function.__name__] = function
    return function


# ------------------------------------------------------------------ of the whole network


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


# ------------------------------------------------------------------ of any node


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
    shapes = [_fixed_part(shape[:-3]) for shape in _shapes(s, s.data) if len(shape) > 3]
    return tuple(math.prod(shape) for shape in shapes) or None


@fact
def dimensions(s: Subject) -> Any:
    """Of all tensors: C, H, W, and of those with fewer dimensions all but the first."""
    return tuple(
        size
        for shape in _shapes(s, s.data)
        for size in _fixed_part(shape[-3:] if len(shape) > 3 else shape[1:])
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


# ------------------------------------------------------------------ windows


@fact
def kernel(s: Subject) -> Any:
    """Size of the window."""
    given = s.attribute('kernel_shape')
    return tuple(given) if given else s.fixed(1)[2:]


@fact
def strides(s: Subject) -> Any:
    """Steps of the window."""
    return tuple(s.attribute('strides', (1,) * len(kernel(s))))


@fact
def dilations(s: Subject) -> Any:
    """Distances between the cells of a window."""
    return tuple(s.attribute('dilations', (1,) * len(kernel(s))))


@fact
def pads(s: Subject) -> Any:
    """Begins and then ends; SAME is worked out."""
    auto = s.attribute('auto_pad', 'NOTSET')
    size = kernel(s)
    if auto == 'NOTSET':
        return tuple(s.attribute('pads', (0,) * (2 * len(size))))
    if auto == 'VALID':
        return (0,) * (2 * len(size))
    inner, outer = s.fixed()[2:], s.fixed(output=True)[2:]
    if s.at.op_type == 'ConvTranspose':
        inner, outer = outer, inner
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations(s), strict=True)]
    total = [
        max((o - 1) * step + r - i, 0)
        for o, step, r, i in zip(outer, strides(s), reach, inner, strict=True)
    ]
    half = tuple(t // 2 for t in total)
    rest = tuple(t - h for t, h in zip(total, half, strict=True))
    return half + rest if auto == 'SAME_UPPER' else rest + half


@fact
def output_padding(s: Subject) -> Any:
    """Of a deconvolution."""
    return tuple(s.attribute('output_padding', ())) or None


@fact
def group(s: Subject) -> Any:
    """Groups of a convolution."""
    return s.attribute('group', 1)


@fact
def channels(s: Subject) -> Any:
    """Input and output channels."""
    return s.fixed()[1], s.fixed(output=True)[1]


@fact
def group_channels(s: Subject) -> Any:
    """Input and output channels of one group."""
    return tuple(count // group(s) for count in channels(s))


@fact
def square(s: Subject) -> Any:
    """Whether all sides of the kernel are the same."""
    return 'yes' if len(set(kernel(s))) == 1 else 'no'


@fact
def weights(s: Subject) -> Any:
    """Whether the second operand is constant: weights, slope, axes, k."""
    name = s.at.inputs[1] if len(s.at.inputs) > 1 else ''
    return 'constant' if not name or s.network.is_constant(name) else 'computed'


@fact
def buffer_banks(s: Subject) -> Any:
    """Banks of the convolution buffer that one kernel and its rows of input take.

    Formula of the Developer Guide (8.4, 12.2), with the input channels of the whole layer: banks
    of 32 KiB in 256 entries of 128 bytes; a slice is one row of the input.
    """
    shape, size = s.fixed(), kernel(s)
    if len(shape) != 4:
        return None
    width = 1 if s.precision == 'int8' else 2  # bytes
    weight = -(-shape[1] * size[0] * size[1] * width // 128) * 128
    entries = -(-(-(-shape[1] * width // 32) * shape[3]) // 4)
    rows = (size[0] - 1) * dilations(s)[0] + 1
    return -(-weight // 32768) + -(-entries * rows // 256)


@fact
def excluded_padding(s: Subject) -> Any:
    """Whether an average leaves padded cells out."""
    return 'yes' if any(pads(s)) and not s.attribute('count_include_pad', 0) else 'no'


# ------------------------------------------------------------------ arithmetic and activations


@fact
def clip_low(s: Subject) -> Any:
    """Lower bound."""
    return _bound(s, 'min', 1, -math.inf)


@fact
def clip_high(s: Subject) -> Any:
    """Upper bound."""
    return _bound(s, 'max', 2, math.inf)


@fact
def window(s: Subject) -> Any:
    """Of a local response normalisation."""
    return s.attribute('size')


@fact
def training(s: Subject) -> Any:
    """Whether a batch normalisation is in training mode."""
    return 'yes' if s.attribute('training_mode', 0) else 'no'


@fact
def operands(s: Subject) -> Any:
    """How many inputs."""
    return sum(bool(name) for name in s.at.inputs)


@fact
def constant_operands(s: Subject) -> Any:
    """How many inputs are constants."""
    return sum(bool(name) and s.network.is_constant(name) for name in s.at.inputs)


@fact
def broadcast(s: Subject) -> Any:
    """For each operand NCHW, NC11 or N111, or its shape where it is none of these."""
    out = s.fixed(output=True)
    kinds = []
    for place in range(len(s.at.inputs)):
        given = s.fixed(place)
        shape = (1,) * (len(out) - len(given)) + given
        forms = {
            'NCHW': out,
            'NC11': (*out[:2], *(1 for _ in out[2:])),
            'N111': (*out[:1], *(1 for _ in out[1:])),
        }
        kinds.append(next((kind for kind, form in forms.items() if form == shape), str(given)))
    return tuple(kinds)


@fact
def zero_point(s: Subject) -> Any:
    """Whether a quantisation is symmetric."""
    value = s.operand(2)
    return 'zero' if value is None or not value.any() else 'not zero'


@fact
def reduction(s: Subject) -> Any:
    """What a scatter does with values that meet."""
    return s.attribute('reduction', 'none')


@fact
def equation(s: Subject) -> Any:
    """Of an Einsum."""
    return s.attribute('equation', '')


# ------------------------------------------------------------------ axes


@fact
def axis(s: Subject) -> Any:
    """The axis, counted from the front."""
    return s.attribute('axis', 0) % max(len(s.shape()), 1)


@fact
def axes(s: Subject) -> Any:
    """The axes of a Slice, Split or reduction, counted from the front."""
    rank = len(s.shape())
    if s.at.op_type == 'Split':
        return (s.attribute('axis', 0) % rank,)
    place = 3 if s.at.op_type == 'Slice' else 1
    given = s.attribute('axes')
    if given is None:
        given = s.operand(place)
    if given is None:
        count = len(_starts(s)) if s.at.op_type == 'Slice' else rank
        given = range(count)
    return tuple(int(item) % rank for item in given)


@fact
def steps(s: Subject) -> Any:
    """Of a Slice."""
    given = s.operand(4)
    return None if given is None else tuple(int(item) for item in given)


@fact
def parameters(s: Subject) -> Any:
    """Whether all inputs but the first are constants."""
    names = [name for name in s.at.inputs[1:] if name]
    return 'constant' if all(map(s.network.is_constant, names)) else 'computed'


@fact
def axis_size(s: Subject) -> Any:
    """Size along the axis of a softmax; before opset 13 of all dimensions from it on."""
    return math.prod(s.fixed()[place] for place in _softmax_axes(s))


@fact
def other_sizes(s: Subject) -> Any:
    """Sizes along the other axes of a softmax, the batch not counted."""
    shape, own = s.fixed(), _softmax_axes(s)
    return tuple(size for place, size in enumerate(shape) if place and place not in own) or (1,)


@fact
def batch_kept(s: Subject) -> Any:
    """Whether a change of layout leaves the first dimension alone."""
    if s.at.op_type == 'Transpose':
        order = s.attribute('perm', tuple(reversed(range(len(s.shape())))))
        return 'yes' if order[0] == 0 else 'no'
    before, after = s.fixed(), s.fixed(output=True)
    return 'yes' if before[:1] == after[:1] else 'no'


# ------------------------------------------------------------------ resize


@fact
def scales(s: Subject) -> Any:
    """Of height and width."""
    return _scales(s)[-2:]


@fact
def outer_scales(s: Subject) -> Any:
    """Of everything before height and width."""
    return _scales(s)[:-2]


@fact
def resize_mode(s: Subject) -> Any:
    """nearest, linear or cubic."""
    return s.attribute('mode', 'nearest')


@fact
def coordinates(s: Subject) -> Any:
    """How places in the output map to the input."""
    if s.at.op_type == 'Upsample' or s.network.opset < 11:
        return 'asymmetric'
    return s.attribute('coordinate_transformation_mode', 'half_pixel')


@fact
def resize_rule(s: Subject) -> Any:
    """Coordinates and rounding of nearest."""
    if s.at.op_type == 'Upsample' or s.network.opset < 11:
        return 'asymmetric/floor'
    return f'{coordinates(s)}/{s.attribute("nearest_mode", "round_prefer_floor")}'


@fact
def antialias(s: Subject) -> Any:
    """Whether a resize filters."""
    return 'yes' if s.attribute('antialias', 0) else 'no'


@fact
def aspect_policy(s: Subject) -> Any:
    """What a resize keeps."""
    return s.attribute('keep_aspect_ratio_policy', 'stretch')


# ------------------------------------------------------------------ helpers


def _number(size: int | str) -> int:
    if isinstance(size, str):
        raise Unknown(f'dimension {size}')
    return size


def _fixed_part(shape: Shape) -> tuple[int, ...]:
    return tuple(size for size in shape if isinstance(size, int))


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


def _bound(s: Subject, name: str, place: int, default: float) -> float:
    given = s.attribute(name)
    if given is None:
        value = s.operand(place)
        given = default if value is None else float(value.reshape(-1)[0])
    return float(given)


def _starts(s: Subject) -> Any:
    given = s.attribute('starts')
    return s.operand(1) if given is None else given


def _softmax_axes(s: Subject) -> list[int]:
    rank = len(s.shape())
    if s.network.opset >= 13:
        return [s.attribute('axis', -1) % rank]
    return list(range(s.attribute('axis', 1) % rank, rank))


def _scales(s: Subject) -> tuple[float, ...]:
    given = s.attribute('scales')
    if given is None and s.at.op_type == 'Resize' and s.network.opset >= 11:
        place = 2
    else:
        place = 1
    if given is None and len(s.at.inputs) > place and s.at.inputs[place]:
        given = s.network.value(s.at.inputs[place])
    if given is not None and len(given) and s.attribute('axes') is None:
        return tuple(float(item) for item in given)
    before, after = s.fixed(), s.fixed(output=True)
    return tuple(b / a for a, b in zip(before, after, strict=True))

"""Facts of convolutions, deconvolutions and pools."""

from __future__ import annotations

from typing import Any

from airside_perception.deploy.lint.facts.subject import Subject, fact


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

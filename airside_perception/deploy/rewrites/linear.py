"""Fully connected layers as convolutions.

A vector [N, K] is an image [N, K, 1, 1], and Gemm with constant weights its 1x1 convolution; of a
flattened image [N, C, H, W] it is a convolution with an H x W kernel. MatMul of [N, H, W, K] with
[K, M] is a 1x1 convolution between transposes, which cancel those that are there already.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.rewrites.network import Network, attributes, given, label

LARGEST_KERNEL = 32
LARGEST_SIZE = 8192
TO_IMAGE, FROM_IMAGE = [0, 3, 1, 2], [0, 2, 3, 1]
FLATTENING = ('Flatten', 'Reshape', 'Squeeze')
ELEMENTWISE = (
    'Relu', 'LeakyRelu', 'Sigmoid', 'Tanh', 'Clip', 'Elu', 'HardSigmoid', 'HardSwish', 'Identity',
)  # fmt: skip


class Dense(NamedTuple):
    """y = x W + b.

    Attributes:
        weight: [K, M].
        bias: [M]; None: none.
        node: the last one of it, whose output is y.
    """

    weight: NDArray[Any]
    bias: NDArray[Any] | None
    node: Any


def linear_to_conv(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Makes Gemm and MatMul with constant weights convolutions where tensors have four axes.

    Activations between them are done on images too. Left as they are: vectors that do not come
    from an image, computed weights, transposed inputs.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    images: dict[str, str] = {}
    for node in list(net.nodes):
        if not any(item is node for item in net.nodes):
            continue  # the bias of one before, and gone with it
        if node.op_type in FLATTENING:
            _flattened(net, node, images)
        elif node.op_type in ('Gemm', 'MatMul') and node.input[0] in images:
            _vector(net, node, images)
        elif node.op_type in ELEMENTWISE and node.input[0] in images and len(node.output) == 1:
            _elementwise(net, node, images)
        elif node.op_type == 'MatMul':
            _image(net, node)
    return net.model()


def _flattened(net: Network, node: Any, images: dict[str, str]) -> None:
    """Remembers the image of a vector."""
    before, after = net.shape(node.input[0]), net.shape(node.output[0])
    if before is None or after is None or len(before) != 4 or len(after) != 2:
        return
    if before[0] == after[0] and int(np.prod(before[1:])) == after[1]:
        images[node.output[0]] = node.input[0]


def _vector(net: Network, node: Any, images: dict[str, str]) -> None:
    """A fully connected layer on a vector that has an image."""
    source = images[node.input[0]]
    shape, dense = net.shape(source), _dense(net, node, 2)
    if shape is None or dense is None or int(np.prod(shape[1:])) != len(dense.weight):
        return
    if max(shape[2:]) > LARGEST_KERNEL or max(shape[1], dense.weight.shape[1]) > LARGEST_SIZE:
        return
    kernel = dense.weight.T.reshape(-1, *shape[1:])
    out = dense.node.output[0]
    image = net.name(f'{out}_image')
    new = [_conv(net, source, kernel, dense.bias, image)]
    _finish(net, node, dense.node, new, image, (shape[0], len(kernel), 1, 1), images)
    net.changes.append(f'{label(node)}: {node.op_type} -> {shape[2]}x{shape[3]} convolution')


def _elementwise(net: Network, node: Any, images: dict[str, str]) -> None:
    """An activation on a vector that has an image: on the image, if a layer made that."""
    source = images[node.input[0]]
    shape = net.shape(source)
    maker = net.maker(source)
    if shape is None or maker is None or not source.endswith('_image'):
        return
    out = node.output[0]
    image = net.name(f'{out}_image')
    copy = net.node(node.op_type, [source, *node.input[1:]], image)
    copy.attribute.extend(node.attribute)
    _finish(net, node, node, [copy], image, shape, images)


def _finish(
    net: Network,
    node: Any,
    last: Any,
    new: list[Any],
    image: str,
    shape: tuple[int, ...],
    images: dict[str, str],
) -> None:
    """Puts nodes that make an image in the place of `node` to `last`, and the vector after it."""
    out = last.output[0]
    net.note(image, shape, node.input[0])
    images[out] = image
    target = net.store(f'{out}_shape', np.array(shape[:2], np.int64))
    vector = net.node('Reshape', [image, target], out, last.name)
    if last is node:
        net.replace(node, [*new, vector])
    else:
        net.replace(node, [])
        net.replace(last, [*new, vector])


def _image(net: Network, node: Any) -> None:
    """MatMul along the last axis of [N, H, W, K]."""
    shape, dense = net.shape(node.input[0]), _dense(net, node, 4)
    if shape is None or len(shape) != 4 or dense is None or not net.is_float(node.input[0]):
        return
    if max(*shape[1:], dense.weight.shape[1]) > LARGEST_SIZE:
        return
    out, source, new = dense.node.output[0], node.input[0], []
    before = net.maker(source)
    if before is not None and _permutes(before, FROM_IMAGE):
        source = before.input[0]
    else:
        source = net.name(f'{out}_channels')
        new.append(net.node('Transpose', [node.input[0]], source, perm=TO_IMAGE))
    kernel = dense.weight.T[:, :, None, None]
    after = net.only_reader(out)
    if after is not None and _permutes(after, TO_IMAGE):
        new.append(_conv(net, source, kernel, dense.bias, after.output[0]))
        net.replace(after, [])
    else:
        image = net.name(f'{out}_image')
        new.append(_conv(net, source, kernel, dense.bias, image))
        new.append(net.node('Transpose', [image], out, perm=FROM_IMAGE))
    if dense.node is not node:
        net.replace(node, [])
    net.replace(dense.node, new)
    net.changes.append(f'{label(node)}: MatMul -> 1x1 convolution')


def _dense(net: Network, node: Any, rank: int) -> Dense | None:
    """What a Gemm, or a MatMul with the Add after it, computes."""
    said, weight = attributes(node), net.constant(node.input[1])
    if weight is None or weight.ndim != 2 or weight.dtype not in (np.float32, np.float16):
        return None
    if node.op_type == 'Gemm':
        bias = net.constant(given(node, 2))
        if said.get('transA', 0) or (bias is None and given(node, 2)):
            return None
        if bias is not None and bias.size not in (1, bias.shape[-1] if bias.ndim else 1):
            return None
        weight = weight.T if said.get('transB', 0) else weight
        weight = (weight * said.get('alpha', 1.0)).astype(weight.dtype)
        if bias is not None:
            wide = np.broadcast_to(bias.reshape(-1), (weight.shape[1],))
            bias = (wide * said.get('beta', 1.0)).astype(weight.dtype)
        return Dense(weight, bias, node)
    after = net.only_reader(node.output[0])
    if after is not None and after.op_type == 'Add':
        names = [name for name in after.input if name != node.output[0]]
        bias = net.constant(names[0]) if len(names) == 1 else None
        if (
            bias is not None
            and bias.size == weight.shape[1] == bias.shape[-1]
            and (bias.ndim <= rank)
        ):
            return Dense(weight, bias.reshape(-1), after)
    return Dense(weight, None, node)


def _conv(
    net: Network, source: str, kernel: NDArray[Any], bias: NDArray[Any] | None, out: str
) -> Any:
    names = [source, net.store(f'{out}_weight', kernel)]
    if bias is not None:
        names.append(net.store(f'{out}_bias', bias))
    return net.node('Conv', names, out, kernel_shape=list(kernel.shape[2:]))


def _permutes(node: Any, axes: list[int]) -> bool:
    return node.op_type == 'Transpose' and attributes(node).get('perm') == axes

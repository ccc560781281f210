"""For every rule of the tables a network that keeps it and one that breaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Shape = Sequence[Any]
NCHW = (1, 8, 16, 16)


@dataclass(frozen=True)
class Pair:
    """Networks, what the finding shows as the value, and the precision of each."""

    legal: onnx.ModelProto
    illegal: onnx.ModelProto
    value: str
    precisions: tuple[str, str] = ('fp16', 'fp16')


def network(
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Any],
    constants: Mapping[str, Any] | None = None,
    opset: int = 13,
    types: Mapping[str, int] | None = None,
    domain: str = '',
) -> onnx.ModelProto:
    """A model; inputs are float unless `types` says otherwise."""
    kinds = types or {}

    def values(shapes: Mapping[str, Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, kinds.get(name, FLOAT), shape)
            for name, shape in shapes.items()
        ]

    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, 'g', values(inputs), values(outputs), stored)
    imports = [helper.make_opsetid('', opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def one(
    op_type: str,
    *shapes: Shape,
    constants: Sequence[Any] = (),
    opset: int = 13,
    types: Mapping[str, int] | None = None,
    outputs: int = 1,
    out_shape: Any = None,
    domain: str = '',
    order: Sequence[str] = (),
    **attributes: Any,
) -> onnx.ModelProto:
    """One node: inputs x0, x1 ... and then constants c0, c1 ... unless `order` says otherwise."""
    x = {f'x{at}': shape for at, shape in enumerate(shapes)}
    c = {f'c{at}': value for at, value in enumerate(constants)}
    y = {f'y{at}' if at else 'y': out_shape for at in range(outputs)}
    node = helper.make_node(
        op_type, list(order) or [*x, *c], list(y), domain=domain, name='node', **attributes
    )
    return network([node], x, y, c, opset, types, domain)


def weights(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def conv(
    kernel: Sequence[int] = (3, 3), cin: int = 8, cout: int = 8, size: int = 16, **more: Any
) -> onnx.ModelProto:
    group = more.get('group', 1)
    w = weights(cout, cin // group, *kernel)
    return one('Conv', (1, cin, *(size for _ in kernel)), constants=[w], **more)


def deconv(
    kernel: Sequence[int] = (2, 2), cin: int = 8, cout: int = 8, size: int = 4, **more: Any
) -> onnx.ModelProto:
    group = more.get('group', 1)
    w = weights(cin, cout // group, *kernel)
    return one('ConvTranspose', (1, cin, size, size), constants=[w], **more)


def pool(kernel: int, op_type: str = 'MaxPool', size: int = 40, **more: Any) -> onnx.ModelProto:
    return one(op_type, (1, 8, size, size), kernel_shape=[kernel, kernel], **more)


def clip(low: float, high: float) -> onnx.ModelProto:
    return one('Clip', NCHW, constants=[np.float32(low), np.float32(high)])


def resize(
    scales: Sequence[float], shape: Shape = (1, 4, 4, 4), opset: int = 13, **more: Any
) -> onnx.ModelProto:
    constants = [np.float32(scales)]
    return one('Resize', shape, constants=constants, opset=opset, order=['x0', '', 'c0'], **more)


def slice_(axis: int, step: int = 1, shape: Shape = (2, 8, 16, 16)) -> onnx.ModelProto:
    ends = [1 if axis == 0 else 8]
    return one(
        'Slice',
        shape,
        constants=[np.int64([0]), np.int64(ends), np.int64([axis]), np.int64([step])],
    )


def sliced_by_input() -> onnx.ModelProto:
    return one(
        'Slice', NCHW, [1], constants=[np.int64([8]), np.int64([2])], types={'x1': INT64},
        out_shape=(1, 8, 'H', 16),
    )  # fmt: skip


def reshape(shape: Shape, to: Sequence[int]) -> onnx.ModelProto:
    return one('Reshape', shape, constants=[np.int64(to)])


def reshape_after(op_type: str, **attributes: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node(op_type, ['a', 'b'], ['c'], **attributes),
        helper.make_node('Reshape', ['c', 'shape'], ['y']),
    ]  # fmt: skip
    channels = 16 if op_type == 'Concat' else 8
    shape = np.int64([1, channels, 256, 1])
    return network(nodes, {'a': NCHW, 'b': NCHW}, {'y': None}, {'shape': shape})


def alternating(times: int) -> onnx.ModelProto:
    """Relu and then Erf, which DLA has not, and so on: each Relu is a loadable of its own."""
    nodes = []
    for at in range(times):
        nodes.append(helper.make_node('Relu', [f't{2 * at}'], [f't{2 * at + 1}']))
        nodes.append(helper.make_node('Erf', [f't{2 * at + 1}'], [f't{2 * at + 2}']))
    return network(nodes, {'t0': NCHW}, {f't{2 * times}': None})


def quantized(zero: int = 0) -> onnx.ModelProto:
    nodes = [
        helper.make_node('QuantizeLinear', ['x', 'scale', 'zero'], ['q']),
        helper.make_node('DequantizeLinear', ['q', 'scale', 'zero'], ['y']),
    ]
    constants = {'scale': np.float32(0.1), 'zero': np.int8(zero)}
    return network(nodes, {'x': NCHW}, {'y': None}, constants)


def branches() -> onnx.ModelProto:
    def body(name: str) -> Any:
        out = helper.make_tensor_value_info(name, FLOAT, NCHW)
        return helper.make_graph([helper.make_node('Relu', ['x0'], [name])], name, [], [out])

    node = helper.make_node('If', ['x1'], ['y'], then_branch=body('a'), else_branch=body('b'))
    types = {'x1': TensorProto.BOOL}
    return network([node], {'x0': NCHW, 'x1': []}, {'y': NCHW}, types=types)


def scatter(**more: Any) -> onnx.ModelProto:
    return one(
        'ScatterND', (4,), (1,), constants=[np.int64([[1]])], order=['x0', 'c0', 'x1'], **more
    )


def nms() -> onnx.ModelProto:
    constants = [np.int64([5]), np.float32([0.5])]
    types = {'y': INT64}
    return one('NonMaxSuppression', (1, 9, 4), (1, 2, 9), constants=constants, types=types)


def batch_norm(training: int) -> onnx.ModelProto:
    return one(
        'BatchNormalization', NCHW, constants=[weights(8)] * 4, opset=15,
        outputs=3 if training else 1, training_mode=training,
    )  # fmt: skip


def layer_norm(outputs: int) -> onnx.ModelProto:
    w = weights(16)
    return one('LayerNormalization', NCHW, constants=[w], opset=17, outputs=outputs)


def top_k(constant: bool) -> onnx.ModelProto:
    if constant:
        types = {'y1': INT64}
        return one('TopK', (1, 9), constants=[np.int64([3])], outputs=2, types=types)
    types = {'x1': INT64, 'y1': INT64}
    return one('TopK', (1, 9), [1], types=types, outputs=2, out_shape=(1, 'k'))


def unsqueeze(constant: bool) -> onnx.ModelProto:
    if constant:
        return one('Unsqueeze', (4, 4), constants=[np.int64([0])])
    return one('Unsqueeze', (4, 4), [1], types={'x1': INT64}, out_shape=(1, 4, 4))


def cast(to: int) -> onnx.ModelProto:
    return one('Cast', NCHW, types={'y': to}, to=to)


def aspect(policy: str) -> onnx.ModelProto:
    return one(
        'Resize', (1, 4, 4, 4), constants=[np.int64([8, 8])], opset=18, order=['x0', '', '', 'c0'],
        axes=[2, 3], keep_aspect_ratio_policy=policy, out_shape=(1, 4, 8, 8),
    )  # fmt: skip


def equal() -> onnx.ModelProto:
    return one('Equal', NCHW, NCHW, types={'y': TensorProto.BOOL})


RELU = one('Relu', NCHW)
INT8 = ('fp16', 'int8')
BOTH_INT8 = ('int8', 'int8')

PAIRS: dict[str, Pair] = {
    # the whole network
    'opset': Pair(RELU, one('Relu', NCHW, opset=6), '6'),
    'precision': Pair(RELU, RELU, 'fp32', ('fp16', 'fp32')),
    'static-input': Pair(RELU, one('Relu', (1, 8, 'H', 16)), 'x0[2] = H'),
    'free-batch': Pair(RELU, one('Relu', ('N', 8, 16, 16)), 'x0 [N]'),
    'loadables': Pair(alternating(16), alternating(17), '17'),
    'profile': Pair(RELU, one('Relu', (1, 8, 'H', 16)), 'x0[2] = H'),
    'quantized': Pair(RELU, quantized(), 'yes'),
    'int8-typed': Pair(quantized(), RELU, 'no', BOTH_INT8),
    # the parser
    'parser-operators': Pair(RELU, one('Det', (1, 2, 2)), 'Det'),
    'plugin': Pair(RELU, one('Fly', NCHW, domain='custom'), 'custom'),
    'pool-indices': Pair(pool(3), pool(3, outputs=2, types={'y1': INT64}), '2'),
    'pool-dilations': Pair(pool(3, dilations=[1, 1]), pool(3, dilations=[2, 1]), '2 x 1'),
    'pool-rank': Pair(pool(3), one('MaxPool', (1, 8, 16), kernel_shape=[3]), '3'),
    'zero-point': Pair(quantized(), quantized(1), 'not zero'),
    'resize-parser-coordinates': Pair(
        resize([1, 1, 2, 2]),
        resize([1, 1, 2, 2], coordinate_transformation_mode='tf_crop_and_resize'),
        'tf_crop_and_resize',
    ),
    'resize-parser-mode': Pair(
        resize([1, 1, 2, 2], mode='linear'), resize([1, 1, 2, 2], mode='cubic'), 'cubic'
    ),
    'scatter-reduction': Pair(scatter(opset=16), scatter(opset=16, reduction='add'), 'add'),
    'scatter-nd': Pair(RELU, scatter(), 'ScatterND'),
    'nms': Pair(RELU, nms(), 'NonMaxSuppression'),
    'data-dependent': Pair(RELU, one('NonZero', NCHW, types={'y': INT64}), 'NonZero'),
    'control-flow': Pair(RELU, branches(), 'If'),
    'topk-constant': Pair(top_k(True), top_k(False), 'computed'),
    'axes-constant': Pair(unsqueeze(True), unsqueeze(False), 'computed'),
    'einsum': Pair(
        one('Einsum', (2, 3), (3, 4), equation='ij,jk->ik'),
        one('Einsum', (5, 2, 3), (5, 3, 4), equation='...ij,...jk->...ik'),
        '...ij,...jk->...ik',
    ),
    'tensor-types': Pair(cast(TensorProto.INT32), cast(TensorProto.STRING), 'float, string'),
    'double': Pair(cast(TensorProto.INT32), cast(TensorProto.DOUBLE), 'float, double'),
    'resize-antialias': Pair(
        resize([1, 1, 0.5, 0.5], opset=18, mode='linear', antialias=0),
        resize([1, 1, 0.5, 0.5], opset=18, mode='linear', antialias=1),
        'yes',
    ),
    'resize-aspect': Pair(aspect('stretch'), aspect('not_larger'), 'not_larger'),
    'layernorm-outputs': Pair(layer_norm(1), layer_norm(2), '2'),
    # int8 on the GPU
    'int8-group': Pair(conv(group=2), conv(group=8), '1 x 1', BOTH_INT8),
    'int8-deconvolution': Pair(deconv(), deconv(strides=[2, 2]), '2 x 2', BOTH_INT8),
    # every layer
    'operators': Pair(RELU, one('Erf', NCHW), 'Erf'),
    'batch': Pair(one('Relu', (4096, 1, 1, 1)), one('Relu', (4097, 1, 1, 1)), '4097 x 4097'),
    'dimensions': Pair(
        one('Relu', (1, 1, 1, 8192)), one('Relu', (1, 1, 1, 8193)), '1 x 1 x 8193 x 1 x 1 x 8193'
    ),
    'static-shape': Pair(RELU, one('Relu', (1, 8, 'H', 16)), 'x0[2] = H, y[2] = H'),
    'types': Pair(
        one('Add', NCHW, NCHW),
        one('Add', NCHW, NCHW, types=dict.fromkeys(('x0', 'x1', 'y'), TensorProto.INT32)),
        'int32',
    ),
    'two-dimensional': Pair(conv(), conv(kernel=(3, 3, 3)), '5'),
    'pointwise-low-rank': Pair(RELU, one('Relu', (1, 8, 16)), '3'),
    'pointwise-high-rank': Pair(RELU, one('Relu', (1, 8, 4, 4, 4)), '5'),
    # convolution
    'conv-kernel': Pair(conv((32, 32), size=40), conv((1, 33), size=40), '1 x 33'),
    'conv-stride': Pair(conv(strides=[8, 8]), conv(strides=[9, 1]), '9 x 1'),
    'conv-dilation': Pair(
        conv((2, 2), size=64, dilations=[32, 32]),
        conv((2, 2), size=64, dilations=[33, 1]),
        '33 x 1',
    ),
    'conv-padding': Pair(
        conv((32, 32), pads=[31] * 4), conv((33, 33), pads=[32, 0, 0, 0]), '32 x 0 x 0 x 0'
    ),
    'conv-padding-kernel': Pair(
        conv(pads=[2] * 4), conv((3, 1), pads=[1, 0, 1, 1]), '1 x 0 x 1 x 1'
    ),
    'conv-groups': Pair(
        conv((1, 1), 8192, 8192, 1, group=8192), conv((1, 1), 8193, 8193, 1, group=8193), '8193'
    ),
    'conv-maps': Pair(conv((1, 1), 1, 8192, 1), conv((1, 1), 1, 8193, 1), '1 x 8193'),
    'conv-weights': Pair(conv(), one('Conv', NCHW, (8, 8, 3, 3)), 'computed'),
    'conv-buffer': Pair(conv(cin=512, size=160), conv(cin=512, size=161), '17'),
    # deconvolution
    'deconv-kernel': Pair(deconv((1, 64)), deconv((1, 33)), '1 x 33'),
    'deconv-square': Pair(deconv((22, 22)), deconv((23, 23)), '23 x 23'),
    'deconv-stride': Pair(
        deconv((22, 22), strides=[22, 22]), deconv((23, 22), strides=[23, 22]), '23 x 22'
    ),
    'deconv-padding': Pair(deconv(), deconv(pads=[0, 0, 1, 0]), '0 x 0 x 1 x 0'),
    'deconv-output-padding': Pair(
        deconv(strides=[2, 2]), deconv(strides=[2, 2], output_padding=[1, 1]), '1 x 1'
    ),
    'deconv-groups': Pair(deconv(), deconv(group=2), '2'),
    'deconv-dilation': Pair(deconv(), deconv(dilations=[2, 2]), '2 x 2'),
    'deconv-maps': Pair(deconv((1, 1), 8192, 1, 1), deconv((1, 1), 8193, 1, 1), '8193 x 1'),
    # pooling
    'pool-window': Pair(pool(8), pool(9), '9 x 9'),
    'pool-stride': Pair(pool(3, strides=[16, 16]), pool(3, strides=[17, 16]), '17 x 16'),
    'pool-padding': Pair(pool(8, pads=[7] * 4), pool(9, pads=[8, 0, 0, 0]), '8 x 0 x 0 x 0'),
    'pool-average-padding': Pair(
        pool(3, 'AveragePool', pads=[1] * 4, count_include_pad=1),
        pool(3, 'AveragePool', pads=[1] * 4),
        'yes',
    ),
    'pool-int8': Pair(pool(3), pool(3), 'int8', INT8),
    # activations
    'clip-low': Pair(clip(0, 6), clip(-1, 6), '-1'),
    'clip-high': Pair(clip(0, 127), clip(0, 128), '128'),
    'leaky-relu': Pair(RELU, one('LeakyRelu', NCHW), 'LeakyRelu'),
    'prelu-slope': Pair(
        one('PRelu', NCHW, constants=[weights(8, 1, 1)]), one('PRelu', NCHW, (8, 1, 1)), 'computed'
    ),
    'tanh-int8': Pair(one('Tanh', NCHW), one('Tanh', NCHW), 'int8', INT8),
    # arithmetic
    'broadcast': Pair(
        one('Mul', NCHW, (1, 8, 1, 1)), one('Mul', NCHW, (1, 1, 16, 16)), 'NCHW, (1, 1, 16, 16)'
    ),
    'broadcast-old': Pair(one('Mul', NCHW, NCHW), one('Mul', NCHW, (1, 8, 1, 1)), 'NCHW, NC11'),
    'constant-operand': Pair(
        one('Add', NCHW, NCHW), one('Add', NCHW, constants=[weights(1, 8, 1, 1)]), '1'
    ),
    'elementwise-int8': Pair(one('Add', NCHW, NCHW), one('Add', NCHW, NCHW), 'int8', INT8),
    'comparison': Pair(equal(), equal(), 'fp16', ('int8', 'fp16')),
    'comparison-cast': Pair(RELU, equal(), 'Equal', BOTH_INT8),
    'cast': Pair(cast(TensorProto.FLOAT16), cast(TensorProto.INT32), 'float, int32'),
    'cast-border': Pair(RELU, cast(TensorProto.FLOAT16), 'Cast'),
    'batchnorm-training': Pair(batch_norm(0), batch_norm(1), 'yes'),
    'lrn-window': Pair(one('LRN', NCHW, size=5), one('LRN', NCHW, size=4), '4'),
    'matmul-constant': Pair(
        one('MatMul', NCHW, constants=[weights(16, 4)]), one('MatMul', NCHW, NCHW), 'computed'
    ),
    'matmul': Pair(conv((1, 1)), one('MatMul', NCHW, constants=[weights(16, 4)]), 'MatMul'),
    'division': Pair(one('Mul', NCHW, NCHW), one('Div', NCHW, NCHW), 'Div'),
    'trigonometry': Pair(one('Sin', NCHW), one('Sin', NCHW), 'fp16', ('int8', 'fp16')),
    'trigonometry-disputed': Pair(one('Sin', NCHW), one('Sin', NCHW), 'Sin', INT8),
    'reduce-disputed': Pair(pool(8, size=8), one('GlobalMaxPool', NCHW), 'GlobalMaxPool'),
    'reduce-rank': Pair(
        one('ReduceMax', NCHW, axes=[2]), one('ReduceMax', (1, 8, 16), axes=[2]), '3'
    ),
    'reduce-axes': Pair(
        one('ReduceMax', NCHW, axes=[1, -1]), one('ReduceMax', NCHW, axes=[0, 1]), '0 x 1'
    ),
    'reduce-keep': Pair(
        one('ReduceMax', NCHW, axes=[1]), one('ReduceMax', NCHW, axes=[1], keepdims=0), '3'
    ),
    'normalization': Pair(batch_norm(0), layer_norm(1), 'LayerNormalization'),
    # concatenation, slices
    'concat-axis': Pair(
        one('Concat', NCHW, NCHW, axis=-3), one('Concat', NCHW, NCHW, axis=-1), '3'
    ),
    'concat-inputs': Pair(one('Concat', NCHW, NCHW, axis=1), one('Concat', NCHW, axis=1), '1'),
    'concat-constant': Pair(
        one('Concat', NCHW, NCHW, axis=1),
        one('Concat', NCHW, constants=[weights(*NCHW)], axis=1),
        '1',
    ),
    'concat-int8': Pair(
        one('Concat', NCHW, NCHW, axis=1), one('Concat', NCHW, NCHW, axis=1), 'int8', INT8
    ),
    'slice-static': Pair(slice_(2), sliced_by_input(), 'computed'),
    'slice-step': Pair(slice_(2), slice_(2, 2), '2'),
    'slice-axes': Pair(slice_(1), slice_(0), '0'),
    # resize
    'resize-outer': Pair(resize([1, 1, 2, 2]), resize([1, 2, 2, 2]), '1 x 2'),
    'resize-integer': Pair(resize([1, 1, 2, 3]), resize([1, 1, 2, 1.5]), '2 x 1.5'),
    'resize-mode': Pair(resize([1, 1, 2, 2]), resize([1, 1, 2, 2], mode='cubic'), 'cubic'),
    'resize-nearest': Pair(resize([1, 1, 32, 32]), resize([1, 1, 33, 32]), '33 x 32'),
    'resize-linear': Pair(
        resize([1, 1, 4, 4], mode='linear'), resize([1, 1, 4, 5], mode='linear'), '4 x 5'
    ),
    'resize-nearest-rounding': Pair(
        resize([1, 1, 2, 2], coordinate_transformation_mode='asymmetric', nearest_mode='floor'),
        resize([1, 1, 2, 2], coordinate_transformation_mode='asymmetric', nearest_mode='ceil'),
        'asymmetric/ceil',
    ),
    'resize-linear-coordinates': Pair(
        resize([1, 1, 2, 2], mode='linear'),
        resize([1, 1, 2, 2], mode='linear', coordinate_transformation_mode='align_corners'),
        'align_corners',
    ),
    # softmax
    'softmax-old': Pair(
        one('Softmax', (1, 8, 1, 1), axis=1), one('Softmax', NCHW, axis=1), '16 x 16'
    ),
    'softmax-axis': Pair(
        one('Softmax', (1, 1024, 2, 2), axis=1), one('Softmax', (1, 1025, 2, 2), axis=1), '1025'
    ),
    'softmax-long-axis': Pair(
        one('Softmax', (1, 8192, 1, 1), axis=1), one('Softmax', (1, 8193, 1, 1), axis=1), '8193'
    ),
    # shuffle
    'shuffle-input': Pair(
        one('Transpose', NCHW, perm=[0, 2, 3, 1]),
        one('Transpose', (1, 8, 16), perm=[0, 2, 1]),
        '3',
    ),
    'shuffle-output': Pair(reshape(NCHW, [1, 8, 256, 1]), reshape(NCHW, [1, 8, 256]), '3'),
    'shuffle-batch': Pair(
        one('Transpose', NCHW, perm=[0, 2, 3, 1]), one('Transpose', NCHW, perm=[1, 0, 2, 3]), 'no'
    ),
    'shuffle-operators': Pair(reshape(NCHW, [1, 8, 256, 1]), one('Flatten', NCHW), 'Flatten'),
    'reshape-neighbours': Pair(reshape_after('Add'), reshape_after('Concat', axis=1), 'Concat'),
}
"""{name of the rule: pair}."""

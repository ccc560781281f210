"""Activations, normalisation, means, fully connected layers, deconvolutions, arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from airside_perception.deploy.rewrites.activations import split_activations
from airside_perception.deploy.rewrites.arithmetic import plain_arithmetic
from airside_perception.deploy.rewrites.batch_norm import fold_batch_norms
from airside_perception.deploy.rewrites.deconvolution import unpad_deconvolutions
from airside_perception.deploy.rewrites.leaky import leaky_to_prelu
from airside_perception.deploy.rewrites.linear import linear_to_conv
from airside_perception.deploy.rewrites.mean import factors, means_to_pools

X = [2, 4, 6, 5]
MISH = ['Sigmoid', 'Conv', 'Sigmoid', 'Conv', 'Mul', 'Mul', 'Conv', 'Div', 'Mul']
NORM = ['gamma', 'beta', 'mean', 'variance']
rng = np.random.default_rng(0)


def f32(*shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize(
    ('kind', 'said', 'opset', 'expected'),
    [
        ('HardSigmoid', {}, 13, ['Conv', 'Clip']),
        ('HardSigmoid', {'alpha': 1 / 6, 'beta': 0.5}, 9, ['Conv', 'Clip']),
        ('HardSwish', {}, 14, ['Conv', 'Clip', 'Mul']),
        (
            'Mish',
            {},
            18,
            ['Sigmoid', 'Conv', 'Sigmoid', 'Conv', *['Mul'] * 2, 'Conv', 'Div', 'Mul'],
        ),
        ('QuickGelu', {'alpha': 1.5}, 17, ['Conv', 'Sigmoid', 'Mul']),
        ('QuickGelu', {'alpha': 1.0}, 17, ['Sigmoid', 'Mul']),
    ],
)
@pytest.mark.parametrize('shape', [X, [3, 7]])
def test_activations_are_split(
    kind: str, said: Any, opset: int, expected: list[str], shape: list[int], network: Any,
    node: Any, equal: Any, kinds: Any,
) -> None:  # fmt: skip
    domain = {'domain': 'com.microsoft'} if kind == 'QuickGelu' else {}
    item = node(kind, ['x'], ['y'], **said, **domain)
    if domain:
        model = network([node('Relu', ['x'], ['y'])], {'x': shape}, {'y': shape}, opset=opset)
        model.graph.node[0].CopyFrom(item)
        model.opset_import.append(onnx.helper.make_opsetid('com.microsoft', 1))
    else:
        model = network([item], {'x': shape}, {'y': shape}, opset=opset)
    split, changes = split_activations(model)
    assert len(changes) == 1
    if len(shape) == 4:
        assert kinds(split) == expected
    assert kind not in kinds(split)
    equal(model, split)


def test_mish_of_older_exporters(network: Any, node: Any, equal: Any, kinds: Any) -> None:
    nodes = [
        node('Softplus', ['x'], ['s']),
        node('Tanh', ['s'], ['t']),
        node('Mul', ['x', 't'], ['m']),
        node('Tanh', ['m'], ['y']),
    ]
    model = network(nodes, {'x': X}, {'y': X}, opset=11)
    split, changes = split_activations(model)
    assert len(changes) == 1
    assert kinds(split) == [*MISH, 'Tanh']
    equal(model, split)


@pytest.mark.parametrize('alpha', [1.0, 2.5])
def test_swish(alpha: float, node: Any, run: Any, kinds: Any) -> None:
    """An operator of opset 24: against its definition, as not every ONNX Runtime has it."""
    x = [onnx.helper.make_tensor_value_info('x', 1, X)]
    y = [onnx.helper.make_tensor_value_info('y', 1, X)]
    graph = onnx.helper.make_graph([node('Swish', ['x'], ['y'], alpha=alpha)], 'g', x, y)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)])
    model.ir_version = 8
    split, _ = split_activations(model)
    assert kinds(split)[-2:] == ['Sigmoid', 'Mul']
    value = f32(*X) * 5
    wanted = value / (1 + np.exp(-alpha * value.astype(np.float64)))
    np.testing.assert_allclose(run(split, x=value)[0], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [
        (0, 6, ['Clip']), (0, 127, ['Clip']), (0, 0.5, ['Relu', 'Min']), (0, 200, ['Relu', 'Min']),
        (-1, 1, ['Max', 'Min']), (0, None, ['Relu']), (None, 3, ['Min']), (2, None, ['Max']),
        (None, None, ['Clip']),
    ],
)  # fmt: skip
@pytest.mark.parametrize('opset', [10, 13])
def test_clip(
    low: Any, high: Any, expected: list[str], opset: int, network: Any, node: Any, equal: Any,
    kinds: Any,
) -> None:  # fmt: skip
    limits = {k: np.float32(v) for k, v in (('min', low), ('max', high)) if v is not None}
    if opset < 11:
        said = {name: float(value) for name, value in limits.items()}
        model = network([node('Clip', ['x'], ['y'], **said)], {'x': X}, {'y': X}, opset=opset)
    else:
        names = [name if name in limits else '' for name in ('min', 'max')]
        constants = {name: np.array(value) for name, value in limits.items()}
        item = node('Clip', ['x', *names], ['y'])
        model = network([item], {'x': X}, {'y': X}, constants, opset)
    split, changes = split_activations(model)
    assert kinds(split) == expected
    assert bool(changes) == (expected != ['Clip'])
    equal(model, split, 0)


def test_computed_limits_and_others_stay(network: Any, node: Any) -> None:
    nodes = [
        node('Clip', ['x', 'low'], ['a']),
        node('Sigmoid', ['a'], ['b']),
        node('Elu', ['b'], ['y']),
    ]
    model = network(nodes, {'x': X, 'low': []}, {'y': X}, opset=13)
    assert split_activations(model)[1] == ()


# ---------------------------------------------------------------- batch normalisation


def normalised(
    network: Any, node: Any, conv: str = 'Conv', bias: bool = True, more: Any = (),
    out: tuple[str, ...] = ('y',), said: Any = None, group: int = 1,
) -> Any:  # fmt: skip
    """A convolution with 6 outputs and its normalisation."""
    shape = (6, 4 // group, 3, 3) if conv == 'Conv' else (4, 6 // group, 3, 3)
    constants = {'w': f32(*shape), 'gamma': f32(6), 'beta': f32(6), 'mean': f32(6)}
    constants['variance'] = np.abs(f32(6)) + 0.1
    names = ['x', 'w']
    if bias:
        constants['b'] = f32(6)
        names.append('b')
    nodes = [
        node(conv, names, ['c'], name='conv', pads=[1] * 4, group=group),
        node('BatchNormalization', ['c', *NORM], ['y'], **said or {}),
        *more,
    ]
    return network(nodes, {'x': X}, {name: [None] * 4 for name in out}, constants, opset=13)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(('conv', 'group'), [('Conv', 1), ('Conv', 2), ('ConvTranspose', 1)])
def test_batch_norms_are_folded(
    conv: str, group: int, bias: bool, network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    model = normalised(network, node, conv, bias, said={'epsilon': 1e-3}, group=group)
    folded, changes = fold_batch_norms(model)
    assert kinds(folded) == [conv]
    assert folded.graph.node[0].name == 'conv'
    assert changes == ('y: folded into conv',)
    equal(model, folded, 1e-6)


def test_batch_norms_that_stay(network: Any, node: Any, kinds: Any) -> None:
    reader = [node('Relu', ['c'], ['z'])]
    for model in (
        normalised(network, node, more=reader, out=('y', 'z')),
        normalised(network, node, out=('y', 'c')),
        normalised(network, node, 'ConvTranspose', group=2),
    ):
        same, changes = fold_batch_norms(model)
        assert not changes
        assert 'BatchNormalization' in kinds(same)
    alone = node('BatchNormalization', ['x', 'c', 'c', 'c', 'p'], ['y'])
    constants = {'c': f32(4), 'p': np.ones(4, np.float32)}
    assert fold_batch_norms(network([alone], {'x': X}, {'y': X}, constants))[1] == ()


def test_weights_that_two_convolutions_share(network: Any, node: Any, equal: Any) -> None:
    model = normalised(
        network, node, more=[node('Conv', ['x', 'w'], ['z'], pads=[1] * 4)], out=('y', 'z')
    )
    folded, changes = fold_batch_norms(model)
    assert changes
    equal(model, folded, 1e-6)


# ---------------------------------------------------------------- means


def mean_of(network: Any, node: Any, item: Any, size: Any, rank: int = 4, opset: int = 13) -> Any:
    constants = {'axes': np.array([-1, -2])} if 'axes' in item.input else {}
    return network([item], {'x': [2, 3, *size]}, {'y': [None] * rank}, constants, opset)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((7, 5), ['AveragePool']),
        ((1, 1), ['AveragePool']),
        ((16, 12), ['AveragePool', 'AveragePool']),
        ((13, 13), ['Conv']),
        ((26, 13), ['AveragePool', 'Conv']),
        ((52, 104), ['AveragePool', 'Conv']),
    ],
)
@pytest.mark.parametrize('kind', ['GlobalAveragePool', 'ReduceMean', 'ReduceMean18', 'without'])
def test_means_over_everything(
    size: Any, expected: list[str], kind: str, network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    opset = 18 if kind == 'ReduceMean18' else 13
    if kind == 'GlobalAveragePool':
        item = node(kind, ['x'], ['y'])
    elif opset == 18:
        item = node('ReduceMean', ['x', 'axes'], ['y'])
    else:
        item = node('ReduceMean', ['x'], ['y'], axes=[2, 3], keepdims=int(kind != 'without'))
    model = mean_of(network, node, item, size, 2 if kind == 'without' else 4, opset)
    pooled, changes = means_to_pools(model)
    assert len(changes) == 1
    assert kinds(pooled) == expected + ['Reshape'] * (kind == 'without')
    equal(model, pooled)


@pytest.mark.parametrize(
    ('said', 'expected'),
    [
        ({'kernel_shape': [32, 32], 'strides': [32, 32]}, ['AveragePool', 'AveragePool']),
        ({'kernel_shape': [9, 9], 'strides': [2, 3]}, ['Conv']),
        ({'kernel_shape': [9, 9], 'pads': [4, 4, 4, 4], 'count_include_pad': 1}, ['Conv']),
        ({'kernel_shape': [13, 13], 'strides': [13, 13]}, ['AveragePool']),
        ({'kernel_shape': [9, 9], 'pads': [4, 4, 4, 4]}, ['AveragePool']),
        ({'kernel_shape': [9, 9], 'ceil_mode': 1, 'strides': [2, 2]}, ['AveragePool']),
        ({'kernel_shape': [8, 8]}, ['AveragePool']),
        ({'kernel_shape': [33, 33]}, ['AveragePool']),
    ],
)
def test_average_pools(
    said: Any, expected: list[str], network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    model = mean_of(network, node, node('AveragePool', ['x'], ['y'], **said), (64, 96))
    pooled, changes = means_to_pools(model)
    assert kinds(pooled) == expected
    assert bool(changes) == (expected != ['AveragePool'])
    equal(model, pooled)


def test_other_means_stay(network: Any, node: Any) -> None:
    for item in (
        node('ReduceMean', ['x'], ['y'], axes=[1]),
        node('ReduceMean', ['x'], ['y'], axes=[1, 2, 3]),
        node('ReduceMean', ['x'], ['y']),
        node('ReduceSum', ['x', 'axes'], ['y']),
    ):
        assert means_to_pools(mean_of(network, node, item, (6, 5)))[1] == ()
    item = node('GlobalAveragePool', ['x'], ['y'])
    assert means_to_pools(mean_of(network, node, item, (37, 6)))[1] == ()


def test_factors_multiply_to_the_size() -> None:
    for size in range(1, 300):
        found = factors(size)
        if found is None:
            continue
        parts, rest = found
        assert np.prod([*parts, rest]) == size
        assert all(2 <= part <= 8 for part in parts)
        assert rest <= 32
    assert factors(37) is None


# ---------------------------------------------------------------- fully connected layers


def test_a_classifier_is_convolutions(network: Any, node: Any, equal: Any, kinds: Any) -> None:
    nodes = [
        node('Flatten', ['x'], ['flat']),
        node('Gemm', ['flat', 'w1', 'b1'], ['g1'], transB=1, alpha=0.5, beta=2.0),
        node('Relu', ['g1'], ['r']),
        node('MatMul', ['r', 'w2'], ['m']),
        node('Add', ['b2', 'm'], ['a']),
        node('Gemm', ['a', 'w3'], ['y']),
    ]
    constants = {
        'w1': f32(9, 4 * 6 * 5), 'b1': f32(9), 'w2': f32(9, 7), 'b2': f32(7), 'w3': f32(7, 3),
    }  # fmt: skip
    model = network(nodes, {'x': X}, {'y': [2, 3]}, constants, opset=13)
    convs, changes = linear_to_conv(model)
    assert kinds(convs) == ['Conv', 'Relu', 'Conv', 'Conv', 'Reshape']
    assert len(changes) == 3
    equal(model, convs)


def test_inner_vectors_that_are_outputs_are_kept(
    network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    nodes = [
        node('Reshape', ['x', 'shape'], ['flat']),
        node('Gemm', ['flat', 'w1'], ['g']),
        node('Gemm', ['g', 'w2', 'b'], ['y']),
    ]
    constants = {
        'shape': np.array([2, -1]), 'w1': f32(120, 3), 'w2': f32(3, 2), 'b': f32(1, 2),
    }  # fmt: skip
    model = network(nodes, {'x': X}, {'y': [2, 2], 'g': [2, 3]}, constants, opset=13)
    convs, _ = linear_to_conv(model)
    assert sorted(kinds(convs)) == ['Conv', 'Conv', 'Reshape', 'Reshape']
    equal(model, convs)


@pytest.mark.parametrize('before', [True, False])
@pytest.mark.parametrize('after', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_matmul_over_channels_last(
    before: bool, after: bool, bias: bool, network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    nodes, name = [], 'x'
    if before:
        nodes.append(node('Transpose', ['x'], ['t'], perm=[0, 2, 3, 1]))
        name = 't'
    nodes.append(node('MatMul', [name, 'w'], ['m']))
    last = 'm'
    if bias:
        nodes.append(node('Add', ['m', 'b'], ['a']))
        last = 'a'
    if after:
        nodes.append(node('Transpose', [last], ['u'], perm=[0, 3, 1, 2]))
        last = 'u'
    nodes.append(node('Relu', [last], ['y']))
    constants = {'w': f32(4 if before else 5, 3), 'b': f32(3)}
    model = network(nodes, {'x': X}, {'y': [None] * 4}, constants, opset=13)
    convs, changes = linear_to_conv(model)
    assert len(changes) == 1
    expected = ['Transpose'] * (not before) + ['Conv'] + ['Transpose'] * (not after) + ['Relu']
    assert kinds(convs) == expected
    equal(model, convs, 1e-6)


def test_linear_layers_that_stay(network: Any, node: Any, kinds: Any) -> None:
    vector = network([node('Gemm', ['x', 'w'], ['y'])], {'x': [2, 5]}, {'y': [2, 3]},
                     {'w': f32(5, 3)})  # fmt: skip
    computed = network([node('MatMul', ['x', 'w'], ['y'])], {'x': X, 'w': [5, 3]},
                       {'y': [None] * 4})  # fmt: skip
    nodes = [node('Flatten', ['x'], ['f']), node('Gemm', ['f', 'w'], ['y'], transA=1)]
    turned = network(nodes, {'x': X}, {'y': [None] * 2}, {'w': f32(2, 3)})
    nodes = [node('Flatten', ['x'], ['f'], axis=2), node('Gemm', ['f', 'w'], ['y'])]
    other = network(nodes, {'x': X}, {'y': [None] * 2}, {'w': f32(30, 3)})
    nodes = [node('Flatten', ['x'], ['f']), node('Gemm', ['f', 'w'], ['y'])]
    large = network(nodes, {'x': [1, 1, 33, 2]}, {'y': [None] * 2}, {'w': f32(66, 3)})
    for model in (vector, computed, turned, other, large):
        same, changes = linear_to_conv(model)
        assert not changes
        assert 'Conv' not in kinds(same)


# ---------------------------------------------------------------- deconvolutions


@pytest.mark.parametrize(
    'said',
    [
        {'strides': [2, 2], 'pads': [1, 1, 1, 1], 'output_padding': [1, 1]},
        {'strides': [2, 3], 'pads': [1, 0, 0, 2]},
        {'pads': [1, 1, 1, 1], 'group': 2},
        {'pads': [2, 1, 1, 0], 'dilations': [2, 1]},
    ],
)
def test_padding_of_deconvolutions(
    said: Any, network: Any, node: Any, equal: Any, kinds: Any, attributes: Any
) -> None:
    item = node('ConvTranspose', ['x', 'w', 'b'], ['y'], name='up', **said)
    constants = {'w': f32(4, 6 // said.get('group', 1), 3, 3), 'b': f32(6)}
    model = network([item], {'x': X}, {'y': [None] * 4}, constants, opset=13)
    cut, changes = unpad_deconvolutions(model)
    assert kinds(cut) == ['ConvTranspose', 'Slice']
    assert not {'pads', 'output_padding'} & set(attributes(cut.graph.node[0]))
    assert len(changes) == 1
    equal(model, cut, 1e-6)


@pytest.mark.parametrize('mode', ['DCR', 'CRD'])
@pytest.mark.parametrize('size', [2, 3])
def test_depth_to_space(
    mode: str, size: int, network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    item = node('DepthToSpace', ['x'], ['y'], blocksize=size, mode=mode)
    model = network([item], {'x': [2, 36, 4, 3]}, {'y': [None] * 4}, opset=13)
    made, changes = unpad_deconvolutions(model)
    assert kinds(made) == ['ConvTranspose']
    assert len(changes) == 1
    equal(model, made, 0)


@pytest.mark.parametrize(
    ('blocks', 'perm', 'done'),
    [
        ([1, 9, 2, 2, 4, 3], [0, 1, 4, 2, 5, 3], True),
        ([1, 2, 2, 9, 4, 3], [0, 3, 4, 1, 5, 2], True),
        ([1, 9, 2, 2, 4, 3], [0, 1, 4, 3, 5, 2], False),
    ],
)
def test_pixel_shuffle(
    blocks: Any, perm: Any, done: bool, network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    nodes = [
        node('Reshape', ['x', 'six'], ['s']),
        node('Transpose', ['s'], ['t'], perm=perm),
        node('Reshape', ['t', 'four'], ['y']),
    ]
    constants = {'six': np.array(blocks), 'four': np.array([1, 9, 8, 6])}
    model = network(nodes, {'x': [1, 36, 4, 3]}, {'y': [1, 9, 8, 6]}, constants)
    made, changes = unpad_deconvolutions(model)
    assert bool(changes) == done
    assert (kinds(made) == ['ConvTranspose']) == done
    equal(model, made, 0)


@pytest.mark.parametrize(
    'said',
    [
        {'strides': [2, 2]},
        {'strides': [2, 2], 'pads': [1, 1, 0, 0], 'output_padding': [1, 1]},
        {'strides': [2, 2], 'output_shape': [12, 10]},
        {'strides': [2, 2], 'auto_pad': 'SAME_UPPER'},
    ],
)
def test_other_deconvolutions_stay(said: Any, network: Any, node: Any) -> None:
    item = node('ConvTranspose', ['x', 'w'], ['y'], **said)
    model = network([item], {'x': X}, {'y': [None] * 4}, {'w': f32(4, 6, 3, 3)}, opset=13)
    assert unpad_deconvolutions(model)[1] == ()


# ---------------------------------------------------------------- slopes, arithmetic


def test_leaky_relu(network: Any, node: Any, equal: Any, kinds: Any) -> None:
    nodes = [node('LeakyRelu', ['x'], ['l'], alpha=-0.3), node('LeakyRelu', ['l'], ['y'])]
    model = network(nodes, {'x': X}, {'y': X})
    made, changes = leaky_to_prelu(model)
    assert kinds(made) == ['PRelu', 'PRelu']
    assert len(changes) == 2
    equal(model, made, 0)


def test_prelu_with_a_computed_slope(network: Any, node: Any, equal: Any, kinds: Any) -> None:
    model = network([node('PRelu', ['x', 'slope'], ['y'])], {'x': X, 'slope': X}, {'y': X})
    made, _ = leaky_to_prelu(model)
    assert kinds(made) == ['Relu', 'Min', 'Mul', 'Add']
    equal(model, made, 0)


def test_slopes_that_stay(network: Any, node: Any) -> None:
    constant = network([node('PRelu', ['x', 's'], ['y'])], {'x': X}, {'y': X}, {'s': f32(4, 1, 1)})
    vector = network([node('LeakyRelu', ['x'], ['y'])], {'x': [2, 3]}, {'y': [2, 3]})
    for model in (constant, vector):
        assert leaky_to_prelu(model)[1] == ()


@pytest.mark.parametrize(
    ('kind', 'value'), [('Div', 3.0), ('Div', f32(4, 1, 1)), ('Neg', None), ('Pow', 2.0)]
)
def test_arithmetic(
    kind: str, value: Any, network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    names = ['x'] if value is None else ['x', 'c']
    constants = {} if value is None else {'c': np.float32(value)}
    model = network([node(kind, names, ['y'])], {'x': X}, {'y': X}, constants, opset=13)
    made, changes = plain_arithmetic(model)
    assert kinds(made) == ['Mul']
    assert len(changes) == 1
    assert all(len(tensor.dims) == 4 for tensor in made.graph.initializer)
    equal(model, made, 1e-6)


@pytest.mark.parametrize(
    ('kind', 'inputs', 'value'),
    [
        ('Div', ['c', 'x'], 3.0),
        ('Div', ['x', 'c'], 0.0),
        ('Div', ['x', 'c'], 1e-39),
        ('Div', ['x', 'x'], 1.0),
        ('Pow', ['x', 'c'], 3.0),
        ('Pow', ['x', 'c'], [2.0, 1.0, 2.0, 2.0, 2.0]),
        ('Sub', ['x', 'c'], 3.0),
    ],
)
def test_other_arithmetic_stays(
    kind: str, inputs: list[str], value: Any, network: Any, node: Any
) -> None:
    model = network([node(kind, inputs, ['y'])], {'x': X}, {'y': X}, {'c': np.float32(value)},
                    opset=13)  # fmt: skip
    assert plain_arithmetic(model)[1] == ()


def test_integers_are_not_touched(network: Any, node: Any) -> None:
    model = network([node('Div', ['x', 'c'], ['y'])], {'x': (7, X)}, {'y': (7, X)},
                    {'c': np.array(3)}, opset=13)  # fmt: skip
    assert plain_arithmetic(model)[1] == ()

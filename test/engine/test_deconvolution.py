"""A deconvolution whose kernel equals its stride is a 1x1 convolution and a rearrangement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import helper

from airside_perception.engine.deconvolution import split_deconvolutions


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def deconvolution(network: Any, size: int, bias: bool = True, **said: Any) -> Any:
    rng = np.random.default_rng(size)
    kernel = said.get('kernel_shape', [size, size])
    group = said.get('group', 1)
    weights = {'w': rng.normal(0, 1, (4, 3, *kernel)).astype(np.float32)}
    if bias:
        weights['b'] = rng.normal(0, 1, 3 * group).astype(np.float32)
    opset = said.pop('opset', 17)
    said = {'strides': [size, size], **said}
    node = helper.make_node('ConvTranspose', ['x', *weights], ['y'], 'up', **said)
    return network([node], {'x': [2, 4, 5, 6]}, {'y': ['n', 'c', 'h', 'w']}, weights, opset)


@pytest.mark.parametrize('size', [1, 2, 3, 4])
@pytest.mark.parametrize('bias', [True, False])
def test_equal(network: Any, run: Any, size: int, bias: bool) -> None:
    model = deconvolution(network, size, bias)
    split = split_deconvolutions(model)
    onnx.checker.check_model(split, full_check=True)
    assert operators(split) == ['Conv', 'DepthToSpace'][: 1 + (size > 1)]
    assert {tensor.name for tensor in split.graph.initializer}.isdisjoint({'w', 'b'})
    x = np.random.default_rng(9).normal(0, 1, (2, 4, 5, 6)).astype(np.float32)
    expected = run(model, x=x)[0]
    assert expected.shape == (2, 3, 5 * size, 6 * size)
    assert_allclose(run(split, x=x)[0], expected, rtol=1e-5, atol=1e-6)  # order of four sums


@pytest.mark.parametrize(
    'said',
    [
        {'kernel_shape': [3, 3]},
        {'kernel_shape': [2, 2], 'pads': [1, 1, 1, 1]},
        {'kernel_shape': [2, 2], 'output_padding': [1, 1]},
        {'kernel_shape': [2, 2], 'group': 2},
        {'kernel_shape': [2, 2], 'auto_pad': 'SAME_UPPER'},
        {'kernel_shape': [2, 2], 'dilations': [2, 2]},
        {'kernel_shape': [2, 3], 'strides': [2, 3]},
        {'kernel_shape': [2, 2], 'opset': 10},
    ],
)
def test_others_stay(network: Any, said: dict[str, Any]) -> None:
    model = deconvolution(network, 2, **said)
    assert operators(split_deconvolutions(model)) == ['ConvTranspose']


def test_weights_of_two_deconvolutions_and_computed_ones(network: Any, run: Any) -> None:
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 1, (2, 2, 2, 2)).astype(np.float32)
    nodes = [
        helper.make_node('ConvTranspose', ['x', 'w'], ['a'], strides=[2, 2]),
        helper.make_node('ConvTranspose', ['a', 'w'], ['b'], strides=[2, 2]),
        helper.make_node('Abs', ['w'], ['v']),
        helper.make_node('ConvTranspose', ['b', 'v'], ['y'], strides=[2, 2]),
    ]
    model = network(nodes, {'x': [1, 2, 2, 2]}, {'y': [1, 2, 16, 16]}, {'w': weight})
    split = split_deconvolutions(model)
    onnx.checker.check_model(split, full_check=True)
    assert sorted(operators(split)).count('ConvTranspose') == 1
    x = rng.normal(0, 1, (1, 2, 2, 2)).astype(np.float32)
    assert_allclose(run(split, x=x)[0], run(model, x=x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('name', 'count'), [('apron_centerpoint', 4), ('apron_pointpillars', 3)])
def test_the_shipped_lidar_networks(repository: Path, run: Any, name: str, count: int) -> None:
    model = onnx.load(str(repository / 'models' / f'{name}.onnx'))
    split = split_deconvolutions(model)
    onnx.checker.check_model(split, full_check=True)
    assert operators(model).count('ConvTranspose') == count
    assert 'ConvTranspose' not in operators(split)
    canvas = np.random.default_rng(2).uniform(0, 2, (1, 32, 480, 480)).astype(np.float32)
    for found, expected in zip(run(split, canvas=canvas), run(model, canvas=canvas), strict=True):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()

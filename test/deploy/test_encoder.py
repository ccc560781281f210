"""`engine encoder`: the feature net of a third-party network, found by asking it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from airside_perception.deploy.__main__ import main
from airside_perception.deploy.encoder import fold_encoder
from airside_perception.errors import EngineError

FEATURES, CHANNELS = 9, 6


def layer(name: str, source: str, rng: np.random.Generator, inputs: int) -> tuple[list, dict]:
    """Linear, batch norm and ReLU over [P, N, C] as exporters write them: `name` is the result."""
    shape = (CHANNELS,)
    constants = {
        f'{name}_w': rng.normal(size=(inputs, CHANNELS)),
        f'{name}_scale': rng.uniform(0.5, 1.5, shape),
        f'{name}_b': rng.normal(size=shape),
        f'{name}_mean': rng.normal(size=shape),
        f'{name}_var': rng.uniform(0.5, 1.5, shape),
    }
    norm = [f'{name}_turned', *list(constants)[1:]]
    nodes = [
        helper.make_node('MatMul', [source, f'{name}_w'], [f'{name}_linear']),
        helper.make_node('Transpose', [f'{name}_linear'], [f'{name}_turned'], perm=[0, 2, 1]),
        helper.make_node('BatchNormalization', norm, [f'{name}_normed'], epsilon=1e-3),
        helper.make_node('Transpose', [f'{name}_normed'], [f'{name}_back'], perm=[0, 2, 1]),
        helper.make_node('Relu', [f'{name}_back'], [name]),
    ]
    return nodes, constants


def save(path: Path, layers: int, pillars: int | str, rng: np.random.Generator) -> dict:
    """An encoder of so many layers; returns its constants."""
    nodes, constants = layer('a', 'input_features', rng, FEATURES)
    if layers == 2:
        more, others = layer('b', 'a', rng, CHANNELS)
        nodes, constants = nodes + more, {**constants, **others}
    last = 'ab'[layers - 1]
    nodes.append(helper.make_node('ReduceMax', [last], ['pillar_features'], axes=[1]))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, 'encoder',
        [helper.make_tensor_value_info('input_features', kind, [pillars, 20, FEATURES])],
        [helper.make_tensor_value_info('pillar_features', kind, [pillars, 1, CHANNELS])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return constants


def folded(constants: dict) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias by the formula of batch norm."""
    factor = constants['a_scale'] / np.sqrt(constants['a_var'] + 1e-3)
    return constants['a_w'] * factor, constants['a_b'] - constants['a_mean'] * factor


@pytest.mark.parametrize('pillars', ['pillars', 5000, 300])
def test_weights_with_batch_norm_folded(tmp_path: Path, pillars: int | str) -> None:
    constants = save(tmp_path / 'encoder.onnx', 1, pillars, np.random.default_rng(1))
    weight, bias = folded(constants)
    found = fold_encoder(tmp_path / 'encoder.onnx')
    assert found.weight.dtype == found.bias.dtype == np.float32
    np.testing.assert_allclose(found.weight, weight, atol=2e-6)
    np.testing.assert_allclose(found.bias, bias, atol=1e-5)


def test_a_channel_that_never_answers(tmp_path: Path) -> None:
    path = tmp_path / 'encoder.onnx'
    save(path, 1, 'pillars', np.random.default_rng(2))
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name in ('a_scale', 'a_b'):
            values = numpy_helper.to_array(tensor).copy()
            values[2] = {'a_scale': 0.0, 'a_b': -1.0}[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(path))
    found = fold_encoder(path)
    assert not found.weight[:, 2].any()
    assert found.bias[2] <= 0.0
    assert found.weight.any(axis=0).sum() == CHANNELS - 1


def test_what_is_not_one_layer_is_refused(tmp_path: Path, tiny_models: Any) -> None:
    save(tmp_path / 'two.onnx', 2, 'pillars', np.random.default_rng(3))
    with pytest.raises(EngineError, match='not one linear layer'):
        fold_encoder(tmp_path / 'two.onnx')
    camera = tiny_models.tiny_camera_model(tmp_path)
    with pytest.raises(EngineError, match=r'expected one input \[pillars, points, features\]'):
        fold_encoder(camera)


def test_the_command_prints_lines_of_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'encoder.onnx'
    weight, bias = folded(save(path, 1, 'pillars', np.random.default_rng(4)))
    assert main(['encoder', str(path)]) == 0
    card = yaml.safe_load('encoder:\n' + capsys.readouterr().out)['encoder']
    np.testing.assert_allclose(card['weight'], weight, atol=2e-6)
    np.testing.assert_allclose(card['bias'], bias, atol=1e-5)
    assert main(['encoder', str(tmp_path / 'none.onnx')]) == 2
    assert 'no such network' in capsys.readouterr().err

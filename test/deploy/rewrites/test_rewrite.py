"""`engine rewrite`: passes proven one by one, what lint says before and after, files, statuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.preprocess import Preprocessor
from airside_perception.card import load_card
from airside_perception.config import CameraConfig
from airside_perception.deploy import rewrites
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.lint import lint
from airside_perception.deploy.rewrite import DROPPED, KEPT, NOTHING, SKIPPED, rewrite
from airside_perception.deploy.rewrites.proof import prove
from airside_perception.deploy.rewrites.samples import KINDS, feeds_of
from airside_perception.engine.graph import weights
from airside_perception.engine.onnx import OnnxEngine
from airside_perception.engine.qdq import insert_qdq
from airside_perception.errors import ConfigError, EngineError, RefusalError
from airside_perception.types import Image


def f32(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture
def small(network: Any, node: Any) -> Any:
    """A wide pool, a division and two convolutions."""
    nodes = [
        node('Conv', ['x', 'w'], ['c'], name='first', pads=[1] * 4),
        node('MaxPool', ['c'], ['p'], name='wide', kernel_shape=[13, 13], pads=[6] * 4),
        node('Div', ['p', 'three'], ['d'], name='third'),
        node('Conv', ['d', 'w2'], ['y'], name='last'),
    ]
    constants = {'w': f32(4, 3, 3, 3), 'w2': f32(2, 4, 1, 1), 'three': np.float32(3)}
    return network(nodes, {'x': [1, 3, 16, 16]}, {'y': [1, 2, 16, 16]}, constants, opset=13)


def steps(done: Any) -> dict[str, str]:
    return {step.name: step.outcome for step in done.steps}


def test_passes_that_change_something_are_kept(small: Any, equal: Any) -> None:
    data = small.SerializeToString()
    done = rewrite(small, 'dla', '6.2')
    assert small.SerializeToString() == data
    found = steps(done)
    assert list(found) == list(rewrites.NAMES)
    assert found.pop('max-pool') == found.pop('arithmetic') == KEPT
    assert set(found.values()) == {NOTHING}
    assert [verdict.name for verdict in done.before.illegal] == ['wide']
    assert done.legal
    assert done.good
    assert done.error <= 1e-6
    equal(small, done.model)


def test_only_what_is_asked_for(small: Any) -> None:
    done = rewrite(small, only=['arithmetic', 'max-pool'])
    assert list(steps(done)) == ['max-pool', 'arithmetic']
    done = rewrite(small, only=['arithmetic'])
    assert not done.legal


def wrong_pool(model: Any) -> Any:
    """5x5 where 13x13 was."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    pool = changed.graph.node[1]
    del pool.attribute[:]
    pool.attribute.extend(
        onnx.helper.make_node('M', [], [], kernel_shape=[5, 5], pads=[2] * 4).attribute
    )
    return changed, ('13x13 -> 5x5',)


def wrong_padding(model: Any) -> Any:
    """Equal where inputs are positive: the pool is padded with zeros."""
    changed, _ = wrong_pool(model)
    node = onnx.helper.make_node
    kept = [*changed.graph.node[:1], node('Relu', ['c'], ['r']), *changed.graph.node[1:]]
    changed.graph.node.insert(1, kept[1])
    changed.graph.node[2].CopyFrom(model.graph.node[1])
    changed.graph.node[2].input[0] = 'r'
    return changed, ('with a Relu before',)


def wrong_weight(model: Any) -> Any:
    """One weight of the second convolution is 1 % off."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(t for t in changed.graph.initializer if t.name == 'w2')
    value = numpy_helper.to_array(tensor).copy()
    value[1, 2] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(value, 'w2'))
    return changed, ('w2',)


def other_shape(model: Any) -> Any:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.node[1].attribute.pop()
    return changed, ('no padding',)


def broken(model: Any) -> Any:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.node[1].input[0] = 'nowhere'
    return changed, ('reads what is not there',)


@pytest.mark.parametrize(
    ('wrong', 'reason'),
    [
        (wrong_pool, r'relative error 0\.\d+, at most 1e-05 is allowed'),
        (wrong_padding, r'relative error'),
        (wrong_weight, r'y: relative error 0\.00\d+, at most 1e-05'),
        (other_shape, r'shapes differ'),
        (broken, r'ONNX Runtime cannot load it'),
    ],
)
def test_a_wrong_pass_is_dropped(
    wrong: Any, reason: str, small: Any, equal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrites, 'cascade_max_pools', wrong)
    done = rewrite(small)
    step = next(step for step in done.steps if step.name == 'max-pool')
    assert step.outcome == DROPPED
    assert step.changes == wrong(small)[1]
    assert step.error > 1e-5
    assert re.search(reason, step.reason)
    assert not done.good
    assert steps(done)['arithmetic'] == KEPT  # the others go on
    equal(small, done.model)


def test_a_pass_that_cannot_be_done_is_dropped(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model: Any) -> Any:
        raise EngineError('no way')

    monkeypatch.setattr(rewrites, 'cascade_max_pools', fails)
    step = next(step for step in rewrite(small).steps if step.name == 'max-pool')
    assert (step.outcome, step.reason, step.error) == (DROPPED, 'no way', None)


def test_what_adds_up_is_refused(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes, each just within the tolerance."""

    def scaled(model: Any) -> Any:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        tensor = next(t for t in changed.graph.initializer if t.name == 'w2')
        value = numpy_helper.to_array(tensor) * np.float32(1 + 8e-6)
        tensor.CopyFrom(numpy_helper.from_array(value, 'w2'))
        return changed, ('scaled',)

    monkeypatch.setattr(rewrites, 'cascade_max_pools', scaled)
    assert steps(rewrite(small, only=['max-pool'])) == {'max-pool': KEPT}
    monkeypatch.setattr(rewrites, 'means_to_pools', scaled)
    with pytest.raises(RefusalError, match='add up to more than is allowed: y: relative error'):
        rewrite(small, only=['max-pool', 'mean'])


def test_the_inside_of_a_network_is_compared_too(network: Any, node: Any) -> None:
    """An error that the last layer hides."""

    def build(slope: float) -> Any:
        nodes = [
            node('LeakyRelu', ['x'], ['inner'], alpha=slope),
            node('Sigmoid', ['inner'], ['s']),
            node('Conv', ['s', 'w'], ['y']),
        ]  # fmt: skip
        return network(nodes, {'x': [1, 2, 4, 4]}, {'y': [1, 1, 4, 4]},
                       {'w': np.zeros((1, 2, 1, 1), np.float32)})  # fmt: skip

    proof = prove(build(0.1), build(0.2), feeds_of(build(0.1)))
    assert not proof.equal
    assert proof.tensor == 'inner'


def test_rounding_that_a_network_amplifies_is_told_from_errors(network: Any, node: Any) -> None:
    """Squares ten times over: any rounding doubles each time, a wrong factor does so too."""

    def build(factor: float) -> Any:
        nodes = [node('Mul', ['x', 'f'], ['v0'])]
        nodes += [node('Mul', [f'v{i}', f'v{i}'], [f'v{i + 1}']) for i in range(9)]
        nodes.append(node('Identity', ['v9'], ['y']))
        return network(nodes, {'x': [1, 4]}, {'y': [1, 4]}, {'f': np.float32(factor)}, opset=13)

    feeds = [{'x': np.float32([[1.001, 1.0, 0.999, 1.002]])}]
    eps = float(np.finfo(np.float32).eps)
    close = prove(build(1.0), build(1.0 + eps), feeds)
    assert close.equal
    assert close.error > 1e-5
    assert close.noise > 1e-5
    assert not prove(build(1.0), build(1.0 + 100 * eps), feeds).equal


@pytest.mark.parametrize('kind', ['GlobalAveragePool', 'ReduceMean'])
@pytest.mark.parametrize('opset', [13, 18])
def test_long_sums_are_told_from_errors(kind: str, opset: int, network: Any, node: Any) -> None:
    """ONNX Runtime adds 65,536 values one by one; the rewrite is nearer to the truth."""
    said = {'axes': [2, 3]} if kind == 'ReduceMean' and opset < 18 else {}
    names = ['x', 'axes'] if kind == 'ReduceMean' and opset >= 18 else ['x']
    constants = {'axes': np.array([2, 3])} if len(names) > 1 else {}
    model = network([node(kind, names, ['y'], **said)], {'x': [1, 2, 256, 256]},
                    {'y': [1, 2, 1, 1]}, constants, opset)  # fmt: skip
    done = rewrite(model)
    assert steps(done)['mean'] == KEPT
    assert done.legal
    nodes = [node(kind, names, ['m'], **said), node('Mul', ['m', 'f'], ['y'])]
    more = network(nodes, {'x': [1, 2, 256, 256]}, {'y': [1, 2, 1, 1]},
                   {**constants, 'f': np.float32(1.0005)}, opset)  # fmt: skip
    assert not prove(model, more, feeds_of(model)).equal


def test_samples_are_of_several_kinds(small: Any) -> None:
    feeds = feeds_of(small)
    assert len(feeds) == len(KINDS)
    values = [feed['x'] for feed in feeds]
    assert all(value.shape == (1, 3, 16, 16) and value.dtype == np.float32 for value in values)
    assert any((value < 0).all() for value in values)
    assert any(value.max() > 200 and value.min() >= 0 for value in values)
    assert any(np.abs(value).max() >= 1e4 for value in values)
    assert any(np.abs(value).max() < 1e-2 for value in values)


def test_feeds_of_the_caller_are_used(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that is wrong at one place only, which random inputs do not hit."""

    def wrong(model: Any) -> Any:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        limit = numpy_helper.from_array(np.float32(1e5), 'limit')
        changed.graph.initializer.append(limit)
        changed.graph.node.insert(0, onnx.helper.make_node('Min', ['x', 'limit'], ['x2']))
        changed.graph.node[1].input[0] = 'x2'
        return changed, ('limited',)

    monkeypatch.setattr(rewrites, 'cascade_max_pools', wrong)
    assert steps(rewrite(small))['max-pool'] == KEPT
    large = {'x': np.full((1, 3, 16, 16), 1e6, np.float32)}
    assert steps(rewrite(small, feeds=[large]))['max-pool'] == DROPPED


def test_dynamic_networks(network: Any, node: Any, run: Any) -> None:
    nodes = [node('MaxPool', ['x'], ['y'], kernel_shape=[9, 9], pads=[4] * 4)]
    model = network(nodes, {'x': ['N', 3, 'H', 'W']}, {'y': ['N', 3, 'H', 'W']}, opset=13)
    with pytest.raises(ConfigError, match='--shape x:1x3x416x416'):
        rewrite(model)
    done = rewrite(model, batch=2, shapes={'x': [2, 3, 12, 20]})
    assert done.good
    assert steps(done)['shapes'] == steps(done)['max-pool'] == KEPT
    x = f32(2, 3, 12, 20)
    np.testing.assert_array_equal(run(done.model, x=x)[0], run(model, x=x)[0])


def test_ranks_that_only_fixed_shapes_give(network: Any, node: Any) -> None:
    """Lint needs ranks: before and after are both told with the shapes that were given."""
    one = onnx.helper.make_tensor('v', onnx.TensorProto.INT64, [1], [1])
    nodes = [
        node('Shape', ['x'], ['shape']),
        node('Concat', ['shape', 'one'], ['target'], axis=0),
        node('Slice', ['target', 'zero', 'count'], ['four']),
        node('Size', ['four'], ['rank']),
        node('ConstantOfShape', ['count'], ['ones'], value=one),
        node('Mul', ['four', 'ones'], ['goal']),
        node('Reshape', ['x', 'goal'], ['r']),
        node('MaxPool', ['r'], ['y'], kernel_shape=[9, 9], pads=[4] * 4),
    ]
    constants = {'one': np.array([1]), 'zero': np.array([0]), 'count': np.array([4])}
    model = network(nodes, {'x': ['N', 3, 'H', 'W']}, {'y': [None] * 4}, constants, opset=11)
    done = rewrite(model, shapes={'x': [1, 3, 12, 20]})
    assert done.legal
    assert len(done.before.illegal) >= 1


def test_another_batch_is_proven_sample_by_sample(network: Any, node: Any) -> None:
    nodes = [node('Conv', ['x', 'w'], ['c']), node('Reshape', ['c', 'shape'], ['y'])]
    constants = {'w': f32(4, 3, 1, 1), 'shape': np.array([2, 4, -1])}
    model = network(nodes, {'x': [2, 3, 6, 5]}, {'y': [2, 4, 30]}, constants, opset=13)
    done = rewrite(model, batch=3)
    assert steps(done)['batch'] == KEPT
    assert done.model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 3
    mixing = network(
        [node('ReduceMax', ['x'], ['m'], axes=[0]), node('Add', ['x', 'm'], ['y'])],
        {'x': [2, 3, 6, 5]}, {'y': [2, 3, 6, 5]}, opset=13,
    )  # fmt: skip
    done = rewrite(mixing, batch=1)
    assert steps(done)['batch'] == DROPPED
    assert not done.good
    assert done.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_networks_with_qdq(small: Any) -> None:
    model = insert_qdq(small, {'x': 0.05, 'd': 0.1})
    done = rewrite(model)
    found = steps(done)
    assert found['arithmetic'] == found['focus'] == found['constants'] == SKIPPED
    assert found['max-pool'] == KEPT
    reason = next(step.reason for step in done.steps if step.name == 'focus')
    assert 'Q/DQ' in reason
    kinds = [item.op_type for item in done.model.graph.node]
    assert kinds.count('QuantizeLinear') == [i.op_type for i in model.graph.node].count(
        'QuantizeLinear'
    )
    old, new = weights(model), weights(done.model)
    assert all((old[name] == new[name]).all() for name in old if name in new and 'scale' in name)


def test_fp16(network: Any, node: Any) -> None:
    half = np.float16
    nodes = [
        node('SpaceToDepth', ['x'], ['f'], blocksize=2),
        node('Conv', ['f', 'w'], ['c'], pads=[1] * 4),
        node('MaxPool', ['c'], ['y'], kernel_shape=[9, 9], pads=[4] * 4),
    ]
    model = network(nodes, {'x': (10, [1, 3, 16, 16])}, {'y': (10, [1, 4, 8, 8])},
                    {'w': f32(4, 12, 3, 3).astype(half)}, opset=13)  # fmt: skip
    done = rewrite(model)
    assert steps(done)['focus'] == steps(done)['max-pool'] == KEPT
    assert done.legal


# ---------------------------------------------------------------- the command


def test_the_command(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / 'net.onnx', tmp_path / 'new' / 'legal.onnx'
    onnx.save(small, str(source))
    words = ['rewrite', str(source), '--target', 'dla', '--jetpack', '6.2', '--out', str(target)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert 'illegal nodes  1 -> 0' in out
    assert 'wide: MaxPool 13x13 -> 7x7 + 7x7' in out
    assert 'max-pool       kept, error 0.0e+00' in out
    assert lint(onnx.load(str(target)), 'dla', '6.2').illegal == ()
    assert main([*words, '--json', '--only', 'arithmetic']) == 1
    table = json.loads(capsys.readouterr().out)
    assert [step['pass'] for step in table['steps']] == ['arithmetic']
    assert table['after']['illegal'][0]['name'] == 'wide'
    assert table['after']['layer_share'] < 1
    assert table['legal'] is False


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--only', 'speed'], "pass 'speed': there are shapes, constants, batch"),
        (['--jetpack', '3.2'], "jetpack '3.2': there are rules for"),
        (['--batch', '0'], 'batch 0: expected 1 or more'),
        (['--shape', 'x'], "'x': expected INPUT:SHAPE"),
        (['--shape', 'x:1x3x8x8'], 'shape 1x3x8x8: input'),
    ],
)
def test_bad_input_is_one_line(
    more: list[str], said: str, small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / 'net.onnx', tmp_path / 'legal.onnx'
    onnx.save(small, str(source))
    assert main(['rewrite', str(source), '--out', str(target), *more]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ''
    assert err.count('\n') == 1
    assert not target.exists()


def test_files_that_are_no_networks(
    small: Any, node: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / 'net.onnx', tmp_path / 'legal.onnx'
    target.write_bytes(b'before')
    source.write_bytes(b'nothing')
    custom = onnx.ModelProto()
    custom.CopyFrom(small)
    custom.graph.node[1].CopyFrom(node('Magic', ['c'], ['p'], domain='our.own'))
    custom.opset_import.append(onnx.helper.make_opsetid('our.own', 1))
    onnx.save(custom, str(tmp_path / 'custom.onnx'))
    for path in (source, tmp_path / 'custom.onnx', tmp_path / 'missing.onnx'):
        assert main(['rewrite', str(path), '--out', str(target)]) == 2
        assert capsys.readouterr().err.count('\n') == 1
    assert target.read_bytes() == b'before'


def test_a_jetpack_without_dla(small: Any, tmp_path: Path) -> None:
    onnx.save(small, str(tmp_path / 'net.onnx'))
    words = ['rewrite', str(tmp_path / 'net.onnx'), '--out', str(tmp_path / 'out.onnx')]
    assert main([*words, '--jetpack', '7.2']) in (1, 2)


def test_the_help_names_all_passes() -> None:
    from airside_perception.deploy.verbs import rewrite as verb

    passes = verb.DESCRIPTION.split('Passes: ')[1].split('.')[0]
    assert [name.strip() for name in passes.replace('\n', ' ').split(',')] == list(rewrites.NAMES)


# ---------------------------------------------------------------- YOLOX-nano


def test_rows_beyond_the_largest_dimension_are_left(
    network: Any, node: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dimension of an output cannot be changed exactly: it is said, and the status is 1."""
    nodes = [
        node('Reshape', ['x', 'shape'], ['flat']),
        node('Transpose', ['flat'], ['y'], name='rows', perm=[0, 2, 1]),
    ]
    model = network(nodes, {'x': [1, 5, 64, 160]}, {'y': [1, 10240, 5]},
                    {'shape': np.array([1, 5, -1])})  # fmt: skip
    onnx.save(model, str(tmp_path / 'net.onnx'))
    words = ['rewrite', str(tmp_path / 'net.onnx'), '--out', str(tmp_path / 'out.onnx')]
    assert main(words) == 1
    assert re.search(r'left +rows \(Transpose\) falls back: ', capsys.readouterr().out)


@pytest.fixture(scope='module')
def yolox(shared_data: Path) -> Any:
    return onnx.load(str(shared_data / 'yolox_nano' / 'yolox_nano.onnx'))


@pytest.fixture(scope='module')
def legal_yolox(yolox: Any) -> Any:
    return rewrite(yolox, 'dla', '6.2')


def test_yolox_nano_becomes_legal(yolox: Any, legal_yolox: Any) -> None:
    done = legal_yolox
    kinds = sorted(verdict.op_type for verdict in done.before.illegal)
    assert kinds == ['Concat', 'MaxPool', 'MaxPool', *['Slice'] * 8, 'Transpose']
    assert done.after.illegal == ()
    assert done.good
    assert [step.name for step in done.steps if step.kept] == ['focus', 'max-pool', 'head']
    assert done.before.layer_share < 0.97
    assert done.after.layer_share == done.after.flop_share == 1
    assert (done.before.subgraphs, done.after.subgraphs) == (2, 1)
    assert (done.before.transfers, done.after.transfers) == (10, 0)
    pools = [item for item in done.model.graph.node if item.op_type == 'MaxPool']
    assert len(pools) == 3
    for old, new in ((yolox.graph.input, done.model.graph.input),
                     (yolox.graph.output, done.model.graph.output)):  # fmt: skip
        assert [value.SerializeToString() for value in new] == [
            value.SerializeToString() for value in old
        ]


def test_yolox_nano_finds_the_same_on_real_images(
    yolox: Any, legal_yolox: Any, shared_data: Path, repository: Path, tmp_path: Path
) -> None:
    card = load_card(repository / 'config' / 'cards' / 'yolox_nano_coco.yaml')
    preprocess = Preprocessor(card)
    files = sorted((shared_data / 'yolox_nano' / 'images').glob('*.jpg'))
    assert len(files) == 40
    onnx.save(legal_yolox.model, str(tmp_path / 'legal.onnx'))
    engines = [OnnxEngine(shared_data / 'yolox_nano' / 'yolox_nano.onnx', threads=1),
               OnnxEngine(tmp_path / 'legal.onnx', threads=1)]  # fmt: skip
    detectors = [CameraDetector(engine, card, CameraConfig()) for engine in engines]
    count = 0
    for path in files:
        image = Image(0, 'camera', cv2.imread(str(path)))
        tensor, _ = preprocess(image)
        wanted, found = (engine.infer({'images': tensor})['output'] for engine in engines)
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
        old, new = (detector.detect(image) for detector in detectors)
        assert new.classes == old.classes
        np.testing.assert_allclose(new.xyxy, old.xyxy, atol=1e-2)  # pixels of the image
        np.testing.assert_allclose(new.scores, old.scores, atol=1e-4)
        count += len(old)
    assert count > 40
    for engine in engines:
        engine.close()

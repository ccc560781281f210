"""`engine sanitize`: what changes in a network, what must not, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from airside_perception.card import load_card
from airside_perception.deploy import __main__ as command
from airside_perception.deploy import external, outputs, tidy
from airside_perception.deploy.fold import fold_constants
from airside_perception.deploy.outputs import difference, random_feeds, run_onnx
from airside_perception.deploy.sanitize import Settings, sanitize, sanitize_file
from airside_perception.errors import ConfigError, EngineError, RefusalError

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def network(
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    weights: dict[str, Any] | None = None,
    opset: int = 17,
    domains: tuple[str, ...] = (),
) -> Any:
    def tensors(values: dict[str, Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, *(v if isinstance(v, tuple) else (FLOAT, v)))
            for name, v in values.items()
        ]

    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    graph = helper.make_graph(nodes, 'tiny', tensors(inputs), tensors(outputs), stored)
    imports = [helper.make_opsetid('', opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def flattening(batch: Any = 'batch') -> Any:
    """x.view(x.size(0), -1) as an exporter writes it, for [batch, 2, 3]."""
    return network(
        [
            node('Shape', ['x'], ['shape']),
            node('Constant', [], ['zero'], value_int=0),
            node('Gather', ['shape', 'zero'], ['n']),
            node('Constant', [], ['axis'], value_ints=[0]),
            node('Unsqueeze', ['n', 'axis'], ['rows']),
            node('Constant', [], ['rest'], value_ints=[-1]),
            node('Concat', ['rows', 'rest'], ['target'], axis=0),
            node('Reshape', ['x', 'target'], ['y']),
        ],
        {'x': [batch, 2, 3]},
        {'y': [batch, None]},
    )


def operators(model: Any) -> dict[str, int]:
    return dict(Counter(one.op_type for one in tidy.all_nodes(model)))


def same(before: Any, after: Any, feeds: dict[str, Any]) -> None:
    """By an evaluator that has nothing to do with what folded."""
    expected = ReferenceEvaluator(before).run(None, feeds)
    found = ReferenceEvaluator(after).run(None, feeds)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert difference(one, other).within(1e-6)


def engine(*words: Any) -> int:
    return command.main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """The line that `engine sanitize` ends with, and that it is one."""
    assert engine('sanitize', *words) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    return err


@pytest.mark.parametrize(('batch', 'left'), [(4, {'Reshape': 1}), ('batch', None)])
def test_shape_arithmetic_is_folded_where_the_shape_is_known(batch: Any, left: Any) -> None:
    model = flattening(batch)
    made = sanitize(model)
    same(model, made.model, random_feeds(model, sizes={} if batch == 4 else {'batch': 5}))
    after = operators(made.model)
    assert 'Constant' not in after
    if left:
        assert after == left
        assert made.report.count == (8, 1)
        assert len(made.report.folded) == 7
    else:
        assert after['Shape'] == 1  # of the batch, which varies
        assert 'batch=3' in made.report.agreement.tried[-1]


def test_a_given_shape_lets_all_of_it_be_folded() -> None:
    model = flattening()
    made = sanitize(model, Settings(input_shapes={'x': (4, -1, -1)}))
    assert operators(made.model) == {'Reshape': 1}
    output = made.model.graph.output[0].type.tensor_type.shape
    assert [dim.dim_value for dim in output.dim] == [4, 6]
    same(model, made.model, {'x': np.random.default_rng(0).normal(size=(4, 2, 3))})
    assert model == flattening()


def test_a_named_dimension_is_fixed_everywhere() -> None:
    model = network(
        [node('Add', ['a', 'b'], ['y'])], {'a': ['n', 2], 'b': ['n', 2]}, {'y': ['n', 2]}
    )
    made = sanitize(model, Settings(input_shapes={'a': (3, 2)}))
    for value in (*made.model.graph.input, *made.model.graph.output):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [3, 2]
    with pytest.raises(ConfigError, match="dimension 'n' is both 3 and 4"):
        sanitize(model, Settings(input_shapes={'a': (3, 2), 'b': (4, 2)}))
    with pytest.raises(ConfigError, match="'a': 3 dimensions, the network has 2"):
        sanitize(model, Settings(input_shapes={'a': (3, 2, 1)}))
    with pytest.raises(ConfigError, match="of 'c': inputs are a, b"):
        sanitize(model, Settings(input_shapes={'c': (3, 2)}))


def constants() -> Any:
    """y = x + tile(w * 2): 4 MiB from 4 KiB."""
    return network(
        [
            node('Mul', ['w', 'two'], ['doubled'], name='double'),
            node('Tile', ['doubled', 'times'], ['tiled'], name='tile'),
            node('Add', ['x', 'tiled'], ['y'], name='add'),
        ],
        {'x': [1024, 1024]},
        {'y': [1024, 1024]},
        {
            'w': np.random.default_rng(0).normal(size=(1, 1024)).astype(np.float32),
            'two': np.float32(2), 'times': np.array([1024, 1]),
        },
    )  # fmt: skip


def test_the_size_limit_keeps_a_network_from_blowing_up() -> None:
    model = constants()
    small = sanitize(model, Settings(size_limit_mb=3.9))
    assert operators(small.model) == {'Tile': 1, 'Add': 1}
    assert small.model.ByteSize() < 10_000
    large = sanitize(model, Settings(size_limit_mb=4.0))
    assert operators(large.model) == {'Add': 1}
    assert large.report.bytes[1] > 4 << 20
    for made in (small, large):
        same(model, made.model, random_feeds(model))


def test_nothing_large_is_even_computed() -> None:
    """A terabyte on the way to one number."""
    model = network(
        [
            node('ConstantOfShape', ['shape'], ['huge']),
            node('ReduceSum', ['huge'], ['sum'], keepdims=0),
            node('Mul', ['x', 'sum'], ['y']),
        ],
        {'x': [2]}, {'y': [2]}, {'shape': np.array([1 << 20, 1 << 18])},
    )  # fmt: skip
    tidy.name_nodes(model)
    assert operators(fold_constants(model, 1 << 20)) == operators(model)


def test_no_fold_leaves_constants() -> None:
    model = constants()
    model.graph.node.append(node('Relu', ['x'], ['nobody']))
    made = sanitize(model, Settings(fold=False))
    assert operators(made.model) == {'Mul': 1, 'Tile': 1, 'Add': 1}
    assert made.report.folded == ()
    assert made.report.dead == ('Relu_0',)


def test_random_numbers_are_no_constants() -> None:
    model = network(
        [
            node('RandomNormal', [], ['noise'], shape=[2]),
            node('Mul', ['noise', 'one'], ['scaled']),
            node('Add', ['x', 'scaled'], ['y']),
        ],
        {'x': [2]}, {'y': [2]}, {'one': np.ones(2, 'f4')},
    )  # fmt: skip
    made = sanitize(model)
    assert operators(made.model) == {'RandomNormal': 1, 'Mul': 1, 'Add': 1}
    assert made.report.agreement is None
    assert 'RandomNormal' in made.report.notes[0]


def test_quantisation_stays() -> None:
    weights = {
        'w': np.ones((2, 2), 'f4'), 's': np.float32(0.1), 'z': np.int8(0),
    }  # fmt: skip
    model = network(
        [
            node('QuantizeLinear', ['w', 's', 'z'], ['q']),
            node('DequantizeLinear', ['q', 's', 'z'], ['d']),
            node('MatMul', ['x', 'd'], ['y']),
        ],
        {'x': [1, 2]}, {'y': [1, 2]}, weights,
    )  # fmt: skip
    assert operators(sanitize(model).model) == operators(model)


def test_weights_names_and_dead_nodes() -> None:
    weight = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    model = network(
        [
            node('MatMul', ['x', 'w'], ['a'], name='same'),
            node('MatMul', ['a', 'w2'], ['y'], name='same'),
            node('Relu', ['a'], ['unused']),
            node('Exp', ['unused'], ['unused too']),
        ],
        {'x': [2, 3], 'w': [3, 3], 'w2': [3, 3]},
        {'y': [2, 3]},
        {'w': weight, 'w2': weight, 'nobody': weight},
    )
    model.ir_version = 3
    made = sanitize(model, Settings(merge=True))
    graph, report = made.model.graph, made.report
    assert [value.name for value in graph.input] == ['x']
    assert report.inputs_removed == ('w', 'w2')
    assert [one.name for one in graph.initializer] == ['w']
    assert report.merged == 1
    assert report.unused == ('nobody',)
    assert report.dead == ('Exp_0', 'Relu_0')
    assert report.weights == (3, 1)
    assert len({one.name for one in graph.node} - {''}) == 2
    assert report.named == 3
    assert made.model.ir_version >= 4
    onnx.checker.check_model(made.model, full_check=True)
    model.ir_version = 8
    same(model, made.model, random_feeds(model))
    assert len(sanitize(model).model.graph.initializer) == 2


def test_an_output_that_is_a_constant_stays_an_output() -> None:
    model = network(
        [
            node('Add', ['a', 'a'], ['anchors']),
            node('Mul', ['x', 'anchors'], ['y']),
        ],
        {'x': [2]}, {'y': [2], 'anchors': [2]}, {'a': np.ones(2, 'f4')},
    )  # fmt: skip
    made = sanitize(model)
    assert [value.name for value in made.model.graph.output] == ['y', 'anchors']
    assert operators(made.model) == {'Mul': 1, 'Identity': 1}
    same(model, made.model, random_feeds(model))


def branches(condition: list[Any], inner: str) -> Any:
    """y = x + 1 if the condition holds, else x * 2 (`inner` hands x itself on)."""
    shape = [2]
    yes = helper.make_graph(
        [node(inner, ['x'] if inner == 'Identity' else ['x', 'one'], ['yes'])],
        'then', [], [helper.make_tensor_value_info('yes', FLOAT, shape)],
        [numpy_helper.from_array(np.ones(2, 'f4'), 'one')],
    )  # fmt: skip
    no = helper.make_graph(
        [node('Add', ['x', 'x'], ['no'])],
        'else', [], [helper.make_tensor_value_info('no', FLOAT, shape)],
    )  # fmt: skip
    return network(
        [*condition, node('If', ['c'], ['z'], then_branch=yes, else_branch=no),
         node('Neg', ['z'], ['y'])],
        {'x': shape, **({} if condition else {'c': (BOOL, [])})}, {'y': shape},
    )  # fmt: skip


@pytest.mark.parametrize('inner', ['Add', 'Identity'])
def test_a_branch_that_is_known_becomes_part_of_the_graph(inner: str) -> None:
    known = [
        node('Shape', ['x'], ['n']),
        node('Constant', [], ['two'], value_ints=[2]),
        node('Equal', ['n', 'two'], ['c']),
    ]
    model = branches(known, inner)
    made = sanitize(model)
    assert 'If' not in operators(made.model)
    same(model, made.model, random_feeds(model))


def test_a_branch_that_only_names_an_outer_tensor_survives() -> None:
    model = branches([node('Constant', [], ['c'], value=numpy_helper.from_array(np.array(True)))],
                     'Add')  # fmt: skip
    then = next(item.g for item in model.graph.node[1].attribute if item.name == 'then_branch')
    del then.node[:]
    then.initializer[0].name = 'yes'
    made = sanitize(model)
    feeds = {'x': np.array([3.0, -4.0], np.float32)}
    np.testing.assert_array_equal(run_onnx(made.model, feeds)['y'], [-1.0, -1.0])


def test_control_flow_that_depends_on_an_input_stays_and_is_told() -> None:
    model = branches([], 'Add')
    made = sanitize(model)
    assert operators(made.model)['If'] == 1
    assert 'control flow stays' in made.report.notes[0]
    for value in (True, False):
        same(model, made.model, {'x': np.ones(2, 'f4'), 'c': np.array(value)})


def test_functions_of_the_model_are_inlined() -> None:
    double = helper.make_function(
        'own', 'Double', ['a'], ['b'], [node('Add', ['a', 'a'], ['b'])],
        [helper.make_opsetid('', 17)],
    )  # fmt: skip
    model = network(
        [node('Double', ['x'], ['z'], domain='own'), node('Relu', ['z'], ['y'])],
        {'x': [2]}, {'y': [2]}, domains=('own',),
    )  # fmt: skip
    model.functions.append(double)
    made = sanitize(model)
    assert operators(made.model) == {'Add': 1, 'Relu': 1}
    assert made.report.functions == 1
    assert [item.domain for item in made.model.opset_import] == ['']
    same(model, made.model, random_feeds(model))


@pytest.mark.parametrize('domain', ['plugins', ''])
def test_operators_of_others_are_left_alone(domain: str) -> None:
    """TensorRT's plugins stand in the standard domain in many files."""
    model = network(
        [
            node('Constant', [], ['k'], value_floats=[1.0, 2.0]),  # float64 in GraphSurgeon
            node('Decode_TRT', ['k'], ['anchors'], domain=domain),
            node('Mul', ['k', 'k'], ['kk']),
            node('Add', ['x', 'kk'], ['z']),
            node('NMS_TRT', ['z', 'anchors'], ['y'], domain=domain),
        ],
        {'x': [2]}, {'y': [2]}, domains=(domain,) if domain else (),
    )  # fmt: skip
    made = sanitize(model)
    assert operators(made.model) == {'Decode_TRT': 1, 'Add': 1, 'NMS_TRT': 1}
    assert made.report.agreement is None
    kinds = {one.data_type for one in made.model.graph.initializer}
    assert kinds == {FLOAT}
    assert f'operator {domain or "ai.onnx"}::Decode_TRT is not one of ONNX' in made.report.notes[0]


def test_nodes_out_of_order_are_put_in_order() -> None:
    model = network(
        [node('Relu', ['z'], ['y']), node('Neg', ['x'], ['z'])], {'x': [2]}, {'y': [2]}
    )
    made = sanitize(model)
    assert [one.op_type for one in made.model.graph.node] == ['Neg', 'Relu']
    onnx.checker.check_model(made.model)


def test_what_the_file_says_of_itself_stays() -> None:
    model = constants()
    model.producer_name, model.doc_string, model.model_version = 'me', 'cars', 7
    helper.set_model_props(model, {'stride': '32'})
    made = sanitize(model).model
    assert (made.producer_name, made.doc_string, made.model_version) == ('me', 'cars', 7)
    assert {item.key: item.value for item in made.metadata_props} == {'stride': '32'}
    assert made.ir_version == 8


def test_a_fold_that_changes_the_outputs_writes_nothing(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from airside_perception.deploy import sanitize as module

    def wrong(model: Any, limit: int, flatten: bool = True) -> Any:
        index = [one.name for one in model.graph.initializer].index('w')
        value = numpy_helper.to_array(model.graph.initializer[index]) * (1 + 1e-5)
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(value.astype('f4'), 'w'))
        return model

    monkeypatch.setattr(module, 'fold_constants', wrong)
    with pytest.raises(RefusalError, match='would change beyond 1e-06 of their largest value'):
        sanitize(constants())
    sanitize(constants(), Settings(tolerance=1e-4))
    source, target = tmp_path / 'net.onnx', tmp_path / 'clean.onnx'
    onnx.save(constants(), str(source))
    target.write_text('what was there')
    assert engine('sanitize', source, '--out', target) == 1
    assert capsys.readouterr().err.count('\n') == 1
    assert target.read_text() == 'what was there'


def test_weights_in_a_file_beside_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = constants()
    source, target = tmp_path / 'net.onnx', tmp_path / 'out' / 'clean.onnx'
    onnx.save(
        constants(), str(source), save_as_external_data=True, location='net.bin', size_threshold=0
    )
    feeds = random_feeds(model)
    expected = run_onnx(model, feeds)['y']
    words = ('sanitize', source, '--out', target, '--json')
    assert engine(*words, '--external-data', 'clean.bin') == 0
    table = json.loads(capsys.readouterr().out)
    assert table['files'] == [str(target), str(target.with_name('clean.bin'))]
    assert target.with_name('clean.bin').stat().st_size >= 4 << 20
    assert target.with_name('clean.bin').stat().st_mode == target.stat().st_mode
    assert target.stat().st_size < 10_000
    np.testing.assert_allclose(run_onnx(target, feeds)['y'], expected, rtol=1e-6)
    assert engine(*words) == 0
    assert json.loads(capsys.readouterr().out)['files'] == [str(target)]
    np.testing.assert_allclose(run_onnx(target, feeds)['y'], expected, rtol=1e-6)
    assert sorted(path.name for path in target.parent.iterdir()) == ['clean.bin', 'clean.onnx']


def test_more_than_protobuf_takes(tmp_path: Path, monkeypatch: Any) -> None:
    """The limit is lowered: nobody has 2 GB to spare for a test."""
    monkeypatch.setattr(external, 'LIMIT', 1 << 20)
    monkeypatch.setattr(outputs, 'LIMIT', 1 << 20)
    source, target = tmp_path / 'net.onnx', tmp_path / 'clean.onnx'
    onnx.save(constants(), str(source))
    _, files = sanitize_file(source, target)
    assert files == [target, tmp_path / 'clean.onnx.data']
    feeds = random_feeds(constants())
    np.testing.assert_allclose(
        run_onnx(target, feeds)['y'], run_onnx(source, feeds)['y'], rtol=1e-6
    )
    with pytest.raises(ConfigError, match='do not fit into one ONNX file'):
        external.write(sanitize(constants()).model, target, 'inline')


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: Any) -> None:
    source, target = tmp_path / 'net.onnx', tmp_path / 'clean.onnx'
    onnx.save(constants(), str(source))
    target.write_text('what was there')

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(onnx, 'save', full)
    monkeypatch.setattr(Path, 'write_bytes', full)
    for choice in ('auto', 'weights.bin'):
        with pytest.raises(EngineError, match='cannot be written: No space left on device'):
            sanitize_file(source, target, external_data=choice)
    assert target.read_text() == 'what was there'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['clean.onnx', 'net.onnx']


def test_its_card_goes_along(tmp_path: Path, tiny_models: Any) -> None:
    import hashlib

    source = tiny_models.tiny_camera_model(tmp_path)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    card = source.with_suffix('.yaml')
    card.write_text(f'# by hand\nsha256: {digest}\n{card.read_text()}')
    target = tmp_path / 'clean' / 'net.onnx'
    _, files = sanitize_file(source, target)
    assert files == [target, target.with_suffix('.yaml')]
    written = load_card(target.with_suffix('.yaml'))
    assert written.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert target.with_suffix('.yaml').read_text().startswith('# by hand')
    sanitize_file(source, source)  # in place
    assert load_card(card).sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    card.write_text(card.read_text().replace('sha256: ', 'sha256: 0'[:-1] + 'f'))
    made, files = sanitize_file(source, target)
    assert files == [target]
    assert 'its card stays behind' in made.report.notes[-1]


def test_report_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, report = (tmp_path / name for name in ('a.onnx', 'b.onnx', 'b.json'))
    onnx.save(flattening(), str(source))
    words = ('sanitize', source, '--out', target, '--report', report)
    assert engine(*words, '--shape', 'x:4x?x3', '--size', 'batch=4') == 2
    assert "size of 'batch': no such dimension; those that vary: none" in capsys.readouterr().err
    assert engine(*words, '--shape', 'x:4x?x3') == 0
    text = capsys.readouterr().out
    assert 'nodes       8 -> 1, opset 17 (folded 7' in text
    table = json.loads(report.read_text())
    assert table['operators']['Reshape'] == {'before': 1, 'after': 1}
    assert table['operators']['Constant'] == {'before': 3, 'after': 0}
    assert table['nodes'] == {'before': 8, 'after': 1}
    assert table['compared']['outputs']['y']['max_abs'] == 0.0
    assert engine(*words, '--size', 'batch=4,6') == 0
    assert 'batch=6' in capsys.readouterr().out


def test_input_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / 'out.onnx'
    whole = tmp_path / 'net.onnx'
    onnx.save(constants(), str(whole))

    def bad(data: Any, *words: Any) -> str:
        path = tmp_path / 'bad.onnx'
        path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return refused(capsys, path, '--out', target, *words)

    assert 'no such network' in refused(capsys, tmp_path / 'none.onnx', '--out', target)
    assert 'no such network' in refused(capsys, tmp_path, '--out', target)
    assert 'not a readable ONNX file' in bad(b'<html>not a network</html>')
    assert 'not an ONNX network: it has no outputs' in bad(b'')
    assert 'not a readable ONNX file' in bad(whole.read_bytes()[:1000])
    newer = constants()
    newer.opset_import[0].version = 99
    assert 'opset 99 is newer than onnx' in bad(newer)
    none = constants()
    del none.opset_import[:]
    assert 'does not say its opset' in bad(none)
    rank = constants()
    rank.graph.input[0].type.tensor_type.ClearField('shape')
    assert "input 'x' has no shape: its rank is not known" in bad(rank)
    assert engine('sanitize', tmp_path / 'bad.onnx', '--out', tmp_path / 'ranked.onnx',
                  '--shape', 'x:1024x1024') == 0  # fmt: skip
    capsys.readouterr()
    contradiction = network([node('Add', ['x', 'w'], ['y'])], {'x': [2]}, {'y': None},
                            {'w': np.ones(3, 'f4')})  # fmt: skip
    assert 'bad.onnx: ' in bad(contradiction)
    cycle = network([node('Add', ['x', 'y'], ['z']), node('Neg', ['z'], ['y'])],
                    {'x': [2]}, {'y': [2]})  # fmt: skip
    assert 'engine: ' in bad(cycle)
    missing = network([node('Add', ['x', 'nowhere'], ['y'])], {'x': [2]}, {'y': [2]})
    assert 'nowhere' in bad(missing)
    for words in (
        ('--size-limit', '0'), ('--size-limit', 'nan'), ('--tolerance', '-1'),
        ('--shape', 'x'), ('--shape', 'x:1x0'), ('--size', 'batch'),
        ('--external-data', '../weights'), ('--external-data', 'out.onnx'),
    ):  # fmt: skip
        assert words[1].split(':')[0].lstrip('-') in refused(
            capsys, whole, '--out', target, *words
        )
    assert not target.exists()


def test_weights_that_are_missing_or_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / 'net.onnx'
    onnx.save(
        constants(), str(source), save_as_external_data=True, location='w.bin', size_threshold=0
    )
    weights = tmp_path / 'w.bin'
    weights.write_bytes(weights.read_bytes()[:100])
    line = refused(capsys, source, '--out', tmp_path / 'out.onnx')
    assert "100 bytes, but weight 'w'" in line or 'it is cut off' in line
    weights.unlink()
    line = refused(capsys, source, '--out', tmp_path / 'out.onnx')
    assert "its weights lie in 'w.bin', which is not beside it" in line


@pytest.mark.parametrize('name', ['apron_yolox', 'apron_centerpoint', 'apron_pointpillars'])
def test_the_models_of_the_package(name: str, repository: Path, tmp_path: Path) -> None:
    source = repository / 'models' / f'{name}.onnx'
    made, files = sanitize_file(source, tmp_path / f'{name}.onnx')
    before, after = onnx.load(str(source)), onnx.load(str(files[0]))
    stored = operators(before).pop('Constant', 0)
    assert len(after.graph.node) == len(before.graph.node) - stored
    assert made.report.count == (len(before.graph.node), len(after.graph.node))
    feeds = random_feeds(before, seed=100)
    expected, found = run_onnx(before, feeds), run_onnx(after, feeds)
    for output, value in expected.items():
        assert difference(value, found[output]).within(1e-5)  # as ONNX Runtime fuses them
    onnx.checker.check_model(str(files[0]), full_check=True)
    assert load_card(files[1]).name == name


def test_yolox_nano(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / 'yolox_nano' / 'yolox_nano.onnx'
    made, files = sanitize_file(source, tmp_path / 'nano.onnx')
    before, after = onnx.load(str(source)), onnx.load(str(files[0]))
    assert operators(after) == {
        name: count for name, count in operators(before).items() if name != 'Constant'
    }
    assert made.report.agreement.differences['output'].max_rel <= 1e-6
    images = random_feeds(before, seed=7)
    images = {name: (value * 50 + 114).clip(0, 255) for name, value in images.items()}
    plain = run_onnx(before, images, optimise=False)['output']
    assert difference(plain, run_onnx(after, images, optimise=False)['output']).within(1e-6)

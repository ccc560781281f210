"""`engine lint`: verdicts of whole networks, placement, FLOPs, report and exit status."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.deploy import __main__ as command
from airside_perception.deploy.lint import Lint, lint, node_names
from airside_perception.deploy.lint.network import Network
from airside_perception.deploy.lint.placement import groups
from airside_perception.errors import EngineError


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


made = _load('lint_networks')
NCHW = made.NCHW


def illegal(found: Lint) -> dict[str, tuple[str, str]]:
    return {v.name: (v.rule, v.value) for v in found.illegal}


# ---------------------------------------------------------------- whole networks


def read_by_hand(model: onnx.ModelProto) -> dict[str, str]:
    """What DLA cannot do in a network of these operators, by the limits themselves."""
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    found = {}
    for node in graph.node:
        get = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        tensors = [shapes[n] for n in (*node.input, *node.output) if n in shapes]
        reasons = []
        if any(size > 8192 for shape in tensors for size in shape[1:]):
            reasons.append('dimension beyond 8192')
        if node.op_type == 'Slice' and constants[node.input[4]].tolist() != [1]:
            reasons.append('step')
        if node.op_type in ('MaxPool', 'Conv'):
            most, step, pad = {'MaxPool': (8, 16, 7), 'Conv': (32, 8, 31)}[node.op_type]
            if max(get['kernel_shape']) > most:
                reasons.append('window')
            if max(get['strides']) > step or max(get['pads']) > pad:
                reasons.append('stride or padding')
        if node.op_type == 'Concat' and (get['axis'] != 1 or len(tensors[0]) != 4):
            reasons.append('axis')
        if node.op_type == 'Transpose' and (len(tensors[0]) != 4 or get['perm'][0]):
            reasons.append('layout')
        if node.op_type == 'Reshape' and (
            len(shapes[node.input[0]]) != 4
            or shapes[node.input[0]][0] != shapes[node.output[0]][0]
        ):
            reasons.append('layout')
        if node.op_type == 'Resize':
            scales = constants[node.input[2]].tolist()
            if scales[:2] != [1, 1] or any(s != int(s) or s > 32 for s in scales):
                reasons.append('scale')
            if get['coordinate_transformation_mode'] != b'asymmetric' or (
                get['nearest_mode'] != b'floor'
            ):
                reasons.append('rounding')
        if node.op_type in ('Sigmoid', 'Mul', 'Add') and any(len(s) != 4 for s in tensors):
            reasons.append('rank')
        if reasons:
            found[node.name] = ', '.join(reasons)
    return found


def test_yolox_nano_on_dla(shared_data: Path) -> None:
    model = onnx.load(str(shared_data / 'yolox_nano' / 'yolox_nano.onnx'))
    expected = read_by_hand(model)
    assert expected == {
        # Focus: every second row and column, four times; DLA slices with step 1 only
        'Slice_4': 'step', 'Slice_9': 'step', 'Slice_14': 'step', 'Slice_19': 'step',
        'Slice_24': 'step', 'Slice_29': 'step', 'Slice_34': 'step', 'Slice_39': 'step',
        # spatial pyramid pooling: windows up to 8 (the 5 x 5 pool runs)
        'MaxPool_172': 'window', 'MaxPool_173': 'window',
        # the cells of the three strides as one list of rows: three dimensions, along axis 2
        'Concat_422': 'axis',
        # rows first: three dimensions
        'Transpose_423': 'layout',
    }  # fmt: skip
    found = lint(model, 'dla', '6.2')
    assert set(illegal(found)) == set(expected)
    assert illegal(found)['MaxPool_173'] == ('pool-window', '13 x 13')
    assert illegal(found)['Slice_4'] == ('slice-step', '2')
    # 4 dimensions to 3: the documentation speaks of inputs only
    assert [v.name for v in found.conditional] == ['Reshape_405', 'Reshape_413', 'Reshape_421']
    assert len(found.layers) == len(found.verdicts) == 369
    assert found.layer_share == pytest.approx(357 / 369)
    assert found.certain_layer_share == pytest.approx(354 / 369)
    assert found.flops == pytest.approx(1.08e9, rel=0.02)  # YOLOX's own table, 416 x 416
    assert 0.99 < found.flop_share < 1


def test_what_crosses_in_yolox_nano(shared_data: Path) -> None:
    model = onnx.load(str(shared_data / 'yolox_nano' / 'yolox_nano.onnx'))
    found = lint(model, 'dla', '6.2')
    focus, pool = 4 * (3 * 208 * 208), 3 * (128 * 13 * 13)  # four quarters; one in, two out
    rows = 85 * (52 * 52 + 26 * 26 + 13 * 13)
    assert found.transfers == 4 + 3 + 3
    assert found.transfer_bytes == 2 * (focus + pool + rows)
    assert found.subgraphs == 2  # before the pools that fall back, and after them
    eight = lint(model, 'dla', '6.2', precision='int8')
    assert eight.transfer_bytes == focus + pool + rows
    assert set(illegal(eight)) == set(illegal(found))


def test_the_projects_networks_on_dla(repository: Path) -> None:
    for name in ('apron_yolox', 'apron_centerpoint', 'apron_pointpillars'):
        found = lint(onnx.load(str(repository / 'models' / f'{name}.onnx')), 'dla', '6.2')
        assert found.good, illegal(found)
        assert found.layer_share == found.flop_share == 1.0
        assert (found.subgraphs, found.transfers) == (1, 0)
        # the camera's cells are listed as rows on four axes: a core may move them or not
        assert bool(found.conditional) == (name == 'apron_yolox')
        assert all('eshape' in verdict.name for verdict in found.conditional)
        assert (found.certain_layer_share == 1.0) == (name != 'apron_yolox')


@pytest.mark.parametrize('jetpack', ['5.1', '6.0', '6.2', '7.2', '7.2.2'])
def test_the_projects_networks_on_the_gpu(jetpack: str, repository: Path) -> None:
    for name in ('apron_yolox', 'apron_centerpoint', 'apron_pointpillars'):
        found = lint(onnx.load(str(repository / 'models' / f'{name}.onnx')), 'gpu', jetpack)
        assert found.good
        assert found.layer_share == 1.0
        assert found.subgraphs == found.transfers == 0


def test_an_opset_too_new_is_a_finding() -> None:
    model = made.one('Relu', NCHW, opset=18)
    assert illegal(lint(model, 'dla', '6.0')) == {'(network)': ('opset', '18')}
    assert lint(model, 'dla', '6.2').good
    unheard_of = made.one('Relu', NCHW, opset=30)
    assert illegal(lint(unheard_of, 'gpu', '7.2.2')) == {'(network)': ('opset', '30')}


def test_a_missing_value_is_conditional() -> None:
    shape = {'x': NCHW, 'scales': [4]}
    node = helper.make_node('Resize', ['x', '', 'scales'], ['y'], name='up')
    found = lint(made.network([node], shape, {'y': (*NCHW[:2], 'H', 'W')}), 'dla', '6.2')
    (verdict,) = found.verdicts
    assert verdict.rule == 'static-shape'
    also = {finding.rule: finding for finding in verdict.also}
    assert also['resize-integer'].verdict == 'conditional'
    assert also['resize-integer'].value.startswith('not known: ')


# ---------------------------------------------------------------- constants, names, batch


def flattening(batch: Any) -> onnx.ModelProto:
    """x.view(x.size(0), -1, 1, 1) as PyTorch exports it, an Identity and an unnamed Relu."""
    nodes = [
        helper.make_node('Shape', ['x'], ['s']),
        helper.make_node('Gather', ['s', 'zero'], ['n'], axis=0),
        helper.make_node('Concat', ['n', 'rest'], ['to'], axis=0),
        helper.make_node('Identity', ['x'], ['i']),
        helper.make_node('Relu', ['i'], ['r']),
        helper.make_node('Reshape', ['r', 'to'], ['y'], name='view'),
    ]
    constants = {'zero': np.int64([0]), 'rest': np.int64([-1, 1, 1])}
    return made.network(nodes, {'x': (batch, 8, 4, 4)}, {'y': None}, constants)


def test_shape_arithmetic_is_no_layer() -> None:
    found = lint(flattening(1), 'dla', '6.2')
    assert [v.name for v in found.verdicts] == [
        'Shape_0', 'Gather_1', 'Concat_2', 'Identity_3', 'Relu_4', 'view',
    ]  # fmt: skip
    assert [v.name for v in found.layers] == ['Relu_4', 'view']
    assert found.good
    assert found.flops == 8 * 4 * 4  # of the Relu


@pytest.mark.parametrize('batch', [1, 3])
def test_a_free_batch_becomes_a_number(batch: int) -> None:
    found = lint(flattening('N'), 'dla', '6.2', batch)
    assert found.good
    assert [v.rule for v in found.network] == ['free-batch']
    assert found.flops == batch * 8 * 4 * 4


def test_a_fixed_batch_becomes_another() -> None:
    assert lint(made.conv(), 'dla', '6.2', 4).flops == 4 * lint(made.conv(), 'dla', '6.2').flops
    with pytest.raises(EngineError, match=r'input .x. is made for batch 1, not 4: .*Add'):
        lint(made.network(
            [helper.make_node('Add', ['x', 'c'], ['y'])], {'x': (1, 2, 4, 4)}, {'y': None},
            {'c': np.ones((3, 2, 4, 4), np.float32)},
        ), 'dla', '6.2', 4)  # fmt: skip
    with pytest.raises(EngineError, match='batch = 0: expected 1 or more'):
        lint(made.conv(), 'dla', '6.2', 0)


def test_names_are_unique() -> None:
    nodes = [helper.make_node('Relu', [f't{n}'], [f't{n + 1}'], name='same') for n in range(3)]
    nodes[1].name = ''
    model = made.network(nodes, {'t0': NCHW}, {'t3': None})
    assert node_names(model.graph) == ['same', 'Relu_1', 'same_2']
    assert [v.name for v in lint(model, 'dla', '6.2').verdicts] == ['same', 'Relu_1', 'same_2']


def test_functions_of_the_model_are_looked_into() -> None:
    body = helper.make_function(
        'own', 'SiLU', ['x'], ['y'],
        [helper.make_node('Sigmoid', ['x'], ['s']), helper.make_node('Mul', ['x', 's'], ['y'])],
        [helper.make_opsetid('', 13)],
    )  # fmt: skip
    model = made.one('SiLU', NCHW, domain='own')
    model.functions.append(body)
    found = lint(model, 'dla', '6.2')
    assert [v.op_type for v in found.verdicts] == ['Sigmoid', 'Mul']
    assert found.good


def test_a_dynamic_rank_is_bad_input() -> None:
    model = made.one('Relu', NCHW)
    model.graph.input[0].type.tensor_type.ClearField('shape')
    with pytest.raises(EngineError, match=r"input 'x0' has no rank; TensorRT needs one"):
        lint(model, 'gpu', '6.2')
    model = made.network(
        [helper.make_node('Reshape', ['x', 'to'], ['a']), helper.make_node('Relu', ['a'], ['y'])],
        {'x': NCHW, 'to': ['n']}, {'y': None}, types={'to': TensorProto.INT64},
    )  # fmt: skip
    with pytest.raises(EngineError, match=r"node 'Reshape_0' \(Reshape\): the rank of 'a'"):
        lint(model, 'gpu', '6.2')


# ---------------------------------------------------------------- placement


def graph_of(edges: Sequence[tuple[int, int]], count: int) -> Network:
    """Sums that read what the edges say; those without a predecessor read the input."""
    nodes = []
    for at in range(count):
        reads = [f't{a}' for a, b in edges if b == at] or ['x']
        nodes.append(helper.make_node('Sum', reads, [f't{at}'], name=str(at)))
    ends = {f't{at}': None for at in range(count) if not any(a == at for a, _ in edges)}
    return Network(made.network(nodes, {'x': (1, 1, 2, 2)}, ends))


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    for parts in partitions(items[1:]):
        yield [[items[0]], *parts]
        for at, part in enumerate(parts):
            yield [*parts[:at], [items[0], *part], *parts[at + 1 :]]


def is_valid(parts: list[list[int]], edges: Sequence[tuple[int, int]], count: int) -> bool:
    """Every part connected, and some order in which parts and single nodes can run."""
    home = {node: ('part', at) for at, part in enumerate(parts) for node in part}
    home |= {node: ('node', node) for node in range(count) if node not in home}
    for part in parts:
        reached = {part[0]}
        while True:
            more = {b if a in reached else a for a, b in edges
                    if {a, b} <= set(part) and len({a, b} & reached) == 1}  # fmt: skip
            if not more:
                break
            reached |= more
        if reached != set(part):
            return False
    links = {(home[a], home[b]) for a, b in edges if home[a] != home[b]}
    left = set(home.values())
    while left:
        free = {x for x in left if not any(b == x and a in left for a, b in links)}
        if not free:
            return False
        left -= free
    return True


def smallest(edges: Sequence[tuple[int, int]], dla: list[int], count: int) -> int:
    return min(len(p) for p in partitions(dla) if is_valid(p, edges, count))


HAND_MADE = {
    'a chain': ([(0, 1), (1, 2), (2, 3)], [0, 1, 2, 3]),
    'a chain with a gap': ([(0, 1), (1, 2), (2, 3)], [0, 1, 3]),
    'around one on the GPU': ([(0, 1), (1, 3), (0, 2), (2, 3)], [0, 1, 3]),
    'a skip over the GPU': ([(0, 1), (1, 2), (0, 2), (2, 3)], [0, 2, 3]),
    'two gaps side by side': ([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)], [0, 3, 4]),
    'apart': ([(0, 1), (2, 3)], [0, 1, 2, 3]),
    'nothing': ([(0, 1)], []),
    'pyramid': (
        [(0, 1), (1, 2), (2, 3), (1, 4), (3, 4), (0, 5), (4, 5), (5, 6)], [0, 1, 2, 4, 5, 6]
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', HAND_MADE)
def test_subgraphs_are_as_few_as_possible(name: str) -> None:
    edges, dla = HAND_MADE[name]
    count = 1 + max(itertools.chain(*edges))
    found = groups(graph_of(edges, count), {str(at) for at in dla})
    parts = [[int(node) for node in part] for part in found]
    assert sorted(itertools.chain(*parts)) == dla
    assert is_valid(parts, edges, count) or not parts
    assert len(parts) == smallest(edges, dla, count)


def test_subgraphs_of_random_graphs() -> None:
    """Valid always; the number is not proven to be the smallest, and mostly is."""
    chance = random.Random(3)
    more = 0
    for _ in range(60):
        count = 8
        edges = [(a, b) for b in range(count) for a in range(b) if chance.random() < 0.3]
        dla = sorted(chance.sample(range(count), 6))
        found = groups(graph_of(edges, count), {str(at) for at in dla})
        parts = [[int(node) for node in part] for part in found]
        assert sorted(itertools.chain(*parts)) == dla
        assert is_valid(parts, edges, count)
        more += len(parts) - smallest(edges, dla, count)
    assert more <= 6


# ---------------------------------------------------------------- FLOPs


def counted(model: onnx.ModelProto) -> int:
    (verdict,) = lint(model, 'gpu', '6.2').verdicts
    return verdict.flops


def test_flops_of_a_convolution() -> None:
    """Counted in the loops that compute it."""
    model = made.conv((3, 2), cin=4, cout=6, size=9, group=2, strides=[2, 1])
    operations = 0
    for _ in range(6):
        for _ in range((9 - 3) // 2 + 1):
            for _ in range((9 - 2) // 1 + 1):
                for _ in range(4 // 2):
                    for _ in range(3):
                        for _ in range(2):
                            operations += 2  # multiply and add
    assert counted(model) == operations


def test_flops_of_other_operators() -> None:
    spread = made.deconv((2, 3), cin=4, cout=5, size=6, strides=[2, 3])
    assert counted(spread) == 2 * (4 * 6 * 6) * (5 * 2 * 3)  # each input cell to each kernel cell
    product = made.one('MatMul', (2, 3, 4), constants=[made.weights(4, 5)])
    assert counted(product) == 2 * (2 * 3 * 5) * 4
    gemm = made.one('Gemm', (4, 3), constants=[made.weights(4, 5)], transA=1)
    assert counted(gemm) == 2 * (3 * 5) * 4
    assert counted(made.pool(3, size=5)) == 8 * 3 * 3 * 9
    assert counted(made.one('GlobalAveragePool', NCHW)) == 8 * 16 * 16
    assert counted(made.one('Relu', NCHW)) == 8 * 16 * 16
    assert counted(made.batch_norm(0)) == 2 * 8 * 16 * 16
    assert counted(made.resize([1, 1, 2, 2])) == 0
    assert counted(made.one('Transpose', NCHW)) == 0
    lstm = made.one(
        'LSTM', (5, 2, 3), constants=[made.weights(1, 16, 3), made.weights(1, 16, 4)],
        hidden_size=4,
    )  # fmt: skip
    assert counted(lstm) == 2 * 5 * 2 * (4 * 4 * (3 + 4))


# ---------------------------------------------------------------- the verb


def saved(folder: Path, model: onnx.ModelProto) -> str:
    path = folder / 'net.onnx'
    onnx.save(model, str(path))
    return str(path)


def call(*words: str) -> int:
    return command.main(['lint', *words])


def test_exit_status_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, made.pool(9))
    assert call(path, '--target', 'dla', '--jetpack', '6.2') == 1
    text = capsys.readouterr().out
    assert 'pool-window: kernel 1 to 8\n    node (9 x 9)\n    fix: cascaded pools' in text
    assert 'layers on DLA: 0.0 % of 1 (0.0 % for certain)' in text
    assert call(path, '--target', 'gpu', '--jetpack', '6.2') == 0
    assert 'falls back' not in capsys.readouterr().out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, made.alternating(2))
    assert call(path, '--target', 'dla', '--jetpack', '6.2', '--json') == 1
    table = json.loads(capsys.readouterr().out)
    assert (table['layers'], table['layer_share'], table['subgraphs']) == (4, 0.5, 2)
    assert table['transfer_bytes'] == 3 * 2 * 8 * 16 * 16
    assert [v['verdict'] for v in table['verdicts']] == ['runs', 'falls back'] * 2
    assert table['verdicts'][1]['fix']
    assert table['verdicts'][1]['source']


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ['--target', 'dla', '--jetpack', '6.2']
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(b'no network')
    apart = tmp_path / 'apart.onnx'
    onnx.save(
        made.conv(), str(apart), save_as_external_data=True, location='weights.bin',
        size_threshold=0,
    )  # fmt: skip
    (tmp_path / 'weights.bin').unlink()
    path = saved(tmp_path, made.conv())
    report = tmp_path / 'net.onnx' / 'report.html'
    for words, said in (
        (['none.onnx', *good], 'none.onnx: no such network'),
        ([str(broken), *good], 'not a readable ONNX file'),
        ([str(apart), *good], 'weights.bin'),
        ([path, '--target', 'dla', '--jetpack', '6.3'], "jetpack '6.3': there are rules for"),
        ([path, *good, '--batch', '-1'], 'batch = -1: expected 1 or more'),
        ([path, *good, '--html', str(report)], 'cannot be written'),
    ):
        assert call(*words) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.err.count('\n') == 1
        assert captured.out == ''


def test_no_dla_is_a_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(saved(tmp_path, made.conv()), '--target', 'dla', '--jetpack', '7.2.1') == 1
    assert 'JetPack 7.2.1 (TensorRT 10.16.2) has no DLA' in capsys.readouterr().err


def test_the_report_opens(
    tmp_path: Path, browser: ModuleType, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / 'lint.html'
    network = str(shared_data / 'yolox_nano' / 'yolox_nano.onnx')
    assert call(network, '--target', 'dla', '--jetpack', '6.2', '--html', str(report)) == 1
    assert f'report: {report}' in capsys.readouterr().out
    text = report.read_text(encoding='utf-8')
    assert '<svg' in text
    assert 'slice-step: 2' in text
    for name in ('Slice_39', 'MaxPool_172', 'Conv_41', 'Transpose_423'):
        assert name in text
    assert browser.open_page(report, tmp_path / 'lint.png', (1280, 4000)) == []


def test_a_report_of_any_network_is_drawn(tmp_path: Path) -> None:
    """Also without layers, with names that are markup, and with what is refused."""
    for number, model in enumerate(
        (flattening(1), made.one('Det', (1, 2, 2)), made.branches(), made.quantized())
    ):
        model.graph.node[0].name = '<b>&'
        report = tmp_path / f'{number}.html'
        call(saved(tmp_path, model), '--target', 'gpu', '--jetpack', '6.2', '--html', str(report))
        text = report.read_text(encoding='utf-8')
        assert '<svg' in text
        assert '<b>&' not in text

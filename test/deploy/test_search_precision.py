"""`engine search-precision`: sensitivity, greedy search, costs and the network that comes out."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import find_card
from airside_perception.deploy import __main__ as command
from airside_perception.deploy.outputs import run_onnx
from airside_perception.deploy.plots import Axis
from airside_perception.deploy.plots import number as at_axis
from airside_perception.deploy.search.costs import CostModel, Machine
from airside_perception.deploy.search.run import SearchRequest, search_precision, write_mixed
from airside_perception.deploy.search.shifts import add_shifts, own_shifts
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import has_qdq
from airside_perception.engine.qdq import insert_qdq, scales
from airside_perception.errors import ConfigError

CHANNELS, SIDE = 8, 12
NAMES = ('first', 'coarse', 'middle', 'head')


def network(folder: Path) -> Path:
    """Four 3x3 convolutions; the input of `coarse` is mostly small, with a few values of 100."""
    generator = np.random.default_rng(5)
    nodes, stored, tensor = [], [], 'x'
    for name in NAMES:
        weight = generator.normal(0, 0.12, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        if name == 'first':  # one channel is loud, and what reads it hardly looks at it
            weight[0] *= 100
        if name == 'coarse':
            weight[:, 0] /= 100
        bias = generator.normal(0, 0.1, CHANNELS).astype(np.float32)
        stored += [numpy_helper.from_array(weight, f'{name}_w')]
        stored += [numpy_helper.from_array(bias, f'{name}_b')]
        nodes.append(
            helper.make_node(
                'Conv', [tensor, f'{name}_w', f'{name}_b'], [f'{name}_c'], name, pads=[1] * 4
            )
        )
        nodes.append(helper.make_node('Relu', [f'{name}_c'], [f'{name}_r'], f'{name}_relu'))
        tensor = f'{name}_r'
    nodes.pop()
    nodes[-1].output[0] = 'y'
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info('x', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, shape)], stored,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
    model.ir_version = 8
    path = folder / 'net.onnx'
    onnx.save(model, str(path))
    return path


def feed(seed: int) -> dict[str, np.ndarray]:
    shape = (1, CHANNELS, SIDE, SIDE)
    return {'x': np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)}


def arrays(folder: Path, count: int = 4) -> Path:
    target = folder / 'frames'
    target.mkdir(exist_ok=True)
    for number in range(count):
        np.savez(target / f'{number}.npz', **feed(number))
    return target


def request(folder: Path, **changes: Any) -> SearchRequest:
    settings = {'frames': 2, 'calibration_frames': 4, 'method': 'minmax', 'correct': 0}
    return SearchRequest(network(folder), str(arrays(folder)), **{**settings, **changes})


def relative_error(model: Any, reference: Any, seeds: range) -> float:
    a = np.stack([run_onnx(reference, feed(n))['y'] for n in seeds]).astype(np.float64)
    b = np.stack([run_onnx(model, feed(n))['y'] for n in seeds]).astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def test_the_sensitive_node_is_found_and_left_out(tmp_path: Path) -> None:
    found = search_precision(request(tmp_path, budget=0.05)).search
    assert found.metric == 'output'
    assert found.nodes[0].node == 'coarse'
    assert {item.node for item in found.nodes} == set(NAMES)
    assert found.good
    assert 'coarse' not in found.chosen.int8
    assert set(found.chosen.int8) == {'first', 'middle', 'head'}
    assert found.finer == ('coarse',)
    errors = {item.node: item.score.error for item in found.nodes}
    assert errors['coarse'] > 3 * max(errors[name] for name in ('first', 'middle', 'head'))


def test_scores_are_those_of_the_network_with_qdq_there(tmp_path: Path) -> None:
    asked = request(tmp_path)
    found = search_precision(asked)
    model = onnx.load(str(asked.model))
    frames = range(0, 4, 2)  # two of four, evenly spaced
    for item in found.search.nodes:
        rest = [name for name in NAMES if name != item.node]
        variant = insert_qdq(model, found.scales, rest)
        assert item.score.error == pytest.approx(relative_error(variant, model, frames), rel=1e-3)
        assert math.isnan(item.score.drop)
    whole = next(point for point in found.search.points if point.kind == 'int8')
    expected = relative_error(insert_qdq(model, found.scales), model, frames)
    assert whole.score.error == pytest.approx(expected, rel=1e-3)


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    found = search_precision(request(tmp_path, budget=0.05)).search
    assert len(found.points) >= 6
    pairs = [(point.cost.milliseconds, point.score.error) for point in found.points]
    for point, (time, loss) in zip(found.points, pairs, strict=True):
        beaten = any(t <= time and e <= loss and (t, e) != (time, loss) for t, e in pairs)
        assert point.front == (not beaten)
        assert point.within == (loss <= 0.05)
    within = [point for point in found.points if point.within]
    assert found.chosen.cost.milliseconds == min(p.cost.milliseconds for p in within)
    assert [time for time, _ in pairs] == sorted((time for time, _ in pairs), reverse=True)


def test_no_budget_leaves_all_fp16_and_a_large_one_nothing(tmp_path: Path) -> None:
    nothing = search_precision(request(tmp_path, budget=0.0))
    assert nothing.search.chosen.int8 == ()
    assert not nothing.search.good
    assert not has_qdq(nothing.search.model)
    everything = search_precision(request(tmp_path, budget=10.0)).search
    assert set(everything.chosen.int8) == set(NAMES)
    assert everything.chosen.cost.share == 1.0


def test_where_the_fastest_does_not_keep_to_the_budget_the_next_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are written, networks with three nodes and more in INT8 lose too much here."""
    from airside_perception.deploy.search import search as module

    finished = module._finished

    def worse(evaluator: Any, int8: tuple[str, ...], metric: str) -> tuple[Any, module.Score]:
        model, score = finished(evaluator, int8, metric)
        return model, module.Score(score.error + 0.5 * (len(int8) >= 3), score.drop)

    monkeypatch.setattr(module, '_finished', worse)
    found = search_precision(request(tmp_path, budget=0.05)).search
    assert found.good
    faster = [p for p in found.points if p.cost.milliseconds < found.chosen.cost.milliseconds]
    assert 1 <= len(found.chosen.int8) <= 2
    assert all(len(point.int8) >= 3 for point in faster if point.within)
    assert 1 <= found.in_vain <= len(faster)


def test_costs_by_hand(tmp_path: Path) -> None:
    """Time of a node = operations / rate + bytes / bandwidth."""
    model = onnx.load(str(network(tmp_path)))
    machine = Machine('made up', fp16=1e9, int8=4e9, bandwidth=1e9)
    costs = CostModel(model, NAMES, machine)
    operations = 2 * CHANNELS * CHANNELS * 9 * SIDE * SIDE
    assert costs.operations == dict.fromkeys(NAMES, operations)
    weights, values = CHANNELS * CHANNELS * 9 + CHANNELS, CHANNELS * SIDE * SIDE
    plain = costs.cost(())
    assert plain.share == 0.0
    assert plain.weight_bytes == 4 * 2 * weights
    seconds = 4 * (operations / 1e9 + 2 * (weights + 2 * values) / 1e9)
    assert plain.milliseconds == pytest.approx(1e3 * seconds)
    # one in INT8: its weights and its input have a byte each; so has what the first puts out
    some = costs.cost(('coarse',))
    assert some.share == 0.25
    assert some.weight_bytes == 4 * 2 * weights - weights
    saved = operations / 1e9 - operations / 4e9 + (weights + 2 * values) / 1e9
    assert plain.milliseconds - some.milliseconds == pytest.approx(1e3 * saved)
    # the output of the network stays in fp16
    every = costs.cost(NAMES)
    seconds = 4 * (operations / 4e9 + (weights + 2 * values) / 1e9) + values / 1e9
    assert every.milliseconds == pytest.approx(1e3 * seconds)


def test_biases_take_up_the_shift_of_means(tmp_path: Path) -> None:
    model = onnx.load(str(network(tmp_path)))
    known = {'x': 0.05, 'first_r': 3.0, 'coarse_r': 0.1, 'middle_r': 0.1}  # too coarse
    frames = [feed(n) for n in range(3)]
    shifts = own_shifts(model, known, NAMES, frames)
    assert set(shifts) == set(NAMES)
    for name in NAMES:
        rest = [other for other in NAMES if other != name]
        tensor = 'y' if name == 'head' else f'{name}_c'
        quantized = insert_qdq(model, known, rest)
        wanted, before, after = (
            np.mean(
                [run_onnx(m, f, [tensor])[tensor].mean(axis=(0, 2, 3)) for f in frames], axis=0
            )
            for m in (model, quantized, add_shifts(quantized, shifts, [name]))
        )
        assert shifts[name] == pytest.approx(wanted - before, abs=1e-5)
        assert after == pytest.approx(wanted, abs=1e-4)
    # what is not INT8 keeps its bias
    plain = add_shifts(model, shifts, [])
    assert run_onnx(plain, feed(0))['y'] == pytest.approx(run_onnx(model, feed(0))['y'])


def test_the_network_that_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data = network(tmp_path), arrays(tmp_path)
    out, table, report = (tmp_path / name for name in ('mixed.onnx', 'points.csv', 'search.html'))
    words = ('search-precision', path, '--data', data, '--frames', 2, '--method', 'minmax',
             '--calibration-frames', 4, '--budget', 0.05, '--correct', 2, '--out', out,
             '--table', table, '--html', report, '--json')  # fmt: skip
    assert command.main(list(map(str, words))) == 0
    said, err = capsys.readouterr()
    answer = json.loads(said)
    assert err == ''
    mixed = onnx.load(str(out))
    onnx.checker.check_model(mixed, full_check=True)
    nodes = {node.name: node for node in mixed.graph.node}
    quantized = {name for name in NAMES if nodes[name].input[0].endswith('_dequantized')}
    assert quantized == set(answer['chosen']['int8_nodes'])
    assert answer['build_options'] == [f'--layer-precision {n}:fp16' for n in answer['fp16_nodes']]
    assert relative_error(mixed, onnx.load(str(path)), range(0, 4, 2)) < 0.05
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == len(answer['points']) >= 6
    assert [row['chosen'] for row in rows].count('True') == 1
    assert '<svg class="plot"' in report.read_text(encoding='utf-8')


def test_scales_of_a_file_are_used_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data, out = network(tmp_path), arrays(tmp_path), tmp_path / 'mixed.onnx'
    known = {'x': 1 / 127, 'first_r': 0.5, 'coarse_r': 0.02, 'middle_r': 0.02}
    (tmp_path / 'scales.json').write_text(json.dumps(known))
    words = ('search-precision', path, '--data', data, '--frames', 1, '--budget', 10,
             '--scales', tmp_path / 'scales.json', '--out', out)  # fmt: skip
    assert command.main(list(map(str, words))) == 0
    assert scales(onnx.load(str(out))) == {k: pytest.approx(v) for k, v in known.items()}
    assert 'all INT8' in capsys.readouterr().out


def test_an_interrupted_search_goes_on(tmp_path: Path) -> None:
    from airside_perception.deploy.search import evaluate

    store = tmp_path / 'scores.json'
    runs = 0
    measure = evaluate.Evaluator.measure

    def counted(self: Any, model: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs == 4:
            raise KeyboardInterrupt
        return measure(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.Evaluator, 'measure', counted)
        with pytest.raises(KeyboardInterrupt):
            search_precision(request(tmp_path, store=str(store)))
    kept = json.loads(store.read_text())['scores']
    assert len(kept) == 3
    again = search_precision(request(tmp_path, store=str(store)))
    assert again.search.points == search_precision(request(tmp_path)).search.points
    with pytest.raises(ConfigError, match='scores of another network, other scales or other'):
        search_precision(request(tmp_path, store=str(store), frames=1))
    store.write_text('{"context": 3}')
    with pytest.raises(ConfigError, match='no scores of an earlier search'):
        search_precision(request(tmp_path, store=str(store)))


# With a detector


def camera(folder: Path, tiny_models: ModuleType) -> tuple[Path, Path]:
    data = folder / 'images'
    data.mkdir(exist_ok=True)
    generator = np.random.default_rng(1)
    for number in range(4):
        grid = generator.integers(0, 256, (2, 3)).astype(np.uint8)
        image = np.repeat(np.repeat(grid, 32, 0), 32, 1)[..., None].repeat(3, 2)
        cv2.imwrite(str(data / f'{number}.png'), image)
    return tiny_models.tiny_camera_model(folder), data


def test_boxes_decide(tmp_path: Path, tiny_models: ModuleType) -> None:
    path, data = camera(tmp_path, tiny_models)
    good = search_precision(SearchRequest(path, str(data), correct=0, scales={'mean': 255 / 127}))
    assert good.search.metric == 'boxes'
    assert good.search.chosen.int8 == ('Conv_1',)
    assert good.search.chosen.score.drop == 0.0
    # scores end at an eighth: nothing reaches its threshold
    bad = search_precision(SearchRequest(path, str(data), correct=0, scales={'mean': 32 / 127}))
    assert bad.search.nodes[0].score.drop == 1.0
    assert bad.search.chosen.int8 == ()
    assert not bad.search.good


def test_the_card_goes_along(tmp_path: Path, tiny_models: ModuleType) -> None:
    path, data = camera(tmp_path, tiny_models)
    found = search_precision(SearchRequest(path, str(data), correct=0, scales={'mean': 255 / 127}))
    out = write_mixed(found, path, tmp_path / 'out' / 'mixed.onnx')
    assert find_card(out).name == 'tiny_camera'


def test_deconvolutions_are_searched_as_what_they_are_split_to(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(CHANNELS, 4, 2, 2)).astype(np.float32)
    node = helper.make_node('ConvTranspose', ['x', 'w'], ['y'], 'up', strides=[2, 2])
    graph = helper.make_graph(
        [node], 'g',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 4, 2 * SIDE, 2 * SIDE])],
        [numpy_helper.from_array(weight, 'w')],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
    model.ir_version = 8
    path = tmp_path / 'up.onnx'
    onnx.save(model, str(path))
    data, known = str(arrays(tmp_path)), {'x': 1 / 127}
    found = search_precision(SearchRequest(path, data, correct=0, scales=known, budget=0.0))
    assert [item.node for item in found.search.nodes] == ['up_1x1']
    assert found.options == ('--layer-precision up:fp16',)
    split = insert_qdq(split_deconvolutions(model), known)
    assert found.search.nodes[0].score.error == pytest.approx(
        relative_error(split, model, range(4)), rel=1e-3
    )


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (('--data', 'nowhere'), 'nowhere: no such file or folder'),
        (('--data', 'FRAMES', '--metric', 'boxes'), 'metric boxes needs a model card'),
        (('--data', 'FRAMES', '--budget', '-1'), 'budget -1.0: expected 0 or more'),
        (('--data', 'FRAMES', '--frames', '-1'), 'not negative'),
        (('--data', 'FRAMES', '--scales', 'nothing.json'), 'calibration cannot be read'),
        (('--data', 'FRAMES', '--out', '/dev/null/x.onnx'), 'cannot be written'),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data = network(tmp_path), arrays(tmp_path)
    known = tmp_path / 'scales.json'
    known.write_text(json.dumps({'x': 1 / 127}))
    given = [str(data) if word == 'FRAMES' else word for word in words]
    if '--scales' not in given:
        given += ['--scales', str(known)]
    status = command.main(['search-precision', str(path), *given])
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ''
    assert says in err
    assert err.count('\n') == 1


def test_networks_and_scales_that_do_not_fit(tmp_path: Path) -> None:
    asked = request(tmp_path, scales={'of_another': 1.0})
    with pytest.raises(ConfigError, match='no node can be INT8: none of the 1 scales'):
        search_precision(asked)
    quantized = tmp_path / 'int8.onnx'
    onnx.save(insert_qdq(onnx.load(str(asked.model)), {'x': 1 / 127}), str(quantized))
    with pytest.raises(ConfigError, match='has Q/DQ nodes or is fp16 already'):
        search_precision(SearchRequest(quantized, asked.data))


def test_the_report_opens(tmp_path: Path, browser: ModuleType, tiny_models: ModuleType) -> None:
    from airside_perception.deploy.search.report import page

    for name, asked in (
        ('outputs', request(tmp_path, budget=0.05)),
        ('boxes', SearchRequest(*map(str, camera(tmp_path, tiny_models)), correct=0,
                                scales={'mean': 2.0})),
    ):  # fmt: skip
        report = tmp_path / f'{name}.html'
        report.write_text(page(search_precision(asked), name), encoding='utf-8')
        assert browser.open_page(report, tmp_path / f'{name}.png') == []


def test_numbers_at_an_axis_differ() -> None:
    axis = Axis('ms', 2.71e-4, 3.17e-4)
    texts = [at_axis(value) for value in axis.ticks()]
    assert texts == ['2.8e-4', '2.9e-4', '3e-4', '3.1e-4']
    assert [at_axis(value) for value in (0.0, 0.005, 20.0, 1e-4)] == ['0', '0.005', '20', '1e-4']

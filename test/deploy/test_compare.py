"""`engine compare`: outputs, layers, overflow of fp16 and the accuracy gate, on tiny networks."""

from __future__ import annotations

import json
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
from airside_perception.deploy.compare.comparison import Request, compare
from airside_perception.deploy.compare.labels import read_truth
from airside_perception.deploy.compare.layers import compare_layers, first_divergent, first_lost
from airside_perception.deploy.compare.outputs import TOLERANCES, Tolerance
from airside_perception.deploy.compare.sides import open_side
from airside_perception.deploy.outputs import run_onnx
from airside_perception.engine.manifest import Manifest
from airside_perception.engine.precision import to_half
from airside_perception.engine.qdq import insert_qdq
from airside_perception.engine.rounding import rounded_half
from airside_perception.errors import ConfigError, EngineError, PerceptionError
from airside_perception.types import Image, PointCloud

CHANNELS = 4


def network(folder: Path, gains: tuple[float, ...], name: str = 'net', last: str = 'Relu') -> Path:
    """1x1 convolutions that mix the channels and multiply by each gain, with ReLU between."""
    generator = np.random.default_rng(3)
    nodes, stored, tensor = [], [], 'x'
    for place, gain in enumerate(gains):
        mixing = generator.normal(0, 0.05 * abs(gain), (CHANNELS, CHANNELS))
        weight = np.eye(CHANNELS) * gain + mixing
        stored.append(
            numpy_helper.from_array(weight[..., None, None].astype(np.float32), f'w{place}')
        )
        nodes += [
            helper.make_node('Conv', [tensor, f'w{place}'], [f'c{place}'], f'conv{place}'),
            helper.make_node('Relu', [f'c{place}'], [f'r{place}'], f'relu{place}'),
        ]
        tensor = f'r{place}'
    nodes[-1] = helper.make_node(last, [f'c{len(gains) - 1}'], ['y'], 'last')
    shape = [1, CHANNELS, 6, 6]
    graph = helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info('x', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, shape)], stored,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
    model.ir_version = 8
    path = folder / f'{name}.onnx'
    onnx.save(model, str(path))
    return path


def feed(seed: int = 0) -> dict[str, np.ndarray]:
    shape = (1, CHANNELS, 6, 6)
    return {'x': np.random.default_rng(seed).uniform(0.2, 2.0, shape).astype(np.float32)}


def arrays(folder: Path, count: int = 3) -> Path:
    target = folder / 'frames'
    target.mkdir(exist_ok=True)
    for number in range(count):
        np.savez(target / f'{number}.npz', **feed(number))
    return target


def engine(*words: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = command.main(['compare', *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


# fp16


def by_numpy(model: Any, values: np.ndarray) -> np.ndarray:
    """The chain of convolutions in fp32 with every result rounded to fp16."""
    with np.errstate(over='ignore'):
        now = values.astype(np.float16).astype(np.float32)
        for tensor in model.graph.initializer:
            weight = numpy_helper.to_array(tensor)[..., 0, 0].astype(np.float16)
            now = np.einsum('oc,nchw->nohw', weight.astype(np.float32), now)
            now = np.maximum(now.astype(np.float16).astype(np.float32), 0)
    return now


@pytest.mark.parametrize('optimise', [True, False])
def test_fp16_is_rounded_after_every_node(tmp_path: Path, optimise: bool) -> None:
    model = onnx.load(str(network(tmp_path, (1.3, 0.7, 2.1))))
    found = run_onnx(rounded_half(to_half(model, True)), feed(), optimise=optimise)['y']
    expected = by_numpy(model, feed()['x'])
    plain = run_onnx(model, feed())['y']
    step = np.spacing(expected.astype(np.float16)).astype(np.float32)
    assert np.all(np.abs(found - expected) <= step)  # sums in another order
    assert np.mean(found == expected) > 0.9
    assert np.abs(plain - expected).max() > step.max() / 4


def test_fp16_inputs_and_outputs_keep_their_types(tmp_path: Path) -> None:
    half = to_half(onnx.load(str(network(tmp_path, (1.3, 0.7)))), keep_io=False)
    rounded = rounded_half(half)
    values = {'x': feed()['x'].astype(np.float16)}
    found = run_onnx(rounded, values)['y']
    assert found.dtype == np.float16
    assert np.abs(found - run_onnx(half, values)['y']).max() < 0.01
    onnx.checker.check_model(rounded, full_check=True)


def test_a_network_without_fp16_stays_as_it_is(tmp_path: Path) -> None:
    model = onnx.load(str(network(tmp_path, (1.3, 0.7))))
    assert [n.op_type for n in rounded_half(model).graph.node] == [
        n.op_type for n in model.graph.node
    ]


# Outputs


def test_fp32_against_fp16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data = network(tmp_path, (1.3, 0.7, 2.1)), arrays(tmp_path)
    status, out, _ = engine(path, '--as', 'fp16', '--data', data, '--json', capsys=capsys)
    assert status == 0
    table = json.loads(out)
    (row,) = table['outputs']
    apart = [
        (np.abs(run_onnx(path, feed(n))['y'] - by_numpy(onnx.load(str(path)), feed(n)['x'])), n)
        for n in range(3)
    ]
    largest = max(float(item.max()) for item, _ in apart)
    assert row['max_abs'] == pytest.approx(largest, rel=0.2)
    relative = [float(item.max() / run_onnx(path, feed(n))['y'].max()) for item, n in apart]
    assert row['worst_frame'] == f'{int(np.argmax(relative))}.npz'
    assert row['max_rel'] == pytest.approx(max(relative), rel=0.2)
    assert table['frames'] == 3


def test_beyond_the_tolerance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = network(tmp_path, (1.0, 1.0))
    other = network(tmp_path, (1.0, 1.01), 'other')
    status, out, _ = engine(one, other, '--random', 2, capsys=capsys)
    assert status == 1
    assert 'BEYOND TOLERANCE' in out
    assert 'random inputs show faults of a conversion' in out
    status, _, _ = engine(one, other, '--random', 2, '--max-rel', 0.1, '--min-cosine', 0.9,
                          capsys=capsys)  # fmt: skip
    assert status == 0


def test_a_file_in_fp16_and_one_with_qdq(tmp_path: Path) -> None:
    path = network(tmp_path, (1.0, 1.2))
    model = onnx.load(str(path))
    half, int8 = tmp_path / 'half.onnx', tmp_path / 'int8.onnx'
    onnx.save(to_half(model, keep_io=False), str(half))
    scales = {'x': 2.0 / 127, 'r0': 3.0 / 127}
    onnx.save(insert_qdq(model, scales), str(int8))
    found = compare(Request(path, half, random=2))
    assert found.b == 'half.onnx (fp16)'
    assert found.tolerance == TOLERANCES['fp16']
    assert 0 < found.outputs[0].difference.max_rel < 0.01
    quantized = compare(Request(path, int8, data=str(arrays(tmp_path))))
    assert quantized.tolerance == TOLERANCES['int8']
    assert quantized.good
    made = compare(
        Request(path, path, precision_b='int8', scales=scales, data=str(arrays(tmp_path)))
    )
    # the same but for the rest, which is fp16 here
    assert made.outputs[0].difference.max_abs == pytest.approx(
        quantized.outputs[0].difference.max_abs, rel=0.1
    )


# Layers


def test_a_planted_overflow_is_found_named_and_cured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """fp32 reaches 1e5 behind conv1, and is small again behind conv2."""
    path = network(tmp_path, (1.0, 1e5, 1e-5, 1.0))
    words = (path, '--as', 'fp16', '--data', arrays(tmp_path), '--layers')
    status, out, _ = engine(*words, '--json', capsys=capsys)
    assert status == 1
    table = json.loads(out)
    assert table['outputs'][0]['nan'] + table['outputs'][0]['inf'] > 0
    lost = table['first_lost']
    assert (lost['tensor'], lost['node']) == ('c1', 'conv1')
    top = max(run_onnx(onnx.load(str(path)), feed(n), ['c1'])['c1'].max() for n in range(3))
    assert lost['high'] == pytest.approx(top)
    assert table['cure']['proven']
    assert table['cure']['options'] == [
        f'--layer-precision {name}:fp32' for name in ('conv1', 'relu1', 'conv2')
    ]
    status, out, _ = engine(*words, capsys=capsys)
    assert 'first NaN or Inf: c1 of Conv conv1' in out
    assert 'fp16 holds up to 65504' in out
    # what the cure says does cure
    lines = [word for line in table['cure']['options'] for word in line.split()]
    status, out, _ = engine(*words, *lines, '--json', capsys=capsys)
    assert status == 0
    assert json.loads(out)['first_lost'] is None


def test_one_node_of_the_cure_alone_is_not_enough(tmp_path: Path) -> None:
    path = network(tmp_path, (1.0, 1e5, 1e-5, 1.0))
    found = compare(Request(path, path, precision_b='fp16', random=1,
                            layer_precision={'conv1': 'fp32'}, layers=True))  # fmt: skip
    assert not found.good
    assert found.cure is not None
    assert found.cure.nodes == ('conv1', 'relu1', 'conv2')


def test_the_first_that_diverges_and_where_it_grows(tmp_path: Path) -> None:
    a = onnx.load(str(network(tmp_path, (1.0, 1.0, 1.0))))
    b = onnx.ModelProto()
    b.CopyFrom(a)
    weight = numpy_helper.to_array(b.graph.initializer[1]) * np.float32(1.2)
    b.graph.initializer[1].CopyFrom(numpy_helper.from_array(weight, 'w1'))
    rows = compare_layers(
        a, b, lambda: [(f'{n}', feed(n)) for n in range(2)], 2, Tolerance(0.01, 0.5)
    )
    assert [row.tensor for row in rows] == ['c0', 'r0', 'c1', 'r1', 'c2', 'y']
    first = first_divergent(rows)
    assert first is not None
    assert first.node == 'conv1'
    assert first.difference.max_rel == pytest.approx(0.2, rel=1e-4)
    assert first_lost(rows) is None
    assert rows[3].growth == pytest.approx(1.0, rel=0.05)
    for row in rows:
        value = np.stack([run_onnx(a, feed(n), [row.tensor])[row.tensor] for n in range(2)])
        assert (row.low, row.high) == (pytest.approx(value.min()), pytest.approx(value.max()))


def test_chunks_change_nothing(tmp_path: Path) -> None:
    a = onnx.load(str(network(tmp_path, (1.0, 0.5, 2.0))))
    b = rounded_half(to_half(a, True))
    frames = [('f', feed())]
    whole = compare_layers(a, b, lambda: frames, 1, TOLERANCES['fp16'])
    steps: list[float] = []
    single = compare_layers(
        a, b, lambda: frames, 1, TOLERANCES['fp16'], chunk_bytes=1,
        progress=lambda step, share: steps.append(share),
    )  # fmt: skip
    assert single == whole
    assert len(steps) == 7
    assert steps == sorted(steps)


# The gate


def pictures(folder: Path, levels: list[tuple[int, ...]]) -> Path:
    """64 x 96 images of six cells with these grey values."""
    target = folder / 'image_2'
    target.mkdir(parents=True, exist_ok=True)
    for number, cells in enumerate(levels):
        grid = np.array(cells, np.uint8).reshape(2, 3)
        image = np.repeat(np.repeat(grid, 32, 0), 32, 1)[..., None].repeat(3, 2)
        cv2.imwrite(str(target / f'{number:06}.png'), image)
    return target


LEVELS = [(220, 30, 0, 0, 0, 140), (0, 200, 0, 0, 0, 0), (0, 0, 0, 90, 180, 0)]


def test_the_gate_passes_fp16_and_fails_bad_scales(
    tmp_path: Path, tiny_models: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_models.tiny_camera_model(tmp_path)
    data = pictures(tmp_path, LEVELS)
    words = (path, '--accuracy-gate', '--data', data, '--json')
    status, out, _ = engine(*words, '--as', 'fp16', capsys=capsys)
    (gate,) = json.loads(out)['gates']
    assert status == 0
    assert gate['truth'] == 'boxes of A'
    assert gate['ap'] == {'a': 1.0, 'b': 1.0}
    assert gate['boxes'] == 5  # cells of 0.3 * 255 and more
    loose = ('--max-rel', 10, '--min-cosine', -1, '--as', 'int8')
    for factor, expected in ((1.0, 0), (1 / 8, 1)):
        scales = tmp_path / 'scales.json'
        scales.write_text(json.dumps({'mean': factor * 255 / 127}))
        status, out, _ = engine(*words, *loose, '--scales', scales, capsys=capsys)
        (gate,) = json.loads(out)['gates']
        assert status == expected, gate
        assert gate['good'] == (not expected)
    assert gate['lost'] == 5
    assert {item['frame'] for item in gate['changes']} == {f'{n:06}.png' for n in range(3)}


LABEL = 'Car 0.00 0 0.0 {:.0f} {:.0f} {:.0f} {:.0f} 1.5 2.0 4.0 {} {} {} {}'


def test_the_gate_on_labels(
    tmp_path: Path, tiny_models: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of three bright cells are labelled, one lies where nobody looked."""
    path = tiny_models.tiny_camera_model(tmp_path)
    pictures(tmp_path / 'kitti', [(220, 80, 0, 0, 0, 140), LEVELS[1]])
    labels = tmp_path / 'kitti' / 'label_2'
    labels.mkdir()
    (labels / '000000.txt').write_text(
        LABEL.format(0, 0, 32, 32, 0, 0, 0, 0)
        + '\nDontCare -1 -1 -10 64 32 96 64 -1 -1 -1 -1000 -1000 -1000 -10\n'
    )
    (labels / '000001.txt').write_text(LABEL.format(32, 0, 64, 32, 0, 0, 0, 0))
    words = (path, '--as', 'fp16', '--accuracy-gate', '--labels', tmp_path / 'kitti')
    status, out, _ = engine(*words, '--json', capsys=capsys)
    assert status == 0
    (gate,) = json.loads(out)['gates']
    assert gate['truth'] == 'labels'
    car = gate['classes']['car']['a']
    assert (car['ap'], car['objects'], car['found']) == (1.0, 2, 2)
    assert car['alarms'] == 1  # the cell of 80
    (labels / '000001.txt').unlink()
    status, _, err = engine(*words, capsys=capsys)
    assert status == 2
    assert '000001.txt: cannot be read' in err


def test_the_gate_of_a_lidar(tmp_path: Path, tiny_models: ModuleType) -> None:
    """The head gets a bias that hides all cars of middling intensity."""
    path = tiny_models.tiny_lidar_model(tmp_path)
    model = onnx.load(str(path))
    bias = next(item for item in model.graph.initializer if item.name == 'bias')
    shift = numpy_helper.to_array(bias) - np.float32(5)
    bias.CopyFrom(numpy_helper.from_array(shift, 'bias'))
    other = tmp_path / 'other.onnx'
    onnx.save(model, str(other))
    scans = tmp_path / 'scans'
    scans.mkdir()
    # cells of cars (intensity above 0.5) 6 m apart
    rows = [[5.5 + 6 * k, 0.25, 0.5, level] for k, level in enumerate((0.62, 0.7, 0.95, 1.0))]
    np.array(rows, np.float32).tofile(scans / '0.bin')
    found = compare(
        Request(path, other, data=str(scans), gate=True, max_rel=1.0, cosine=0.0, frames=0)
    )
    (gate,) = found.gates
    assert not gate.good
    # sigmoid(20 (i - 0.5) - 5): 0.07 and 0.27 are below the threshold of 0.3, one by a thread
    assert gate.kept == 4
    assert sorted(round(item.other, 2) for item in gate.changes if item.lost) == [0.07, 0.27]
    assert gate.drop == pytest.approx(0.25)


def test_kitti_boxes_in_the_frame_of_the_lidar(tmp_path: Path, tiny_models: ModuleType) -> None:
    """A car 10 m ahead and 2 m to the left, facing left, its underside on the ground."""
    card = find_card(tiny_models.tiny_lidar_model(tmp_path))
    for name in ('label_2', 'calib'):
        (tmp_path / name).mkdir()
    # x of the camera is -y of the lidar, y is -z, z is x
    (tmp_path / 'calib' / '0.txt').write_text(
        'P2: 700 0 600 0 0 700 180 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\n'
        'Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n'
    )
    # angle about y of the camera: 0 faces x of the camera, which is the right
    label = LABEL.format(0, 0, 50, 50, -2.0, 1.73, 10.0, np.pi)
    (tmp_path / 'label_2' / '0.txt').write_text(label + '\n')
    points = np.array([[10, 2, 0.5, 0]] * 5 + [[20, 0, 0, 0]], np.float32)
    cloud = PointCloud(0, 'base_link', points)
    truth = read_truth(tmp_path, '0', cloud, card, 1.73)
    x, y, z, length, width, height, yaw = truth.boxes[0]
    assert (x, y, z) == (pytest.approx(10), pytest.approx(2), pytest.approx(0.75))
    assert (length, width, height) == (4.0, 2.0, 1.5)
    assert np.cos(yaw - np.pi / 2) == pytest.approx(1.0)
    assert truth.asked.tolist() == [True]
    assert truth.judged is not None
    behind = truth.boxes * [[-1, 1, 1, 1, 1, 1, 1]]
    assert truth.judged(np.vstack([truth.boxes, behind])).tolist() == [True, False]
    few = PointCloud(0, 'base_link', points[:4])
    assert read_truth(tmp_path, '0', few, card, 1.73).asked.tolist() == [False]


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('Car 0 0 0', 'line 1: expected a class and 14 numbers'),
        (f'{LABEL.format(0, 0, 9, 9, 0, 0, 0, 0)}\nCar ' + 'x ' * 14, 'line 2'),
    ],
)
def test_labels_that_are_none(
    text: str, says: str, tmp_path: Path, tiny_models: ModuleType
) -> None:
    card = find_card(tiny_models.tiny_camera_model(tmp_path))
    (tmp_path / 'label_2').mkdir()
    (tmp_path / 'label_2' / '0.txt').write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_truth(tmp_path, '0', Image(0, 'camera', np.zeros((9, 9, 3), np.uint8)), card, 0.0)


# What cannot be done


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        ([], 'nothing to compare it with: name B, or --as'),
        (['--as', 'int8', '--random', '1'], 'int8 needs --scales'),
        (['--as', 'fp16', '--layer-precision', 'conv9:fp32'], 'no such node in the network; did'),
        (['--as', 'fp16', '--layer-precision', 'conv0'], 'expected NODE:fp32'),
        (['--as', 'fp16', '--layer-precision', 'conv0:int4'], "'int4': expected fp32 or fp16"),
        (['--as', 'fp16', '--accuracy-gate'], 'the accuracy gate needs frames'),
        (['--as', 'fp16', '--labels', 'kitti'], 'add --accuracy-gate'),
        (['--as', 'fp16', '--data', 'nowhere'], 'nowhere: no such file or folder'),
        (['--as', 'fp16', '--scales', 'scales.json'], 'scales are for int8'),
        (['--as', 'fp16', '--frames', '-1'], 'not negative'),
        (['--as', 'fp16', '--max-rel', '-1'], 'must be 0 or more'),
        (['missing.onnx'], 'missing.onnx: no such network'),
        (['missing.engine'], 'no such network'),
        (['net.txt'], 'expected .onnx, .engine or .plan'),
        (['--as', 'fp16', '--html', '/dev/null/x.html'], 'cannot be written'),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = engine(network(tmp_path, (1.0, 1.0)), *words, capsys=capsys)
    assert status == 2
    assert out == ''
    assert says in err
    assert err.count('\n') == 1


def test_a_half_file_stays_what_it_is(tmp_path: Path) -> None:
    path = network(tmp_path, (1.0, 1.0))
    half = tmp_path / 'half.onnx'
    onnx.save(to_half(onnx.load(str(path)), True), str(half))
    with pytest.raises(ConfigError, match='is fp16 already, and precision fp32 was asked for'):
        open_side(half, 'fp32')
    with pytest.raises(ConfigError, match='layer precisions are for what is converted'):
        open_side(half, layers={'conv0': 'fp32'})
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(b'no network')
    with pytest.raises(EngineError, match='not a readable ONNX file'):
        open_side(broken)


def test_outputs_of_other_names(tmp_path: Path) -> None:
    one = network(tmp_path, (1.0, 1.0))
    model = onnx.load(str(one))
    model.graph.output[0].name = model.graph.node[-1].output[0] = 'z'
    other = tmp_path / 'other.onnx'
    onnx.save(model, str(other))
    with pytest.raises(PerceptionError, match="output 'y' is missing; there are z"):
        compare(Request(one, other, random=1))


def test_a_frame_without_objects(tmp_path: Path, tiny_models: ModuleType) -> None:
    path = tiny_models.tiny_camera_model(tmp_path)
    data = pictures(tmp_path, [(0, 0, 0, 0, 0, 0)])
    with pytest.raises(ConfigError, match='A reports nothing on these 1 frames'):
        compare(Request(path, path, precision_b='fp16', data=str(data), gate=True))


def test_engines_show_their_outputs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airside_perception.deploy.compare import sides

    path = network(tmp_path, (1.0, 1.1))
    made = tmp_path / 'net.fp16.gpu.engine'
    made.write_bytes(b'plan')
    model = to_half(onnx.load(str(path)), True)
    asked: list[Any] = []

    def opened(*words: Any, **names: Any) -> Any:
        asked.append((words, names))
        return sides.ModelEngine(str(made), model, 'fp16')

    monkeypatch.setattr(sides, 'open_engine', opened)
    monkeypatch.setattr(sides, 'require_gpu', lambda path: None)
    found = compare(Request(path, made, random=2, layers=True, dla_core=1, allow_host_code=True))
    assert asked == [((made, 1, 'auto'), {'allow_host_code': True})]
    assert found.good
    assert found.tolerance == TOLERANCES['fp16']
    assert found.layers == ()
    assert any('the inside of an engine is not visible' in note for note in found.notes)
    Manifest('net.onnx', '', '', '10.3.0', 'full', '12.6', 'Orin', 'sm_87', 'fp16', 1).write(made)
    for core in (None, -1):
        compare(Request(path, made, random=1, dla_core=core))
    assert [words[1] for words, _ in asked[1:]] == [1, -1]


def test_an_engine_and_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is wrong with the input: status 1, as in bench and build."""
    from airside_perception.cuda import runtime

    monkeypatch.setattr(runtime, 'unavailable', lambda: 'no CUDA GPU')
    path, made = network(tmp_path, (1.0, 1.1)), tmp_path / 'net.engine'
    made.write_bytes(b'plan')
    status, out, err = engine(path, made, capsys=capsys)
    assert (status, out) == (1, '')
    assert 'net.engine: an engine runs on a GPU: no CUDA GPU' in err


# The report


def test_the_report_opens(
    tmp_path: Path,
    tiny_models: ModuleType,
    browser: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tiny_models.tiny_camera_model(tmp_path)
    scales, report = tmp_path / 'scales.json', tmp_path / 'report.html'
    scales.write_text(json.dumps({'mean': 255 / 127 / 1.5}))
    status, out, _ = engine(
        path, '--as', 'int8', '--scales', scales, '--data', pictures(tmp_path, LEVELS),
        '--accuracy-gate', '--layers', '--html', report, capsys=capsys,
    )  # fmt: skip
    assert status in (0, 1)
    assert 'accuracy gate on 3 frames' in out
    text = report.read_text(encoding='utf-8')
    assert '<svg class="plot"' in text
    assert 'Accuracy, truth: boxes of A' in text
    assert browser.open_page(report, tmp_path / 'report.png') == []

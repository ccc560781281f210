"""Calibration: statistics against a sort, thresholds against brute force and ONNX Runtime."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import entropy as kl_divergence

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import find_card, load_card
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.deploy import __main__ as command
from airside_perception.deploy.calibrate import calibrate, read_for, with_qdq, write_cache
from airside_perception.deploy.calibrate.activations import Activations
from airside_perception.deploy.calibrate.scales import same_scales, scale_of
from airside_perception.deploy.calibrate.statistics import BINS, Statistics, coarser
from airside_perception.deploy.calibrate.thresholds import (
    LEVELS,
    entropy_threshold,
    kl_divergences,
    rebinned,
    thresholds,
    without_spikes,
)
from airside_perception.deploy.feeds import open_feeds
from airside_perception.engine import open_engine
from airside_perception.engine.calibration_cache import calibration_cache, read_scales
from airside_perception.engine.manifest import sha256_of
from airside_perception.engine.typed import read_network
from airside_perception.errors import EngineError, PerceptionError
from airside_perception.lidar.detector import LidarDetector
from airside_perception.overlap import iou_2d
from airside_perception.resources import resource


def main(*words: Any) -> int:
    return command.main(['calibrate', *map(str, words)])


# statistics


def values_of(seed: int, count: int = 5000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.laplace(0, 1, count) * 10.0 ** rng.uniform(-2, 2)).astype(np.float32)


def test_counts_are_those_of_all_values_in_any_order() -> None:
    frames = [{'a': values_of(seed), 'b': -np.abs(values_of(seed, 7))} for seed in range(6)]
    forward, backward = Statistics.empty(('a', 'b')), Statistics.empty(('a', 'b'))
    for frame in frames:
        forward = forward.with_frame(frame)
    for frame in frames[::-1]:
        backward = backward.with_frame(frame)
    for index, name in enumerate(('a', 'b')):
        everything = np.concatenate([frame[name] for frame in frames]).astype(np.float64)
        top = BINS * forward.width(index)
        assert top / 2 <= np.abs(everything).max() < top
        wanted, _ = np.histogram(np.abs(everything), BINS, range=(0.0, top))
        assert_array_equal(forward.counts[index], wanted)
        assert forward.low[index] == everything.min()
        assert forward.high[index] == everything.max()
        assert forward.largest[index] == np.abs(everything).max()
    assert_array_equal(forward.counts, backward.counts)
    assert_array_equal(forward.exponents, backward.exponents)
    assert forward.frames == 6


def test_values_of_all_sizes() -> None:
    names = ('zero', 'tiny', 'huge', 'edge', 'none')
    found = Statistics.empty(names)
    for factor in (0.0, 1.0):
        found = found.with_frame(
            {
                'zero': np.zeros(4, np.float32),
                'tiny': np.full(4, 1e-40 * factor, np.float32),
                'huge': np.full(4, 3e38 * factor, np.float32),
                'edge': np.full(
                    4, 4.0 * factor, np.float32
                ),  # a power of two is in the next range
                'none': np.empty(0, np.float32),
            }
        )
    assert_array_equal(found.counts.sum(axis=1), [8, 8, 8, 8, 0])
    assert found.counts[3, BINS // 2] == 4
    assert found.exponents[3] == 3
    assert found.largest[0] == 0.0
    assert found.largest[4] == 0.0
    for method in ('entropy', 'percentile', 'minmax'):
        assert_allclose(thresholds(found, method)[2:4], [3e38, 4.0], rtol=1e-3)
        assert thresholds(found, method)[0] == 0.0


def test_what_is_not_finite_is_named() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(EngineError, match="tensor 'a' has values that are not finite"):
            Statistics.empty(('a',)).with_frame({'a': np.array([1.0, bad], np.float32)})


def test_coarser() -> None:
    counts = np.arange(BINS)
    assert_array_equal(coarser(counts, 1)[: BINS // 2], counts[::2] + counts[1::2])
    assert coarser(counts, 1)[BINS // 2 :].sum() == 0
    for steps in (13, 14, 200):
        assert coarser(counts, steps)[0] == counts.sum()


# thresholds


def brute_force(bins: np.ndarray) -> np.ndarray:
    """Divergences by the definition, one place after another."""
    bins = bins.astype(np.float64)
    bins[0] = bins[1]
    found = []
    for end in range(LEVELS, len(bins) + 1):
        q = np.zeros(end)
        level = np.arange(end) * LEVELS // end
        for number in range(LEVELS):
            rows = np.flatnonzero((level == number) & (bins[:end] > 0))
            if len(rows):
                q[rows] = bins[:end][level == number].sum() / len(rows)
        p = bins[:end].copy()
        p[-1] += bins[end:].sum()
        found.append(kl_divergence(p, q) if q.any() else np.inf)
    return np.array(found)


@pytest.mark.parametrize('kind', ['normal', 'relu', 'pixels', 'sparse'])
def test_divergence_is_that_of_the_definition(kind: str) -> None:
    rng = np.random.default_rng(3)
    values = {
        'normal': rng.normal(size=20000),
        'relu': np.maximum(rng.laplace(size=20000), 0.0),
        'pixels': rng.integers(0, 256, 5000).astype(np.float64),
        'sparse': rng.normal(size=60),
    }[kind]
    bins, _ = np.histogram(np.abs(values), 260)
    found, wanted = kl_divergences(bins.astype(np.float64)), brute_force(bins)
    finite = np.isfinite(wanted)
    assert_array_equal(np.isfinite(found), finite)
    assert_allclose(found[finite], wanted[finite], atol=1e-12)


@pytest.mark.parametrize('kind', ['normal', 'laplace'])
def test_entropy_is_near_that_of_onnx_runtime(kind: str) -> None:
    """Which has a signed histogram of whole counts, and smoothes its zeros."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = getattr(np.random.default_rng(4), kind)(size=400_000)
    values = np.append(values, [60.0] * 5).astype(np.float32)  # outliers, to be cut off
    counts, edges = np.histogram(values, 2 * 2048 + 1, range=(-60, 60))
    collector = HistogramCollector('entropy', True, 4097, 255, None, 'same')
    edges = edges.astype(np.float32)
    theirs = collector.get_entropy_threshold((counts, edges, values.min(), values.max()), 255)
    statistics = Statistics.empty(('a',)).with_frame({'a': values})
    found = thresholds(statistics, 'entropy')[0]
    assert found == pytest.approx(float(theirs[1]), rel=0.15)
    assert found < 0.25 * 60


def test_spikes_do_not_decide() -> None:
    """One value many times, as the border of a letterbox makes it, and the tail is cut off."""
    rng = np.random.default_rng(5)
    values = np.abs(rng.laplace(0, 1, 400_000))
    counts, _ = np.histogram(values, BINS, range=(0, 16))
    plain = entropy_threshold(counts)
    for place in (3, 100, 333):
        counts[place] += 2_000_000
    assert entropy_threshold(counts) == pytest.approx(plain, rel=0.2)
    assert entropy_threshold(counts, spikes=True) < 0.2 * plain
    bins = rebinned(counts, 2048)
    calm = without_spikes(bins)
    assert_array_equal(calm > 0, bins > 0)
    assert (calm <= bins).all()


def test_rebinned() -> None:
    assert_allclose(rebinned(np.array([4, 0, 2]), 6), [2, 2, 0, 0, 1, 1])
    assert_allclose(rebinned(np.array([4, 0, 2, 6]), 2), [4, 8])
    assert_allclose(rebinned(np.array([3, 6, 9]), 2), [6, 12])
    counts = np.random.default_rng(0).integers(0, 3, 5000) * 1000
    assert rebinned(counts, 2048).sum() == pytest.approx(counts.sum())


def test_percentile_is_that_of_the_values() -> None:
    frames = [values_of(seed) for seed in range(5)]
    found = Statistics.empty(('a',))
    for frame in frames:
        found = found.with_frame({'a': frame})
    everything = np.abs(np.concatenate(frames))
    for percentile in (50.0, 90.0, 99.0, 99.99):
        exact = np.sort(everything)[int(np.ceil(percentile / 100 * len(everything))) - 1]
        value = thresholds(found, 'percentile', percentile)[0]
        assert exact <= value <= exact + found.width(0)
    assert thresholds(found, 'percentile', 100.0)[0] == everything.max()
    assert thresholds(found, 'minmax')[0] == everything.max()


# networks


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """conv - relu - deconv - pool - add a constant; a channel of it all is dead."""
    rng = np.random.default_rng(6)
    stored = {
        'w': rng.normal(0, 0.4, (4, 3, 3, 3)),
        'd': rng.normal(0, 0.4, (4, 4, 2, 2)),
        'c': np.full((1, 4, 1, 1), 0.25),
        'never': np.full((1, 4, 1, 1), -50.0),
    }
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['conv'], 'first', pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['conv'], ['relu']),
        helper.make_node('ConvTranspose', ['relu', 'd'], ['deconv'], 'up', strides=[2, 2]),
        helper.make_node('MaxPool', ['deconv'], ['pool'], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node('Add', ['pool', 'c'], ['sum']),
        helper.make_node('Min', ['relu', 'never'], ['low']),
        helper.make_node('Relu', ['low'], ['dead']),
        helper.make_node('Concat', ['sum', 'dead'], ['y'], axis=1),
        helper.make_node('Shape', ['x'], ['shape']),
    ]
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info('x', kind, [1, 3, 8, 8])],
        [
            helper.make_tensor_value_info('y', kind, [1, 8, 8, 8]),
            helper.make_tensor_value_info('shape', TensorProto.INT64, [4]),
        ],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in stored.items()],
    )  # fmt: skip
    path = tmp_path / 'net.onnx'
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / 'data'
    folder.mkdir()
    rng = np.random.default_rng(7)
    for index in range(9):
        x = rng.normal(0, 1 + index / 4, (1, 3, 8, 8)).astype(np.float32)
        np.savez(folder / f'{index}.npz', x=x)
    return folder


TENSORS = ['x', 'conv', 'relu', 'deconv', 'pool', 'sum', 'low', 'dead', 'y']


def test_scales_of_all_tensors(model_path: Path, data: Path, tmp_path: Path) -> None:
    feeds = open_feeds(data, model_path, None)
    made, note = calibrate(model_path, feeds, tmp_path / 's.npz', 'minmax')
    assert note == ''
    assert [name for name in made.scales if name not in ('c', 'never')] == TENSORS
    assert made.zero == ('dead',)
    assert made.scales['dead'] == scale_of(1.0) > 0.0
    assert made.scales['c'] == np.float32(0.25 / 127)
    with open_engine(model_path) as engine:
        outputs = [engine.infer(feed)['y'] for feed in feeds]
    assert made.scales['y'] == np.float32(np.abs(outputs).max() / 127)
    assert made.scales['x'] == np.float32(max(np.abs(feed['x']).max() for feed in feeds) / 127)
    assert all(scale == np.float32(scale) for scale in made.scales.values())


def test_extremes_are_those_of_onnx_runtime(model_path: Path, data: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    feeds = open_feeds(data, model_path, None)
    made, _ = calibrate(model_path, feeds, tmp_path / 's.npz', 'minmax')
    rows = iter(feeds)

    class Reader:
        def get_next(self) -> Any:
            return next(rows, None)

    theirs = MinMaxCalibrater(
        str(model_path), augmented_model_path=str(tmp_path / 'augmented.onnx')
    )
    theirs.augment_graph()
    theirs.create_inference_session()
    theirs.collect_data(Reader())
    found = {name: item.range_value for name, item in theirs.compute_data().items()}
    compared = 0
    for name in set(found) & set(TENSORS) - {'dead'}:
        low, high = (float(np.ravel(value)[0]) for value in found[name])
        assert made.scales[name] == np.float32(max(-low, high) / 127)
        compared += 1
    assert compared > 5


class Interrupting:
    """Feeds during which somebody presses Ctrl-C."""

    def __init__(self, feeds: Any, at: int, error: BaseException) -> None:
        self.feeds, self.at, self.error = feeds, at, error
        self.name, self.fingerprint = feeds.name, feeds.fingerprint

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            raise self.error
        return self.feeds[index]


@pytest.mark.parametrize('method', ['entropy', 'percentile', 'minmax'])
@pytest.mark.parametrize('error', [KeyboardInterrupt(), EngineError('damaged')])
def test_an_interrupted_pass_goes_on(
    model_path: Path, data: Path, tmp_path: Path, method: str, error: BaseException
) -> None:
    feeds = open_feeds(data, model_path, None)
    whole, _ = calibrate(model_path, feeds, tmp_path / 'whole.npz', method)
    state = tmp_path / 'parts.npz'
    for stop in (2, 7):
        with pytest.raises(type(error)):
            calibrate(model_path, Interrupting(feeds, stop, error), state, method)  # type: ignore[arg-type]  # stands for Feeds
    resumed, note = calibrate(model_path, feeds, state, method)
    assert note == f'7 frames from {state}, 2 more'
    assert resumed == whole
    again, note = calibrate(model_path, feeds, state, 'minmax')
    assert note == f'all frames from {state}'
    assert again.method == 'minmax'


def test_an_interrupt_while_counting_counts_no_frame_twice(
    model_path: Path, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from airside_perception.deploy.calibrate import statistics

    feeds = open_feeds(data, model_path, None)
    whole, _ = calibrate(model_path, feeds, tmp_path / 'whole.npz')
    count, calls = statistics._histogram, 0

    def interrupted(*words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4 * len(TENSORS) - 3:  # in the middle of the fourth frame
            raise KeyboardInterrupt
        return count(*words)

    monkeypatch.setattr(statistics, '_histogram', interrupted)
    state = tmp_path / 'state.npz'
    with pytest.raises(KeyboardInterrupt):
        calibrate(model_path, feeds, state)
    resumed, note = calibrate(model_path, feeds, state)
    assert note.startswith('3 frames')
    assert resumed == whole


def test_it_is_saved_on_the_way(
    model_path: Path, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    module = importlib.import_module('airside_perception.deploy.calibrate.collect')
    written = []
    monkeypatch.setattr(module, 'EVERY_FRAMES', 4)
    monkeypatch.setattr(module, 'write_state', lambda path, found, _: written.append(found.frames))
    calibrate(model_path, open_feeds(data, model_path, None), tmp_path / 'state.npz')
    assert written == [4, 8, 9]


def test_a_state_of_something_else_is_not_gone_on_with(
    model_path: Path, data: Path, tmp_path: Path
) -> None:
    state = tmp_path / 's.npz'
    calibrate(model_path, open_feeds(data, model_path, None, 4), state)
    _, note = calibrate(model_path, open_feeds(data, model_path, None, 3), state)
    assert note == f'{state} is of another data: began anew'
    model = onnx.load(str(model_path))
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), 'w')
    )
    onnx.save(model, str(model_path))
    feeds = open_feeds(data, model_path, None, 3)
    _, note = calibrate(model_path, feeds, state)
    assert note == f'{state} is of another network: began anew'
    _, note = calibrate(model_path, feeds, state, restart=True)
    assert note == ''
    state.write_bytes(b'PK half a file')
    _, note = calibrate(model_path, feeds, state)
    assert 'no state of a calibration' in note
    assert note.endswith('began anew')


def test_values_that_are_not_finite(model_path: Path, data: Path, tmp_path: Path) -> None:
    np.savez(data / '3.npz', x=np.full((1, 3, 8, 8), np.nan, np.float32))
    with pytest.raises(EngineError, match=r"3\.npz: tensor 'x' has values that are not finite"):
        calibrate(model_path, open_feeds(data, model_path, None), tmp_path / 's.npz')


# what is written


def test_command(
    model_path: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scales, quantized, cache = (tmp_path / name for name in ('a.json', 'q.onnx', 'a.cache'))
    words = (model_path, '--data', data, '--out', scales)
    assert main(*words, '--emit-qdq', quantized, '--emit-cache', cache, '--json') == 0
    table = json.loads(capsys.readouterr().out)
    assert table['frames'] == 9
    assert table['uniformly_zero'] == ['dead']
    assert any('9 frames: 500 or more' in text for text in table['warnings'])
    assert any('uniformly zero: dead (1 of 11 tensors);' in text for text in table['warnings'])
    known = read_scales(scales)
    assert table['tensors'] == len(known) == len(TENSORS) + 2
    assert list(tmp_path.glob('.a*')) == []
    # the cache holds what the file holds, to the bit
    assert read_scales(cache) == known
    head, *lines = cache.read_text().splitlines()
    assert head == 'TRT-8600-EntropyCalibration2'
    assert lines[0] == f'x: {np.float32(known["x"]).tobytes()[::-1].hex()}'
    # Q/DQ with these scales, the deconvolution as the convolution that it equals
    model = onnx.load(str(quantized))
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    pairs = {
        node.input[0]: stored[node.input[1]].item()
        for node in model.graph.node
        if node.op_type == 'QuantizeLinear' and node.input[0] not in stored
    }
    assert pairs == {'x': known['x'], 'relu': known['relu']}
    assert table['int8_operators'] == 2
    assert 'ConvTranspose' not in [node.op_type for node in model.graph.node]
    feed = open_feeds(data, model_path, None)[0]
    with open_engine(model_path) as plain, open_engine(quantized) as integer:
        wanted, found = plain.infer(feed)['y'], integer.infer(feed)['y']
    assert 0.0 < np.abs(wanted - found).max() < 0.1 * np.abs(wanted).max()
    # min-max without a second pass, for another TensorRT, and a node that stays as it is
    assert main(*words, '--method', 'minmax', '--emit-cache', cache, '--tensorrt', '10.3.0') == 0
    text = capsys.readouterr().out
    assert f'all frames from {tmp_path / "a.state.npz"}' in text
    assert cache.read_text().startswith('TRT-100300-MinMaxCalibration\n')
    assert main(*words, '--method', 'minmax', '--emit-qdq', quantized, '--exclude', 'first') == 0
    assert 'q.onnx: 1 operators in INT8' in capsys.readouterr().out
    assert main(*words, '--emit-qdq', quantized, '--first-half', '1') == 0
    assert 'q.onnx: 1 operators in INT8' in capsys.readouterr().out


def test_stored_scales(
    model_path: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scales, cache = tmp_path / 'net.scales.json', tmp_path / 'b.cache'
    assert main(model_path, '--data', data) == 0
    before = scales.read_bytes()
    assert main(model_path, '--scales', scales, '--emit-cache', cache) == 0
    assert scales.read_bytes() == before
    assert main(model_path, '--scales', cache, '--emit-qdq', tmp_path / 'q.onnx') == 0
    retrained = tmp_path / 'retrained.onnx'
    model = onnx.load(str(model_path))
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), 'w')
    )
    onnx.save(model, str(retrained))
    capsys.readouterr()
    assert main(retrained, '--scales', scales) == 0
    assert 'made with another version of' in capsys.readouterr().out


def test_wrong_input(
    model_path: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized, half = tmp_path / 'q.onnx', tmp_path / 'half.onnx'
    other, nothing = tmp_path / 'other.cache', tmp_path / 'nothing'
    assert main(model_path, '--data', data, '--emit-qdq', quantized) == 0
    write_cache({'conv1': 0.1, 'conv2': 0.2}, other)
    nothing.mkdir()
    model = onnx.load(str(model_path))
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float16), 'w')
    )
    onnx.save(model, str(half))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((quantized, '--data', data), 'has Q/DQ nodes, so it carries scales of its own'),
        ((quantized, '--scales', other), 'has Q/DQ nodes with scales of its own'),
        ((quantized, '--data', model_path.parent), 'has Q/DQ nodes'),  # told before the data
        ((half, '--data', data), 'is fp16; calibrate the fp32 network'),
        ((model_path, '--scales', other), 'the 2 scales are of conv1, conv2: they were made for'),
        ((model_path, '--scales', tmp_path / 'no.json'), 'no.json: calibration cannot be read'),
        ((model_path, '--data', nothing), 'nothing: holds no arrays'),
        ((model_path, '--data', data, '--percentile', 3, '--method', 'percentile'), '50 to 100'),
        ((model_path, '--data', data, '--tensorrt', 'new'), "TensorRT 'new': expected its"),
        ((model_path, '--data', data, '--emit-qdq', model_path), 'would replace the network'),
        ((model_path, '--data', data, '--emit-qdq', tmp_path / 'r.onnx', '--exclude', 'nope'),
         "exclude names 'nope', which is no node"),
        ((data, '--data', data), 'data: no such network'),
        ((model_path, '--scales', other, '--correct-biases', 2), '--correct-biases needs --data'),
        ((model_path, '--data', data, '--out', '/proc/none/s.json'), 'cannot be written'),
    ]  # fmt: skip
    capsys.readouterr()
    for words, said in cases:
        assert main(*words) == 2, words
        out, err = capsys.readouterr()
        assert out == ''
        assert err.count('\n') == 1
        assert said in err
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / 'r.onnx').exists()


def test_interrupted_command(
    model_path: Path, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    inner, calls = Activations.__call__, 0

    def interrupted(self: Any, feed: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return inner(self, feed)

    monkeypatch.setattr(Activations, '__call__', interrupted)
    assert main(model_path, '--data', data) == 130
    assert not (tmp_path / 'net.scales.json').exists()
    assert main(model_path, '--data', data) == 0
    assert calls == 10  # nine frames, and the one that was broken off


def test_alike_for_dla(model_path: Path) -> None:
    scales = {name: 1.0 + index for index, name in enumerate(TENSORS)}
    found = same_scales(read_network(model_path), scales)
    # deconv - MaxPool - pool; y = Concat(sum, dead); relu and low are Min's and its output
    assert found['deconv'] == found['pool'] == scales['pool']
    assert found['sum'] == found['dead'] == found['y'] == scales['y']
    for name in ('x', 'conv', 'relu', 'low'):
        assert found[name] == scales[name]


def test_depthwise_convolutions_stay() -> None:
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node('Conv', ['x', 'd'], ['a'], 'depthwise', group=4),
            helper.make_node('Conv', ['a', 'p'], ['y'], 'pointwise'),
        ],
        'g', [helper.make_tensor_value_info('x', kind, [1, 4, 5, 5])],
        [helper.make_tensor_value_info('y', kind, [1, 2, 3, 3])],
        [
            numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), 'd'),
            numpy_helper.from_array(np.ones((2, 4, 1, 1), np.float32), 'p'),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    found = with_qdq(model, {'x': 0.1, 'a': 0.2}, depthwise=True)
    nodes = {node.name: node for node in found.graph.node}
    assert nodes['depthwise'].input[0] == 'x'
    assert nodes['pointwise'].input[0] == 'a_dequantized'


# Lines as TensorRT 8.5.10 writes them, of a small network.
CACHE = """TRT-8510-EntropyCalibration2
x: 4000890a
/conv1/Conv_output_0: 3f9db09c
/relu1/Relu_output_0: 3fb6163c
/bn1/BatchNormalization_output_0: 3fb61601
(Unnamed Layer* 4) [Fully Connected]_output: 3d65992f
"""


def test_cache_round_trip_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / 'a.cache'
    path.write_text(CACHE)
    known = read_scales(path)
    assert known['x'] == pytest.approx(2.0083642, rel=1e-7)
    assert calibration_cache(known, (8, 5, 10)) == CACHE
    write_cache(known, path, (8, 6, 0), 'MinMaxCalibration')
    assert path.read_text() == CACHE.replace(
        'TRT-8510-EntropyCalibration2', 'TRT-8600-MinMaxCalibration'
    )


# real data


def test_yolox_nano(shared_data: Path, tmp_path: Path) -> None:
    """Few frames, and still most boxes are those of fp32, where the stem stays fp32."""
    model = tmp_path / 'yolox_nano.onnx'
    shutil.copy(shared_data / 'yolox_nano' / 'yolox_nano.onnx', model)
    card = load_card(resource('config', 'cards', 'yolox_nano_coco.yaml'))
    folder = shared_data / 'yolox_nano' / 'images'
    made, _ = calibrate(model, open_feeds(folder, model, card, 10), tmp_path / 's.npz', 'minmax')
    assert len(made.scales) >= 370
    assert not made.zero
    images = open_feeds(folder, model, card, 8)

    def boxes(network: Any) -> list[Any]:
        path = tmp_path / 'some.onnx'
        onnx.save(network, str(path))
        with open_engine(path) as engine:
            detector = CameraDetector(engine, card, CameraConfig())  # type: ignore[arg-type]  # a camera's
            return [detector.detect(images.raw(i)) for i in range(len(images))]  # type: ignore[arg-type]  # images

    def kept(found: list[Any]) -> float:
        pairs = [
            (iou_2d(a.xyxy, b.xyxy).max(axis=1) > 0.5).sum() if len(a) and len(b) else 0
            for a, b in zip(reference, found, strict=True)
        ]
        return float(np.sum(pairs)) / sum(map(len, reference))

    network = read_network(model)
    reference = boxes(network)
    mixed = boxes(with_qdq(network, made.scales, first=10, depthwise=True))
    bad = boxes(with_qdq(network, dict.fromkeys(made.scales, 0.001), first=10, depthwise=True))
    assert kept(mixed) >= 0.85
    assert kept(bad) < 0.5


def test_the_projects_lidar_network(
    shared_data: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ('onnx', 'yaml'):
        shutil.copy(repository / 'models' / f'apron_pointpillars.{ending}', tmp_path)
    model = tmp_path / 'apron_pointpillars.onnx'
    words = ('--data', shared_data / 'drive' / 'velodyne', '--height', 1.73, '--frames', 3)
    quantized = tmp_path / 'int8.onnx'
    words += ('--method', 'percentile', '--percentile', 99.999, '--first-half', 2)
    assert main(model, *words, '--emit-qdq', quantized) == 0
    assert 'operators in INT8' in capsys.readouterr().out
    assert find_card(quantized).sha256 == sha256_of(quantized)  # the card went along
    known, notes = read_for(model, tmp_path / 'apron_pointpillars.scales.json')
    assert not notes
    card = find_card(model)
    scans = open_feeds(words[1], model, card, 5, height=1.73)

    def boxes(path: Path) -> list[Any]:
        with open_engine(path) as engine:
            detector = LidarDetector(engine, card, LidarConfig())  # type: ignore[arg-type]  # a lidar's
            return [detector.detect(scans.raw(index)) for index in (1, 3)]  # type: ignore[arg-type]  # clouds

    kept = wanted = 0
    for a, b in zip(boxes(model), boxes(quantized), strict=True):
        distance = np.linalg.norm(a.boxes[:, None, :3] - b.boxes[None, :, :3], axis=2)
        distance[np.array(a.classes)[:, None] != np.array(b.classes)] = np.inf
        kept, wanted = kept + int((distance.min(axis=1) < 0.5).sum()), wanted + len(a)
    assert wanted > 20
    assert kept > 0.6 * wanted
    assert {card.input_name, *card.outputs} <= set(known)  # type: ignore[attr-defined]  # a lidar's


def test_errors_are_the_packages_own(model_path: Path) -> None:
    with pytest.raises(PerceptionError, match='inference failed'):
        Activations(read_network(model_path), 'net')({'x': np.zeros((1, 2, 8, 8), np.float32)})

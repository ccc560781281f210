"""Rounding while training is what Q/DQ nodes compute, and the scales are those of the files."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip('torch', reason='training needs torch')
onnx = pytest.importorskip('onnx', reason='the export needs onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='the export needs it')

from airside_perception.card import load_card  # noqa: E402  (after the checks)
from airside_perception.deploy.calibrate import read_for, with_qdq  # noqa: E402
from airside_perception.deploy.lint import lint  # noqa: E402
from airside_perception.engine.graph import has_qdq  # noqa: E402
from airside_perception.engine.qdq import scales as stored_scales  # noqa: E402
from airside_perception.replay.judge import aliases_of  # noqa: E402
from training import camera_recipe, export_camera, recipe, train, train_camera  # noqa: E402
from training.camera_network import folded as folded_camera  # noqa: E402
from training.export import card, dump, folded, write_onnx  # noqa: E402
from training.export_int8 import export  # noqa: E402
from training.heads import head_of  # noqa: E402
from training.qat import Run, main  # noqa: E402
from training.qat import run as qat_run  # noqa: E402
from training.quantize import (  # noqa: E402
    RATIOS,
    RoundedConv,
    RoundedUp,
    calibrate,
    drop,
    matching,
    plain_state,
    quantized,
    rounded,
    roundings,
    scales,
)
from training.subjects import CameraSubject, LidarSubject, subject_of  # noqa: E402

FOLDER = Path(__file__).parents[2] / 'training'
CPU = torch.device('cpu')
OPTIONS = argparse.Namespace(
    float_first=0, floats=(), rate=1e-3, calibrate=2, likeness=1.0, steps=4, device='cpu'
)


def lidar(**changes):
    return recipe.load(
        FOLDER / 'centerpoint.yaml', limits=[-10.24, -10.24, -2.0, 10.24, 10.24, 8.0],
        widths=[16, 16, 16, 16], depths=[0, 1, 1, 0], neck=16, channels=16, velocity=False,
        **changes,
    )  # fmt: skip


def camera(**changes):
    return camera_recipe.load(
        FOLDER / 'yolox.yaml', width=128, height=64, widths=[8, 8, 16, 16, 16],
        depths=[1, 1, 1, 1], neck=[16, 16, 16], head=16, **changes,
    )  # fmt: skip


def as_trained(network):
    """Weights and batch norms that differ from channel to channel."""
    torch.manual_seed(3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.2, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return network


def subjects():
    """Both kinds of networks without batch norm, with their adapters."""
    whole = folded_camera(as_trained(camera().network()))
    text = yaml.safe_load(export_camera.card(camera(), '', {}))
    first = CameraSubject(camera(), whole, CPU, text, 0)
    pillars = lidar().pillar_net()
    dense = folded(as_trained(head_of(lidar(), CPU).network()))
    text = yaml.safe_load(card(lidar(), pillars, '', {}, {}))
    return [first, LidarSubject(lidar(), pillars, dense, CPU, text, 0)]


@pytest.fixture(params=[0, 1], ids=['camera', 'lidar'])
def subject(request):
    return subjects()[request.param]


def test_rounding_is_to_even_and_within_range_and_lets_gradients_pass():
    value = torch.tensor([0.0, 0.05, 0.15, 0.25, -0.25, 20.0, -20.0], requires_grad=True)
    step = torch.tensor(0.1, requires_grad=True)
    found = rounded(value, step)
    expected = np.clip(np.rint(np.float32(value.detach()) / np.float32(0.1)), -127, 127) * 0.1
    np.testing.assert_allclose(found.detach(), expected, atol=1e-6)
    found.sum().backward()
    assert value.grad.tolist() == [1, 1, 1, 1, 1, 0, 0]
    units = value.detach() / 0.1
    inside = units.abs() <= 127
    by_hand = (torch.round(units).clamp(-127, 127) - units * inside).sum()
    assert float(step.grad) == pytest.approx(float(by_hand), abs=1e-4)


def test_calibration_takes_the_range_of_least_error():
    network = quantized(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))
    generator = torch.Generator().manual_seed(0)
    value = torch.randn((1, 1, 512, 512), generator=generator)
    value[0, 0, 0, 0] = 60.0  # one that should be cut off
    calibrate(network, lambda: iter([value]))
    (found,) = roundings(network)

    def error(step):
        kept = torch.round(value / step).clamp(-127, 127) * step
        return float((kept - value).square().mean())

    assert found.scale < 60 / 127 * 0.999 or error(found.scale) <= error(60 / 127)
    tried = [60 / 127 * ratio for ratio in RATIOS]
    assert error(found.scale) == pytest.approx(min(map(error, tried)), rel=1e-4)
    assert found.scale > 0.7 * 60 / 127  # the rare value is what an object makes


def test_q_dq_nodes_compute_what_was_trained(subject, tmp_path):
    network = quantized(copy.deepcopy(subject.network)).eval()
    inputs = [subject.example(seed) for seed in range(3)]
    calibrate(network, lambda: iter(inputs[:2]))
    plain = copy.deepcopy(subject.network)
    plain.load_state_dict(plain_state(network))
    subject.write(plain, tmp_path / 'net.onnx')
    model = onnx.load(str(tmp_path / 'net.onnx'))
    assert not lint(model, 'dla', '6.2').illegal
    known = scales(network, model)
    both = with_qdq(model, known)
    assert stored_scales(both) == pytest.approx(known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        both.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    with torch.no_grad():
        expected, before = network(inputs[2]), subject.network(inputs[2])
    if torch.is_tensor(expected):
        expected, before = [expected], [before]
    found = session.run(None, {subject.input_name: inputs[2].numpy()})
    for mine, other, exact in zip(found, expected, before, strict=True):
        rounding = float((other - exact).abs().mean())
        assert rounding > 1e-5  # it is something that is compared
        assert np.abs(mine - other.numpy()).mean() < 0.02 * rounding


def test_two_readers_of_a_tensor_share_its_scale_and_sums_read_the_rounded_one(subject):
    network = quantized(copy.deepcopy(subject.network))
    layers = [n for n in network.graph.nodes if n.op == 'call_module']
    convolutions = [
        n for n in layers if 'Rounded' in type(network.get_submodule(n.target)).__name__
    ]
    pairs = [n for n in convolutions if str(n.target).startswith('rounded_')]
    sources = [n.args[0] for n in pairs]
    assert len(set(sources)) == len(sources)
    for source, pair in zip(sources, pairs, strict=True):
        assert list(source.users) == [pair]
    weighted = [n for n in convolutions if n not in pairs]
    assert len(weighted) > len(pairs)
    assert all(n.args[0] in pairs for n in weighted)


def test_the_first_convolutions_may_stay(subject, tmp_path):
    network = quantized(copy.deepcopy(subject.network), first=1)
    calibrate(network, lambda: iter([subject.example(0)]))
    subject.write(subject.network, tmp_path / 'net.onnx')
    known = scales(network, onnx.load(str(tmp_path / 'net.onnx')))
    assert subject.input_name not in known
    whole = quantized(copy.deepcopy(subject.network))
    assert len(list(roundings(whole))) == len(known) + 1


def test_named_convolutions_may_stay(subject, tmp_path):
    """Their weights are not rounded, in torch and in the file; a deconvolution among them."""
    names = ['descend.0.merge*', 'heads.1.boxes'] if subject.input_name == 'images' else [
        'laterals.0*', 'ups.1*', 'heatmap'
    ]  # fmt: skip
    options = argparse.Namespace(**{**vars(OPTIONS), 'floats': names})
    state = Run(subject, options)
    assert len(state.kept) == len(names)
    inputs = [subject.example(seed) for seed in range(2)]
    state.calibrate(iter([(value, None) for value in inputs]))
    export(state, tmp_path, inputs)  # which compares the two
    whole = Run(subject, OPTIONS)

    def rounding(network):
        kinds = (RoundedConv, RoundedUp)
        return {name for name, layer in network.named_modules() if isinstance(layer, kinds)}

    assert rounding(whole.network) - rounding(state.network) == set(state.kept)
    made = onnx.load(str(tmp_path / f'{subject.name}_qdq.onnx')).graph.node
    weights = [node.input[1] for node in made if node.op_type == 'Conv']
    assert sum(not name.endswith('_dequantized') for name in weights) == len(names)
    with pytest.raises(ValueError, match=r"'nothing\*' is none of"):
        matching(subject.network, ['nothing*'])


def test_a_quarter_of_the_tensors_passes_a_step_unrounded(subject):
    state = Run(subject, OPTIONS)
    given = subject.example(1)
    state.calibrate(iter([(given, None)] * 2))
    shares, drawn = [], []
    for _ in range(2):
        rng = np.random.default_rng(5)
        for _ in range(20):
            drop(state.network, rng)
            drawn.append([item.dropped for item in roundings(state.network)])
            shares.append(np.mean(drawn[-1]))
    assert drawn[:20] == drawn[20:]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.06)
    one = next(roundings(state.network))
    value = torch.linspace(-1, 1, 100) * one.scale * 100
    one.dropped = True
    assert one(value) is value
    one.dropped = False
    assert (one(value) != value).any()
    assert not any(item.dropped for item in roundings(state.average))  # of which scores are


def test_weights_biases_and_scales_learn(subject, monkeypatch):
    """Where a convolution had no bias, folding makes one that torch takes for a constant."""
    state = Run(subject, OPTIONS)
    given = subject.example(1)
    state.calibrate(iter([(given, None)] * 2))
    before = {name: value.detach().clone() for name, value in state.network.named_parameters()}
    monkeypatch.setattr('training.quantize.DROPPED', 0.0)
    monkeypatch.setattr(subject, 'cost', lambda found, told: sum(
        value.square().mean() for value in (found if isinstance(found, tuple) else [found])
    ))  # fmt: skip
    state.update(given, None, 0.5)
    after = dict(state.network.named_parameters())
    still = [name for name, value in before.items() if torch.equal(value, after[name].detach())]
    assert not still


def test_a_lidar_network_is_to_answer_as_its_teacher_does_where_that_sees_something():
    subject = subjects()[1]
    heat = torch.full((1, 11, 8, 8), -6.0)
    heat[0, 2, 3, 4] = 2.0
    boxes = [torch.zeros(1, channels, 8, 8) for channels in (2, 1, 3, 2)]
    taught = (heat, *boxes)
    assert float(subject.unlike(taught, taught)) == 0
    seen = 1 / (1 + np.exp(-2.0))

    def moved(row, column, by):
        return (heat, *(value.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(row),
            torch.tensor(column)), torch.tensor(by)) for value in boxes))  # fmt: skip

    assert float(subject.unlike(moved(0, 0, 5.0), taught)) == 0  # nothing is there
    apart = 4 * (0.5 - 1 / 18) * seen  # smooth L1 of four maps
    assert float(subject.unlike(moved(3, 4, 0.5), taught)) == pytest.approx(apart, rel=1e-4)
    other = heat.clone()
    other[0, 2, 3, 4] = 0.0
    p, q = seen, 0.5
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    found = float(subject.unlike((other, *boxes), taught))
    assert found == pytest.approx(divergence, rel=1e-4)


def test_the_best_average_is_kept_and_survives_a_kill(subject, tmp_path):
    state = Run(subject, OPTIONS)
    given = [(subject.example(seed), None) for seed in range(2)]
    state.calibrate(iter(given))
    scores = iter([0.5, 0.7, 0.6, 0.65])

    def look():
        state.judge(lambda network: {'map': next(scores), 'person': 0.1})
        first = next(iter(state.average.parameters()))
        value = float(first.detach().flatten()[0])
        with torch.no_grad():
            first += 1.0
        state.step += 10
        return value

    _, best, _ = look(), look(), look()
    state.save(tmp_path)
    state = Run(subject, OPTIONS)
    state.restore(tmp_path, CPU)
    look()
    state.take_best()
    assert state.scores['kept'] == {'step': 10, 'score': 0.7}
    first = next(iter(state.average.parameters()))
    assert float(first.detach().flatten()[0]) == best


@pytest.mark.parametrize(
    ('words', 'steps'), [('', 3000), ('--minutes 3', 10**9), ('--minutes 3 --steps 7', 7)]
)
def test_a_schedule_ends_by_its_minutes_where_they_are_given(words, steps, monkeypatch):
    given = []
    monkeypatch.setattr('sys.argv', ['qat', '--run', 'there', *words.split()])
    monkeypatch.setattr('training.qat.subject_of', lambda *_, **__: None)
    monkeypatch.setattr('training.qat.run', lambda _, __, options: given.append(options))
    main()
    assert given[0].steps == steps


@pytest.mark.slow
def test_a_run_is_taught_int8_and_goes_on(tmp_path):
    """From the folder of a training to the files of INT8; the second sitting adds a step."""
    small = recipe.load(
        FOLDER / 'centerpoint.yaml', limits=[-30.72, -30.72, -2.0, 30.72, 30.72, 8.0],
        widths=[8, 8, 8, 8], depths=[0, 0, 0, 0], neck=8, channels=8, batch=1, workers=1, pool=2,
        validation={'scenes': 1, 'first_scene': 900000, 'max_range': 30},
    )  # fmt: skip
    train.Run(small, CPU).save(tmp_path / 'run')
    subject = subject_of(str(tmp_path / 'run'), '', '', CPU)
    options = argparse.Namespace(
        **{**vars(OPTIONS), 'rate': None, 'steps': 2, 'minutes': 0, 'resume': None, 'every': 1,
           'save_seconds': 60.0, 'judge_seconds': 0.0, 'floats': ['heatmap']}
    )  # fmt: skip
    out = tmp_path / 'int8'
    qat_run(subject, out, options)
    options.steps = 3
    qat_run(subject_of(str(tmp_path / 'run'), '', '', CPU), out, options)
    lines = [json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if 'progress' in line] == [1, 2, 3]
    assert all(np.isfinite(line['unlike']) for line in lines if 'progress' in line)
    scores = json.loads((out / 'scores.json').read_text())
    assert set(scores) == {'fp32', 'calibrated', 'trained', 'kept'}
    assert (out / 'apron_centerpoint_qdq.onnx').exists()
    assert load_card(out / 'apron_centerpoint.yaml').about['simulated_classes']


def test_training_brings_it_back_to_fp32(subject):
    """With scales that are far off, a few steps towards the fp32 answers must help."""
    state = Run(subject, OPTIONS)
    given = subject.example(4)
    state.calibrate(iter([(given, None)] * 2))
    with torch.no_grad():
        for item in roundings(state.network):
            item.log_step += 1.2
    with torch.no_grad():
        taught = subject.network(given)
    values = []
    for group in state.optimizer.param_groups:
        group['lr'] = 40 * group['peak']
    for _ in range(25):
        apart = subject.unlike(state.network(given), taught)
        state.optimizer.zero_grad()
        apart.backward()
        state.optimizer.step()
        values.append(float(apart.detach()))
    assert np.isfinite(values).all()
    assert np.mean(values[-3:]) < 0.7 * np.mean(values[:3])


def test_what_is_written_is_read_by_the_package(subject, tmp_path):
    state = Run(subject, OPTIONS)
    inputs = [subject.example(seed) for seed in range(2)]
    state.calibrate(iter([(value, None) for value in inputs]))
    said = export(state, tmp_path, inputs)
    assert 'every layer is one of the DLA' in said
    path = tmp_path / f'{subject.name}.onnx'
    read = load_card(path.with_suffix('.yaml'))
    assert 'int8' in read.about
    known, notes = read_for(path, path.with_suffix('.scales.json'))
    assert not notes
    for_dla = json.loads((tmp_path / f'{subject.name}.dla.scales.json').read_text())
    assert set(known) < set(for_dla)
    assert all(for_dla[name] >= value * (1 - 1e-6) for name, value in known.items())
    both = onnx.load(str(tmp_path / f'{subject.name}_qdq.onnx'))
    assert has_qdq(both)
    assert load_card(tmp_path / f'{subject.name}_qdq.yaml').sha256 != read.sha256


def test_a_network_of_models_is_gone_on_with(tmp_path):
    """Weights and pillar feature net come back from the files that training wrote."""
    training = lidar()
    dense = folded(as_trained(head_of(training, CPU).network()))
    pillars = training.pillar_net().eval()
    path = tmp_path / 'net.onnx'
    write_onnx(dense, torch.zeros(1, 16, 64, 64), path, 'canvas', head_of(training, CPU).outputs)
    path.with_suffix('.yaml').write_text(card(training, pillars, 'abc', {'licence': 'x'}, {}))
    config = tmp_path / 'recipe.yaml'
    values = json.loads(json.dumps(recipe_values(training)))
    config.write_text(dump(values))
    found = subject_of('', str(path), str(config), CPU)
    canvas = found.example(0)
    with torch.no_grad():
        for mine, other in zip(found.network(canvas), dense(canvas), strict=True):
            torch.testing.assert_close(mine, other)
        points = torch.randn(50, len(training.features))
        pillar = torch.arange(50) // 5
        cells = torch.arange(10) * 7
        expected = pillars(points, pillar, cells, (1, 64, 64))
        torch.testing.assert_close(
            found._pillars(points, pillar, cells, (1, 64, 64)), expected, atol=1e-5, rtol=1e-5
        )
    text = found.card('def', {'int8': 1})
    assert 'def' in text
    assert 'licence: x' in text
    with pytest.raises(ValueError, match='is not as the recipe has it'):
        subject_of('', str(path), str(config), CPU, neck=8)


@pytest.mark.parametrize('kind', ['camera', 'lidar'])
def test_the_card_of_a_run_says_what_its_export_would(kind, tmp_path):
    """Which classes of the simulator a label answers for above all: else they are false alarms."""
    training, make = (camera(), train_camera) if kind == 'camera' else (lidar(), train)
    make.Run(training, CPU).save(tmp_path)
    found = subject_of(str(tmp_path), '', '', CPU)
    path = tmp_path / 'net.yaml'
    path.write_text(found.card('abc', {'int8': {'recipe': 'some'}}), encoding='utf-8')
    read = load_card(path)
    assert read.sha256 == 'abc'
    assert {'int8', 'source', 'licence', 'training', 'parameters'} <= set(read.about)
    assert f'seed {training.seed}' in read.about['training']
    known = aliases_of([read])
    assert {known[name] for name in ('truck', 'fuel_truck', 'catering_truck')} == {'truck'}


def recipe_values(training):
    return dataclasses.asdict(training)

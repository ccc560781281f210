"""`engine profile`: what ONNX Runtime and TensorRT report, layer by layer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.deploy.__main__ import main
from airside_perception.deploy.bench.settings import InputSettings
from airside_perception.deploy.profile.engine_layers import read_information, without_profile
from airside_perception.deploy.profile.layers import Known, category_of, make_layers, parts
from airside_perception.deploy.profile.onnx_layers import read_events
from airside_perception.deploy.profile.page import page
from airside_perception.deploy.profile.report import describe
from airside_perception.deploy.profile.run import Profile, profile
from airside_perception.errors import EngineError

Capture = pytest.CaptureFixture[str]

DLA_PROFILE = {
    'images to nvm': 0.0852,
    '{ForeignNode[Conv_0...Concat_198]}': 0.0085,
    'head_3 from nvm': 7.6931,
    'images copy finish': 0.0017,
    'head_3 copy finish': 0.0029,
    'head_2 from nvm': 0.0072,
    'Reformatting CopyNode for Input Tensor 0 to Conv_300': 0.03,
    'Conv_300 + Relu_301': 0.5,
}
"""Times in ms of a DLA engine on an Orin as trtexec 8.5 gives them (NVIDIA/TensorRT #3143), with a
layer on the GPU behind it."""


@pytest.mark.parametrize(
    ('name', 'kind', 'category'),
    [
        ('Reformatting CopyNode for Input Tensor 0 to Conv_0', '', 'reformat'),
        ('Reformatting CopyNode for Output Tensor 0 to Conv_0 [profile 1]', '', 'reformat'),
        ('Conv_41 input reformatter 0', '', 'reformat'),
        ('Conv_757 || Conv_635 output reformatter 0', '', 'reformat'),
        ('/stem/Conv_output_0 copy', 'Reformat', 'reformat'),
        ('Resize_119 copy', '', 'reformat'),
        ('reshape_after_MatMul', 'NoOp', 'reformat'),
        ('ReorderOutput_token_226', 'ReorderOutput', 'reformat'),
        ('ReorderInput', 'ReorderInput', 'reformat'),
        ('images to nvm', '', 'transfer'),
        ('head_3 copy finish', '', 'transfer'),
        ('head_3 from nvm', '', 'dla'),
        ('head_3 from nvm [profile 0]', '', 'dla'),
        ('{ForeignNode[Conv_0...Concat_198]}', '', 'compute'),
        ('Conv_0 + Relu_1', 'CaskConvolution', 'compute'),
        ('copy_net/Conv', 'Conv', 'compute'),
        ('Transpose_423', 'Transpose', 'compute'),
    ],
)
def test_what_a_layer_does(name: str, kind: str, category: str) -> None:
    assert category_of(name, kind) == category


def test_shares() -> None:
    times = {'a': [1.0, 9.0, 2.0], 'b': [6.0, 5.0, 7.0], 'a copy': [2.0, 2.0, 2.0]}
    layers = make_layers(times, {'b': Known('Conv', 'gpu', 'fp16')})
    assert [layer.name for layer in layers] == ['b', 'a', 'a copy']
    assert [layer.ms for layer in layers] == [6.0, 2.0, 2.0]
    assert [layer.mean_ms for layer in layers] == [6.0, 4.0, 2.0]
    assert [layer.share for layer in layers] == pytest.approx([0.6, 0.2, 0.2])
    assert [layer.cumulative for layer in layers] == pytest.approx([0.6, 0.8, 1.0])
    assert [layer.place for layer in layers] == [1, 0, 2]
    assert (layers[0].kind, layers[0].precision) == ('Conv', 'fp16')
    compute, reformat = parts(layers, 'category')
    assert (compute.name, compute.count, compute.ms) == ('compute', 2, 8.0)
    assert (reformat.name, reformat.count, reformat.share) == ('reformat', 1, 0.2)
    assert make_layers({'a': [0.0]}, {})[0].share == 0.0


INFORMATION = {
    'Layers': [
        {
            'Name': 'Reformatting CopyNode for Input Tensor 0 to conv',
            'LayerType': 'Reformat',
            'Inputs': [{'Name': 'x', 'Format/Datatype': 'Row major linear FP32'}],
            'Outputs': [
                {'Name': 'r', 'Dimensions': [1, 3, 8, 8],
                 'Format/Datatype': 'Channel major FP16 format where channel % 8 == 0'}
            ],
        },
        {
            'Name': 'conv',
            'LayerType': 'CaskConvolution',
            'Weights': {'Type': 'Int8', 'Count': 27},
            'Outputs': [{'Name': 'c', 'Format/Datatype': 'Half'}],
        },
        {
            'Name': '{ForeignNode[a...b]}',
            'LayerType': 'DLA',
            'Outputs': [
                {'Name': 'd',
                 'Format/Datatype': 'Thirty-two wide channel vectorized row major Int8 format'}
            ],
        },
        {'Name': '{ForeignNode[m...n]}', 'LayerType': 'Myelin', 'Outputs': []},
        {
            'Name': 'add [profile 1]',
            'LayerType': 'ElementWise',
            'Outputs': [{'Name': 'e', 'Format/Datatype': 'N/A due to dynamic shapes'}],
        },
        {'Name': 'soft', 'LayerType': 'kgen', 'Outputs': [{'Format/Datatype': 'BFloat16'}]},
    ],
    'Bindings': ['x', 'e'],
}  # fmt: skip
"""As the inspector of TensorRT 8.6 and 10 gives it with detailed verbosity."""


def test_what_the_inspector_says() -> None:
    found = read_information(json.dumps(INFORMATION), dla_core=0)
    assert list(found.values()) == [
        Known('Reformat', 'gpu', 'fp16'),
        Known('CaskConvolution', 'gpu', 'int8'),
        Known('DLA', 'dla', 'int8'),
        Known('Myelin', 'gpu', ''),
        Known('ElementWise', 'gpu', ''),
        Known('kgen', 'gpu', 'bf16'),
    ]
    # the profiler may or may not say which optimisation profile a layer is of
    named = without_profile(found, dict.fromkeys(['add', 'conv [profile 1]', 'conv', 'other']))
    assert [about.kind for about in named.values()] == [
        'ElementWise', 'CaskConvolution', 'CaskConvolution', '',
    ]  # fmt: skip


@pytest.mark.parametrize(('core', 'device'), [(0, 'dla'), (-1, 'gpu')])
def test_names_only(core: int, device: str) -> None:
    """Both the DLA and the GPU's own compiler have foreign nodes."""
    text = json.dumps({'Layers': ['conv', '{ForeignNode[a...b]}']})
    found = read_information(text, core)
    assert [about.device for about in found.values()] == ['gpu', device]


# --- ONNX Runtime --------------------------------------------------------------------------------


def small(path: Path, batch: int | str = 1) -> Path:
    """Two convolutions with a ReLU each, which ONNX Runtime fuses; x [1, 16, 32, 32]."""
    weight = np.random.default_rng(0).normal(size=(16, 16, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['a'], 'first', pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['a'], ['b'], 'first_relu'),
        helper.make_node('Conv', ['b', 'w'], ['c'], 'second', pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c'], ['d'], 'second_relu'),
        helper.make_node('Sin', ['d'], ['e']),
        helper.make_node('Sin', ['e'], ['y']),  # without a name, as the one before
    ]
    shape = [batch, 16, 32, 32]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in 'xy']
    graph = helper.make_graph(
        nodes, 'small', values[:1], values[1:], [numpy_helper.from_array(weight, 'w')]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_fused_nodes_by_their_type(tmp_path: Path) -> None:
    found = profile(small(tmp_path / 'small.onnx'), iterations=4)
    counts = Counter(layer.kind for layer in found.layers)
    convolutions = counts['Conv'] + counts['FusedConv']  # by the processor's vector units
    assert convolutions == 2
    assert counts['Sin'] == 2
    assert 'Relu' not in counts  # they went into the convolutions
    assert {layer.device for layer in found.layers} == {'cpu'}
    assert {layer.precision for layer in found.layers} == {'fp32'}
    assert sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    assert found.layers[-1].cumulative == pytest.approx(1.0)
    assert sorted(layer.place for layer in found.layers) == list(range(len(found.layers)))
    assert found.sum_ms == pytest.approx(sum(layer.ms for layer in found.layers))
    assert found.run is not None
    assert found.run.count == 4
    reorders = counts['ReorderInput'] + counts['ReorderOutput']
    assert sum(part.count for part in found.categories if part.name == 'reformat') == reorders
    assert (found.share('reformat') > 0) == bool(reorders)
    assert found.share('transfer') == found.share('dla') == 0.0


def test_nothing_is_left_of_the_profile(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    profile(small(tmp_path / 'small.onnx'), iterations=1)
    assert [path.name for path in tmp_path.iterdir()] == ['small.onnx']


def event(name: str, dur: int, op: str = 'Add', index: int = 0) -> dict[str, Any]:
    about = {'op_name': op, 'node_index': str(index), 'output_type_shape': [{'float16': [1]}]}
    return {'cat': 'Node', 'name': f'{name}_kernel_time', 'dur': dur, 'args': about}


def run_event(dur: int) -> dict[str, Any]:
    return {'cat': 'Session', 'name': 'model_run', 'dur': dur, 'args': {}}


def test_events() -> None:
    events: list[dict[str, Any]] = [{'cat': 'Session', 'name': 'session_initialization', 'dur': 9}]
    for run in range(3):  # one to warm up
        events += [
            event('a', 1000 + run, 'Conv'), event('', 10, index=5), event('', 20, index=6),
            event('twice', 100), event('twice', 200 + run), run_event(2000 + run),
        ]  # fmt: skip
    times, known, runs = read_events('net.onnx', events, 1, 2)
    assert times == {
        'a': pytest.approx([1.001, 1.002]),
        'Add 5': pytest.approx([0.01, 0.01]),
        'Add 6': pytest.approx([0.02, 0.02]),
        'twice': pytest.approx([0.301, 0.302]),
    }
    assert known['a'] == Known('Conv', 'cpu', 'fp16')
    assert runs == [2.001, 2.002]
    with pytest.raises(EngineError, match='2 of 3 runs are in the profile'):
        read_events('net.onnx', events[:-1], 1, 2)
    del events[1]
    with pytest.raises(EngineError, match="node 'a' is 2 times in a profile of 3 runs"):
        read_events('net.onnx', events, 1, 2)


def test_shapes_of_a_network_that_varies(tmp_path: Path) -> None:
    network = small(tmp_path / 'small.onnx', batch='n')
    inputs = InputSettings({'x': (3, 16, 32, 32)}, threads=1)
    assert profile(network, 1, inputs).inputs == ('x: float32 [3, 16, 32, 32]',)
    assert profile(network, 1).inputs == ('x: float32 [1, 16, 32, 32]',)


def test_the_verb(tmp_path: Path, capsys: Capture) -> None:
    network, html = str(small(tmp_path / 'small.onnx')), tmp_path / 'layers.html'
    words = ['profile', network, '--iterations', '2']
    assert main([*words, '--top', '1', '--html', str(html)]) == 0
    text = capsys.readouterr().out
    assert 'more (--top 0 shows all)' in text
    assert 'whole run' in text
    assert f'{html}: all layers with bars' in text
    assert html.read_text(encoding='utf-8').count('<rect ') >= 4
    assert main([*words, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['iterations'] == 2
    assert found['transfer_share'] == 0.0
    assert len(found['layers']) >= 4
    assert main([*words, '--top', '0']) == 0
    assert 'more (--top' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--iterations', '0'], 'iterations = 0: expected 1 or more'),
        (['--top', '-1'], 'top = -1: expected 0 or more'),
        (['--shape', 'z:1'], "shape of 'z': no such input; there are x"),
        (['--iterations', '1', '--html', '{folder}/small.onnx/a.html'], 'cannot be written'),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, words: list[str], said: str, capsys: Capture
) -> None:
    network = small(tmp_path / 'small.onnx')
    words = [word.replace('{folder}', str(tmp_path)) for word in words]
    assert main(['profile', str(network), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count('\n') == 1


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture
def of_dla() -> Profile:
    """Of the engine of DLA_PROFILE."""
    names = ['images to nvm', '{ForeignNode[Conv_0...Concat_198]}', 'Conv_300 + Relu_301']
    known = dict(zip(names, [Known('', 'gpu'), Known('DLA', 'dla', 'int8'),
                             Known('CaskConvolution', 'gpu', 'fp16')], strict=True))  # fmt: skip
    layers = make_layers({name: [ms] * 3 for name, ms in DLA_PROFILE.items()}, known)
    return Profile(
        path='engines/<head>.int8.dla0.engine',
        runs_on='tensorrt 8.5.2 (Orin (sm_87), DLA 0, int8)',
        inputs=('images: float16 [1, 3, 384, 640]',),
        data='random',
        iterations=3,
        layers=layers,
        sum_ms=sum(DLA_PROFILE.values()),
        run=None,
        categories=parts(layers, 'category'),
        kinds=parts(layers, 'kind'),
        notes=('a DLA computes on its own',),
    )


def test_shares_of_a_dla_engine(of_dla: Profile) -> None:
    total = sum(DLA_PROFILE.values())
    assert of_dla.share('dla') == pytest.approx((7.6931 + 0.0072) / total)
    assert of_dla.share('transfer') == pytest.approx((0.0852 + 0.0017 + 0.0029) / total)
    assert of_dla.share('reformat') == pytest.approx(0.03 / total)
    text = describe(of_dla)
    assert 'wait for a DLA and fetch' in text
    assert 'note        a DLA computes on its own' in text
    lines = [line for line in text.splitlines() if 'ForeignNode' in line]
    assert len(lines) == 1
    assert ' dla  int8  DLA ' in lines[0]
    found = of_dla.as_dict()
    assert found['dla_share'] == of_dla.share('dla')
    assert json.dumps(found)


def test_long_names_lose_their_middle(of_dla: Profile) -> None:
    long = ' + '.join(f'/blocks.{n}/conv/Conv' for n in range(9))
    layers = make_layers({long: [1.0]}, {})
    text = describe(Profile(**{**vars(of_dla), 'layers': layers}))
    (line,) = (line for line in text.splitlines() if '/blocks.0' in line)
    assert line.endswith('/blocks.8/conv/Conv')
    assert '...' in line
    assert long not in text


def test_the_page_opens(tmp_path: Path, of_dla: Profile, browser: ModuleType) -> None:
    path = tmp_path / 'layers.html'
    text = page(of_dla)
    path.write_text(text, encoding='utf-8')
    assert browser.open_page(path, tmp_path / 'layers.png') == []
    assert '&lt;head&gt;.int8' in text
    assert text.count('<rect ') == len(DLA_PROFILE)
    for name in DLA_PROFILE:
        assert f'<code>{name}</code>' in text


def test_the_projects_networks(repository: Path) -> None:
    """The blocked convolutions of this processor may reorder; nothing is unknown."""
    found = profile(repository / 'models' / 'apron_yolox.onnx', iterations=1)
    assert all(layer.kind and layer.precision for layer in found.layers)
    model = onnx.load(str(repository / 'models' / 'apron_yolox.onnx'), load_external_data=False)
    convolutions = sum(node.op_type == 'Conv' for node in model.graph.node)
    kinds = Counter(layer.kind for layer in found.layers)
    assert kinds['Conv'] + kinds['FusedConv'] == convolutions

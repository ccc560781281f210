"""`engine inspect`: what is in a network, and whether its card fits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from airside_perception.deploy.__main__ import main
from airside_perception.deploy.inspect import describe, inspect_network
from airside_perception.errors import CardError, EngineError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def camera(tiny_models: Any, tmp_path: Path) -> Path:
    return Path(tiny_models.tiny_camera_model(tmp_path))


@pytest.fixture
def lidar(tiny_models: Any, tmp_path: Path) -> Path:
    return Path(tiny_models.tiny_lidar_model(tmp_path))


def test_a_camera_network(camera: Path) -> None:
    found = inspect_network(camera)
    assert found.inputs == ('images: float32 [1, 3, 64, 96]',)
    assert found.outputs == ('output: float32 [1, 6, 7]',)
    assert found.operators == {'AveragePool': 1, 'Conv': 1, 'Reshape': 1, 'Transpose': 1}
    assert found.parameters == 7 * 3 + 7 + 3
    assert found.opsets == {'ai.onnx': 13}
    assert found.bytes == camera.stat().st_size
    assert found.sha256 == hashlib.sha256(camera.read_bytes()).hexdigest()
    assert found.backend.startswith('onnxruntime ')
    assert (found.device, found.precision) == ('cpu', 'fp32')
    assert found.card is not None
    assert found.card['input'] == '96 x 64, bgr'
    assert found.card_problem == ''


def test_a_lidar_network(lidar: Path) -> None:
    found = inspect_network(lidar)
    assert found.operators['Conv'] == 3
    assert found.card is not None
    assert found.card['input'] == '80 x 80 pillars of 0.5 x 0.5 m'
    assert found.card['anchors'] == 2
    assert found.card_problem == ''


def test_a_network_with_a_center_head(tiny_models: Any, tmp_path: Path, capsys: Capture) -> None:
    network = Path(tiny_models.tiny_center_model(tmp_path))
    assert main(['inspect', str(network)]) == 0
    text = capsys.readouterr().out
    for word in ('centerpoint', 'sizes wlh, angle minus_y_clockwise', 'vel: float32 [1, 2, 40'):
        assert word in text
    anchors = Path(tiny_models.tiny_lidar_model(tmp_path)).with_suffix('.yaml')
    assert main(['inspect', str(network), '--card', str(anchors)]) == 1
    assert "no input 'canvas'" in capsys.readouterr().out


def test_without_a_card(camera: Path) -> None:
    camera.with_suffix('.yaml').unlink()
    found = inspect_network(camera)
    assert found.card is None
    assert 'none beside it' in describe(found)


def test_a_card_for_another_network(lidar: Path, camera: Path, capsys: Capture) -> None:
    assert main(['inspect', str(lidar), '--card', str(camera.with_suffix('.yaml'))]) == 1
    assert 'PROBLEM     ' in (text := capsys.readouterr().out)
    assert "no input 'images'" in text


def test_text(camera: Path, capsys: Capture) -> None:
    assert main(['inspect', str(camera)]) == 0
    text = capsys.readouterr().out
    for word in ('31 parameters', 'opset 13', 'Conv 1', 'person, car', 'onnxruntime'):
        assert word in text


def test_nodes_of_a_network(camera: Path, capsys: Capture) -> None:
    assert main(['inspect', str(camera), '--layers']) == 0
    text = capsys.readouterr().out
    assert '    float    AveragePool  mean\n' in text
    assert '    float    Transpose    output\n' in text
    assert inspect_network(camera).layers == ()
    kinds = [layer['kind'] for layer in inspect_network(camera, layers=True).layers]
    assert kinds == ['AveragePool', 'Conv', 'Reshape', 'Transpose']


def test_a_card_may_say_what_json_does_not_know(camera: Path, capsys: Capture) -> None:
    beside = camera.with_suffix('.yaml')
    about = '\nabout: {trained: 2024-05-01, path: elsewhere}\n'
    beside.write_text(beside.read_text() + about)
    assert main(['inspect', str(camera), '--json']) == 0
    card = json.loads(capsys.readouterr().out)['card']
    assert (card['trained'], card['path']) == ('2024-05-01', str(beside))


def test_json(lidar: Path, capsys: Capture) -> None:
    assert main(['inspect', str(lidar), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['inputs'] == ['canvas: float32 [1, 4, 80, 80]']
    assert found['card']['classes'] == ['car', 'person']


def test_constants_in_the_graph_are_parameters(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    value = numpy_helper.from_array(np.ones((3, 4), np.float32))
    graph = helper.make_graph(
        [
            helper.make_node('Constant', [], ['weight'], value=value),
            helper.make_node('Add', ['x', 'weight'], ['y']),
        ],
        'g',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, ['rows', 4])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [3, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)])
    model.ir_version = 8
    onnx.save(model, str(tmp_path / 'a.onnx'))
    found = inspect_network(tmp_path / 'a.onnx')
    assert found.parameters == 12
    assert found.inputs == ('x: float32 [?, 4]',)


def test_long_lists_are_cut_in_text_only(tiny_models: Any, tmp_path: Path) -> None:
    path = tiny_models.tiny_camera_model(tmp_path, about={'note': 'word ' * 100})
    found = inspect_network(path)
    assert found.card is not None
    assert len(found.card['note']) == 500
    assert max(map(len, describe(found).splitlines())) < 130
    assert describe(found).endswith(' ...')


@pytest.mark.parametrize(
    ('name', 'content', 'error'),
    [
        ('none.onnx', None, 'no such network'),
        ('broken.onnx', b'not a network', 'cannot load it'),
        ('engine.bin', b'1234', 'unknown kind of network'),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, name: str, content: bytes | None, error: str, capsys: Capture
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError):
        inspect_network(path)
    assert main(['inspect', str(path)]) == 2
    text = capsys.readouterr().err
    assert error in text
    assert text.startswith('engine: ')
    assert text.count('\n') == 1


def test_a_broken_or_missing_card_is_bad_input(camera: Path, capsys: Capture) -> None:
    with pytest.raises(CardError):
        inspect_network(camera, str(camera.with_name('none.yaml')))
    camera.with_suffix('.yaml').write_text('name: 3')
    assert main(['inspect', str(camera)]) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_resize(camera: Path, tmp_path: Path, capfd: Capture) -> None:
    """The tiny network has its shape built in: it says so."""
    out = tmp_path / 'wide.onnx'
    assert main(['resize', str(camera), str(out), '--height', '64', '--width', '96']) == 0
    assert inspect_network(out).card_problem == ''
    assert main(['resize', str(camera), str(out), '--height', '64', '--width', '128']) == 2
    error = capfd.readouterr().err  # with what ONNX Runtime itself writes
    assert 'does not run at 64 x 128' in error
    assert error.count('\n') == 1


def test_a_real_network(shared_data: Path, repository: Path) -> None:
    card = repository / 'config' / 'cards' / 'yolox_nano_coco.yaml'
    found = inspect_network(shared_data / 'yolox_nano' / 'yolox_nano.onnx', str(card))
    assert found.inputs == ('images: float32 [1, 3, 416, 416]',)
    assert found.outputs == ('output: float32 [1, 3549, 85]',)
    assert found.opsets == {'ai.onnx': 11}
    assert 0.9e6 < found.parameters < 0.92e6
    assert found.card_problem == ''

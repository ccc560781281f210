"""Networks of a few hundred bytes with predictable answers, and their cards.

Tests get this module as the fixture `tiny_models`.

The lidar network looks at the intensity: every output cell (1 m) that holds a point gives a car
with the score `sigmoid(20 * (i - 0.5))` and a person with `sigmoid(20 * (0.5 - i))`, where i is
the highest intensity in it; each in the middle of the cell, on the ground, yaw 0. The camera
network looks at the brightness: every cell of 32 x 32 pixels gives a car of that place and size,
whose score is the mean brightness / 255. The network with a centre head finds what the lidar
network finds, at the same places, but a person is a box of a car's size; its sizes and angles are
those of Autoware's networks. The one with velocities sees the last cloud, too: every output cell
that holds a point gives a car with the velocity (10 a, 0.25) m/s, where a is the age of the oldest
point in it, in seconds; it needs no intensity.

With `half`, inputs and outputs are float16; the network between them is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

CAR = (4.0, 2.0, 1.5)
PERSON = (0.6, 0.6, 1.8)
RANGE = [0.0, -20.0, -1.0, 40.0, 20.0, 3.0]
SIZES = {'person': list(PERSON), 'car': list(CAR)}


def tiny_lidar_model(
    folder: Path, own_labels: bool = False, half: bool = False, **changes: Any
) -> Path:
    """Writes tiny_lidar.onnx and its card into `folder`; `changes` replace keys of the card.

    The grid is 80 x 80 pillars of 0.5 m, the output 40 x 40 cells; classes car, person. There is a
    score channel for every class at every anchor, or with `own_labels` only for the anchor's own.
    """
    weight = np.zeros((4, 4, 1, 1))  # [anchor * 2 + class, channel]
    bias = np.full(4, -50.0)
    weight[0, 1], weight[0, 0], bias[0] = 20.0, 20.0, -30.0  # car: 20 i - 10, where occupied
    weight[3, 1], weight[3, 0], bias[3] = -20.0, 40.0, -30.0  # person: 10 - 20 i
    if own_labels:
        weight, bias = weight[[0, 3]], bias[[0, 3]]
    nodes = [
        helper.make_node('MaxPool', ['canvas'], ['cells'], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node('Conv', ['cells', 'weight', 'bias'], ['scores']),
        helper.make_node('Conv', ['cells', 'nothing_14'], ['boxes']),
        helper.make_node('Conv', ['cells', 'nothing_4'], ['directions']),
    ]
    constants = {
        'weight': weight,
        'bias': bias,
        'nothing_14': np.zeros((14, 4, 1, 1)),
        'nothing_4': np.zeros((4, 4, 1, 1)),
    }
    channels = {'scores': len(bias), 'boxes': 14, 'directions': 4}
    outputs = {name: [1, n, 40, 40] for name, n in channels.items()}
    path = folder / 'tiny_lidar.onnx'
    _save(path, nodes, {'canvas': [1, 4, 80, 80]}, outputs, constants, half)
    anchors: list[dict[str, Any]] = [
        {'class': 'car', 'size': list(CAR), 'z': CAR[2] / 2, 'yaws': [0.0]},
        {'class': 'person', 'size': list(PERSON), 'z': PERSON[2] / 2, 'yaws': [0.0]},
    ]
    if own_labels:
        anchors = [{**anchor, 'labels': [anchor['class']]} for anchor in anchors]
    card = {
        'name': 'tiny_lidar',
        'architecture': 'pointpillars',
        'classes': ['car', 'person'],
        'thresholds': {'car': 0.3, 'person': 0.3},
        'input': {'range': RANGE, 'pillar': [0.5, 0.5], 'max_points': 8, 'max_pillars': 1000},
        'encoder': _encoder(),
        'output': {'stride': 2, 'anchors': anchors},
    }
    return _write_card(path, card, changes)


def tiny_center_model(folder: Path, half: bool = False, **changes: Any) -> Path:
    """Writes tiny_center.onnx and its card into `folder`; `changes` replace keys of the card.

    Grid, cells and classes are those of `tiny_lidar_model`. There is a velocity, too, which nobody
    asks for.
    """
    heatmap = np.zeros((2, 4, 1, 1))
    heatmap[0, :2, 0, 0] = 20.0, 20.0  # car: 20 i - 10, where occupied
    heatmap[1, :2, 0, 0] = 40.0, -20.0  # person: 10 - 20 i
    weights = {'heatmap': heatmap, 'vel': np.zeros((2, 4, 1, 1))}
    return _center_model(folder / 'tiny_center.onnx', weights, _encoder(), half, changes)


def tiny_velocity_model(
    folder: Path, half: bool = False, past_sweeps: int = 1, **changes: Any
) -> Path:
    """Writes tiny_velocity.onnx and its card, which names past sweeps and velocities.

    Else it is the network of `tiny_center_model`.
    """
    heatmap, velocity = np.zeros((2, 2, 4, 1, 1))
    heatmap[0, 0] = 40.0  # car: 10, where occupied; person: -30
    velocity[0, 1] = 10.0
    weights = {'heatmap': heatmap, 'vel': velocity}
    path = folder / 'tiny_velocity.onnx'
    found = _center_model(path, weights, _encoder('time_lag'), half, {}, [0.0, 0.25])
    card = yaml.safe_load(path.with_suffix('.yaml').read_text(encoding='utf-8'))
    card['input']['past_sweeps'] = past_sweeps
    card['output']['velocity'] = 'vel'
    _write_card(path, card, changes)
    return found


def _center_model(
    path: Path,
    weights: dict[str, Any],
    encoder: dict[str, Any],
    half: bool,
    changes: dict[str, Any],
    velocity: Sequence[float] = (0.0, 0.0),
) -> Path:
    length, width, height = CAR
    head = {
        'heatmap': [-30.0, -30.0],
        'reg': [0.5, 0.5],
        'height': [height / 2],
        'dim': np.log([width, length, height]).tolist(),
        'rot': [-1.0, 0.0],  # sine and cosine; -90 degrees from -y, clockwise: towards x
        'vel': velocity,
    }
    nodes = [
        helper.make_node(
            'MaxPool', ['spatial_features'], ['cells'], kernel_shape=[2, 2], strides=[2, 2]
        )
    ]
    constants = {}
    for name, bias in head.items():
        nodes.append(helper.make_node('Conv', ['cells', f'{name}_w', f'{name}_b'], [name]))
        constants[f'{name}_b'] = np.array(bias)
        constants[f'{name}_w'] = weights.get(name, np.zeros((len(bias), 4, 1, 1)))
    outputs = {name: [1, len(bias), 40, 40] for name, bias in head.items()}
    _save(path, nodes, {'spatial_features': [1, 4, 80, 80]}, outputs, constants, half)
    card = {
        'name': path.stem,
        'architecture': 'centerpoint',
        'classes': ['car', 'person'],
        'thresholds': {'car': 0.3, 'person': 0.3},
        'input': {
            'range': RANGE,
            'pillar': [0.5, 0.5],
            'max_points': 8,
            'max_pillars': 1000,
            'name': 'spatial_features',
        },
        'encoder': encoder,
        'output': {
            'stride': 2,
            'size_order': 'wlh',
            'heading': 'minus_y_clockwise',
            'rotation_norms': {'car': 0.3},
        },
    }
    return _write_card(path, card, changes)


def tiny_camera_model(folder: Path, half: bool = False, **changes: Any) -> Path:
    """Writes tiny_camera.onnx and its card into `folder`; `changes` replace keys of the card.

    Input 64 x 96 (bgr), one stride of 32, so six cells; classes person (never found), car.
    """
    weight = np.zeros((7, 3, 1, 1))
    weight[4] = 1 / (3 * 255)
    nodes = [
        helper.make_node(
            'AveragePool', ['images'], ['mean'], kernel_shape=[32, 32], strides=[32, 32]
        ),
        helper.make_node('Conv', ['mean', 'weight', 'bias'], ['cells']),
        helper.make_node('Reshape', ['cells', 'shape'], ['rows']),
        helper.make_node('Transpose', ['rows'], ['output'], perm=[0, 2, 1]),
    ]
    constants = {
        'weight': weight,
        'bias': np.array([0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0]),  # middle, log(32 / 32), car
        'shape': np.array([1, 7, 6], np.int64),
    }
    path = folder / 'tiny_camera.onnx'
    _save(path, nodes, {'images': [1, 3, 64, 96]}, {'output': [1, 6, 7]}, constants, half)
    card = {
        'name': 'tiny_camera',
        'architecture': 'yolox',
        'classes': ['person', 'car'],
        'thresholds': {'person': 0.3, 'car': 0.3},
        'input': {'height': 64, 'width': 96},
        'output': {'strides': [32]},
        'sizes': SIZES,
    }
    return _write_card(path, card, changes)


def _encoder(feature: str = 'intensity') -> dict[str, Any]:
    """A pillar feature net: channel 0 says occupied, channel 1 the feature, 2 and 3 nothing."""
    features = ['x', 'y', 'z', feature, 'xc', 'yc', 'zc', 'xp', 'yp']
    weight = np.zeros((len(features), 4))
    weight[3, 1] = 1.0
    return {'features': features, 'weight': weight.tolist(), 'bias': [1.0, 0.0, 0.0, 0.0]}


def _save(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
    constants: dict[str, Any],
    half: bool,
) -> None:
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT

    def tensors(shapes: dict[str, list[int]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, n) for name, n in shapes.items()]

    def constant(name: str, value: Any) -> Any:
        dtype = np.int64 if value.dtype == np.int64 else np.float32
        return numpy_helper.from_array(value.astype(dtype), name)

    if half:
        nodes = _between_casts(nodes, inputs, outputs)
    stored = [constant(name, value) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'tiny', tensors(inputs), tensors(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)])
    model.ir_version = 8  # ONNX Runtime of 2022 and later reads it
    onnx.save(model, str(path))


def _between_casts(nodes: list[Any], inputs: Any, outputs: Any) -> list[Any]:
    """The nodes, reading float32 casts of the inputs, and casts of what they put out."""
    inner = {name: f'{name}_32' for name in (*inputs, *outputs)}
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    before = [helper.make_node('Cast', [n], [inner[n]], to=TensorProto.FLOAT) for n in inputs]
    after = [helper.make_node('Cast', [inner[n]], [n], to=TensorProto.FLOAT16) for n in outputs]
    return [*before, *nodes, *after]


def _write_card(path: Path, card: dict[str, Any], changes: dict[str, Any]) -> Path:
    path.with_suffix('.yaml').write_text(yaml.safe_dump({**card, **changes}), encoding='utf-8')
    return path

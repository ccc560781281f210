"""A PointPillars of KITTI's size with random weights: what other implementations are timed with.

Shapes as in Lang et al., PointPillars, CVPR 2019, and in NVIDIA's CUDA-PointPillars: 432 x 496
pillars of 0.16 m with 64 features, blocks of 4, 6 and 6 convolutions with 64, 128 and 256
channels, all brought to half the resolution with 128 channels, heads for three classes at two
yaws. Weights are drawn so that activations keep their size from layer to layer, and the bias of
the scores is set on one scan so that a given number of anchors reaches the threshold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import LidarCard, load_card
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.pillars import Grid

Float32 = NDArray[np.float32]

ROWS, COLUMNS, FEATURES = 496, 432, 64
BLOCKS = ((64, 4, 2), (128, 6, 2), (256, 6, 2))
"""(channels, convolutions, stride of the first)."""
UP = (1, 2, 4)
UP_CHANNELS = 128
CLASSES = ('car', 'pedestrian', 'cyclist')
SIZES = ((3.9, 1.6, 1.56, -1.0), (0.8, 0.6, 1.73, -0.6), (1.76, 0.6, 1.73, -0.6))
THRESHOLD = 0.1
POINT_FEATURES = ('x', 'y', 'z', 'intensity', 'xc', 'yc', 'zc', 'xp', 'yp', 'zp')
HEADS = {'scores': 18, 'boxes': 42, 'directions': 12}
"""Two yaws a class: 6 anchors with 3 scores, 7 box values and 2 directions each."""


def write_network(folder: Path, scan: Float32, candidates: int = 1000, seed: int = 3) -> Path:
    """Writes kitti_pointpillars.onnx and its card.

    Args:
        folder: exists.
        scan: points [N, 4] in the frame of KITTI's lidar.
        candidates: anchors that reach the threshold on that scan.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    path = folder / 'kitti_pointpillars.onnx'
    model = _model(rng)
    path.with_suffix('.yaml').write_text(yaml.safe_dump(_card(rng), sort_keys=False))
    onnx.save(model, str(path))
    card = load_card(path.with_suffix('.yaml'))
    if not isinstance(card, LidarCard):
        raise TypeError(card)
    grid, encoder = Grid.of(card), Encoder(card)
    canvas = encoder.encode(scan, grid.fill(scan))
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (scores,) = session.run(['scores'], {'canvas': canvas})
    best = np.sort(scores.reshape(6, 3, -1).max(axis=1).ravel())[-candidates]
    for tensor in model.graph.initializer:
        if tensor.name == 'scores.bias':
            bias = np.full(HEADS['scores'], np.log(THRESHOLD / (1 - THRESHOLD)) - best, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    onnx.save(model, str(path))
    return path


def _model(rng: np.random.Generator) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def convolution(
        name: str, source: str, to: int, channels: int, kernel: int, stride: int, up: bool = False
    ) -> str:
        """A layer with its ReLU (heads have none); gives the name of its output."""
        shape = (channels, to) if up else (to, channels)
        fan_in = channels if up else channels * kernel * kernel
        weight = rng.normal(0.0, np.sqrt(2.0 / fan_in), (*shape, kernel, kernel))
        bias = np.zeros(to) if name in HEADS else rng.normal(0.0, 0.05, to)
        for part, value in (('weight', weight), ('bias', bias)):
            weights.append(numpy_helper.from_array(value.astype(np.float32), f'{name}.{part}'))
        pad = 0 if up else kernel // 2
        head = name in HEADS
        nodes.append(
            helper.make_node(
                'ConvTranspose' if up else 'Conv',
                [source, f'{name}.weight', f'{name}.bias'],
                [name if head else f'{name}.sum'],
                name=name,
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=[pad] * 4,
            )
        )
        if head:
            return name
        nodes.append(helper.make_node('Relu', [f'{name}.sum'], [f'{name}.out']))
        return f'{name}.out'

    at, channels, tops = 'canvas', FEATURES, []
    for block, (to, count, first) in enumerate(BLOCKS):
        for layer in range(count):
            stride = first if layer == 0 else 1
            at = convolution(f'block{block}.{layer}', at, to, channels, 3, stride)
            channels = to
        up = UP[block]
        tops.append(convolution(f'up{block}', at, UP_CHANNELS, to, up, up, up=True))
    nodes.append(helper.make_node('Concat', tops, ['neck'], axis=1))
    for name, to in HEADS.items():
        convolution(name, 'neck', to, UP_CHANNELS * len(BLOCKS), 1, 1)
    for tensor in weights:  # boxes near their anchors
        if tensor.name == 'boxes.weight':
            small = numpy_helper.to_array(tensor) * np.float32(0.05)
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape])

    graph = helper.make_graph(
        nodes,
        'kitti_pointpillars',
        [value('canvas', FEATURES, ROWS, COLUMNS)],
        [value(name, to, ROWS // 2, COLUMNS // 2) for name, to in HEADS.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _card(rng: np.random.Generator) -> dict[str, object]:
    scale = np.array([0.05, 0.05, 0.5, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 0.5])[:, None]
    weight = rng.normal(0.0, 1.0, (len(POINT_FEATURES), FEATURES)) * scale
    anchors = [
        {'class': name, 'size': list(size[:3]), 'z': size[3], 'yaws': [0.0, 1.5707963]}
        for name, size in zip(CLASSES, SIZES, strict=True)
    ]
    return {
        'name': 'kitti_pointpillars',
        'architecture': 'pointpillars',
        'classes': list(CLASSES),
        'thresholds': dict.fromkeys(CLASSES, THRESHOLD),
        'input': {
            'name': 'canvas',
            'range': [0.0, -39.68, -3.0, 69.12, 39.68, 1.0],
            'pillar': [0.16, 0.16],
            'max_points': 32,
            'max_pillars': 10000,
        },
        'encoder': {
            'features': list(POINT_FEATURES),
            'zero_row': True,
            'weight': np.round(weight, 6).tolist(),
            'bias': np.round(rng.normal(0.0, 0.1, FEATURES), 6).tolist(),
        },
        'output': {'stride': 2, 'direction_offset': 0.78539, 'anchors': anchors},
        'about': {'licence': 'Apache-2.0', 'accuracy': 'none: the weights are random'},
    }

"""Builds the engines of the tests that run TensorRT: `python test/gpu/plans.py FOLDER`.

Run once with a TensorRT that can build; the tests then run with it and, as all but `plain` are
version compatible, with later and lean ones. Beside each engine: its network, its manifest and
NAME.npz with an input and what ONNX Runtime answers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.capabilities import load_tensorrt

OWN_KERNELS = ('EDGE_MASK_CONVOLUTIONS', 'JIT_CONVOLUTIONS')
IMAGE = (3, 32, 48)
MODELS = Path(__file__).resolve().parents[2] / 'models'
CAMERA, LIDAR = MODELS / 'apron_yolox.onnx', MODELS / 'apron_pointpillars.onnx'
LARGEST = 8


def convolutions(batch: int | str) -> onnx.ModelProto:
    """x [batch, 3, 32, 48] -> y [batch, 8, 32, 48] and z [batch, 5, 16, 24]."""
    random = np.random.default_rng(1)
    weights, nodes = [], []

    def conv(name: str, source: str, target: str, channels: tuple[int, int], stride: int) -> None:
        scale = 1 / np.sqrt(9 * channels[1])
        values = (random.normal(size=(*channels, 3, 3)) * scale).astype(np.float32)
        bias = random.normal(size=channels[0]).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f'{name}_w'))
        weights.append(numpy_helper.from_array(bias, f'{name}_b'))
        nodes.append(
            helper.make_node(
                'Conv', [source, f'{name}_w', f'{name}_b'], [target], name,
                kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride],
            )
        )  # fmt: skip

    conv('stem', 'x', 'a', (16, 3), 1)
    nodes.append(helper.make_node('Relu', ['a'], ['b']))
    conv('middle', 'b', 'c', (16, 16), 1)
    nodes.append(helper.make_node('Add', ['b', 'c'], ['d']))
    nodes.append(helper.make_node('Relu', ['d'], ['e']))
    conv('head', 'e', 'y', (8, 16), 1)
    conv('small', 'e', 'z', (5, 16), 2)
    return _model(nodes, {'x': [batch, *IMAGE]},
                  {'y': [batch, 8, 32, 48], 'z': [batch, 5, 16, 24]}, weights)  # fmt: skip


def doubler() -> onnx.ModelProto:
    """y = relu(x + x) for x [1, 1, 4, 4]: as small as an engine can be."""
    nodes = [helper.make_node('Add', ['x', 'x'], ['a']), helper.make_node('Relu', ['a'], ['y'])]
    return _model(nodes, {'x': [1, 1, 4, 4]}, {'y': [1, 1, 4, 4]}, [])


def _model(nodes: list, inputs: dict, outputs: dict, weights: list) -> onnx.ModelProto:
    def values(shapes: dict) -> list:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(nodes, 'plans', values(inputs), values(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def expect(model: Path, shape: tuple[int, ...]) -> None:
    """An input and ONNX Runtime's answer, as NAME.npz."""
    x = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(names, {'x': x}), strict=True))
    np.savez(model.with_suffix('.npz'), x=x, **answers)


def write_networks(to: Path) -> None:
    """Networks and answers."""
    to.mkdir(parents=True, exist_ok=True)
    networks = {
        'tiny': (doubler(), (1, 1, 4, 4)),
        'conv': (convolutions(1), (1, *IMAGE)),
        'batch': (convolutions('n'), (LARGEST, *IMAGE)),
    }
    for name, (model, shape) in networks.items():
        onnx.save(model, to / f'{name}.onnx')
        expect(to / f'{name}.onnx', shape)
    shutil.copy(CAMERA, to)
    shutil.copy(LIDAR, to)


def all_builds() -> dict[str, tuple[str, BuildSettings]]:
    """{engine: (network, how it is built)} with the TensorRT that is here."""
    tensorrt = load_tensorrt(build=True)
    common = {
        'opt_level': 1 if tensorrt.can.optimization_level else None,
        'version_compatible': tensorrt.flavor == 'full' and tensorrt.can.version_compatible,
        'tactic_sources': OWN_KERNELS if tensorrt.flavor == 'full' else (),
    }
    profiles = tuple(
        {'x': tuple((n, *IMAGE) for n in bounds)} for bounds in ((1, 1, 2), (3, 4, LARGEST))
    )
    builds = {
        'tiny': ('tiny', {'precision': 'fp32'}),
        'plain': ('tiny', {'precision': 'fp32', 'version_compatible': False}),
        'fp32': ('conv', {'precision': 'fp32'}),
        'fp16': ('conv', {'precision': 'fp16'}),
        'hwc8': ('conv', {'precision': 'fp16', 'io_formats': {'x': 'hwc8', 'z': 'hwc8'}}),
        'batch': ('batch', {'precision': 'fp32', 'profiles': profiles}),
    }
    for name, changes in {
        'camera_fp32': {'precision': 'fp32'},
        'camera_fp16': {'precision': 'fp16'},
        'camera_hwc8': {'precision': 'fp16', 'io_formats': {'images': 'hwc8'}},
    }.items():
        builds[name] = (CAMERA.stem, changes)
    tensors = ('canvas', 'scores', 'boxes', 'directions')
    for name, changes in {
        'lidar_fp32': {'precision': 'fp32'},
        'lidar_fp16': {'precision': 'fp16', 'io_precision': 'fp16'},
        'lidar_hwc8': {'precision': 'fp16', 'io_formats': dict.fromkeys(tensors, 'hwc8')},
    }.items():
        builds[name] = (LIDAR.stem, changes)
    return {
        name: (network, BuildSettings(**{**common, **changes}))
        for name, (network, changes) in builds.items()
    }


def build(to: Path, name: str) -> str:
    """Builds one engine; what there is to say of it."""
    network, settings = all_builds()[name]
    manifest = build_engine(to / f'{network}.onnx', to / f'{name}.engine', settings)
    return f'{name}: {manifest.build_seconds:.1f} s {manifest.notes}'


def main() -> None:
    """Builds everything, several engines at a time in processes of their own."""
    parser = argparse.ArgumentParser(description='Engines for the GPU suite')
    parser.add_argument('folder', type=Path)
    parser.add_argument('names', nargs='*', help='engines; default: all')
    parser.add_argument('--jobs', type=int, default=1, help='engines built at a time')
    options = parser.parse_args()
    write_networks(options.folder)
    names = options.names or list(all_builds())
    context = multiprocessing.get_context('spawn')  # CUDA does not survive a fork
    with context.Pool(options.jobs, maxtasksperchild=1) as pool:
        for said in pool.imap(partial(build, options.folder), names):
            sys.stdout.write(f'{said}\n')
            sys.stdout.flush()


if __name__ == '__main__':
    main()

"""The model configurations of a repository: networks, postprocess and the ensemble of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from airside_perception.deploy.triton.pbtxt import Map, Symbol
from airside_perception.deploy.triton.postprocess import (
    CALIBRATION,
    OUTPUTS,
    camera_input,
    lidar_input,
)
from airside_perception.deploy.triton.source import PLAN, Source
from airside_perception.engine.base import TensorSpec

Config = dict[str, Any]
TYPES = {
    'float16': 'TYPE_FP16', 'float32': 'TYPE_FP32', 'float64': 'TYPE_FP64', 'int8': 'TYPE_INT8',
    'uint8': 'TYPE_UINT8', 'int32': 'TYPE_INT32', 'int64': 'TYPE_INT64', 'bool': 'TYPE_BOOL',
}  # fmt: skip
QUEUE_DELAY_US = 2000
"""How long the first of several cameras waits for the others, so that one batch takes all."""


@dataclass(frozen=True)
class Deployed:
    """A network in the repository.

    Attributes:
        model: its name there.
        source: what it is.
        on_cpu: ONNX Runtime takes no GPU.
    """

    model: str
    source: Source
    on_cpu: bool = False


def network_config(served: Deployed) -> Config:
    """A TensorRT engine or ONNX network.

    Where its batch varies, Triton forms the batches: the dims are those of one item.
    """
    source = served.source
    config: Config = {
        'name': served.model,
        'platform': source.platform,
        'max_batch_size': source.largest_batch,
        'input': [_port(spec, source.batches) for spec in source.inputs],
        'output': [_port(spec, source.batches) for spec in source.outputs],
        'version_policy': {'latest': {'num_versions': 1}},
        'instance_group': [_instances(served)],
    }
    if source.batches:
        config['dynamic_batching'] = {
            'preferred_batch_size': [source.usual_batch],
            'max_queue_delay_microseconds': QUEUE_DELAY_US,
        }
    if source.platform == PLAN:
        # a DLA's work cannot be captured
        config['optimization'] = {'cuda': {'graphs': source.dla_core < 0}}
    config['model_warmup'] = [_warm_up(source)]
    return config


def postprocess_config(name: str, lidar: Deployed, cameras: Mapping[str, Deployed]) -> Config:
    """The Python model that makes objects of what the networks put out.

    Args:
        name: of the model.
        lidar: its network.
        cameras: {camera: its network}.
    """
    inputs = [
        _port(served.source.used_outputs[0], False, camera_input(camera), one=True)
        for camera, served in cameras.items()
    ]
    inputs += [
        _port(spec, False, lidar_input(spec.name), one=True) for spec in lidar.source.used_outputs
    ]
    return {
        'name': name,
        'backend': 'python',
        'max_batch_size': 0,
        'input': [*inputs, _calibration(CALIBRATION)],
        'output': _objects(),
        'version_policy': {'latest': {'num_versions': 1}},
        'instance_group': [{'count': 1, 'kind': Symbol('KIND_CPU')}],
        # on a Jetson the Python backend has no tensors on the GPU
        'parameters': Map({'FORCE_CPU_ONLY_INPUT_TENSORS': {'string_value': 'yes'}}),
    }


def ensemble_config(
    name: str, postprocess: str, lidar: Deployed, cameras: Mapping[str, Deployed]
) -> Config:
    """All models as one: images, pillars and the calibration in, objects out."""
    canvas = lidar.source.used_inputs[0]
    inputs = [
        _port(served.source.used_inputs[0], False, image_input(camera), one=True)
        for camera, served in cameras.items()
    ]
    inputs += [_port(canvas, False, one=True), _calibration(CALIBRATION)]
    steps = [
        {
            'model_name': served.model,
            'model_version': -1,
            'input_map': Map({served.source.used_inputs[0].name: image_input(camera)}),
            'output_map': Map({served.source.used_outputs[0].name: camera_input(camera)}),
        }
        for camera, served in cameras.items()
    ]
    outputs = {spec.name: lidar_input(spec.name) for spec in lidar.source.used_outputs}
    steps.append(
        {
            'model_name': lidar.model,
            'model_version': -1,
            'input_map': Map({canvas.name: canvas.name}),
            'output_map': Map(outputs),
        }
    )
    last = [*map(camera_input, cameras), *outputs.values(), CALIBRATION]
    steps.append(
        {
            'model_name': postprocess,
            'model_version': -1,
            'input_map': Map({item: item for item in last}),
            'output_map': Map({item: item for item in OUTPUTS}),
        }
    )
    return {
        'name': name,
        'platform': 'ensemble',
        'max_batch_size': 0,
        'input': inputs,
        'output': _objects(),
        'version_policy': {'latest': {'num_versions': 1}},
        'ensemble_scheduling': {'step': steps},
    }


def image_input(camera: str) -> str:
    """The input of the ensemble with this camera's image, as its network takes it."""
    return f'image_{camera}'


def _instances(served: Deployed) -> Config:
    if served.on_cpu:
        return {'count': 1, 'kind': Symbol('KIND_CPU')}
    group: Config = {'count': 1, 'kind': Symbol('KIND_GPU'), 'gpus': [0]}
    if served.source.dla_core >= 0:
        group['secondary_devices'] = [
            {'kind': Symbol('KIND_NVDLA'), 'device_id': served.source.dla_core}
        ]
    return group


def _warm_up(source: Source) -> Config:
    """One run before the model counts as ready; a batch of the usual size."""
    return {
        'name': 'zeros',
        'batch_size': source.usual_batch or 1,
        'inputs': Map(
            {
                spec.name: {
                    'data_type': _type(spec.dtype),
                    'dims': list(spec.shape[1:] if source.batches else spec.shape),
                    'zero_data': True,
                }
                for spec in source.inputs
            }
        ),
    }


def _port(spec: TensorSpec, batches: bool, name: str = '', one: bool = False) -> Config:
    """An input or output.

    Args:
        batches: leave the batch out, which Triton adds.
        name: in place of its own.
        one: a batch that varies is 1 here.
    """
    shape = list(spec.shape[1:] if batches else spec.shape)
    if one and shape[0] < 0:
        shape[0] = 1
    return {'name': name or spec.name, 'data_type': _type(spec.dtype), 'dims': shape}


def _calibration(name: str) -> Config:
    return {'name': name, 'data_type': Symbol('TYPE_STRING'), 'dims': [1]}


def _objects() -> list[Config]:
    return [
        {'name': name, 'data_type': Symbol(kind), 'dims': list(dims)}
        for name, (kind, dims) in OUTPUTS.items()
    ]


def _type(dtype: np.dtype[Any]) -> Symbol:
    return Symbol(TYPES[dtype.name])

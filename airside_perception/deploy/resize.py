"""Another input size for a fully convolutional network, without exporting it again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import yaml
from onnx import helper

from airside_perception.card import CameraCard, find_card, load_card
from airside_perception.errors import CardError, EngineError


def set_input_size(model: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """A copy of `model` whose only image input is [N, C, height, width]; shapes are inferred anew.

    Args:
        model: fully convolutional; its shapes follow from its input, none is built into a node.

    Raises:
        EngineError: not one input of four dimensions, or a node that is made for one size only:
            the copy is run once to see.
    """
    resized = onnx.ModelProto()
    resized.CopyFrom(model)
    weights = {tensor.name for tensor in resized.graph.initializer}
    inputs = [value for value in resized.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        names = ', '.join(value.name for value in inputs)
        raise EngineError(f'inputs {names}: only a network with one image input can be resized')
    dimensions = inputs[0].type.tensor_type.shape.dim
    dimensions[2].dim_value, dimensions[3].dim_value = height, width
    del resized.graph.value_info[:]
    for output in resized.graph.output:
        output.type.tensor_type.ClearField('shape')
    kind = helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type)
    shape = [dimension.dim_value or 1 for dimension in dimensions]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; it is not logged as well
    try:
        resized = onnx.shape_inference.infer_shapes(resized, strict_mode=True, data_prop=True)
        session = onnxruntime.InferenceSession(
            resized.SerializeToString(), options, providers=['CPUExecutionProvider']
        )
        session.run(None, {inputs[0].name: np.zeros(shape, kind)})
    except Exception as error:  # what ONNX and ONNX Runtime raise has no nearer common base
        reason = str(error).strip().splitlines()[-1]
        raise EngineError(f'the network does not run at {height} x {width}: {reason}') from error
    return resized


def resize_network(
    source: str | Path, target: str | Path, height: int, width: int, card_path: str = ''
) -> None:
    """Writes `source` for another input size to `target`, and its card beside it.

    Args:
        source: ONNX file.
        target: ONNX file to write; the card gets the same name with .yaml.
        height, width: of the new input, pixels.
        card_path: card of `source`; empty: beside it.

    Raises:
        CardError: no camera card, or the size is no multiple of its strides.
        EngineError: as `set_input_size`, `source` is not an ONNX file, or `target` cannot be
            written.
    """
    source, target = Path(source), Path(target)
    card = find_card(source, card_path)
    if not isinstance(card, CameraCard):
        raise CardError(f'{card.path}: {card.architecture} has no image input to resize')
    if height < 1 or width < 1:
        raise CardError(f'input {height} x {width} is no size: expected pixels, 1 or more')
    odd = [stride for stride in card.strides if height % stride or width % stride]
    if odd:
        raise CardError(
            f'input {height} x {width} is no multiple of stride {odd[0]} of {card.path}'
        )
    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's DecodeError and OSError have no nearer common base
        raise EngineError(f'{source}: not a readable ONNX file: {error}') from error
    resized = set_input_size(model, height, width).SerializeToString()
    text = yaml.safe_load(Path(card.path).read_text(encoding='utf-8'))
    text['input'].update(height=height, width=width)
    if 'sha256' in text:
        text['sha256'] = hashlib.sha256(resized).hexdigest()
    beside = target.with_suffix('.yaml')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(resized)
        beside.write_text(yaml.safe_dump(text, sort_keys=False), encoding='utf-8')
    except OSError as error:
        raise EngineError(f'{target}: cannot be written: {error.strerror}') from error
    load_card(beside)

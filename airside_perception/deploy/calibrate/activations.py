"""The tensors of a network that INT8 needs scales for, and their values for a feed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from airside_perception.engine.graph import (
    copied,
    float_tensors,
    has_qdq,
    inferred,
    inputs,
    is_half,
    weights,
)
from airside_perception.errors import EngineError, first_line

BESIDE_CONSTANTS = ('Add', 'Sub', 'Mul', 'Div', 'Max', 'Min', 'Pow', 'Concat')
"""Operators whose stored operands TensorRT quantises like activations."""


class Activations:
    """A network that gives all its float tensors: inputs, outputs and what is between them.

    What does not depend on the inputs is left out: TensorRT folds it.

    Attributes:
        names: of the tensors, inputs first, then in the order of the graph.
        constants: {name: largest |x|} of stored float tensors that element-wise operators read.

    Args:
        model: fp32 network without Q/DQ.
        path: for messages.
        threads: of ONNX Runtime; 0: all.

    Raises:
        EngineError: it has Q/DQ, is fp16, or ONNX Runtime cannot run it.
    """

    def __init__(self, model: Any, path: str, threads: int = 0) -> None:
        check_network(model, path)
        self._path = path
        model = inferred(copied(model))
        self.names, self.constants = _tensors(model)
        fed = {value.name for value in inputs(model)}
        self._wanted = [name for name in self.names if name not in fed]
        self._session = _session(_with_outputs(model, self._wanted), path, threads)

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The values of all tensors.

        Raises:
            EngineError: the feed does not fit, or the network fails.
        """
        try:
            found = self._session.run(self._wanted, dict(feed))
        except Exception as error:  # ONNX Runtime's exceptions have no nearer common base
            raise EngineError(f'{self._path}: inference failed: {first_line(error)}') from error
        return {**feed, **dict(zip(self._wanted, found, strict=True))}


def check_network(model: Any, path: str) -> None:
    """Raises EngineError where a network has Q/DQ nodes or is fp16."""
    if has_qdq(model):
        raise EngineError(
            f'{path}: has Q/DQ nodes, so it carries scales of its own, which a calibration would '
            'contradict; calibrate the network that it was made from'
        )
    if is_half(model):
        raise EngineError(f'{path}: is fp16; calibrate the fp32 network that it was made from')


def _tensors(model: Any) -> tuple[tuple[str, ...], dict[str, float]]:
    floats, stored = float_tensors(model), weights(model)
    fed = [value.name for value in inputs(model)]
    living = set(fed)
    names = [name for name in fed if name in floats]
    constants: dict[str, float] = {}
    for node in model.graph.node:
        if not living & set(node.input):
            continue
        living |= set(node.output)
        names += [name for name in node.output if name in floats]
        if node.op_type in BESIDE_CONSTANTS:
            for name in floats & stored.keys() & set(node.input):
                if stored[name].size:
                    constants[name] = float(np.abs(stored[name]).max())
    if not names:
        raise EngineError('the network has no float tensors to calibrate')
    return tuple(names), dict(sorted(constants.items()))


def _with_outputs(model: Any, names: Iterable[str]) -> Any:
    """The model with these tensors among its outputs."""
    there = {value.name for value in model.graph.output}
    known = {value.name: value for value in model.graph.value_info}
    for name in names:
        if name not in there:
            plain = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            model.graph.output.append(known.get(name, plain))
    return model


def _session(model: onnx.ModelProto, path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised; it is not logged as well
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    # the values of the network as it is written, none of them fused away
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # as above
        raise EngineError(f'{path}: ONNX Runtime cannot load it: {first_line(error)}') from error

"""Small networks, and ONNX Runtime without its own rewrites, for tests of what rewrites them."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def run(model: Any, **feeds: Any) -> list[Any]:
    """Outputs of a model as it is in the file: constants are not folded in another precision."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return list(session.run(None, feeds))


def network(
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    constants: dict[str, Any] | None = None,
    opset: int = 17,
) -> Any:
    """A model; inputs and outputs are {name: shape} of fp32 or {name: (kind, shape)}."""

    def value(name: str, said: Any) -> Any:
        kind, shape = said if isinstance(said, tuple) else (TensorProto.FLOAT, said)
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        'g',
        [value(*item) for item in inputs.items()],
        [value(*item) for item in outputs.items()],
        [numpy_helper.from_array(item, name) for name, item in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model

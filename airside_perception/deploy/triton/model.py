"""Model `postprocess` of a Triton repository: boxes and objects from what the networks put out.

Triton's Python backend loads this file from the folder of the version. The package
airside_perception must be importable there, as it is where the nodes run.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from airside_perception.deploy.triton.postprocess import Postprocess
from airside_perception.errors import PerceptionError


class TritonPythonModel:
    """What the backend calls, by these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the files beside this one; what is wrong with them keeps the model away."""
        self._triton: Any = importlib.import_module('triton_python_backend_utils')
        self._postprocess = Postprocess(Path(__file__).parent)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers each request; one that cannot be answered gets an error and no boxes."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        triton = self._triton
        try:
            found = self._postprocess(
                {name: self._input(request, name) for name in self._postprocess.inputs}
            )
        except PerceptionError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error)))
        tensors = [triton.Tensor(name, value) for name, value in found.items()]
        return triton.InferenceResponse(output_tensors=tensors)

    def _input(self, request: Any, name: str) -> Any:
        tensor = self._triton.get_input_tensor_by_name(request, name)
        if tensor is None:
            raise PerceptionError(f'input {name!r} is missing from the request')
        return tensor.as_numpy()

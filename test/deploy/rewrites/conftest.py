"""Small networks, and ONNX Runtime as the judge of whether a rewrite changed what they compute."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

GRAPHS = Path(__file__).resolve().parents[2] / 'engine' / 'graphs.py'


def _load() -> Any:
    spec = importlib.util.spec_from_file_location('rewrite_graphs', GRAPHS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


graphs = _load()


@pytest.fixture(scope='session')
def network() -> Callable[..., Any]:
    """Makes a small ONNX model; see graphs.network."""
    return graphs.network


@pytest.fixture(scope='session')
def run() -> Callable[..., list[Any]]:
    """Runs one without optimisations; see graphs.run."""
    return graphs.run


@pytest.fixture(scope='session')
def node() -> Callable[..., Any]:
    """onnx.helper.make_node."""
    return helper.make_node


@pytest.fixture(scope='session')
def kinds() -> Callable[[Any], list[str]]:
    """Operators of a model, in order."""
    return lambda model: [item.op_type for item in model.graph.node]


@pytest.fixture(scope='session')
def attributes() -> Callable[[Any], dict[str, Any]]:
    """Attributes of a node."""
    return lambda item: {a.name: helper.get_attribute_value(a) for a in item.attribute}


@pytest.fixture(scope='session')
def equal() -> Callable[..., None]:
    """Asserts that two models have the same ports and the same outputs on random inputs."""

    def check(before: Any, after: Any, tolerance: float = 1e-5) -> None:
        onnx.checker.check_model(after, full_check=True)
        for old, new in (
            (before.graph.input, after.graph.input),
            (before.graph.output, after.graph.output),
        ):
            assert [value.name for value in new] == [value.name for value in old]
        for seed, (scale, shift) in enumerate([(1, 0), (50, 100), (1, -5), (1000, 0)]):
            generator = np.random.default_rng(seed)
            feeds = {}
            for value in before.graph.input:
                tensor = value.type.tensor_type
                shape = [dim.dim_value for dim in tensor.shape.dim]
                kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                feeds[value.name] = (generator.normal(size=shape) * scale + shift).astype(kind)
            for wanted, found in zip(
                graphs.run(before, **feeds), graphs.run(after, **feeds), strict=True
            ):
                assert found.dtype == wanted.dtype
                np.testing.assert_allclose(
                    found, wanted, rtol=0, atol=tolerance * float(np.abs(wanted).max())
                )

    return check

"""Random inputs for a network, its outputs on ONNX Runtime, and how far two outputs are apart."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from airside_perception.deploy.large import LIMIT, copy_whole, stored_bytes
from airside_perception.engine.graph import inputs
from airside_perception.errors import ConfigError, EngineError

Feeds = Mapping[str, NDArray[Any]]
IMAGE_SIDE = 64
"""Pixels: where height or width of an image vary and no size is given."""
LARGEST_INDEX = 3
"""Of random int32 and int64: they are mostly indices, and most tables have that many entries."""
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Difference:
    """How far an output is from its reference. NumPy's float64 computes all of it.

    Attributes:
        cosine: of the angle between both as vectors; 1 where both are zero, 0 where one is.
        max_abs: largest absolute difference, in the output's unit.
        max_rel: `max_abs` divided by the largest absolute value of the reference.
        mean_abs: mean absolute difference.
        nan: values that are NaN in one of the two only.
        inf: values that are infinite in one of the two only, or with the other sign. The numbers
            above are about the values that are finite in both.
    """

    cosine: float
    max_abs: float
    max_rel: float
    mean_abs: float
    nan: int = 0
    inf: int = 0

    def within(self, max_rel: float) -> bool:
        """Whether it is at most so large, and no value is NaN or infinite in one only."""
        return self.max_rel <= max_rel and not self.nan and not self.inf

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def difference(reference: NDArray[Any], other: NDArray[Any]) -> Difference:
    """How far `other` is from `reference`: arrays of one shape, numbers or bool.

    Raises:
        EngineError: their shapes differ, or they hold no numbers.
    """
    reference, other = np.asarray(reference), np.asarray(other)
    if reference.shape != other.shape:
        raise EngineError(f'shapes differ: {list(reference.shape)} and {list(other.shape)}')
    try:
        with np.errstate(over='ignore'):
            a, b = (np.asarray(value, np.float64).ravel() for value in (reference, other))
    except (TypeError, ValueError) as error:
        raise EngineError(f'outputs of {reference.dtype} and {other.dtype}: no numbers') from error
    infinite = np.isinf(a) | np.isinf(b)
    nan = int(np.count_nonzero(np.isnan(a) != np.isnan(b)))
    inf = int(np.count_nonzero(infinite & (a != b) & ~np.isnan(a) & ~np.isnan(b)))
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    if not a.size:
        return Difference(1.0, 0.0, 0.0, 0.0, nan, inf)
    apart = np.abs(a - b)
    scale = float(np.abs(a).max())
    largest = float(apart.max())
    return Difference(
        cosine=_cosine(a, b),
        max_abs=largest,
        max_rel=largest / max(scale, TINY),
        mean_abs=float(apart.mean()),
        nan=nan,
        inf=inf,
    )


def compare_outputs(reference: Feeds, other: Feeds) -> dict[str, Difference]:
    """{output: how far it is apart}, in the order of the reference.

    Raises:
        EngineError: an output is missing in `other`, or the shapes differ.
    """
    found = {}
    for name, value in reference.items():
        if name not in other:
            raise EngineError(f'output {name!r} is missing; there are {", ".join(other)}')
        try:
            found[name] = difference(value, other[name])
        except EngineError as error:
            raise EngineError(f'output {name!r}: {error}') from error
    return found


def worst(found: Sequence[Mapping[str, Difference]]) -> dict[str, Difference]:
    """{output: the worst of every number} over several comparisons; NaN and Inf are counted up."""
    names = dict.fromkeys(name for one in found for name in one)
    together = {}
    for name in names:
        of = [one[name] for one in found if name in one]
        together[name] = Difference(
            min(item.cosine for item in of),
            max(item.max_abs for item in of),
            max(item.max_rel for item in of),
            max(item.mean_abs for item in of),
            sum(item.nan for item in of),
            sum(item.inf for item in of),
        )
    return together


def dynamic_dims(model: Any) -> dict[str, int]:
    """Names of the dimensions of inputs that may vary, and the size they get unless told.

    That is the dimension's own name; `INPUT:AXIS` where it has none. Sizes: 64 for height and
    width of [N, C, H, W], else 1.

    Raises:
        EngineError: an input is no tensor, or its rank is not known.
    """
    found: dict[str, int] = {}
    for value in inputs(model):
        dims = _dims(value)
        for axis, dim in enumerate(dims):
            if isinstance(dim, str):
                side = len(dims) == 4 and axis > 1
                found[dim] = max(found.get(dim, 1), IMAGE_SIDE if side else 1)
    return found


def random_feeds(
    model: Any, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> dict[str, NDArray[Any]]:
    """{input: random array} for a network; the same for the same seed.

    Floats are normal (mean 0, deviation 1), int8 and uint8 span their range, wider integers are
    0 to 3 because most are indices, bool is either.

    Args:
        model: `onnx.ModelProto`; weights among its inputs are not fed.
        sizes: of dimensions that vary, by name as `dynamic_dims` gives them.

    Raises:
        EngineError: an input is no tensor of numbers, or its rank is not known.
        ConfigError: `sizes` names a dimension that does not vary, or is not positive.
    """
    known = dynamic_dims(model)
    for name, size in (sizes or {}).items():
        if name not in known:
            there = ', '.join(known) or 'none'
            raise ConfigError(f'size {name}={size}: no such dimension; those that vary: {there}')
        if size < 1:
            raise ConfigError(f'size {name}={size}: expected 1 or more')
    known.update(sizes or {})
    generator = np.random.default_rng(seed)
    feeds = {}
    for value in inputs(model):
        shape = [known[dim] if isinstance(dim, str) else dim for dim in _dims(value)]
        feeds[value.name] = _random(value, shape, generator)
    return feeds


class OnnxRunner:
    """A network on ONNX Runtime's CPU provider: opened once, run as often as need be.

    Args:
        model: `onnx.ModelProto`, or the path of a file.
        outputs: which to compute, any tensors of the graph where `model` is no path; None: its
            outputs.
        optimise: False: the graph as it is, without ONNX Runtime's fusions and folding.

    Raises:
        EngineError: ONNX Runtime cannot load it, or there is no such tensor.
    """

    def __init__(
        self, model: Any, outputs: Sequence[str] | None = None, optimise: bool = True
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised; it is not logged as well
        # threads that wait actively take the cores from others
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        if not optimise:
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        self._label = ''
        if isinstance(model, (str, Path)):
            self._label = f'{model}: '
        elif outputs is not None:
            model = _with_outputs(model, outputs)
        try:
            with tempfile.TemporaryDirectory(prefix='outputs') as folder:
                self._session: Any = onnxruntime.InferenceSession(
                    _loadable(model, folder), options, providers=['CPUExecutionProvider']
                )
            there = [item.name for item in self._session.get_outputs()]
        except Exception as error:  # onnxruntime's exceptions have no common base below Exception
            raise EngineError(
                f'{self._label}ONNX Runtime cannot load it: {one_line(error)}'
            ) from error
        self.outputs = tuple(there if outputs is None else outputs)
        unknown = [name for name in self.outputs if name not in there]
        if unknown:
            raise EngineError(
                f'{self._label}no output {unknown[0]!r}; there are {", ".join(there)}'
            )

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """{output: array}.

        Raises:
            EngineError: feeds that do not fit, or it fails on them.
        """
        try:
            values = self._session.run(list(self.outputs), dict(feeds))
        except Exception as error:  # as above
            raise EngineError(
                f'{self._label}ONNX Runtime cannot run it: {one_line(error)}'
            ) from error
        return dict(zip(self.outputs, values, strict=True))


def run_onnx(
    model: Any, feeds: Feeds, outputs: Sequence[str] | None = None, optimise: bool = True
) -> dict[str, NDArray[Any]]:
    """{output: array} of a network, run once; arguments and errors as `OnnxRunner`."""
    return OnnxRunner(model, outputs, optimise).run(feeds)


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an exception says, on one line and not too long; its kind where it says nothing."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f'{text[: limit - 1]}…'


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    scales = float(np.abs(a).max()), float(np.abs(b).max())
    if not all(scales):
        return float(not any(scales))
    a, b = a / scales[0], b / scales[1]  # squares of large values overflow
    cosine = float(np.dot(a, b)) / math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b)))
    return min(1.0, max(-1.0, cosine))


def _dims(value: Any) -> list[int | str]:
    """Dimensions of an input: a size, or a name where it varies."""
    kind = value.type.WhichOneof('value')
    if kind != 'tensor_type':
        raise EngineError(f'input {value.name!r} is a {kind or "value of no type"}, not a tensor')
    tensor = value.type.tensor_type
    if not tensor.HasField('shape'):
        raise EngineError(
            f'input {value.name!r} has no shape: its rank is not known; give it, as '
            f'{value.name}:1x3x384x640'
        )
    return [
        dim.dim_value
        if dim.HasField('dim_value') and dim.dim_value >= 0
        else dim.dim_param or f'{value.name}:{axis}'
        for axis, dim in enumerate(tensor.shape.dim)
    ]


def _random(value: Any, shape: Sequence[int], generator: np.random.Generator) -> NDArray[Any]:
    kind = value.type.tensor_type.elem_type
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    except Exception as error:  # KeyError or ValueError, by onnx's version
        raise EngineError(f'input {value.name!r}: unknown type of tensor {kind}') from error
    if dtype == np.bool_:
        return np.asarray(generator.random(shape) < 0.5)
    if dtype.kind == 'f' and dtype.itemsize >= 2:
        return np.asarray(generator.standard_normal(shape), dtype)
    if dtype.kind in 'iu':
        span = np.iinfo(dtype)
        low, high = (span.min, span.max) if dtype.itemsize == 1 else (0, LARGEST_INDEX)
        return np.asarray(generator.integers(low, high, shape, endpoint=True), dtype)
    raise EngineError(
        f'input {value.name!r} of type {onnx.TensorProto.DataType.Name(kind)}: no random values '
        'for it; cast it to fp32 inside the network'
    )


def _with_outputs(model: Any, outputs: Sequence[str]) -> Any:
    """A copy of `model` that also puts out these tensors."""
    there = {value.name for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    more = [name for name in outputs if name not in there and name in made]
    if not more:
        return model
    copy = copy_whole(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
    return copy


def _loadable(model: Any, folder: str) -> str | bytes:
    """What ONNX Runtime opens: bytes, or a file where protobuf has too many of them."""
    if isinstance(model, (str, Path)):
        return str(model)
    if stored_bytes(model) < LIMIT:
        return bytes(model.SerializeToString())
    path = str(Path(folder, 'network.onnx'))
    copy = copy_whole(model)  # saving moves the weights out of what it is given
    onnx.save(copy, path, save_as_external_data=True, location='weights')
    return path

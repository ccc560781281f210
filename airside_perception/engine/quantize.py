"""INT8 by calibration: scales of all activations from feeds, as Q/DQ nodes in the network."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from airside_perception.engine.bias import correct_biases
from airside_perception.engine.graph import inferred
from airside_perception.engine.precision import to_half
from airside_perception.engine.qdq import OPERATORS, ready_for_qdq
from airside_perception.errors import EngineError

METHODS = {'minmax': 'MinMax', 'entropy': 'Entropy', 'percentile': 'Percentile'}


def quantize(
    model: Any,
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    method: str = 'minmax',
    exclude: Iterable[str] = (),
    operators: Iterable[str] = OPERATORS,
    correct: int = 4,
    half: bool = False,
    keep_io: bool | Collection[str] = True,
) -> Any:
    """A copy of `model` with Q/DQ nodes before every operator of a kind, scales from feeds.

    Outputs of operators are not quantised, so neither are those of the network, and TensorRT
    fuses what follows a convolution.

    Args:
        model: fp32 network without Q/DQ.
        feeds: inputs of the network by name, as it will see them; some dozens. What has a length
            is read one by one, a bare iterator into memory first.
        method: how the largest value of a tensor is found: `minmax`, `entropy`, `percentile`
            (99.999 %).
        exclude: names of nodes that stay as they are, e.g. the last of a sensitive head.
        operators: which kinds of nodes.
        correct: on how many of the feeds biases are corrected for the means (`bias`); 0: they are
            not. It takes as many passes as there are convolutions.
        half: the rest becomes fp16 (`precision.to_half`).
        keep_io: as there.

    Raises:
        EngineError: no feeds, feeds that do not fit, unknown method, operator or node.
    """
    if method not in METHODS:
        raise EngineError(f'method {method!r} is not one of {", ".join(METHODS)}')
    from onnxruntime import quantization  # slow to import, and needed for calibration only

    operators, exclude = tuple(operators), tuple(exclude)
    model = ready_for_qdq(model, exclude, operators)
    reader = _Reader(feeds)
    with tempfile.TemporaryDirectory(prefix='quantize') as folder:
        source, target = Path(folder, 'in.onnx'), Path(folder, 'out.onnx')
        onnx.save(inferred(model), str(source))
        try:
            quantization.quantize_static(
                str(source),
                str(target),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=list(exclude),
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod[METHODS[method]],
                extra_options={
                    'ActivationSymmetric': True,
                    'WeightSymmetric': True,
                    'CalibTensorRangeSymmetric': True,
                    'QuantizeBias': False,
                    'AddQDQPairToWeight': True,
                    'OpTypesToExcludeOutputQuantization': list(operators),
                    'CalibStridedMinMax': 1,  # for every method: one feed's tensors at a time
                },
            )
        except Exception as error:  # what ONNX Runtime raises has no nearer common base
            raise EngineError(f'calibration failed: {_last_line(error)}') from error
        quantized = onnx.load(str(target))
    if correct:
        quantized = correct_biases(quantized, model, itertools.islice(reader.feeds, correct))
    return to_half(quantized, keep_io) if half else quantized


class _Reader:
    """Feeds, as ONNX Runtime's calibration asks for them: in ranges of one."""

    def __init__(self, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        self.feeds = feeds if isinstance(feeds, Sized) else list(feeds)
        if not len(self):
            raise EngineError('calibration needs feeds, there are none')
        self.rest = iter(self.feeds)
        self.left = 0

    def __len__(self) -> int:
        return len(self.feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = end_index - start_index

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        self.left -= 1
        return dict(next(self.rest)) if self.left >= 0 else None


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__

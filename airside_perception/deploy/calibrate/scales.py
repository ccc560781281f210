"""Scales of a network: from its statistics, stored, and what they must be for a DLA core."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.deploy.calibrate.activations import Activations
from airside_perception.deploy.calibrate.statistics import Statistics
from airside_perception.deploy.calibrate.thresholds import thresholds
from airside_perception.errors import EngineError
from airside_perception.files import write_whole

LARGEST = 127
ENOUGH = 500
"""Frames that a calibration should have."""
HARD_CUT = 8
"""Rare large values are what detections are made of where most of the input is empty."""
POOLS = ('MaxPool', 'AveragePool', 'GlobalMaxPool', 'GlobalAveragePool')
SUMS = ('Add', 'Sub', 'Max', 'Min')
SHOWN = 5


@dataclass(frozen=True)
class Calibration:
    """Scales and where they come from.

    Attributes:
        scales: {tensor: scale}, largest value / 127 as float32.
        method, percentile: how the largest value was found.
        frames: that were seen.
        network_sha256, data_sha256: of the network's bytes and of the frames.
        zero: tensors that were 0 in all frames; their scale stands for 1.
        cut: {tensor: largest value / value that INT8 still holds} where more than 1.
        dla: whether tensors that a DLA core wants alike have one scale.
    """

    scales: Mapping[str, float]
    method: str
    percentile: float
    frames: int
    network_sha256: str
    data_sha256: str
    zero: tuple[str, ...]
    cut: Mapping[str, float]
    dla: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know."""
        said = []
        if self.frames < ENOUGH:
            said.append(
                f'{self.frames} frames: {ENOUGH} or more of all places, weathers and times of day '
                'make scales that hold on the vehicle'
            )
        if self.zero:
            said.append(
                f'uniformly zero: {_some(self.zero)} ({self._share(self.zero)}); does the '
                'preprocessing fit the training, or are these parts of the network dead?'
            )
        hard = [name for name, factor in self.cut.items() if factor >= HARD_CUT]
        if hard:
            said.append(
                f'cut off below 1/{HARD_CUT} of the largest value: {_some(hard)} '
                f'({self._share(hard)}); compare the detections with those of --method percentile '
                'and minmax, which need no second pass'
            )
        return tuple(said)

    def _share(self, names: Sequence[str]) -> str:
        return f'{len(names)} of {len(self.scales)} tensors'

    def write(self, path: Path) -> Path:
        """Writes {tensor: scale} as JSON, and how they came about beside it; returns that file.

        Raises:
            EngineError: a file cannot be written.
        """
        about = {name: value for name, value in asdict(self).items() if name != 'scales'}
        text = json.dumps(self.scales, indent=1)
        about['scales_sha256'] = hashlib.sha256(f'{text}\n'.encode()).hexdigest()
        write_whole(path, f'{text}\n')
        return write_whole(meta_path(path), json.dumps(about, indent=1) + '\n')


def meta_path(scales: Path) -> Path:
    """`NAME.meta.json` beside `NAME.json`: how the scales came about."""
    return scales.with_suffix('.meta.json')


def find_scales(
    network: Activations,
    model: Any,
    statistics: Statistics,
    identity: Mapping[str, str],
    method: str,
    percentile: float,
    dla: bool,
) -> Calibration:
    """The scales of all tensors of a network.

    Args:
        network, model: whose tensors they are.
        statistics: of these.
        identity: sha256 of `network` and `data`.
        method, percentile: as for `thresholds`.
        dla: tensors that a DLA core wants alike get one scale, the largest (`same_scales`).

    Raises:
        ConfigError: unknown method or wrong percentile.
    """
    held = thresholds(statistics, method, percentile)
    largest = statistics.largest
    amax = dict(zip(statistics.names, held.tolist(), strict=True))
    zero = tuple(name for name, value in amax.items() if value == 0.0)
    cut = {
        name: round(float(most / value), 3)
        for name, value, most in zip(statistics.names, held, largest, strict=True)
        if value and most > value
    }
    scales = {name: scale_of(value) for name, value in {**amax, **network.constants}.items()}
    return Calibration(
        same_scales(model, scales) if dla else scales,
        method, percentile, statistics.frames, identity['network'], identity['data'], zero,
        dict(sorted(cut.items(), key=lambda item: -item[1])), dla,
    )  # fmt: skip


def scale_of(largest: float) -> float:
    """Largest value / 127 as the float32 that TensorRT and Q/DQ nodes hold; never 0.

    A tensor of zeros has the scale of the range -1 to 1.
    """
    least = float(np.finfo(np.float32).tiny)
    return max(float(np.float32(largest / LARGEST)), least) if largest else scale_of(1.0)


def same_scales(model: Any, scales: Mapping[str, float]) -> dict[str, float]:
    """Scales of which those are equal that DLA wants equal; each becomes the largest of its group.

    NVIDIA's list of what DLA supports: of a pooling, input and output; of a concatenation, all
    inputs and the output. Of sum, difference, maximum and minimum, the inputs.
    """
    leaders: dict[str, str] = {}

    def leader(name: str) -> str:
        while name in leaders:
            name = leaders[name]
        return name

    def join(names: Sequence[str]) -> None:
        known = [name for name in names if name in scales]
        for name in known[1:]:
            if leader(name) != leader(known[0]):
                leaders[leader(name)] = leader(known[0])

    for node in model.graph.node:
        if node.op_type in POOLS or node.op_type == 'Concat':
            join([*node.input, *node.output])
        elif node.op_type in SUMS:
            join(node.input)
    most: dict[str, float] = {}
    for name, value in scales.items():
        most[leader(name)] = max(most.get(leader(name), 0.0), value)
    return {name: most[leader(name)] for name in scales}


def read_meta(path: Path) -> dict[str, Any]:
    """How scales came about; empty where nothing says so, or not of these scales."""
    try:
        about = json.loads(meta_path(path).read_text(encoding='utf-8'))
        same = hashlib.sha256(path.read_bytes()).hexdigest() == about.get('scales_sha256')
    except (OSError, ValueError, AttributeError):
        return {}
    return dict(about) if same else {}


def check_belongs(path: str, model: Any, scales: Mapping[str, float]) -> tuple[str, ...]:
    """Tensors that weighted operators read, and that have no scale.

    Raises:
        EngineError: most have none: the scales are those of another network.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    read = [
        name
        for node in model.graph.node
        if node.op_type in ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
        for name in node.input[:2]
        if name not in stored
    ]
    read = list(dict.fromkeys(read))
    missing = [name for name in read if name not in scales]
    if len(missing) * 2 > len(read) or not read:
        raise EngineError(
            f'{path}: {len(missing)} of {len(read)} tensors that its convolutions read have no '
            f'scale ({_some(missing)}); the {len(scales)} scales are of '
            f'{_some(list(scales))}: they were made for another network'
        )
    return tuple(missing)


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:SHOWN]) + (', ...' if len(names) > SHOWN else '')

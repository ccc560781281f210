"""What goes into a model repository: a network or engine, with its inputs and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.card import CameraCard, LidarCard, find_card
from airside_perception.engine import ENGINE_SUFFIXES, open_engine
from airside_perception.engine.base import TensorSpec
from airside_perception.engine.manifest import Manifest
from airside_perception.engine.rebuild import rebuild_command
from airside_perception.errors import CardError, ConfigError, EngineError, RefusalError

PLAN, ONNX = 'tensorrt_plan', 'onnxruntime_onnx'


@dataclass(frozen=True)
class Source:
    """A network as Triton is to serve it.

    Attributes:
        path: its file.
        platform: `tensorrt_plan` or `onnxruntime_onnx`.
        inputs, outputs: -1 in a shape is a dimension that varies.
        card: its model card.
        dla_core: -1: GPU.
        largest_batch: of its profiles; 0: the batch is fixed.
        usual_batch: that it is made for; 0 as above.
        notes: what its user has to know.
    """

    path: Path
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    card: CameraCard | LidarCard
    dla_core: int = -1
    largest_batch: int = 0
    usual_batch: int = 0
    notes: tuple[str, ...] = ()

    @property
    def batches(self) -> bool:
        """Whether the first dimension of every input and output varies."""
        return self.largest_batch > 0

    @property
    def used_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the card names."""
        return _named(self.inputs, (self.card.input_name,))

    @property
    def used_outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs that the card names, which a detector reads."""
        if isinstance(self.card, CameraCard):
            return _named(self.outputs, (self.card.output_name,))
        return _named(self.outputs, tuple(self.card.outputs))


def read_source(
    path: str | Path, card_path: str = '', most_batch: int = 8, dla_core: int = -1
) -> Source:
    """Reads what is to be served.

    Args:
        path: .onnx, .engine or .plan.
        card_path: its model card; empty: beside it.
        most_batch: largest batch of a .onnx whose batch varies without a bound.
        dla_core: core that an engine must be for; -1: the GPU.

    Raises:
        EngineError: no such network, or no manifest beside the engine.
        CardError: there is no card, or a broken one.
        RefusalError: Triton cannot serve it: another device, layout or family of engines.
        ConfigError: a file of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(f'{path}: no such network or engine')
    if path.suffix in ENGINE_SUFFIXES:
        return _engine(path, card_path, dla_core)
    if path.suffix != '.onnx':
        raise ConfigError(f'{path}: expected .onnx, .engine or .plan')
    if dla_core >= 0:
        raise RefusalError(
            f'{path}: ONNX Runtime does not run on DLA core {dla_core}: build an engine: '
            f'engine build {path} --device dla{dla_core} --io-precision fp32'
        )
    with open_engine(path) as opened:
        inputs, outputs = opened.inputs, opened.outputs
    varies = _batch_varies(path, inputs, outputs)
    batch = most_batch if varies else 0
    card = _card(path, card_path)
    return Source(path, ONNX, inputs, outputs, card, -1, batch, min(4, batch))


def _engine(path: Path, card_path: str, dla_core: int) -> Source:
    manifest = Manifest.read(path)
    place = 'the GPU' if manifest.dla_core < 0 else f'DLA core {manifest.dla_core}'
    if manifest.dla_core != dla_core:
        asked = 'the GPU' if dla_core < 0 else f'DLA core {dla_core}'
        raise RefusalError(f'{path}: built for {place}, asked for {asked}')
    if manifest.flavor == 'rtx':
        raise RefusalError(
            f"{path}: built by TensorRT-RTX, whose engines Triton's TensorRT backend does not "
            'run; give the .onnx instead, or build with TensorRT'
        )
    layouts = {item['name']: item.get('layout', 'linear') for item in _ports(manifest)}
    odd = {name: layout for name, layout in layouts.items() if layout != 'linear'}
    if odd:
        name, layout = next(iter(odd.items()))
        raise RefusalError(
            f'{path}: {name} has the layout {layout}, and the other models of an ensemble take '
            f'linear tensors: {rebuild_command(path, _linear(manifest))}'
        )
    inputs = tuple(map(_spec, manifest.inputs))
    outputs = tuple(map(_spec, manifest.outputs))
    largest = usual = 0
    if _batch_varies(path, inputs, outputs):
        bounds = [profile[inputs[0].name] for profile in manifest.profiles]
        if not bounds:
            raise EngineError(f'{path}: its manifest has no profile for a batch that varies')
        largest = max(int(high[0]) for _, _, high in bounds)
        usual = max(int(best[0]) for _, best, _ in bounds)
    notes = []
    if manifest.version_compatible:
        notes.append(
            f'{path.name} is version compatible: start Triton with '
            '--backend-config=tensorrt,version-compatible=true'
        )
    if manifest.dla_layer_pct is not None and manifest.dla_layer_pct < 100.0:
        notes.append(f'{path.name}: {manifest.dla_layer_pct:.1f} % of its layers are on the DLA')
    notes.append(f'{path.name} runs with TensorRT {manifest.tensorrt} only: Triton must have it')
    card = _card(path, card_path)
    return Source(path, PLAN, inputs, outputs, card, dla_core, largest, usual, tuple(notes))


def _card(path: Path, card_path: str) -> CameraCard | LidarCard:
    card = find_card(path, card_path)
    if not isinstance(card, (CameraCard, LidarCard)):
        raise CardError(f'{card.path}: neither of a camera network nor of a lidar network')
    return card


def _named(specs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec for spec in specs if spec.name in names)


def _ports(manifest: Manifest) -> tuple[Mapping[str, Any], ...]:
    return (*manifest.inputs, *manifest.outputs)


def _linear(manifest: Manifest) -> Manifest:
    """The same with linear inputs and outputs."""
    kept, skip = [], False
    for word in manifest.options:
        if skip:
            skip = False
        elif word in ('--io-format', '--io-precision'):
            skip = True
        else:
            kept.append(word)
    return dataclasses.replace(manifest, options=(*kept, '--io-precision', 'fp16'))


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(str(entry['name']), tuple(entry['shape']), np.dtype(entry['dtype']))


def _batch_varies(
    path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> bool:
    """Whether the batch varies; no other dimension may."""
    for spec in (*inputs, *outputs):
        if any(size < 0 for size in spec.shape[1:]):
            raise RefusalError(f'{path}: {spec}: only the batch may vary')
    varying = {bool(spec.shape) and spec.shape[0] < 0 for spec in (*inputs, *outputs)}
    if len(varying) > 1:
        raise RefusalError(f'{path}: the batch of some inputs and outputs varies, of others not')
    return varying == {True}

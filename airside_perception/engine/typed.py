"""The ONNX that a builder gets: with the precision inside where TensorRT takes it from there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.calibration_cache import read_scales
from airside_perception.engine.capabilities import Capabilities
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import has_qdq, inputs, is_half, name_nodes, opset
from airside_perception.engine.ports import half_ports
from airside_perception.engine.precision import to_half
from airside_perception.engine.qdq import insert_qdq, scales, strip_qdq
from airside_perception.errors import ConfigError, EngineError, first_line

UNNAMED = '(Unnamed'


class NetworkError(EngineError):
    """A network that TensorRT cannot be given as it is, on no machine."""


@dataclass(frozen=True)
class Source:
    """A network, ready for a builder.

    Attributes:
        data: the ONNX file.
        strongly_typed: every type comes from the ONNX; else flags of the builder add precisions.
        scales: for TensorRT's own INT8, which has no Q/DQ; else empty.
        half: inputs and outputs that the builder must make fp16.
        finer: {node: fp32 or fp16} of nodes that the builder must compute so.
        notes: what was changed.
    """

    data: bytes
    strongly_typed: bool
    scales: Mapping[str, float]
    half: frozenset[str]
    finer: Mapping[str, str]
    notes: tuple[str, ...]


def read_network(path: str | Path) -> Any:
    """An ONNX file, with weights that it keeps elsewhere.

    Raises:
        EngineError: missing, or not ONNX.
    """
    if not Path(path).is_file():
        raise EngineError(f'{path}: no such network')
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's DecodeError and OSError have no nearer common base
        raise EngineError(f'{path}: not a readable ONNX file: {first_line(error)}') from error
    if not model.graph.output:
        raise EngineError(f'{path}: not an ONNX network: it has no outputs')
    return model


def typed_network(path: str | Path, settings: BuildSettings, can: Capabilities) -> Source:
    """The network in the precision of the settings.

    Raises:
        EngineError: not a network, or one that cannot be converted.
        ConfigError: the settings contradict the network, or int8 has no scales.
    """
    model = read_network(path)
    _check(path, model, settings)
    ports = {value.name for value in (*inputs(model), *model.graph.output)}
    unknown = [name for name in settings.io_formats if name not in ports]
    if unknown:
        raise ConfigError(
            f'{path}: io_formats names {unknown[0]!r}; inputs and outputs are '
            f'{", ".join(sorted(ports))}'
        )
    flags = can.strongly_typed == 'no' or (settings.dla_core >= 0 and bool(can.precision_flags))
    implicit = settings.precision == 'int8' and settings.dla_core >= 0 and can.int8_calibrator
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always', RuntimeWarning)
        if settings.layer_precision:
            name_nodes(model.graph)
        finer = matching_layers(model, settings.layer_precision)
        model, known = _quantized(path, model, settings, implicit, finer)
        if not flags and settings.precision != 'fp32':
            if is_half(model):
                model = half_ports(model, {name for name in ports if settings.is_half(name)})
            else:
                single = [name for name, kind in finer.items() if kind == 'fp32']
                keep_io = {name for name in ports if not settings.is_half(name)}
                model = to_half(model, keep_io, single)
    half = _floats(model) if flags else frozenset()
    return Source(
        data=model.SerializeToString(),
        strongly_typed=not flags,
        scales=known,
        half=frozenset(name for name in half if settings.is_half(name)),
        finer=finer if flags else {},
        notes=tuple(str(item.message) for item in said if item.category is RuntimeWarning),
    )


def _quantized(
    path: str | Path,
    model: Any,
    settings: BuildSettings,
    implicit: bool,
    finer: Mapping[str, str],
) -> tuple[Any, dict[str, float]]:
    """The network with Q/DQ, or without them and with scales."""
    if settings.precision != 'int8':
        return model, {}
    if implicit:
        if has_qdq(model):
            return strip_qdq(model), scales(model)
        return model, _known(path, model, settings)
    if has_qdq(model):
        return model, {}
    # deconvolutions have no INT8 kernels everywhere, and 1x1 convolutions do
    known = _known(path, model, settings)
    return insert_qdq(split_deconvolutions(model, finer), known, finer), {}


def matching_layers(model: Any, wanted: Mapping[str, str]) -> dict[str, str]:
    """{node: precision} of {node or pattern with *: precision}; the last that matches counts.

    Raises:
        ConfigError: it matches no node.
    """
    names = [node.name for node in model.graph.node]
    found: dict[str, str] = {}
    for pattern, kind in wanted.items():
        # a name may have brackets, which are a pattern of their own
        fitting = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not fitting:
            near = get_close_matches(pattern, names, 1)
            raise ConfigError(
                f'layer precision of {pattern!r}: no such node in the network'
                + (f'; did you mean {near[0]!r}?' if near else '')
            )
        found.update(dict.fromkeys(fitting, kind))
    return found


def _known(path: str | Path, model: Any, settings: BuildSettings) -> dict[str, float]:
    """The scales of the calibration, which must be for tensors of this network."""
    if not settings.calibration:
        raise ConfigError(
            f'{path}: int8 needs scales: --calibration names a JSON file {{tensor: scale}} or a '
            'calibration cache of TensorRT; or quantize the network first, so that it has Q/DQ '
            'nodes (airside_perception.engine.quantize)'
        )
    known = read_scales(settings.calibration)
    there = {value.name for value in inputs(model)}
    there |= {name for node in model.graph.node for name in node.output}
    # TensorRT has tensors of its own, which it calls unnamed
    named = [name for name in known if not name.startswith(UNNAMED)]
    foreign = [name for name in named if name not in there]
    if len(foreign) > len(named) / 2:
        raise ConfigError(
            f'{settings.calibration}: {len(foreign)} of {len(named)} scales are for tensors that '
            f'{path} does not have ({", ".join(foreign[:3])}): they were made for another network'
        )
    return known


def _check(path: str | Path, model: Any, settings: BuildSettings) -> None:
    newest = onnx.defs.onnx_opset_version()
    if opset(model) > newest:
        raise NetworkError(
            f'{path}: opset {opset(model)} is newer than the {newest} that onnx '
            f'{onnx.__version__} knows: export it with an older one, e.g. 17'
        )
    for value in inputs(model):
        if not value.type.tensor_type.HasField('shape'):  # TensorRT takes it for a scalar
            raise NetworkError(
                f'{path}: input {value.name!r} has no shape, so its rank is not known: export it '
                'with the rank, e.g. 1x3x384x640, with names for sizes that vary'
            )
    if has_qdq(model) and settings.precision != 'int8':
        raise ConfigError(
            f'{path}: has Q/DQ nodes, so it is int8, and precision {settings.precision} was '
            'asked for'
        )
    if has_qdq(model) and settings.calibration:
        raise ConfigError(
            f'{path}: has Q/DQ nodes with scales of its own, and calibration '
            f'{settings.calibration} gives others'
        )
    if has_qdq(model) and settings.layer_precision:
        raise ConfigError(
            f'{path}: has Q/DQ nodes, which say what is int8; leave them out at nodes that are to '
            'be finer, instead of layer_precision'
        )
    if is_half(model) and settings.precision == 'fp32':
        raise ConfigError(f'{path}: is fp16 already, and precision fp32 was asked for')


def _floats(model: Any) -> frozenset[str]:
    values = (*inputs(model), *model.graph.output)
    return frozenset(
        value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT
    )

"""INT8 calibration: scales from real inputs, stored once, as Q/DQ ONNX or TensorRT's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from airside_perception.deploy.calibrate.activations import Activations, check_network
from airside_perception.deploy.calibrate.collect import collect
from airside_perception.deploy.calibrate.scales import (
    Calibration,
    check_belongs,
    find_scales,
    read_meta,
)
from airside_perception.deploy.calibrate.thresholds import METHODS, PERCENTILE, check_method
from airside_perception.deploy.card_copy import card_text, write_card
from airside_perception.deploy.feeds import Feeds
from airside_perception.engine.bias import correct_biases
from airside_perception.engine.calibration_cache import (
    ALGORITHM,
    ALGORITHMS,
    calibration_cache,
    read_scales,
)
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import has_qdq, weights
from airside_perception.engine.qdq import insert_qdq, ready_for_qdq
from airside_perception.engine.typed import read_network
from airside_perception.errors import ConfigError, EngineError
from airside_perception.files import write_whole

__all__ = [
    'ALGORITHM',
    'ALGORITHMS',
    'METHODS',
    'PERCENTILE',
    'Calibration',
    'calibrate',
    'check_model',
    'check_paths',
    'read_for',
    'read_version',
    'state_path',
    'with_qdq',
    'write_cache',
    'write_qdq',
]


def calibrate(
    model_path: str | Path,
    feeds: Feeds,
    state: Path,
    method: str = 'entropy',
    percentile: float = PERCENTILE,
    dla: bool = False,
    restart: bool = False,
    threads: int = 0,
    progress: Callable[[str, float], None] = lambda step, share: None,
) -> tuple[Calibration, str]:
    """Scales of all float tensors of a network: inputs, outputs and what is between them.

    The statistics in `state` are the same for every method: another method on the same frames
    needs no second pass, and a pass that was broken off goes on.

    Args:
        model_path: fp32 network without Q/DQ.
        feeds: its real inputs.
        state: file that keeps the statistics (`state_path`).
        method: `entropy`, `minmax` or `percentile`.
        percentile: of |x|, for that method.
        dla: tensors that a DLA core wants alike get one scale.
        restart: begin anew, whatever is in `state`.
        threads: of ONNX Runtime; 0: all.
        progress: called with the step and its share.

    Returns:
        The scales, and how the state was used; empty where there was none.

    Raises:
        ConfigError: unknown method, wrong percentile, no frames.
        EngineError: a network that has Q/DQ, is fp16 or cannot be run; values that are not finite;
            a state that cannot be written.
        PerceptionError: a frame that cannot be read.
    """
    check_method(method, percentile)
    if not len(feeds):
        raise ConfigError('calibration needs frames, there are none')
    model = read_network(model_path)
    network = Activations(model, str(model_path), threads)
    identity = {'network': network_hash(model), 'data': feeds.fingerprint()}
    found, start, note = collect(network, feeds, state, identity, restart, progress)
    if start:
        rest = len(feeds) - start
        note = f'{start} frames from {state}, {rest} more' if rest else f'all frames from {state}'
    return find_scales(network, model, found, identity, method, percentile, dla), note


def state_path(scales: Path) -> Path:
    """`NAME.state.npz` beside `NAME.json`: the statistics of a calibration."""
    return scales.with_suffix('.state.npz')


def read_for(model_path: str | Path, scales: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """Scales that were stored, or a cache of TensorRT, for a network; and what is to be noted.

    Raises:
        EngineError: no readable scales, or they were made for another network; the network has
            Q/DQ nodes.
    """
    model = read_network(model_path)
    if has_qdq(model):
        raise EngineError(
            f'{model_path}: has Q/DQ nodes with scales of its own, and {scales} gives others'
        )
    known = read_scales(scales)
    missing = check_belongs(str(model_path), model, known)
    notes = [f'no scale for {", ".join(missing)}: what reads it stays as it is'] if missing else []
    about = read_meta(scales)
    if about.get('network_sha256', network_hash(model)) != network_hash(model):
        notes.append(
            f'{scales} was made with another version of {model_path}: calibrate anew if its '
            'weights have changed'
        )
    return known, tuple(notes)


def with_qdq(
    model: Any,
    scales: Mapping[str, float],
    exclude: Iterable[str] = (),
    first: int = 0,
    depthwise: bool = False,
    feeds: Iterable[Any] = (),
) -> Any:
    """The network with Q/DQ nodes before its convolutions and matrix products.

    Deconvolutions that allow it become 1x1 convolutions + DepthToSpace first, which is exact.

    Args:
        model: fp32 network.
        scales: {tensor: scale}.
        exclude: names of nodes that stay as they are.
        first: so many of the first convolutions stay as they are, too.
        depthwise: those with one input channel a filter stay as they are, too: they are a small
            part of the work, and their channels differ most in range.
        feeds: inputs on which biases are corrected for what rounding adds (`engine.bias`); none:
            they are not.

    Raises:
        EngineError: no scale fits, or an unknown node.
    """
    plain = ready_for_qdq(split_deconvolutions(model), (), ())  # names every node
    convolutions = [node for node in plain.graph.node if node.op_type == 'Conv']
    kept = [*exclude, *(node.name for node in convolutions[:first])]
    if depthwise:
        stored = weights(plain)
        single = {name for name, value in stored.items() if value.ndim > 1 and value.shape[1] == 1}
        kept += [node.name for node in convolutions if node.input[1] in single]
    quantized = insert_qdq(plain, scales, kept)
    fed = list(feeds)
    return correct_biases(quantized, plain, fed) if fed else quantized


def write_qdq(
    model_path: str | Path,
    scales: Mapping[str, float],
    target: str | Path,
    exclude: Iterable[str] = (),
    first: int = 0,
    depthwise: bool = False,
    feeds: Iterable[Any] = (),
) -> int:
    """Writes the network with Q/DQ nodes and its card; returns how many operators are quantised.

    Raises:
        ConfigError: `target` is the network itself.
        EngineError: as `with_qdq`, or it cannot be written.
    """
    check_paths(model_path, target)
    card, _ = card_text(model_path)
    model = with_qdq(read_network(model_path), scales, exclude, first, depthwise, feeds)
    onnx.checker.check_model(model)
    write_whole(target, model.SerializeToString())
    if card:
        write_card(card, target)
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    return sum(
        node.op_type in ('Conv', 'Gemm', 'MatMul')
        and made.get(node.input[0]) == 'DequantizeLinear'
        for node in model.graph.node
    )


def write_cache(
    scales: Mapping[str, float],
    target: str | Path,
    version: tuple[int, ...] = (8, 6, 0),
    algorithm: str = ALGORITHM,
) -> str:
    """Writes scales as the calibration cache of a TensorRT; returns its first line.

    Raises:
        EngineError: unknown algorithm, or it cannot be written.
    """
    text = calibration_cache(scales, version, algorithm)
    write_whole(target, text)
    return text.partition('\n')[0]


def check_model(model_path: str | Path) -> None:
    """Whether a network can be calibrated: quick, before data are looked for.

    Raises:
        EngineError: no such network, or it has Q/DQ nodes or is fp16.
    """
    check_network(read_network(model_path), str(model_path))


def check_paths(model_path: str | Path, *written: str | Path) -> None:
    """Whether no file would replace another one.

    Raises:
        ConfigError: names the file.
    """
    taken = {Path(model_path).resolve()}
    for path in (item for item in written if item):
        if Path(path).resolve() in taken:
            raise ConfigError(f'{path}: would replace the network or another of the files written')
        taken.add(Path(path).resolve())


def read_version(text: str) -> tuple[int, ...]:
    """8, 6, 0 of '8.6.0'.

    Raises:
        ConfigError: not a version of TensorRT.
    """
    parts = text.split('.')
    if not 2 <= len(parts) <= 4 or not all(part.isdecimal() for part in parts):
        raise ConfigError(f'TensorRT {text!r}: expected its version, e.g. 8.6.0')
    return tuple(map(int, parts))


def network_hash(model: Any) -> str:
    """SHA-256 of a network with all its weights, wherever they are stored."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()

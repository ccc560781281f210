"""Before deployment: what the networks were trained on, and whether they are sound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from airside_perception.deploy.checklist.deployment import Deployment, Network
from airside_perception.deploy.checklist.evidence import comparisons_of
from airside_perception.deploy.checklist.outcome import (
    Outcome,
    failed,
    passed,
    together,
    unknown,
)
from airside_perception.deploy.sanitize import Settings, sanitize
from airside_perception.engine import graph
from airside_perception.errors import PerceptionError

OPSET = 17
TEXT = 150
APRON = ('person', 'aircraft')
"""Classes that a network for the apron must know, by whatever data."""


def training(found: Deployment) -> Outcome:
    """Whether the cards tell data and accuracy; whether the data are like the apron is not ours.

    A program can see that it is written down and which classes there are, no more.
    """
    nobody = unknown('there is no network', 'engine checklist --models FOLDER')
    return together((_training(item) for item in found.networks), nobody)


def _training(network: Network) -> Outcome:
    name = network.path.name
    command = 'replay run --bag APRON.bag --out found.jsonl, and label what it misses'
    if network.card is None:
        return failed(network.problem, f'write {network.path.with_suffix(".yaml").name}')
    about = network.about
    missing = [key for key in ('training', 'accuracy') if not about.get(key)]
    if missing:
        return failed(
            f'{name}: the card does not say: {", ".join(missing)}',
            f'add about: {missing[0]}: to {network.card.path}',
        )
    lacking = [label for label in APRON if label not in network.card.published]
    if lacking:
        return failed(
            f'{name}: does not know {", ".join(lacking)}', 'train with these classes',
            f'{name}: classes {", ".join(network.card.published)}',
        )  # fmt: skip
    said = _first(about['training'])
    return unknown(
        'whether these data are like your apron is for a person to judge, on recordings of it',
        command,
        f'{name}: trained on {said}',
        f'{name}: accuracy is on the card; knows {len(network.card.published)} classes, '
        f'{" and ".join(APRON)} among them',
    )


def _first(said: Any) -> str:
    """The data in what a card says of its training, cut to a line."""
    text = str(said.get('data', said)) if isinstance(said, Mapping) else str(said)
    text = ' '.join(text.split())
    return text if len(text) <= TEXT else f'{text[: TEXT - 4]} ...'


def quantisation_aware(found: Deployment) -> Outcome:
    """Training for INT8, where it is needed: where INT8 without it loses accuracy."""
    built = [(path, item) for path, item in found.manifests() if item.precision == 'int8']
    parts = [accuracy_of(found, path) for path, _ in built]
    return together(
        parts,
        unknown(
            'there is no INT8 engine, so nothing says whether it is needed',
            'engine compare NETWORK.onnx --as int8 --scales SCALES.json --data APRON '
            '--accuracy-gate --json > int8.json',
        ),
    )


def accuracy_of(found: Deployment, engine: Path) -> Outcome:
    """Whether an accuracy gate was passed by an INT8 engine."""
    for item in comparisons_of(found.evidence, engine):
        gates = item.content.get('gates') or []
        for gate in gates:
            line = (
                f'{engine.name}: average precision falls by {gate["drop"]:.3f}, allowed '
                f'{gate["max_drop"]:.3f}, on {gate["frames"]} frames ({item.path.name})'
            )
            if not gate['good']:
                return failed(
                    f'{engine.name}: INT8 loses too much', 'train with quantisation (QAT), or '
                    'engine search-precision for the layers that do not bear it', line,
                )  # fmt: skip
            return passed(line)
    return unknown(
        f'{engine.name}: no accuracy gate was run',
        f'engine compare NETWORK.onnx {engine} --data APRON --accuracy-gate --json > '
        f'{engine.name}.compare.json',
    )


def opset(found: Deployment) -> Outcome:
    """The operator set: 17 or later, from which on normalisations are one operator."""
    nobody = unknown('there is no network', 'engine checklist --models FOLDER')
    return together((_opset(item) for item in found.networks), nobody)


def _opset(network: Network) -> Outcome:
    name = network.path.name
    if network.model is None:
        return failed(network.problem, f'export {name} again')
    version = graph.opset(network.model)
    line = f'{name}: opset {version}'
    if version < OPSET:
        return failed(
            f'{name}: opset {version}, expected {OPSET} or later',
            f'engine export --factory MODULE:FUNCTION --opset {OPSET} --out {name}', line,
        )  # fmt: skip
    return passed(line)


def batch(found: Deployment) -> Outcome:
    """The batch: it varies, or is 1, which nodes run and a DLA core needs."""
    nobody = unknown('there is no network', 'engine checklist --models FOLDER')
    return together((_batch(item) for item in found.networks), nobody)


def _batch(network: Network) -> Outcome:
    name = network.path.name
    if network.model is None:
        return failed(network.problem, f'export {name} again')
    weights = {item.name for item in network.model.graph.initializer}
    sizes = {}
    for port in network.model.graph.input:
        if port.name not in weights:
            dims = port.type.tensor_type.shape.dim
            sizes[port.name] = (dims[0].dim_value or -1) if dims else 0
    if set(sizes.values()) == {-1}:
        return passed(f'{name}: the batch of {", ".join(sizes)} varies')
    if set(sizes.values()) == {1}:
        return passed(
            f'{name}: batch 1, fixed: one image or cloud a call, as nodes run it and DLA cores '
            'need it'
        )
    return failed(
        f'{name}: batches {sizes} are neither 1 nor declared to vary',
        'export it with --dynamic, or engine rewrite with --batch 1',
    )


def sound(found: Deployment) -> Outcome:
    """onnx's checker takes the network, and nothing is left to fold or to remove."""
    nobody = unknown('there is no network', 'engine checklist --models FOLDER')
    return together((_sound(item) for item in found.networks), nobody)


def _sound(network: Network) -> Outcome:
    name = network.path.name
    if network.model is None:
        return failed(network.problem, f'export {name} again')
    command = f'engine sanitize {network.path} --out CLEAN.onnx'
    try:
        onnx.checker.check_model(network.model, full_check=True)
        report = sanitize(network.model, Settings(), name).report
    except PerceptionError as error:
        return failed(str(error), command)
    except Exception as error:  # noqa: BLE001  the checker raises classes of several kinds
        return failed(f'{name}: onnx refuses it: {" ".join(str(error).split())}', command)
    computing = {kind: pair for kind, pair in report.nodes.items() if kind != 'Constant'}
    before, after = (sum(pair[side] for pair in computing.values()) for side in (0, 1))
    if before != after or report.dead or report.unused:
        return failed(
            f'{name}: {before - after} nodes can be folded, {len(report.dead)} are dead, '
            f'{len(report.unused)} weights are unused', command,
            f'{name}: {before} nodes that compute, {after} after engine sanitize',
        )  # fmt: skip
    return passed(
        f'{name}: taken by the checker of onnx {onnx.__version__}; engine sanitize leaves all of '
        f'its {after} nodes that compute'
    )

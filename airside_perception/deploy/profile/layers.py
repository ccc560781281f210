"""Times of the layers of a network, and which layers compute and which only move data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

COMPUTE, REFORMAT, TRANSFER, WAIT = 'compute', 'reformat', 'transfer', 'dla'
CATEGORIES = (COMPUTE, REFORMAT, TRANSFER, WAIT)
"""What a layer does: computes; brings data into another layout or type, or copies it; hands data
over to a DLA; waits for a DLA and takes what it computed."""

REFORMAT_NAME = re.compile(
    r'^Reformatting CopyNode|( (input|output) reformatter \d+| copy)( \[profile \d+\])?$'
)
REFORMAT_KINDS = frozenset(
    {'reformat', 'noop', 'reorderinput', 'reorderoutput', 'memcpyfromhost', 'memcpytohost'}
)
"""Of TensorRT, and of ONNX Runtime, which reorders for its blocked convolutions."""
TRANSFER_NAME = re.compile(r'( to nvm| copy finish)( \[profile \d+\])?$')
WAIT_NAME = re.compile(r' from nvm( \[profile \d+\])?$')
"""Names in TensorRT's profiles of DLA engines. `{ForeignNode[FIRST...LAST]}` of the DLA only
starts it; the time that it takes is in the first layer `OUTPUT from nvm`, which waits for it."""


@dataclass(frozen=True)
class Layer:
    """One layer of an engine, or node of a network after its fusions.

    Attributes:
        kind: type of layer or operator; empty: not known.
        device: `cpu`, `gpu` or `dla`.
        precision: of what it computes, e.g. `fp16`; empty: not known.
        category: one of CATEGORIES.
        ms: median time of one run.
        mean_ms: mean time of one run.
        share: of the sum of all medians, 0 to 1.
        cumulative: share of this and all layers that take longer.
        place: in the order in which they run, from 0.
    """

    name: str
    kind: str
    device: str
    precision: str
    category: str
    ms: float
    mean_ms: float
    share: float
    cumulative: float
    place: int


@dataclass(frozen=True)
class Known:
    """What is known of a layer besides its time; see `Layer`."""

    kind: str = ''
    device: str = 'gpu'
    precision: str = ''


@dataclass(frozen=True)
class Part:
    """Layers that have something in common, taken together.

    Attributes:
        ms: sum of their medians.
        share: of all layers, 0 to 1.
    """

    name: str
    count: int
    ms: float
    share: float


def category_of(name: str, kind: str) -> str:
    """What a layer does, by its name and kind: one of CATEGORIES."""
    if WAIT_NAME.search(name):
        return WAIT
    if TRANSFER_NAME.search(name):
        return TRANSFER
    if kind.lower() in REFORMAT_KINDS or REFORMAT_NAME.search(name):
        return REFORMAT
    return COMPUTE


def make_layers(
    times_ms: Mapping[str, Sequence[float]], known: Mapping[str, Known]
) -> tuple[Layer, ...]:
    """Layers, the longest first.

    Args:
        times_ms: {layer: its time in every run}, in the order in which they run.
        known: of some or all of them.
    """
    medians = {name: float(np.median(times)) for name, times in times_ms.items()}
    total = sum(medians.values()) or 1.0
    places = {name: place for place, name in enumerate(times_ms)}
    layers, so_far = [], 0.0
    for name in sorted(medians, key=lambda each: -medians[each]):
        about = known.get(name, Known())
        so_far += medians[name]
        layers.append(
            Layer(
                name=name,
                kind=about.kind,
                device=about.device,
                precision=about.precision,
                category=category_of(name, about.kind),
                ms=medians[name],
                mean_ms=float(np.mean(times_ms[name])),
                share=medians[name] / total,
                cumulative=min(so_far / total, 1.0),
                place=places[name],
            )
        )
    return tuple(layers)


def parts(layers: Iterable[Layer], attribute: str) -> tuple[Part, ...]:
    """Layers by the value of an attribute (`kind`, `category`, ...), the longest first."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(getattr(layer, attribute), []).append(layer)
    made = [
        Part(name, len(of), sum(layer.ms for layer in of), sum(layer.share for layer in of))
        for name, of in groups.items()
    ]
    return tuple(sorted(made, key=lambda part: -part.ms))

"""Which layers of an engine really run on a DLA core: what TensorRT says of it after the build."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NAME = r'[\w./:-]'
"""What names of layers are made of; others stand between them where layers are fused."""
BETWEEN = re.compile(r'^Reformatting CopyNode|( to nvm| from nvm| copy finish)$')
"""Layers of the engine that only move data, and name what they move it for."""
GPU_REGIONS = ('myelin', 'kgen', 'gpu')
"""Compilers of the GPU, which name their regions as the DLA does."""


@dataclass(frozen=True)
class Placement:
    """Where the layers of a network are.

    Attributes:
        dla_pct: share of the network's layers on the DLA, 0 to 100.
        on_gpu: names of the others.
    """

    dla_pct: float
    on_gpu: tuple[str, ...]


def read_information(text: str) -> dict[str, Any]:
    """What an engine inspector says as JSON.

    TensorRT 8.6 puts the separators of its metadata, control characters, there as they are, which
    JSON does not allow.

    Raises:
        ValueError: no JSON all the same.
    """
    found: dict[str, Any] = json.loads(text, strict=False)
    return found


def placement(information: str, layers: Iterable[str]) -> Placement:
    """Reads the engine inspector.

    A DLA subgraph is one layer of the engine, `{ForeignNode[FIRST...LAST]}`, and says nothing of
    what is inside; a layer on the GPU has its own name in that of the engine's layer, alone or
    among those that it is fused with. So the layers that none on the GPU names are on the DLA, if
    there is a DLA subgraph at all.

    Args:
        information: JSON of `EngineInspector.get_engine_information`.
        layers: names of the network's layers that compute something.
    """
    found = read_information(information).get('Layers', [])
    gpu = [layer for layer in found if not _is_dla(layer)]
    names = list(dict.fromkeys(layers))
    if len(gpu) == len(found):
        return Placement(0.0, tuple(names))
    computing = [_text(layer) for layer in gpu if not BETWEEN.search(_name(layer))]
    on_gpu = tuple(name for name in names if any(_names(text, name) for text in computing))
    return Placement(100.0 * (1.0 - len(on_gpu) / max(1, len(names))), on_gpu)


def _is_dla(layer: Any) -> bool:
    kind = '' if isinstance(layer, str) else str(layer.get('LayerType', '')).lower()
    return kind.startswith('dla') or (
        _name(layer).startswith('{ForeignNode[') and not any(word in kind for word in GPU_REGIONS)
    )


def _name(layer: Any) -> str:
    return layer if isinstance(layer, str) else str(layer.get('Name', ''))


def _text(layer: Any) -> str:
    if isinstance(layer, str):
        return layer
    return f'{layer.get("Name", "")} {layer.get("Metadata", "")}'


def _names(text: str, name: str) -> bool:
    return re.search(rf'(?<!{NAME}){re.escape(name)}(?!{NAME})', text) is not None

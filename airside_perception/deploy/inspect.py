"""What is in a network file: tensors, operators, size, and how it fits its model card."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx

from airside_perception.deploy.cards import card_beside, card_lines, card_summary, contradiction
from airside_perception.engine import open_engine
from airside_perception.engine.graph import inferred
from airside_perception.errors import EngineError


@dataclass(frozen=True)
class Inspection:
    """One network.

    Attributes:
        bytes: size of the file.
        opsets: {domain: version}; the domain of the standard is `ai.onnx`.
        inputs, outputs: each as `name: dtype [shape]`, `?` for a dimension that varies.
        operators: {type: count}, most frequent first.
        parameters: numbers that are stored as weights.
        backend, device, precision: what would run it here.
        card: what its model card says in short; None where there is no card.
        card_problem: why card and network do not belong together; empty if they do.
        layers: each {name, kind, precision} of the nodes; none if not asked for.
    """

    path: str
    bytes: int
    sha256: str
    producer: str
    opsets: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]
    parameters: int
    backend: str
    device: str
    precision: str
    card: Mapping[str, Any] | None = None
    card_problem: str = ''
    notes: tuple[str, ...] = field(default=())
    layers: tuple[Mapping[str, str], ...] = ()

    @property
    def problem(self) -> str:
        """What is wrong; empty if nothing is."""
        return self.card_problem

    def as_dict(self) -> dict[str, Any]:
        """Everything; what JSON does not know, such as dates in a card, goes there as text."""
        return asdict(self)


def inspect_network(path: str | Path, card_path: str = '', layers: bool = False) -> Inspection:
    """Reads and opens a network.

    Args:
        path: ONNX file.
        card_path: its model card; empty: beside it, where there may be none.
        layers: say of every node what it is.

    Raises:
        EngineError: missing, not readable as a network, or the backend refuses it.
        CardError: `card_path` names no card, or a card that is broken or for another file.
    """
    path = Path(path)
    with open_engine(path) as engine:
        model = _load(path)
        operators = Counter(node.op_type for node in model.graph.node)
        card = card_beside(path, card_path)
        return Inspection(
            path=str(path),
            bytes=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            producer=f'{model.producer_name} {model.producer_version}'.strip(),
            opsets={item.domain or 'ai.onnx': item.version for item in model.opset_import},
            inputs=tuple(map(str, engine.inputs)),
            outputs=tuple(map(str, engine.outputs)),
            operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
            parameters=_parameters(model),
            backend=f'{engine.info.backend} {engine.info.version}',
            device=engine.info.device,
            precision=engine.info.precision,
            card=card_summary(card) if card else None,
            card_problem=contradiction(engine, card) if card else '',
            notes=engine.info.notes,
            layers=_nodes(model) if layers else (),
        )


def describe(found: Inspection) -> str:
    """An inspection as text."""
    lines = [
        found.path,
        f'  size        {found.bytes:,} bytes, {found.parameters:,} parameters',
        f'  sha256      {found.sha256}',
        f'  made by     {found.producer or "unknown"}, '
        + ', '.join(f'{domain} opset {version}' for domain, version in found.opsets.items()),
        f'  runs on     {found.backend} ({found.device}, {found.precision})',
        *(f'  input       {item}' for item in found.inputs),
        *(f'  output      {item}' for item in found.outputs),
        f'  operators   {sum(found.operators.values())}: '
        + ', '.join(f'{name} {count}' for name, count in found.operators.items()),
    ]
    if found.layers:
        width = max(len(layer['kind']) for layer in found.layers)
        lines += [
            f'    {layer["precision"] or "-":7}  {layer["kind"]:{width}}  {layer["name"]}'
            for layer in found.layers
        ]
    lines += card_lines(found.card, found.card_problem)
    return '\n'.join([*lines, *(f'  note        {note}' for note in found.notes)])


def _load(path: Path) -> Any:
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError and OSError have no nearer common base
        raise EngineError(f'{path}: not a readable ONNX file: {error}') from error


def _nodes(model: Any) -> tuple[Mapping[str, str], ...]:
    """Every node, with the type of what it puts out where that follows from the graph."""
    try:
        graph = inferred(model).graph
    except EngineError:
        graph = model.graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.output)
    }
    return tuple(
        {
            'name': node.name or next(iter(node.output), ''),
            'kind': node.op_type,
            'precision': _kind(kinds.get(next(iter(node.output), ''), 0)),
        }
        for node in model.graph.node
    )


def _kind(number: int) -> str:
    return str(onnx.TensorProto.DataType.Name(number)).lower() if number else ''


def _parameters(model: Any) -> int:
    """Numbers in the initializers and in constants of the graph."""
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == 'Constant':
            tensors += [item.t for item in node.attribute if item.name == 'value']
    total = 0
    for tensor in tensors:
        count = 1
        for size in tensor.dims:
            count *= size
        total += count
    return total

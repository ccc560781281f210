"""What `engine inspect` found in an engine or a manifest, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airside_perception.deploy.cards import card_lines
from airside_perception.engine.manifest import manifest_path

if TYPE_CHECKING:
    from airside_perception.deploy.inspect_engine import EngineInspection


def describe_engine(found: EngineInspection, layers: bool = False) -> str:
    """An inspection as text.

    Args:
        layers: list them all.
    """
    lines = [
        found.path,
        *([f'  size        {found.bytes:,} bytes'] if found.bytes else []),
        *([f'  sha256      {found.sha256}'] if found.sha256 else []),
        f'  TensorRT    {found.tensorrt or "none here"}',
        *(f'    tried     {item}' for item in found.tried),
    ]
    if found.capabilities:
        lines.append(f'    can       {_capabilities(found.capabilities)}')
    lines.append(f'  GPU         {found.gpu or "none that can be used"}')
    if found.not_opened:
        lines.append(f'  not opened  {found.not_opened}')
    else:
        lines.append(f'  opened      and ran, {found.device_bytes:,} bytes of tensors and layers')
    lines += [f'  input       {item}' for item in found.inputs]
    lines += [f'  output      {item}' for item in found.outputs]
    for number, profile in enumerate(found.profiles):
        lines += [f'  profile {number}   {_bounds(name, b)}' for name, b in profile.items()]
    if found.memory_bytes:
        lines.append(f'  memory      {found.memory_bytes:,} bytes for the layers to work in')
    lines.append(f'  weights     {_weights(found)}')
    lines += _layer_part(found, layers)
    lines += _manifest_lines(found)
    lines += card_lines(found.card, found.card_problem)
    return '\n'.join([*lines, *(f'  note        {note}' for note in found.notes)])


def layer_lines(layers: Sequence[Mapping[str, str]]) -> list[str]:
    """A line for each layer: device, precision, kind, name."""
    widths = [max(len(layer[key]) for layer in layers) for key in ('device', 'precision', 'kind')]
    return [
        f'    {layer["device"]:{widths[0]}}  {layer["precision"] or "-":{max(1, widths[1])}}  '
        f'{layer["kind"]:{widths[2]}}  {layer["name"]}'
        for layer in layers
    ]


def layer_summary(layers: Sequence[Mapping[str, str]]) -> str:
    """How many there are, and of them on each device and in each precision."""
    counts = [
        ', '.join(f'{key or "unknown"} {number}' for key, number in Counter(values).most_common())
        for values in ((x['device'] for x in layers), (x['precision'] for x in layers))
    ]
    return f'{len(layers)}: {"; ".join(counts)}'


def _capabilities(can: Mapping[str, Any]) -> str:
    switches = [name for name, value in can.items() if value is True]
    precisions = ', '.join(can['precision_flags']) or 'none'
    return ', '.join(
        [f'strongly typed: {can["strongly_typed"]}', f'precision flags: {precisions}', *switches]
    )


def _manifest_lines(found: EngineInspection) -> list[str]:
    text = found.manifest
    if text is None:
        return [f'  PROBLEM     {found.manifest_problem}']
    core = text['dla_core']
    share = text['dla_layer_pct']
    where = text['gpu'] or 'any GPU'
    lines = [
        f'  manifest    {manifest_path(found.path)}',
        f'    from      {text["onnx"]}, {text["precision"]}',
        f'    by        TensorRT {text["flavor"]} {text["tensorrt"]}'
        + (f', {text["built"]}' if text['built'] else ''),
        f'    for       {where} {text["sm"]}'.rstrip()
        + (f', DLA {core}' if core >= 0 else '')
        + (f': {share:g} % of the layers are on it' if share is not None else ''),
    ]
    if found.differences:
        lines += [f'  PROBLEM     {item}' for item in found.differences]
        return [*lines, f'  rebuild     {found.rebuild}']
    known = 'as far as can be told without a GPU' if not found.gpu else 'here'
    return [*lines, f'    belongs   {known}']


def _bounds(name: str, bounds: Sequence[Sequence[int]]) -> str:
    low, usual, high = ('x'.join(map(str, shape)) for shape in bounds)
    return f'{name}: {low} to {high}, best {usual}'


def _weights(found: EngineInspection) -> str:
    if found.stripped:
        return 'left out: engine refit puts them in before it runs'
    if found.manifest is None:
        return 'nobody says whether they can be changed'
    return 'can be changed: engine refit' if found.refittable else 'fixed'


def _layer_part(found: EngineInspection, every: bool) -> list[str]:
    if not found.layers:
        where = found.layers_from or 'nothing: open it on its GPU, or build it with --layer-info'
        return [f'  layers      said by {where}'] if every else []
    lines = [f'  layers      {layer_summary(found.layers)} (from {found.layers_from})']
    return lines + (layer_lines(found.layers) if every else [])

"""A profile as text."""

from __future__ import annotations

from airside_perception.deploy.profile.layers import COMPUTE, REFORMAT, TRANSFER, WAIT, Part
from airside_perception.deploy.profile.run import Profile

SAYS = {
    COMPUTE: 'compute',
    REFORMAT: 'reformat or copy',
    TRANSFER: 'hand over to a DLA',
    WAIT: 'wait for a DLA and fetch',
}
"""What layers of a category do."""
LONGEST_NAME = 60
MOST_KINDS = 12


def describe(found: Profile, top: int = 20) -> str:
    """A profile as text.

    Args:
        top: so many layers, the longest; 0: all.
    """
    lines = [
        found.path,
        f'  runs on     {found.runs_on}',
        *(f'  input       {item}, {found.data}' for item in found.inputs),
        f'  layers      {len(found.layers)}, {found.sum_ms:.3f} ms together (medians of '
        f'{found.iterations} runs)',
    ]
    if found.run:
        lines.append(f'  whole run   {found.run.p50:.3f} ms, at least {found.run.min:.3f} ms')
    lines += [f'  note        {note}' for note in found.notes]
    lines += ['', *_part_lines('what layers do', found.categories, SAYS)]
    lines += ['', *_part_lines('kinds of layers', found.kinds[:MOST_KINDS], {'': 'not known'})]
    return '\n'.join([*lines, '', *_layer_lines(found, top)])


def _part_lines(title: str, parts: tuple[Part, ...], says: dict[str, str]) -> list[str]:
    lines = [f'  {title:26}{"layers":>8}{"ms":>10}{"share":>10}']
    return lines + [
        f'  {says.get(part.name, part.name)[:26]:26}{part.count:8}{part.ms:10.3f}'
        f'{100 * part.share:8.1f} %'
        for part in parts
    ]


def _layer_lines(found: Profile, top: int) -> list[str]:
    shown = found.layers[: top or None]
    names = [short(layer.name) for layer in shown]
    width = max(map(len, names), default=0)
    kinds = max((len(layer.kind) for layer in shown), default=0)
    lines = [
        f'  {"ms":>9}{"share":>10}{"so far":>9}  {"on":5}{"in":6}{"kind":{kinds}}  layer',
        *(
            f'  {layer.ms:9.3f}{100 * layer.share:8.1f} %{100 * layer.cumulative:7.1f} %  '
            f'{layer.device:5}{layer.precision:6}{layer.kind:{kinds}}  {name:{width}}'.rstrip()
            + ('' if layer.category == COMPUTE else f'  ({SAYS[layer.category]})')
            for layer, name in zip(shown, names, strict=True)
        ),
    ]
    rest = len(found.layers) - len(shown)
    return [*lines, *([f'  and {rest} more (--top 0 shows all)'] if rest else [])]


def short(name: str) -> str:
    """A name with its middle left out where it is long: fused layers name all their parts."""
    half = (LONGEST_NAME - 3) // 2
    return name if len(name) <= LONGEST_NAME else f'{name[:half]}...{name[-half:]}'

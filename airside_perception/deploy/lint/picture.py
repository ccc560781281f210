"""A network as a picture, coloured by where its layers run: inline SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from airside_perception.deploy.lint.layout import layout
from airside_perception.deploy.lint.network import Network
from airside_perception.deploy.lint.result import Lint, Verdict

COLOURS = {
    'dla': ('#dff0e4', '#2e7d4f', 'runs on DLA'),
    'gpu': ('#dfe9f7', '#2b5fa8', 'runs on the GPU'),
    'conditional': ('#fbf0d3', '#b7791f', 'conditional: may run'),
    'falls back': ('#fbe0dc', '#b3372f', 'falls back to the GPU'),
    'refused': ('#e9d3ef', '#6b2f86', 'refused: no engine'),
    'port': ('#f5f7fa', '#5d6878', 'input or output'),
}
"""{kind: fill, line, meaning}."""
POINTWISE = {
    'Relu', 'Sigmoid', 'Tanh', 'Clip', 'LeakyRelu', 'PRelu', 'Mul', 'BatchNormalization', 'Elu',
    'HardSwish', 'HardSigmoid', 'Mish', 'Gelu',
}  # fmt: skip
"""Drawn in the box of what they follow, as TensorRT fuses them."""
HEIGHT, ROW, GAP, LETTER, MARGIN, LONGEST = 36, 66, 22, 7.0, 12, 34


@dataclass
class _Box:
    """One box: layers that are alike and follow each other."""

    kind: str
    rule: str
    names: list[str] = field(default_factory=list)
    title: str = ''
    label: tuple[str, str] = ('', '')


def picture(network: Network, lint: Lint) -> str:
    """The graph as one SVG element.

    Runs of layers with the same verdict are one box; a tooltip lists what is in it. Edges that
    cross between DLA and GPU are thick and red, their tooltips say what crosses.

    Args:
        network: the one that `lint` judged.
    """
    verdicts = {verdict.name: verdict for verdict in lint.verdicts}
    boxes, home = _boxes(network, verdicts, lint)
    edges = _edges(network, home, lint, boxes)
    widths = [max(len(text) for text in box.label) * LETTER + 16 for box in boxes]
    plan = layout(widths, list(edges), GAP)
    width, height = plan.width + 2 * MARGIN, plan.layers * ROW + 2 * MARGIN
    parts = [_edge(route, title) for route, title in zip(plan.routes, edges.values(), strict=True)]
    for box, (x, row), wide in zip(boxes, plan.centres, widths, strict=True):
        parts.append(_drawn(box, x + MARGIN, row * ROW + MARGIN, wide))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="graph of the network">\n' + '\n'.join(parts) + '\n</svg>'
    )


def legend(kinds: Sequence[str]) -> str:
    """What the colours mean, HTML."""
    parts = []
    for kind in kinds:
        fill, line, meaning = COLOURS[kind]
        parts.append(
            f'<span class="key"><span class="swatch" style="background:{fill};'
            f'border-color:{line}"></span>{escape(meaning)}</span>'
        )
    return f'<p class="soft">{"".join(parts)}</p>'


def kind_of(verdict: Verdict) -> str:
    """The colour of a verdict."""
    return verdict.device if verdict.verdict == 'runs' else verdict.verdict


def _boxes(
    network: Network, verdicts: Mapping[str, Verdict], lint: Lint
) -> tuple[list[_Box], dict[str, int]]:
    """The boxes, and the box of every layer, input (`>name`) and output (`<name`)."""
    group = {name: at for at, names in enumerate(lint.groups) for name in names}
    boxes: list[_Box] = []
    home: dict[str, int] = {}
    readers = {node.name: len(network.readers[node.name]) for node in network.layers}
    for node in network.layers:
        verdict = verdicts[node.name]
        kind = kind_of(verdict)
        before = {source.name for _, source in network.sources(node)}
        from_input = any(name in network.inputs for name in node.inputs)
        single = {home[name] for name in before}
        at = single.pop() if len(single) == 1 and not from_input else -1
        joins = (
            at >= 0
            and (boxes[at].kind, boxes[at].rule) == (kind, verdict.rule)
            and len({group.get(node.name), *(group.get(n) for n in boxes[at].names)}) == 1
            and (
                (kind in ('dla', 'gpu') and node.op_type in POINTWISE)
                or (boxes[at].names[-1] in before and readers[boxes[at].names[-1]] == 1
                    and _ends(boxes[at], network, node.name))
            )
        )  # fmt: skip
        if not joins:
            at = len(boxes)
            boxes.append(_Box(kind, verdict.rule))
        boxes[at].names.append(node.name)
        home[node.name] = at
    for box in boxes:
        _describe(box, verdicts, network, group)
    for mark, names in (('>', network.inputs), ('<', network.outputs)):
        for name in names:
            home[mark + name] = len(boxes)
            shape = ' x '.join(map(str, network.shape(name) or ('?',)))
            boxes.append(_Box('port', '', [], f'{name}: {shape}', (_short(name), shape)))
    return boxes, home


def _ends(box: _Box, network: Network, reader: str) -> bool:
    """Whether nobody but this layer reads what the box computes."""
    inside = {*box.names, reader}
    return all(node.name in inside for name in box.names for node in network.readers[name])


def _describe(
    box: _Box, verdicts: Mapping[str, Verdict], network: Network, group: Mapping[str, int]
) -> None:
    own = [verdicts[name] for name in box.names]
    counts = Counter(verdict.op_type for verdict in own)
    if counts['Sigmoid'] and counts['Sigmoid'] == counts['Mul']:  # x * sigmoid(x)
        del counts['Mul']
        counts = Counter({'SiLU' if k == 'Sigmoid' else k: n for k, n in counts.items()})
    what = ', '.join(f'{n} {kind}' if n > 1 else kind for kind, n in counts.items())
    first = own[0]
    place = f'loadable {group[first.name]}' if first.name in group else first.device or 'nowhere'
    lines = [', '.join(box.names), f'{place}, {sum(v.flops for v in own) / 1e6:.4g} MFLOP']
    if first.verdict == 'runs':
        last = next(node for node in network.layers if node.name == box.names[-1])
        below = ' x '.join(map(str, network.shape(last.outputs[0]) or ('?',)))
    else:
        values = ', '.join(dict.fromkeys(verdict.value for verdict in own))
        below = f'{first.rule}: {values}'
        lines += [f'{first.verdict}: {first.limit}; found {values}', f'fix: {first.fix}']
    box.title = '\n'.join(lines)
    box.label = (_short(what), _short(below))


def _edges(
    network: Network, home: Mapping[str, int], lint: Lint, boxes: Sequence[_Box]
) -> dict[tuple[int, int], str]:
    """{(from, to): what crosses between DLA and GPU; empty: nothing}."""
    sizes = {crossing.tensor: crossing.bytes for crossing in lint.crossings}
    device = {verdict.name: verdict.device for verdict in lint.verdicts}
    found: dict[tuple[int, int], str] = {}
    for node in network.layers:
        end = home[node.name]
        for tensor, source in network.sources(node):
            start = home[source.name]
            if start == end:
                continue
            text = found.setdefault((start, end), '')
            if tensor in sizes and device[source.name] != device[node.name]:
                found[start, end] = f'{text}{tensor}: {sizes[tensor] / 1e3:.4g} kB\n'
        for tensor in node.inputs:
            if tensor in network.inputs:
                found[home[f'>{tensor}'], end] = ''
    for name in network.outputs:
        producer = network.producers.get(name)
        if producer is not None:
            found[home[producer.name], home[f'<{name}']] = ''
    return found


def _edge(route: Sequence[tuple[float, int]], title: str) -> str:
    points = [(x + MARGIN, row * ROW + MARGIN) for x, row in route]
    x, y = points[0]
    path = f'M{x:.1f} {y + HEIGHT:.0f}'
    y += HEIGHT
    for number, (to_x, to_y) in enumerate(points[1:], 1):
        half = (to_y - y) / 2
        path += f' C{x:.1f} {y + half:.0f} {to_x:.1f} {to_y - half:.0f} {to_x:.1f} {to_y:.0f}'
        x, y = to_x, to_y
        if number < len(points) - 1:
            y = to_y + HEIGHT
            path += f' L{x:.1f} {y:.0f}'
    look = 'stroke="#b3372f" stroke-width="2.5"' if title else 'stroke="#98a4b3"'
    tip = f'<title>crosses: {escape(title.strip())}</title>' if title else ''
    return f'<path d="{path}" fill="none" {look}>{tip}</path>'


def _drawn(box: _Box, x: float, y: float, wide: float) -> str:
    fill, line, _ = COLOURS[box.kind]
    corner = HEIGHT / 2 if box.kind == 'port' else 5
    first, second = map(escape, box.label)
    return (
        f'<g><title>{escape(box.title)}</title>'
        f'<rect x="{x - wide / 2:.1f}" y="{y:.0f}" width="{wide:.1f}" height="{HEIGHT}" '
        f'rx="{corner:.0f}" fill="{fill}" stroke="{line}"/>'
        f'<text x="{x:.1f}" y="{y + 15:.0f}" text-anchor="middle" font-size="12" '
        f'font-weight="600" fill="#1d2430">{first}</text>'
        f'<text x="{x:.1f}" y="{y + 29:.0f}" text-anchor="middle" font-size="11" '
        f'fill="#5d6878">{second}</text></g>'
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'

"""Bytes that one cloud moves through the memory of a GPU, step by step, and what that must cost.

    python -m benchmarks.gpu_traffic NETWORK.onnx --bandwidth 4224

NETWORK.onnx has its card beside it; benchmarks.gpu writes one of KITTI's size into its folder of
plans. Counted is what a step must read and write at least: every value once, however often blocks
read it again from the cache, and not the rest of its 32-byte sector. Nothing is taken off for what
the step before has left in the cache, so a step may take less than the time given here. The
network is counted twice: as one step that keeps all between its inputs and outputs to itself, and
layer by layer.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx

from airside_perception.card import LidarCard, find_card
from airside_perception.cuda.frame import FRAME, RESULT
from airside_perception.cuda.suppress import TILE
from airside_perception.errors import PerceptionError
from airside_perception.lidar.gpu_input import BATCH, POINT

HALF = 2
WIDE = 8
"""Channels lie side by side in multiples of this: hwc8."""
FREE = frozenset({'Relu', 'Concat'})
"""Nodes that a builder makes part of the layers before: nothing moves for them."""


class Moved(NamedTuple):
    """Bytes of the GPU's memory that a step reads and writes."""

    read: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        return self.read + self.written

    def microseconds(self, gb_s: float) -> float:
        """At a copy bandwidth in GB/s, bytes read plus bytes written."""
        return self.total / gb_s / 1e3


@dataclass(frozen=True)
class Sweep:
    """What is in one cloud; the defaults are a full scan of KITTI.

    Attributes:
        points: of the cloud.
        in_range: of them in the grid; all count as kept.
        pillars: that are drawn.
        candidates: that enter suppression.
        boxes: that are put out.
    """

    points: int = 112_000
    in_range: int = 54_000
    pillars: int = 9_500
    candidates: int = 1_500
    boxes: int = 300


@dataclass(frozen=True)
class Dense:
    """A network, every value in half precision.

    Attributes:
        ends: inputs, weights and outputs, each once.
        layers: inputs, weights and outputs of every layer.
        count: of layers.
        products: multiplications of all layers.
    """

    ends: Moved
    layers: Moved
    count: int
    products: int


def lidar_traffic(card: LidarCard, sweep: Sweep) -> dict[str, Moved]:
    """Bytes of every step around the network; tensors are float16 hwc8.

    The steps are those of `lidar.gpu_work`, which says what they do. The copies cross the host's
    link as well, which is not counted.
    """
    (rows, columns), (out_rows, out_columns) = card.grid, card.output_grid
    cells, places = rows * columns, out_rows * out_columns
    n, used, pillars, found = sweep.points, sweep.in_range, sweep.pillars, sweep.candidates
    features = _wide(len(card.bias)) * HALF
    scores = _wide(card.outputs[card.score_output]) * HALF
    weights = 12 * 4 * len(card.bias)
    tiles = math.ceil(found / TILE)
    bits = tiles * (tiles + 1) // 2 * TILE * TILE // 8  # of pairs within groups
    point, cell_and_slot, count, index, pillar, mean, key, row = POINT, 8, 4, 4, 16, 16, 8, 32
    return {
        'clear': Moved(pillars * pillar, pillars * features),
        'copy_in': Moved(0, FRAME.itemsize + point * math.ceil(n / BATCH) * BATCH),
        'bin': Moved(n * point + used * count, n * cell_and_slot + used * count),
        'number': Moved(cells * count, pillars * (count + pillar)),
        'sort': Moved(n * cell_and_slot + used * (count + point), used * (point + index)),
        'draw': Moved(
            pillars * pillar + used * point + weights, pillars * (count + mean + features)
        ),
        'scan': Moved(places * scores, found * key),
        'select': Moved(found * key, found * key),
        'boxes': Moved(found * (key + 9 * HALF), found * row),
        'suppress': Moved(
            2 * found * (row + key) + bits + sweep.boxes * row, bits + sweep.boxes * 36
        ),
        'copy_out': Moved(RESULT.itemsize, 0),
    }  # fmt: skip


def network_traffic(model: onnx.ModelProto) -> Dense:
    """What a network moves, with channels in multiples of 8 and batches of one.

    Raises:
        ValueError: the shape of a tensor is not fixed.
    """
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    weights = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    shapes = {v.name: _shape(v) for v in (*graph.value_info, *graph.input, *graph.output)}

    def size(names: Sequence[str]) -> int:
        """Bytes of tensors, weights not among them."""
        return sum(_nbytes(shapes[name]) for name in names if name and name not in weights)

    read = written = products = count = 0
    for node in graph.node:
        if node.op_type in FREE:
            continue
        count += 1
        read += size(node.input) + HALF * sum(weights.get(name, 0) for name in node.input)
        written += size(node.output)
        if node.op_type in ('Conv', 'ConvTranspose'):
            # each weight meets each place of the output; where places are spread, of the input
            at = shapes[node.output[0] if node.op_type == 'Conv' else node.input[0]]
            products += weights[node.input[1]] * math.prod(at[2:])
    ends = Moved(
        size([v.name for v in graph.input]) + HALF * sum(weights.values()),
        size([v.name for v in graph.output]),
    )
    return Dense(ends, Moved(read, written), count, products)


def table(steps: dict[str, Moved], dense: Dense, gb_s: float) -> str:
    """The figures as text."""
    around = Moved(*map(sum, zip(*steps.values(), strict=True)))
    whole = Moved(around.read + dense.ends.read, around.written + dense.ends.written)
    lines = [f'{"step":<24}{"read MB":>10}{"written MB":>12}{"us at " + f"{gb_s:.0f} GB/s":>18}']
    rows = {
        **steps,
        'all around the network': around,
        'network, ends': dense.ends,
        f'network, {dense.count} layers': dense.layers,
        'whole, network as ends': whole,
    }
    lines += [
        f'{name:<24}{moved.read / 1e6:>10.3f}{moved.written / 1e6:>12.3f}'
        f'{moved.microseconds(gb_s):>18.2f}'
        for name, moved in rows.items()
    ]
    lines.append(f'network: {dense.products / 1e9:.1f} thousand million products')
    return '\n'.join(lines)


def _wide(channels: int) -> int:
    return -(-channels // WIDE) * WIDE


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    if not all(dim.dim_value > 0 for dim in dims):
        raise ValueError(f'the shape of {value.name!r} is not fixed')
    return tuple(dim.dim_value for dim in dims)


def _nbytes(shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        return HALF * math.prod(shape)
    batch, channels, *rest = shape
    return HALF * batch * _wide(channels) * math.prod(rest)


def main(args: list[str] | None = None) -> int:
    """The command; see the top of the module."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.gpu_traffic', description='Bytes that one cloud moves on a GPU'
    )
    parser.add_argument('network', type=Path, help='ONNX file of a lidar network with anchors')
    parser.add_argument('--bandwidth', type=float, default=4224.0, help='of a copy, GB/s')
    for name, value in vars(Sweep()).items():
        parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=value)
    options = parser.parse_args(args)
    try:
        card = find_card(options.network)
        if not isinstance(card, LidarCard) or not card.anchors:
            parser.error(f'{options.network}: no lidar network with anchors')
        dense = network_traffic(onnx.load(str(options.network)))
    except (PerceptionError, OSError, ValueError) as error:
        parser.error(str(error))
    sweep = Sweep(**{name: getattr(options, name) for name in vars(Sweep())})
    print(table(lidar_traffic(card, sweep), dense, options.bandwidth))
    return 0


if __name__ == '__main__':
    sys.exit(main())

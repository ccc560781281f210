"""The same detectors as a user of torch would write them, eager and as a CUDA graph.

A process of its own, since torch and TensorRT often live in different Pythons:

    python -m benchmarks.gpu_torch NETWORK.onnx SCANS --repeats 100

prints one JSON object. Dense network in fp16, channels last, cuDNN's autotuner on; everything else
is the usual tensor code, without a loop over pillars or boxes. All shapes are static, so that the
same functions run eagerly and in a graph: `POINTS` points and `CANDIDATES` candidates, padded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from airside_perception.card import LidarCard, load_card

DEVICE = 'cuda'
POINTS = 131_072
CANDIDATES = 2_048
KEPT = 500
ROUNDS = 12
"""Of the fixed-point form of greedy suppression; enough for every scan (checked)."""


class Dense:
    """An ONNX graph of convolutions, ReLU and concatenation as torch functions in fp16."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(str(path)).graph
        self._nodes = list(graph.node)
        self._outputs = [output.name for output in graph.output]
        self._weights = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()).to(DEVICE).half()
            for tensor in graph.initializer
        }
        for name, tensor in self._weights.items():
            if tensor.ndim == 4:
                self._weights[name] = tensor.contiguous(memory_format=torch.channels_last)

    def __call__(self, canvas: torch.Tensor) -> dict[str, torch.Tensor]:
        values = {'canvas': canvas, **self._weights}
        for node in self._nodes:
            given = [values[name] for name in node.input]
            options = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == 'Conv':
                result = functional.conv2d(
                    *given, stride=options['strides'][0], padding=options['pads'][0]
                )
            elif node.op_type == 'ConvTranspose':
                result = functional.conv_transpose2d(*given, stride=options['strides'][0])
            elif node.op_type == 'Relu':
                result = functional.relu(given[0], inplace=True)
            else:
                result = torch.cat(given, options['axis'])
            values[node.output[0]] = result
        return {name: values[name] for name in self._outputs}


class Detector:
    """Points on the device to at most `KEPT` boxes on the device."""

    def __init__(self, card: LidarCard, dense: Dense, iou: float) -> None:
        self.card, self.dense, self.iou = card, dense, iou
        rows, columns = card.grid
        self.rows, self.columns = rows, columns
        self.low = torch.tensor(card.limits[:3]).to(DEVICE)
        self.middle = torch.tensor(
            [card.pillar[0] / 2, card.pillar[1] / 2, (card.limits[5] - card.limits[2]) / 2]
        ).to(DEVICE)
        self.scale = torch.tensor([1 / card.pillar[0], 1 / card.pillar[1]]).to(DEVICE)
        self.extent = torch.tensor([*card.pillar, 0.0]).to(DEVICE)
        self.weight = torch.from_numpy(card.weight).to(DEVICE)
        self.bias = torch.from_numpy(card.bias).to(DEVICE)
        self.logit = float(np.log(0.1 / 0.9))
        out_rows, out_columns = card.output_grid
        fields = [(a.length, a.width, a.height, a.z, a.yaw) for a in card.anchors]
        self.anchors = torch.tensor(fields).to(DEVICE)
        self.out_columns, self.cells = out_columns, out_rows * out_columns
        self.step = (card.limits[3] - card.limits[0]) / out_columns
        corners = [[1.0, -1.0, -1.0, 1.0], [1.0, 1.0, -1.0, -1.0]]
        self.sign = torch.tensor(corners, device=DEVICE)
        self.upper = torch.ones(CANDIDATES, CANDIDATES, dtype=torch.bool).to(DEVICE).triu(1)

    def pillars(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Dense voxels [P, 32, 4], counts [P] and cells [P]; the surplus goes to a last row."""
        most, deep = self.card.max_pillars, self.card.max_points
        at = torch.floor((points[:, :2] - self.low[:2]) * self.scale).long()
        inside = (at >= 0).all(1) & (at[:, 0] < self.columns) & (at[:, 1] < self.rows)
        inside &= (points[:, 2] >= self.low[2]) & (points[:, 2] < self.card.limits[5])
        nowhere = self.rows * self.columns
        cell = torch.where(inside, at[:, 1] * self.columns + at[:, 0], nowhere)
        cell, order = torch.sort(cell, stable=True)
        first = torch.ones_like(cell, dtype=torch.bool)
        first[1:] = cell[1:] != cell[:-1]
        pillar = torch.cumsum(first, 0) - 1
        index = torch.arange(len(cell), device=DEVICE)
        start = torch.cummax(torch.where(first, index, 0), 0).values
        rank = index - start
        good = (cell < nowhere) & (rank < deep) & (pillar < most)
        slot = torch.where(good, pillar * deep + rank, most * deep)
        voxels = torch.zeros(most * deep + 1, 4, device=DEVICE)
        voxels[slot] = points[order]
        row = torch.where(good, pillar, most)
        counts = torch.zeros(most + 1, device=DEVICE).index_add_(
            0, row, torch.ones(len(row), device=DEVICE)
        )
        cells = torch.full((most + 1,), nowhere, device=DEVICE, dtype=torch.long)
        cells[torch.where(good & first, pillar, most)] = torch.where(good & first, cell, nowhere)
        return voxels[:-1].view(most, deep, 4), counts[:-1], cells[:-1]

    def canvas(
        self, voxels: torch.Tensor, counts: torch.Tensor, cells: torch.Tensor
    ) -> torch.Tensor:
        """Pillar feature net and scatter, [1, C, rows, columns] in fp16."""
        xyz = voxels[..., :3]
        mean = xyz.sum(1, keepdim=True) / counts.clamp(min=1).view(-1, 1, 1)
        at = torch.stack([cells % self.columns, cells // self.columns, cells * 0], 1)
        centre = at * self.extent + self.low + self.middle
        features = torch.cat([voxels, xyz - mean, xyz - centre[:, None]], dim=2)
        index = torch.arange(voxels.shape[1], device=DEVICE)
        features *= (index < counts[:, None])[..., None]
        out = torch.relu(features @ self.weight + self.bias).amax(1)
        canvas = torch.zeros(self.rows * self.columns + 1, out.shape[1], device=DEVICE).half()
        canvas[cells] = out.half()
        return canvas[:-1].view(1, self.rows, self.columns, -1).permute(0, 3, 1, 2)

    def decode(self, outputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Boxes [K, 7], logits [K] (those under the threshold are -inf) and labels [K]."""
        count = len(self.anchors)
        logits, labels = outputs['scores'].float().view(count, -1, self.cells).max(1)
        best, place = torch.topk(logits.flatten(), CANDIDATES)
        anchor, cell = place // self.cells, place % self.cells
        code = outputs['boxes'].float().reshape(count, 7, self.cells)[anchor, :, cell]
        front = outputs['directions'].reshape(count, 2, self.cells)[anchor, :, cell].argmax(1)
        length, width, height, z, yaw = self.anchors[anchor].T
        diagonal = torch.hypot(length, width)
        x = self.card.limits[0] + (cell % self.out_columns + 0.5) * self.step
        y = self.card.limits[1] + (cell // self.out_columns + 0.5) * self.step
        offset = self.card.direction_offset
        turn = torch.remainder(code[:, 6] + yaw - offset, torch.pi) + offset + torch.pi * front
        boxes = torch.stack(
            [
                code[:, 0] * diagonal + x, code[:, 1] * diagonal + y, code[:, 2] * height + z,
                code[:, 3].exp() * length, code[:, 4].exp() * width, code[:, 5].exp() * height,
                turn,
            ],
            dim=1,
        )  # fmt: skip
        best = torch.where(best >= self.logit, best, -torch.inf)
        return boxes, best, labels.flatten()[place]

    def suppress(
        self, boxes: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which boxes greedy suppression keeps [K], and whether `ROUNDS` were enough."""
        iou = rotated_iou(boxes, self.sign)
        beats = (iou > self.iou) & self.upper & (labels[:, None] == labels)
        alive = torch.isfinite(logits)
        beats &= alive[:, None]
        kept = torch.zeros_like(alive)
        gone = ~alive
        for _ in range(ROUNDS):
            kept |= ~gone & ~(beats & ~gone[:, None] & ~kept[:, None]).any(0)
            gone |= (beats & kept[:, None]).any(0)
            kept &= ~gone
        return kept, (kept | gone).all()

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Boxes, logits, labels [KEPT, 9], zeros at the end, and a last row of counts."""
        boxes, logits, labels = self.decode(self.dense(self.canvas(*self.pillars(points))))
        kept, settled = self.suppress(boxes, logits, labels)
        place = torch.where(kept, torch.cumsum(kept, 0) - 1, KEPT).clamp(max=KEPT)
        rows = torch.cat([boxes, logits[:, None], labels[:, None].float()], 1)
        out = torch.zeros(KEPT + 1, 9, device=DEVICE)
        out[place] = rows
        out[KEPT] = torch.stack(
            [kept.sum(), torch.isfinite(logits).sum(), settled, *[settled] * 6]
        )
        return out


def rotated_iou(boxes: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """IoU of footprints [K, K], the same formula as `overlap.footprint_overlap`, all pairs."""
    a, b = boxes[:, None], boxes[None]
    p, q = b[..., 3:4] / 2, b[..., 4:5] / 2
    half = a[..., 3:5] / 2
    c, s = b[..., 6].cos(), b[..., 6].sin()
    dx, dy = a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]
    turn = (a[..., 6] - b[..., 6])[..., None]
    along, across = sign[0] * half[..., :1], sign[1] * half[..., 1:]
    x = (c * dx + s * dy)[..., None] + along * turn.cos() - across * turn.sin()
    y = (c * dy - s * dx)[..., None] + along * turn.sin() + across * turn.cos()
    run, rise = x.roll(-1, -1) - x, y.roll(-1, -1) - y
    to_x = torch.where(run.abs() > 1e-12, 1 / run, 0)
    to_y = torch.where(rise.abs() > 1e-12, 1 / rise, 0)
    start = torch.minimum((-p - x) * to_x, (p - x) * to_x).clamp(0, 1)
    stop = torch.maximum(torch.maximum((-p - x) * to_x, (p - x) * to_x).clamp(0, 1), start)
    lower, upper = (-q - y) * to_y, (q - y) * to_y
    knee = torch.minimum(torch.maximum(torch.minimum(lower, upper), start), stop)
    shoulder = torch.minimum(torch.maximum(torch.maximum(lower, upper), knee), stop)
    g = [torch.minimum(torch.maximum(y + t * rise, -q), q) for t in (start, knee, shoulder, stop)]
    area = (knee - start) * (g[0] + g[1]) + (shoulder - knee) * (g[1] + g[2])
    area = -0.5 * ((area + (stop - shoulder) * (g[2] + g[3])) * run).sum(-1)
    size = boxes[:, 3] * boxes[:, 4]
    return area / (size[:, None] + size - area).clamp(min=1e-9)


def milliseconds(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and 99th percentile of wall time with a synchronisation, after 10 to warm up."""
    times = []
    for index in range(repeats + 10):
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        work()
        torch.cuda.synchronize()
        if index >= 10:
            times.append((time.perf_counter_ns() - start) / 1e6)
    times.sort()
    return {
        'median_ms': statistics.median(times),
        'p99_ms': times[min(len(times) - 1, round(0.99 * len(times)))],
    }


def capture(work: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """A graph of `work`, after three runs on a side stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


@torch.inference_mode()
def measure(network: Path, scans: list[Path], repeats: int) -> dict[str, Any]:
    """Times of every stage and of the whole, eager and as a graph."""
    torch.backends.cudnn.benchmark = True
    card = load_card(network.with_suffix('.yaml'))
    if not isinstance(card, LidarCard):
        raise TypeError(f'{card.path} is no lidar network')
    detector = Detector(card, Dense(network), 0.01)
    hosts = []
    for scan in scans:
        points = np.fromfile(scan, np.float32).reshape(-1, 4)
        padded = np.full((POINTS, 4), 1e6, np.float32)
        padded[: len(points)] = points
        hosts.append((torch.from_numpy(padded).pin_memory(), len(points)))
    device = torch.full((POINTS, 4), 1e6, device=DEVICE)
    result = torch.zeros(KEPT + 1, 9).pin_memory()
    turn = iter(range(10**9))

    def bring() -> None:
        host, count = hosts[next(turn) % len(hosts)]
        device[:count].copy_(host[:count], non_blocking=True)
        device[count:].fill_(1e6)

    def whole() -> None:
        bring()
        result.copy_(detector(device), non_blocking=True)

    def front(points: torch.Tensor) -> None:
        bring()
        detector.decode(detector.dense(detector.canvas(*detector.pillars(points))))

    report: dict[str, Any] = {
        'torch': torch.__version__,
        'gpu': torch.cuda.get_device_name(),
        'scans': len(scans),
        'eager': {'whole': milliseconds(whole, repeats)},
    }
    report['eager']['whole without NMS'] = milliseconds(lambda: front(device), repeats)
    bring()
    voxels = detector.pillars(device)
    canvas = detector.canvas(*voxels)
    outputs = detector.dense(canvas)
    found = detector.decode(outputs)
    stages: dict[str, Callable[[], Any]] = {
        'copy in': bring,
        'pillars': lambda: detector.pillars(device),
        'features': lambda: detector.canvas(*voxels),
        'dense': lambda: detector.dense(canvas),
        'decode': lambda: detector.decode(outputs),
        'nms': lambda: detector.suppress(*found),
    }
    for name, work in stages.items():
        report['eager'][name] = milliseconds(work, repeats)
    dense = capture(lambda: detector.dense(canvas))
    graph = capture(lambda: result.copy_(detector(device), non_blocking=True))

    def replay() -> None:
        bring()
        graph.replay()

    report['graph'] = {
        'dense': milliseconds(dense.replay, repeats),
        'whole': milliseconds(replay, repeats),
    }
    counts = []
    for _ in hosts:
        replay()
        torch.cuda.synchronize()
        counts.append([int(value) for value in result[KEPT, :3]])
    report['kept, candidates, settled'] = counts
    return report


def main(args: list[str] | None = None) -> int:
    """Prints the report; see the top of the module."""
    parser = argparse.ArgumentParser(description='A lidar detector written in torch, timed')
    parser.add_argument('network', type=Path)
    parser.add_argument('scans', type=Path)
    parser.add_argument('--repeats', type=int, default=100)
    options = parser.parse_args(args)
    scans = sorted(options.scans.glob('*.bin'))
    print(json.dumps(measure(options.network, scans, options.repeats)))
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""What a live run found: tables."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from airside_perception.demo.moments import CLOUD, CONFIDENT, OBJECTS, pairs
from airside_perception.live import LiveRun
from airside_perception.replay.bag import BagReader
from airside_perception.results import Result
from airside_perception.types import Boxes3D

NEAR_M = 2.0
"""An object counts as found if a fused one is this near to its centre in the plane ..."""
NEAR_LENGTHS = 0.25
"""... or nearer than this part of its length: an aircraft's centre is not seen to two metres."""
RANGE_M = 40.0


def topic_table(results: Sequence[Result], run: LiveRun) -> str:
    """Messages, rate by stamp, objects a message and latency of every topic."""
    topics: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        topics[result.topic].append(result)
    lines = [f'\n{"topic":<42}{"messages":>9}{"Hz":>6}{"objects":>9}{"latency p50 / p99":>21}']
    for topic, found in sorted(topics.items()):
        span = (found[-1].stamp_ns - found[0].stamp_ns) / 1e9
        rate = (len(found) - 1) / span if span else 0.0
        objects = statistics.mean(len(item.detections) for item in found)
        times = run.latencies_ms.get(topic, ())
        latency = (
            f'{np.percentile(times, 50):.0f} / {np.percentile(times, 99):.0f} ms' if times else ''
        )
        lines.append(f'{topic:<42}{len(found):>9}{rate:>6.1f}{objects:>9.1f}{latency:>21}')
    evidence = Counter(
        ' + '.join(item['sources'])
        for result in topics[OBJECTS]
        for item in result.detections
        if item.get('sources')
    )
    total = sum(evidence.values())
    lines.append('\nfused objects by the sensors that saw them:')
    lines += [f'  {name:<40}{count / total:>6.0%}' for name, count in evidence.most_common(6)]
    return '\n'.join(lines)


def recall_table(results: Sequence[Result], bag: Path) -> str:
    """Simulated objects in range, and how many of them the fusion found."""
    there: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    surplus = frames = 0
    for truth, found in pairs(results, bag):
        frames += 1
        surplus += _count(truth, found, there, hit)
    lines = [
        f'\nsimulated objects within {RANGE_M:g} m that a sensor sees, in {frames} frames, and '
        f'those with a fused object (score >= {CONFIDENT:g}) in their place:'
    ]
    lines += [
        f'  {name:<18}{hit[name]:>6} of {there[name]:<6}{hit[name] / there[name]:>6.0%}'
        for name in sorted(there)
    ]
    lines.append(
        f'  {surplus / max(frames, 1):.1f} fused objects a frame there have no counterpart\n'
    )
    return '\n'.join(lines)


def answered(results: Sequence[Result], bag: Path) -> tuple[int, int]:
    """How many scans of the drive have a part in fused objects, and how many scans there are."""
    with BagReader(bag) as reader:
        scans = {record.stamp_ns for record in reader.records({CLOUD})}
    fused = {
        result.stamp_ns
        for result in results
        if result.topic == OBJECTS
        and any('lidar' in item.get('sources', ()) for item in result.detections)
    }
    return len(scans & fused), len(scans)


def _count(truth: Boxes3D, found: Boxes3D, there: Counter[str], hit: Counter[str]) -> int:
    """Adds one frame to the counters; the number of confident objects without counterpart."""
    found = found.select(found.scores >= CONFIDENT)
    gap = np.hypot(*(truth.boxes[:, None, axis] - found.boxes[:, axis] for axis in (0, 1)))
    close = gap <= np.maximum(NEAR_M, NEAR_LENGTHS * truth.boxes[:, 3])[:, None]
    near = np.hypot(truth.boxes[:, 0], truth.boxes[:, 1]) <= RANGE_M
    for index in np.flatnonzero(near):
        there[truth.classes[index]] += 1
        hit[truth.classes[index]] += bool(close[index].any())
    in_range = np.hypot(found.boxes[:, 0], found.boxes[:, 1]) <= RANGE_M
    return int((in_range & ~close.any(axis=0)).sum())

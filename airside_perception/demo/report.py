"""What a live run found: tables, and pictures of one moment."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from airside_perception import messages
from airside_perception.errors import PerceptionError
from airside_perception.geometry import invert, move_cloud
from airside_perception.live import LiveRun
from airside_perception.replay.bag import BagReader
from airside_perception.replay.pictures import bird_view, camera_overlay
from airside_perception.results import SPACE, Result
from airside_perception.sim.rig import Rig
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud

OBJECTS = '/perception/objects'
TRUTH = '/ground_truth/objects'
CLOUD = '/sensing/lidar/points'
NEAR_M = 2.0
"""An object counts as found if a fused one is this near to its centre in the plane ..."""
NEAR_LENGTHS = 0.25
"""... or nearer than this part of its length: an aircraft's centre is not seen to two metres."""
RANGE_M = 40.0
CONFIDENT = 0.3
"""Lowest score of a fused object that counts."""
FAINT = 0.1
"""Fused objects of lower scores are not drawn: what one camera alone believes to see."""


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
    for truth, found in _pairs(results, bag):
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


def pictures(results: Sequence[Result], bag: Path, rig: Rig, out: Path) -> Iterator[Path]:
    """Writes bev.png and an overlay of each camera at the moment with most camera evidence.

    Raises:
        PerceptionError: no fused objects at any stamp of the simulated truth, or a picture cannot
            be written.
    """
    moments = list(_pairs(results, bag))
    if not moments:
        raise PerceptionError(f'{bag}: no stamp of {TRUTH} has a message on {OBJECTS}')
    truth, found = max(moments, key=lambda pair: sum(len(names) > 1 for names in pair[1].sources))
    stamp_ns = truth.stamp_ns
    clouds, images = _sensors(bag, stamp_ns)
    seconds = (stamp_ns - results[0].stamp_ns) / 1e9
    cloud = move_cloud(clouds, rig.lidar2base, found.frame_id)
    title = f'airside_perception, simulated apron, t = {seconds:.1f} s'
    found = found.select(found.scores >= FAINT)
    picture = bird_view(cloud.points, found, truth, ahead=50.0, title=title)
    yield _save(out / 'bev.png', picture)
    flat = {
        result.topic.split('/')[3]: result
        for result in results
        if result.stamp_ns == stamp_ns and result.topic.endswith('/detections_2d')
    }
    for name, lens in rig.lenses.items():
        boxes = _boxes_2d(flat[name]) if name in flat else None
        base2camera = invert(lens.camera2base)
        drawn = camera_overlay(images[name].data, lens.model, base2camera, found, boxes)
        yield _save(out / f'camera_{name}.png', drawn)


def boxes_3d(result: Result) -> Boxes3D:
    """The boxes of a result in space; covariances are not in a result file and are zero here."""
    items = result.detections
    return Boxes3D(
        result.stamp_ns,
        result.frame_id,
        np.array([[item[key] for key in SPACE] for item in items]),
        np.array([item['score'] for item in items]),
        tuple(item['class'] for item in items),
        np.zeros((len(items), 4, 4)),
        sources=tuple(tuple(item.get('sources', ())) for item in items),
    )


def _boxes_2d(result: Result) -> Boxes2D:
    items = result.detections
    return Boxes2D(
        result.stamp_ns,
        result.frame_id,
        np.array([[item[key] for key in ('x1', 'y1', 'x2', 'y2')] for item in items]),
        np.array([item['score'] for item in items]),
        tuple(item['class'] for item in items),
    )


def _pairs(results: Iterable[Result], bag: Path) -> Iterator[tuple[Boxes3D, Boxes3D]]:
    """Truth and fused objects of every stamp that has both."""
    fused = {result.stamp_ns: result for result in results if result.topic == OBJECTS}
    with BagReader(bag) as reader:
        for record in reader.records({TRUTH}):
            truth = messages.boxes3d(reader.message(record))
            if truth.stamp_ns in fused:
                yield truth, boxes_3d(fused[truth.stamp_ns])


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


def _sensors(bag: Path, stamp_ns: int) -> tuple[PointCloud, dict[str, Image]]:
    """The cloud of that stamp, and the images by camera name."""
    images, clouds = {}, []
    with BagReader(bag) as reader:
        wanted = {name for name in reader.topics if name == CLOUD or name.endswith('/image')}
        for record in reader.records(wanted):
            if record.stamp_ns != stamp_ns:
                continue
            message = reader.message(record)
            if record.topic == CLOUD:
                clouds.append(messages.point_cloud(message))
            else:
                images[record.topic.split('/')[3]] = messages.image(message)
    return clouds[0], images


def _save(path: Path, picture: np.ndarray) -> Path:
    if not cv2.imwrite(str(path), picture):
        raise PerceptionError(f'{path}: the picture cannot be written')
    return path

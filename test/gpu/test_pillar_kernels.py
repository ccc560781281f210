"""Pillars and their features on the GPU against lidar.pillars and lidar.encoder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airside_perception.card import POINT_FEATURES, LidarCard
from airside_perception.cuda.frame import FRAME
from airside_perception.errors import ConfigError, EngineError
from airside_perception.geometry import from_quaternion, move_cloud, rotation_z, transform
from airside_perception.lidar.ego import on_ego
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.gpu_pillars import MOST_CAPACITY, PillarKernels
from airside_perception.lidar.pillars import Grid
from airside_perception.types import PointCloud

FP32, FP16, HWC8 = ('linear', np.float32), ('linear', np.float16), ('hwc8', np.float16)
NO_EGO = np.zeros((2, 3), np.float32)
KINDS = pytest.mark.parametrize('kind', [FP32, FP16, HWC8], ids=['fp32', 'fp16', 'hwc8'])


def make_card(channels: int = 6, seed: int = 0, **changes: Any) -> LidarCard:
    """8 x 6 pillars of 0.32 x 0.4 m, 4 points a pillar."""
    rng = np.random.default_rng(seed)
    features = changes.get('features', POINT_FEATURES)
    values: dict[str, Any] = {
        'limits': (-0.96, -1.6, -1.0, 0.96, 1.6, 3.0), 'pillar': (0.32, 0.4), 'max_points': 4,
        'max_pillars': 100, 'features': features, 'zero_row': True,
        'weight': rng.normal(size=(len(features), channels)).astype(np.float32),
        'bias': rng.normal(size=channels).astype(np.float32),
    }  # fmt: skip
    values.update(changes)
    return LidarCard('c', 'small', 'pointpillars', ('car',), {}, {}, **values)


def wide_card(rows: int, columns: int, **changes: Any) -> LidarCard:
    """A grid of pillars of 0.5 m around the origin."""
    x, y = columns / 4, rows / 4
    return make_card(limits=(-x, -y, -1.0, x, y, 3.0), pillar=(0.5, 0.5), **changes)


def cloud(card: LidarCard, n: int, seed: int = 0, beyond: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low, high = np.array(card.limits[:3]) - beyond, np.array(card.limits[3:]) + beyond
    xyz = rng.uniform(low, high, (n, 3))
    return np.hstack([xyz, rng.uniform(0, 1, (n, 1))]).astype(np.float32)


class Bench:
    """Kernels with a canvas of their own."""

    def __init__(
        self, queue: Any, card: LidarCard, kind: tuple[str, Any] = FP32, capacity: int = 3000
    ) -> None:
        layout, dtype = kind
        (rows, columns), channels = card.grid, len(card.bias)
        stored = -(-channels // 8) * 8
        shape = (channels, rows, columns) if layout == 'linear' else (rows, columns, stored)
        self.memory = queue.alloc(shape, dtype)
        canvas = SimpleNamespace(
            address=self.memory.address, nbytes=self.memory.nbytes, layout=layout,
            dtype=np.dtype(dtype),
        )  # fmt: skip
        self.queue, self.card, self.layout, self.capacity = queue, card, layout, capacity
        self.kernels = PillarKernels(queue, card, canvas, capacity)

    def draw(
        self,
        points: np.ndarray,
        min_range: float = 0.0,
        scale: float = 1.0,
        motion: np.ndarray | None = None,
        ego: np.ndarray = NO_EGO,
    ) -> bytes:
        """Draws a cloud; returns everything that came of it as bytes."""
        block = np.full((self.capacity, 4), np.nan, np.float32)
        block[: min(len(points), self.capacity)] = points[: self.capacity]
        frame = np.zeros(1, FRAME)
        frame['points'], frame['intensity_scale'] = len(points), scale
        frame['min_range2'] = np.float32(min_range**2)
        frame['ego_low'], frame['ego_high'] = ego
        if motion is not None:
            frame['moved'], frame['motion'] = 1, motion[:3]
        self.kernels.enqueue(self.queue.upload(frame), self.queue.upload(block))
        drawn = self.kernels.drawn()
        parts = (drawn.cells, drawn.starts, drawn.means, self.queue.download(self.memory))
        return b''.join(part.tobytes() for part in parts)

    def canvas(self) -> np.ndarray:
        """float32 [C, rows, columns]; what hwc8 adds must be zero."""
        values = self.queue.download(self.memory).astype(np.float32)
        if self.layout == 'linear':
            return values
        channels = len(self.card.bias)
        assert not values[..., channels:].any()
        return values[..., :channels].transpose(2, 0, 1)

    def check(
        self,
        points: np.ndarray,
        min_range: float = 0.0,
        scale: float = 1.0,
        motion: np.ndarray | None = None,
        ego: np.ndarray = NO_EGO,
    ) -> None:
        """Draws a cloud and compares it with the specification."""
        self.draw(points, min_range, scale, motion, ego)
        points = points[: self.capacity]
        if motion is not None:
            points = move_cloud(PointCloud(0, 'lidar', points), motion, 'base_link').points
        if min_range > 0.0:
            near = np.square(points[:, 0]) + np.square(points[:, 1]) < np.float32(min_range**2)
            points = points[~near]
        points = points[~on_ego(points, *ego)]
        expected, drawn = Grid.of(self.card).fill(points), self.kernels.drawn()
        np.testing.assert_array_equal(drawn.cells, expected.cells)
        np.testing.assert_array_equal(drawn.starts, expected.starts)
        np.testing.assert_array_equal(drawn.means, expected.means)
        assert (drawn.in_range, drawn.occupied) == (expected.in_range, expected.occupied)
        canvas = Encoder(self.card).encode(points, expected, scale)[0]
        half = self.memory.dtype == np.float16
        size = np.maximum(np.abs(canvas), 1.0)
        assert (np.abs(self.canvas() - canvas) <= (1e-2 if half else 1e-5) * size).all()


def other_orders(queue: Any) -> list[Any]:
    """Queues whose threads run in other orders; a GPU's do so by themselves."""
    return [type(queue)(seed) for seed in (1, 2, 3)] if hasattr(queue, 'seed') else [queue] * 3


@pytest.mark.parametrize(
    ('channels', 'kind'),
    [
        (1, FP32),
        (5, FP16),
        (5, HWC8),
        (32, HWC8),
        (64, FP32),
        (64, HWC8),
        (100, HWC8),
        (128, FP16),
    ],
)
def test_random_clouds(queue: Any, kind: tuple[str, Any], channels: int) -> None:
    bench = Bench(queue, make_card(channels, zero_row=channels != 32), kind)
    for seed, n in enumerate((500, 0, 1, 3000, 40)):
        bench.check(cloud(bench.card, n, seed))


@pytest.mark.parametrize(
    'features', [POINT_FEATURES[:9], ('zc', 'x', 'yp', 'intensity'), ('x', 'y', 'z'), ('xp',)]
)
@pytest.mark.parametrize('zero_row', [False, True])
def test_features(queue: Any, features: tuple[str, ...], zero_row: bool) -> None:
    bench = Bench(queue, make_card(features=features, zero_row=zero_row))
    bench.check(cloud(bench.card, 150))


@pytest.mark.parametrize('features', [POINT_FEATURES[:3], ('x', 'yc', 'zp')])
def test_the_age_of_a_sweep(queue: Any, features: tuple[str, ...]) -> None:
    bench = Bench(queue, make_card(features=(*features, 'time_lag'), past_sweeps=1))
    points = cloud(bench.card, 400)
    points[:, 3] = np.where(np.arange(400) < 150, 0.0, 0.1)
    bench.check(points)
    with_age = bench.canvas()
    points[:, 3] = 0.0
    bench.check(points)
    assert np.abs(bench.canvas() - with_age).max() > 0.01


def test_a_point_has_four_values(queue: Any) -> None:
    with pytest.raises(ConfigError, match='intensity and time_lag of every point; the GPU takes'):
        Bench(queue, make_card(past_sweeps=1))


@pytest.mark.parametrize('most', [1, 32, 48, 200, 256])
def test_full_pillars_keep_their_first_points(queue: Any, most: int) -> None:
    bench = Bench(queue, make_card(max_points=most))
    rng = np.random.default_rng(most)
    for n in (most - 1, most, most + 1, 31, 33, 255, 256, 257, 1000, 2800):
        points = cloud(bench.card, n + 100, n, beyond=0.0)
        points[rng.permutation(n + 100)[:n], :2] = (0.1, 0.1)
        bench.check(points)


def test_all_points_in_one_cell(queue: Any) -> None:
    bench = Bench(queue, make_card(max_points=32), capacity=20_000)
    points = cloud(bench.card, 20_000, beyond=0.0)
    points[:, :2] = points[:, :2] * np.float32(0.001) + np.float32(0.1)
    bench.check(points)
    assert bench.kernels.drawn().starts.tolist() == [0, 32]


@pytest.mark.parametrize('most', [1, 7, 47, 48, 49])
def test_the_lowest_cells_are_kept(queue: Any, most: int) -> None:
    bench = Bench(queue, make_card(max_pillars=most))
    bench.check(cloud(bench.card, 3000))
    bench.check(cloud(bench.card, 3000, 1))
    assert bench.kernels.drawn().occupied == 48


@pytest.mark.parametrize('size', [(64, 64), (65, 64), (3, 5), (496, 432), (1, 9000), (450, 500)])
def test_grids_of_one_tile_and_of_many(queue: Any, size: tuple[int, int]) -> None:
    bench = Bench(queue, wide_card(*size, max_pillars=2500), capacity=9000)
    bench.check(cloud(bench.card, 9000))
    bench.check(cloud(bench.card, 50, 1))


def test_points_on_borders(queue: Any) -> None:
    card = make_card(limits=(-1.0, -2.0, -1.0, 1.0, 2.0, 3.0), pillar=(0.5, 0.5))
    on = np.float32([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])
    near = [np.nextafter(on, np.float32(side)) for side in (-9, 9)]
    values = np.concatenate([on, *near])
    x, y, z = (axis.ravel() for axis in np.meshgrid(values, values, values[::2]))
    points = np.stack([x, y, z, np.zeros_like(x)], axis=1)
    Bench(queue, card, capacity=len(points)).check(points)


def test_values_that_nearly_vanish_or_overflow(queue: Any) -> None:
    bench = Bench(queue, make_card(max_points=32))
    tiny = np.float32([1e-45, -1e-45, 1e-39, -1e-38, 1.2e-38, 0.0, -0.0])
    points = np.zeros((50, 4), np.float32)
    points[:7, 0] = points[7:14, 1] = points[14:21, 2] = tiny
    points[21:25, :2] = [[3e38, 0], [-3e38, 0], [0, 3e38], [0, -3e38]]
    points[25:27, 2] = 3e38, -3e38
    frame = bench.draw(points)
    expected = Grid.of(bench.card).fill(points)
    drawn = bench.kernels.drawn()
    np.testing.assert_array_equal(drawn.starts, expected.starts)
    np.testing.assert_allclose(drawn.means, expected.means, atol=2.0**-48)
    np.testing.assert_allclose(
        bench.canvas(), Encoder(bench.card).encode(points, expected)[0], atol=1e-5
    )
    assert frame == bench.draw(points)


def test_means_are_those_of_exact_sums(queue: Any) -> None:
    bench = Bench(queue, wide_card(300, 300, max_points=64, max_pillars=20_000), capacity=20_000)
    rng = np.random.default_rng(5)
    points = cloud(bench.card, 20_000)
    points[:10_000, :3] *= 10.0 ** rng.uniform(-4, 0, (10_000, 1))
    bench.check(points.astype(np.float32))


def test_far_from_the_origin_nothing_is_lost(queue: Any) -> None:
    card = make_card(limits=(90.0, -101.6, -1.0, 91.92, -98.4, 3.0), features=('xc', 'yp', 'z'))
    bench = Bench(queue, card)
    bench.check(cloud(card, 300))


def test_points_near_the_sensor_and_intensity(queue: Any) -> None:
    bench = Bench(queue, make_card())
    points = cloud(bench.card, 1000) * np.float32([1, 1, 1, 255])
    bench.check(points, min_range=0.7, scale=1 / 255)
    inside = bench.kernels.drawn().in_range
    bench.check(points, scale=1 / 255)
    assert 0 < inside < bench.kernels.drawn().in_range


def box_of(*corners: float) -> np.ndarray:
    return np.reshape(np.float32(corners), (2, 3))


def test_points_on_the_vehicle_are_left_out(queue: Any) -> None:
    bench = Bench(queue, make_card())
    points, found = cloud(bench.card, 2000), []
    for box in ((0.0,) * 6, (-0.5, -0.7, -0.3, 0.61, 0.4, 1.7), (-9.0,) * 3 + (9.0,) * 3):
        bench.check(points, ego=box_of(*box))  # by a value in the frame, on the same kernels
        found.append(bench.kernels.drawn().in_range)
    assert found[0] > found[1] > found[2] == 0


def test_points_on_the_sides_of_the_vehicle(queue: Any) -> None:
    card = make_card(limits=(-2.0, -2.0, -1.0, 2.0, 2.0, 3.0), pillar=(0.5, 0.5))
    box = box_of(-1.1, -0.7, 0.1, 1.3, 0.9, 1.7)
    near = [np.nextafter(box, np.float32(to)) for to in (-9, 9)]
    x, y, z = (axis.ravel() for axis in np.meshgrid(*np.concatenate([box, *near]).T))
    points = np.stack([x, y, z, np.zeros_like(x)], axis=1)
    bench = Bench(queue, card)
    bench.check(points, ego=box)
    assert bench.kernels.drawn().in_range == 6**3 - 3**3
    rotation = rotation_z(0.4) @ from_quaternion(0.01, -0.02, 0.0, 1.0)
    motion = transform(rotation, np.array([0.3, -0.2, 0.1]))
    points[:, :3] = (points[:, :3] - motion[:3, 3]) @ rotation  # on the sides once it is moved
    bench.check(points.astype(np.float32), motion=motion, ego=box)


def test_points_are_moved_as_on_the_cpu(queue: Any) -> None:
    card = wide_card(120, 110, max_pillars=9000, max_points=16)
    bench = Bench(queue, card, capacity=9000)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rotation = rotation_z(rng.uniform(-3, 3)) @ from_quaternion(*rng.normal(0, 0.01, 3), 1.0)
        motion = transform(rotation, rng.normal(0, 0.5, 3))
        bench.check(cloud(card, 9000, seed), min_range=3.0, motion=motion)
        assert bench.kernels.drawn().in_range > 1000


def test_more_points_than_the_capacity(queue: Any) -> None:
    bench = Bench(queue, make_card(), capacity=100)
    bench.check(cloud(bench.card, 1000))
    bench.check(cloud(bench.card, 100, 1))


@KINDS
def test_the_order_of_threads_does_not_show(queue: Any, kind: tuple[str, Any]) -> None:
    card = wide_card(150, 140, max_pillars=1500)
    points = cloud(card, 6000)
    points[::7, :2] = 0.1
    first = Bench(queue, card, kind, 8000).draw(points)
    for other in other_orders(queue):
        assert Bench(other, card, kind, 8000).draw(points) == first


@KINDS
def test_nothing_is_left_of_earlier_clouds(queue: Any, kind: tuple[str, Any]) -> None:
    card = make_card(max_pillars=20)
    bench, points = Bench(queue, card, kind), cloud(card, 700)
    first = bench.draw(points)
    for seed, n in enumerate((2000, 3, 0, 40)):
        bench.draw(cloud(card, n, seed + 1))
    assert bench.draw(points) == first
    assert Bench(queue, card, kind).draw(points) == first


def test_a_cloud_that_was_given_up_is_forgotten(queue: Any) -> None:
    bench = Bench(queue, make_card())
    frame = np.zeros(1, FRAME)
    frame['points'] = 500
    points = cloud(bench.card, 3000)
    bench.kernels.bin(queue.upload(frame), queue.upload(points))
    bench.kernels.reset()
    bench.check(points)


def test_any_cloud(queue: Any) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        most, n = int(rng.integers(1, 60)), int(rng.integers(0, 300))
        card = make_card(seed=seed, max_pillars=most, zero_row=bool(seed % 2))
        Bench(queue, card, capacity=300).check(np.round(cloud(card, n, seed), 1 + seed % 4))


def test_a_real_scan(queue: Any, shared_data: Path) -> None:
    limits = (0.0, -39.68, -3.0, 69.12, 39.68, 1.0)
    card = make_card(64, limits=limits, pillar=(0.16, 0.16), max_points=32, max_pillars=10_000)
    scans = sorted((shared_data / 'drive' / 'velodyne').glob('*.bin'))
    bench = Bench(queue, card, HWC8, 130_000)
    for path in scans[:2]:
        bench.check(np.fromfile(path, np.float32).reshape(-1, 4))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'max_points': 257}, 'max_points 257'),
        ({'channels': 129}, 'channels of the canvas 129'),
    ],
)
def test_networks_that_are_too_large(queue: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Bench(queue, make_card(**change))


@pytest.mark.parametrize('capacity', [0, MOST_CAPACITY + 1])
def test_capacities_out_of_range(queue: Any, capacity: int) -> None:
    with pytest.raises(ConfigError, match='capacity'):
        Bench(queue, make_card(), capacity=capacity)


@pytest.mark.parametrize('kind', [('chw32', np.float16), ('linear', np.int8)])
def test_canvases_that_cannot_be_drawn(queue: Any, kind: tuple[str, Any]) -> None:
    canvas = SimpleNamespace(address=0, nbytes=0, layout=kind[0], dtype=np.dtype(kind[1]))
    with pytest.raises(EngineError, match=kind[0]):
        PillarKernels(queue, make_card(), canvas, 100)

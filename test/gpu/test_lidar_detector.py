"""The lidar detector on the GPU against the one on the CPU, on the same networks."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine

from airside_perception.card import LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.engine import open_engine
from airside_perception.errors import (
    CONTEXT_IS_LOST,
    ConfigError,
    DeviceError,
    EngineError,
    MessageError,
)
from airside_perception.geometry import rotation_z, transform
from airside_perception.lidar.detector import LidarDetector
from airside_perception.lidar.gpu import CudaLidarDetector
from airside_perception.types import Boxes3D, PointCloud

TENSORS = ('canvas', 'scores', 'boxes', 'directions')
STEPS = [
    'clear', 'copy_in', 'bin', 'number', 'sort', 'draw', 'engine', 'scan', 'select', 'boxes',
    'suppress', 'copy_out',
]  # fmt: skip
KINDS = {
    'fp32': {},
    'fp16': {'half': TENSORS},
    'hwc8': {'half': TENSORS, 'layouts': dict.fromkeys(TENSORS, 'hwc8')},
}


class Replayed(FakeEngine):
    """Gives the answers of an earlier run, which a graph of a GPU can record."""

    def remember(self) -> None:
        self._answers = {
            spec.name: self._queue.upload(self._queue.download(self._memory[spec.name]))
            for spec in self.outputs
        }
        self.capturable = True

    def enqueue(self, stream: Any) -> None:
        if not self.capturable:
            super().enqueue(stream)
            return
        for name, answer in self._answers.items():
            self._queue.copy(self._memory[name], answer)


class Broken(FakeEngine):
    """Puts out a value that is not finite where a test asks for it."""

    name, value = '', 0.0

    def _store(self, name: str, value: np.ndarray) -> None:
        if name == self.name:
            value = np.full_like(value, self.value)
        super()._store(name, value)


def cloud(*points: tuple[float, ...], fields: tuple[str, ...] = ()) -> PointCloud:
    names = fields or ('x', 'y', 'z', 'intensity')
    return PointCloud(7, 'base_link', np.array(points, np.float32).reshape(-1, len(names)), names)


def scene(seed: int, heaps: int = 20, points: int = 600) -> PointCloud:
    """Heaps of points, each of one intensity: the network scores a place by it."""
    rng = np.random.default_rng(seed)
    places = rng.uniform([0, -20, 0, 0.2], [40, 20, 2, 1], (heaps, 4)).astype(np.float32)
    rows = np.repeat(places, points // heaps, axis=0)
    rows[:, :3] += rng.normal(0.0, 0.4, (len(rows), 3)).astype(np.float32)
    return PointCloud(seed, 'base_link', rng.permutation(rows))


@pytest.fixture
def network(tmp_path: Path, tiny_models: ModuleType) -> Path:
    return tiny_models.tiny_lidar_model(tmp_path)


def card_of(network: Path) -> LidarCard:
    found = find_card(network)
    assert isinstance(found, LidarCard)
    return found


def pair(
    network: Path, queue: Any, config: LidarConfig, **options: Any
) -> tuple[LidarDetector, CudaLidarDetector]:
    """The detector on the CPU, and the one that is tested."""
    card = card_of(network)
    engine = FakeEngine(network, queue, **options)
    return (
        LidarDetector(open_engine(network, threads=1), card, config),
        CudaLidarDetector(engine, card, config, queue=queue),
    )


def same(found: Boxes3D, expected: Boxes3D, scores: float = 1e-5) -> None:
    """Box for box; those of one score may stand in another order."""
    assert (found.stamp_ns, found.frame_id) == (expected.stamp_ns, expected.frame_id)
    assert len(found) == len(expected)
    left = np.lexsort((found.boxes[:, 1], found.boxes[:, 0], found.classes))
    right = np.lexsort((expected.boxes[:, 1], expected.boxes[:, 0], expected.classes))
    a, b = found.select(left), expected.select(right)
    assert a.classes == b.classes
    np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
    np.testing.assert_allclose(a.scores, b.scores, atol=scores)
    np.testing.assert_allclose(a.covariances, b.covariances, rtol=1e-4)
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize('kind', KINDS)
def test_boxes_of_the_cpu(network: Path, queue: Any, kind: str) -> None:
    config = LidarConfig(score_threshold=0.2)
    plain, detector = pair(network, queue, config, **KINDS[kind])
    for seed in range(3):
        expected, found = plain.detect(scene(seed)), detector.detect(scene(seed))
        assert len(expected) > 8
        same(found, expected, 1e-5 if kind == 'fp32' else 1e-2)
        assert detector.last_pillars == plain.last_pillars
        assert detector.last_usable == plain.last_usable
        assert detector.last_candidates >= len(found)
        assert set(detector.timings) == {'pack', 'gpu', 'boxes'}


def test_settings_change_between_clouds(network: Path, queue: Any) -> None:
    plain, detector = pair(network, queue, LidarConfig())
    points = scene(5, heaps=60)
    counts = set()
    for changes in (
        {}, {'score_thresholds': {'car': 0.9}}, {'score_threshold': 0.5}, {'nms_iou': 1.0},
        {'nms_iou': 1.0, 'nms_iou_across': 1.0}, {'nms_iou': 0.01}, {'nms_iou_across': 0.1},
        {'max_detections': 3}, {'max_candidates': 7, 'nms_iou': 0.9}, {'min_range': 19.0},
        {'ego_box': (-20.0, -10.0, -2.0, 5.0, 30.0, 2.0)}, {'intensity_scale': 0.5}, {},
    ):  # fmt: skip
        plain.config = detector.config = LidarConfig(**changes)
        found = detector.detect(points)
        same(found, plain.detect(points))
        counts.add(len(found))
    assert len(counts) > 5


def test_labels_are_renamed_or_dropped(network: Path, queue: Any) -> None:
    card = replace(card_of(network), publish={'car': 'vehicle'}, thresholds={'vehicle': 0.2})
    detector = CudaLidarDetector(FakeEngine(network, queue), card, LidarConfig(), queue=queue)
    found = detector.detect(cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.1)))
    assert found.classes == ('vehicle',)


def test_an_empty_cloud_gives_no_boxes(network: Path, queue: Any) -> None:
    _, detector = pair(network, queue, LidarConfig())
    detector.detect(scene(1))
    found = detector.detect(cloud())
    assert len(found) == 0
    assert found.covariances.shape == (0, 4, 4)
    assert (detector.last_pillars, detector.last_usable, detector.last_candidates) == (0, 0, 0)


def test_nothing_is_left_of_the_cloud_before(network: Path, queue: Any) -> None:
    _, detector = pair(network, queue, LidarConfig(), **KINDS['hwc8'])
    once = detector.detect(scene(1))
    for seed in (2, 3):
        detector.detect(scene(seed))
    again = detector.detect(scene(1))
    assert once.boxes.tobytes() == again.boxes.tobytes()
    assert once.scores.tobytes() == again.scores.tobytes()


def test_intensity_in_another_column(network: Path, queue: Any) -> None:
    plain, detector = pair(network, queue, LidarConfig())
    points = scene(3).points
    fields = ('x', 'y', 'z', 'ring', 'time', 'intensity')
    columns = np.column_stack([points[:, :3], 0 * points[:, :2], points[:, 3]])
    moved = PointCloud(3, 'base_link', columns, fields)
    same(detector.detect(moved), plain.detect(scene(3)))
    without = cloud((1.0, 2.0, 0.5), fields=('x', 'y', 'z'))
    with pytest.raises(MessageError, match='needs intensity'):
        detector.detect(without)


def test_a_network_without_intensity(tmp_path: Path, tiny_models: ModuleType, queue: Any) -> None:
    features = {
        'features': ['x', 'z'],
        'weight': [[0.0] * 4, [0.0, 1.0, 0.0, 0.0]],
        'bias': [1.0, 0.0, 0.0, 0.0],
    }
    network = tiny_models.tiny_lidar_model(tmp_path, encoder=features)
    plain, detector = pair(network, queue, LidarConfig())
    xyz = cloud(*scene(4).points[:, :3].tolist(), fields=('x', 'y', 'z'))
    expected = plain.detect(xyz)
    assert len(expected)
    same(detector.detect(xyz), expected)
    wide = np.column_stack([xyz.points, np.full((len(xyz), 2), np.nan)]).astype(np.float32)
    same(detector.detect(PointCloud(7, 'base_link', wide, ('x', 'y', 'z', 'a', 'b'))), expected)


def test_a_cloud_of_another_frame(network: Path, queue: Any) -> None:
    plain, detector = pair(network, queue, LidarConfig())
    lidar2target = transform(rotation_z(0.3), np.array([1.0, -2.0, 0.2]))
    points = replace(scene(9), frame_id='lidar')
    expected = plain.detect(points, lidar2target)
    assert len(expected) > 5
    assert expected.frame_id == 'base_link'
    same(detector.detect(points, lidar2target), expected)
    same(detector.detect(points), plain.detect(points))


def test_points_beyond_the_capacity_are_counted(network: Path, queue: Any) -> None:
    card = card_of(network)
    config = LidarConfig(max_points_in_cloud=1000)
    detector = CudaLidarDetector(FakeEngine(network, queue), card, config, queue=queue)
    plain = LidarDetector(open_engine(network, threads=1), card, LidarConfig())
    points = scene(2, points=1300)
    cut = replace(points, points=points.points[:1000])
    same(detector.detect(points), plain.detect(cut))
    assert detector.last_dropped_points == 300
    detector.detect(cut)
    assert detector.last_dropped_points == 0


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('scores', np.nan, "tiny_lidar: output 'scores' contains NaN"),
        ('boxes', np.nan, 'tiny_lidar: .* box that is not finite'),
        ('boxes', np.inf, 'tiny_lidar: .* box that is not finite'),
    ],
)
def test_outputs_that_are_not_finite(
    network: Path, queue: Any, name: str, value: float, message: str
) -> None:
    engine = Broken(network, queue)
    detector = CudaLidarDetector(engine, card_of(network), LidarConfig(), queue=queue)
    expected = detector.detect(scene(1))
    engine.name, engine.value = name, value
    for _ in range(2):
        with pytest.raises(EngineError, match=message):
            detector.detect(scene(1))
    engine.name = ''
    assert detector.detect(scene(1)).boxes.tobytes() == expected.boxes.tobytes()


def test_one_graph_and_two_copies(network: Path, queue: Any) -> None:
    card, config = card_of(network), LidarConfig()
    engine = Replayed(network, queue, capturable=False)
    with_steps = CudaLidarDetector(engine, card, config, queue=queue)
    assert with_steps.no_graph
    assert with_steps.nodes == 0
    expected = with_steps.detect(scene(1))
    engine.remember()
    detector = CudaLidarDetector(engine, card, config, queue=queue)
    assert detector.no_graph == ''
    assert detector.launches == 11
    network_nodes = 1 if hasattr(queue, 'seed') else len(engine.outputs)
    assert detector.nodes == detector.launches + network_nodes + 2
    for points in (scene(1), cloud(), scene(1)):
        found = detector.detect(points)
        if len(points):
            assert found.boxes.tobytes() == expected.boxes.tobytes()


def test_a_recording_that_fails(
    network: Path, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is launched one by one then; but where the GPU is lost, nothing can be."""
    reason = 'cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: described'

    def refuse(record: Any) -> None:
        record()
        raise DeviceError(reason)

    engine = FakeEngine(network, queue)
    engine.capturable = True
    expected = pair(network, queue, LidarConfig(), capturable=False)[1].detect(scene(1))
    monkeypatch.setattr(queue, 'capture', refuse)
    detector = CudaLidarDetector(engine, card_of(network), LidarConfig(), queue=queue)
    assert detector.no_graph == reason
    assert detector.nodes == 0
    assert detector.detect(scene(1)).boxes.tobytes() == expected.boxes.tobytes()
    reason = f'cuStreamSynchronize: {CONTEXT_IS_LOST[0]}: described'
    with pytest.raises(DeviceError, match=CONTEXT_IS_LOST[0]):
        CudaLidarDetector(engine, card_of(network), LidarConfig(), queue=queue)


def test_an_engine_that_fails_once_leaves_nothing_behind(network: Path, queue: Any) -> None:
    engine = FakeEngine(network, queue, capturable=False)
    detector = CudaLidarDetector(engine, card_of(network), LidarConfig(), queue=queue)
    expected = detector.detect(scene(1))
    run = engine.enqueue

    def fail(stream: Any) -> None:
        raise EngineError('out of order')

    engine.enqueue = fail
    with pytest.raises(EngineError, match='out of order'):
        detector.detect(scene(2))
    engine.enqueue = run
    assert detector.detect(scene(1)).boxes.tobytes() == expected.boxes.tobytes()


@pytest.mark.parametrize('work', ['launch', 'copy_in'])
def test_any_work_that_fails_once_leaves_nothing_behind(
    network: Path, queue: Any, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops: in the branch beside the copy, in the copy, in any launch after it."""
    engine = FakeEngine(network, queue, capturable=False)
    detector = CudaLidarDetector(engine, card_of(network), LidarConfig(), queue=queue)
    expected = detector.detect(scene(1))
    plain = getattr(queue, work)
    left = [0]

    def fail(*args: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise DeviceError('out of order')
        plain(*args, **options)

    for stops in count():
        left[0] = stops
        with monkeypatch.context() as patch:
            patch.setattr(queue, work, fail)
            failed = True
            with suppress(DeviceError):
                detector.detect(scene(2))
                failed = False
        assert detector.detect(scene(1)).boxes.tobytes() == expected.boxes.tobytes()
        if not failed:
            break
    assert stops >= (1 if work == 'copy_in' else 8)


def test_the_steps_of_a_profile(network: Path, queue: Any) -> None:
    _, detector = pair(network, queue, LidarConfig())
    expected = detector.detect(scene(1))
    times = detector.profile(scene(1), repeats=2)
    assert list(times) == STEPS
    assert min(times.values()) > 0.0
    assert detector.detect(scene(1)).boxes.tobytes() == expected.boxes.tobytes()


def test_from_another_thread(network: Path, queue: Any) -> None:
    plain, detector = pair(network, queue, LidarConfig())
    found: list[Boxes3D] = []
    thread = threading.Thread(target=lambda: found.append(detector.detect(scene(6))))
    thread.start()
    thread.join()
    same(found[0], plain.detect(scene(6)))


def test_closed_it_refuses(network: Path, queue: Any) -> None:
    _, detector = pair(network, queue, LidarConfig())
    detector.close()
    detector.close()
    with pytest.raises(EngineError, match='tiny_lidar: the detector is closed'):
        detector.detect(scene(1))


def test_engines_and_sizes_that_cannot_be_used(network: Path, queue: Any) -> None:
    card = card_of(network)
    with pytest.raises(EngineError, match="'other'"):
        CudaLidarDetector(
            FakeEngine(network, queue), replace(card, score_output='other'), LidarConfig(),
            queue=queue,
        )  # fmt: skip
    with pytest.raises(ConfigError, match='max_points 300; the GPU takes 1 to 256'):
        CudaLidarDetector(
            FakeEngine(network, queue), replace(card, max_points=300), LidarConfig(), queue=queue
        )


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_order_of_threads_does_not_show(network: Path, queue: Any, seed: int) -> None:
    if hasattr(queue, 'seed'):
        queue = type(queue)(seed)
    _, detector = pair(network, queue, LidarConfig(nms_iou=0.5), **KINDS['fp16'])
    found = [detector.detect(scene(8, 40)) for _ in range(2)]
    assert len(found[0]) > 15
    assert found[0].boxes.tobytes() == found[1].boxes.tobytes()
    other = CudaLidarDetector(
        FakeEngine(network, queue := _fresh(queue), **KINDS['fp16']), card_of(network),
        LidarConfig(nms_iou=0.5), queue=queue,
    )  # fmt: skip
    again = other.detect(scene(8, 40))
    assert again.boxes.tobytes() == found[0].boxes.tobytes()
    assert again.scores.tobytes() == found[0].scores.tobytes()
    other.close()


def _fresh(queue: Any) -> Any:
    return type(queue)(queue.seed + 10) if hasattr(queue, 'seed') else type(queue)()


def test_the_projects_network_on_a_real_scan(
    queue: Any, repository: Path, shared_data: Path
) -> None:
    network = repository / 'models' / 'apron_pointpillars.onnx'
    card = card_of(network)
    points = np.fromfile(
        min((shared_data / 'drive' / 'velodyne').glob('*.bin')), np.float32
    ).reshape(-1, 4)
    points[:, 2] += 1.73
    scan = PointCloud(1, 'base_link', points)
    config = LidarConfig(score_threshold=0.1)
    plain = LidarDetector(open_engine(network, threads=2), card, config)
    detector = CudaLidarDetector(FakeEngine(network, queue), card, config, queue=queue)
    expected = plain.detect(scan)
    assert len(expected) > 5
    same(detector.detect(scan), expected, 1e-4)

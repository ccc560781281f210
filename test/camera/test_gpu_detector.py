"""The camera detector on the device against the one on the CPU, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_picture import near_all, picture
from emulator_queue import EmulatorQueue
from fake_engine import FakeEngine
from onnx import TensorProto

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.gpu import MOST_PROGRAMS, CudaCameraDetector
from airside_perception.camera.gpu_image import SOURCES
from airside_perception.camera.preprocess import ENCODINGS
from airside_perception.card import CameraCard, load_card
from airside_perception.config import CameraConfig
from airside_perception.engine import open_engine
from airside_perception.errors import DeviceError, EngineError, MessageError
from airside_perception.geometry import transform
from airside_perception.projection import CameraModel
from airside_perception.types import Boxes2D, Image

Cards, Networks = Callable[..., CameraCard], Callable[..., Path]
Opener = Callable[..., CudaCameraDetector]
PERSON, CAT, CAR, TRAIN = range(5, 9)
IMAGE = Image(12, 'camera_optical', np.zeros((128, 192, 3), np.uint8))
STEPS = ['copy in', 'image', 'engine', 'scan', 'select', 'boxes', 'suppress', 'copy out']


@pytest.fixture
def open_detector(queue: Any) -> Iterator[Opener]:
    """Opens detectors whose engine and kernels run on the queue's device."""
    opened: list[CudaCameraDetector] = []

    def open_(
        path: Path,
        card: CameraCard,
        config: CameraConfig | None = None,
        engine: FakeEngine | None = None,
    ) -> CudaCameraDetector:
        seeds = iter(range(1, 100))
        queues = (lambda: EmulatorQueue(next(seeds))) if isinstance(queue, EmulatorQueue) else None
        engine = engine or FakeEngine(path, queue)
        detector = CudaCameraDetector(engine, card, config or CameraConfig(), queues)
        opened.append(detector)
        return detector

    yield open_
    for detector in opened:
        detector.close()


class Answering(FakeEngine):
    """Gives the answer of its first run again and again, in a way that a GPU can record."""

    def remember(self) -> None:
        super().enqueue(None)
        name = self.outputs[0].name
        self._answer = self._queue.upload(self._queue.download(self._memory[name]))
        self.capturable = True

    def enqueue(self, stream: Any) -> None:
        del stream
        self._queue.copy(self._memory[self.outputs[0].name], self._answer)


def same(found: Boxes2D, expected: Boxes2D) -> None:
    assert found.classes == expected.classes
    assert (found.stamp_ns, found.frame_id) == (expected.stamp_ns, expected.frame_id)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6, atol=0)


def cell(x: int, y: int) -> int:
    return y * 12 + x


def see(
    cells: np.ndarray, row: int, label: int, score: float, width: float = 8, height: float = 8
) -> None:
    cells[row, 2:4] = np.log(width / 8), np.log(height / 8)
    cells[row, 4], cells[row, label] = 1.0, score


@pytest.fixture
def seen(cells: np.ndarray) -> np.ndarray:
    """A car, the same car less sure, a person in front of it, a far truck; and a cat."""
    see(cells, cell(4, 4), CAR, 0.75, 24, 16)
    see(cells, cell(5, 4), CAR, 0.5, 24, 16)
    see(cells, cell(4, 5), PERSON, 0.875, 4, 10)
    see(cells, cell(9, 4), TRAIN, 0.375, 8, 2)
    see(cells, cell(2, 2), CAT, 0.9, 16, 16)
    return cells


@pytest.mark.parametrize('encoding', SOURCES)
def test_every_encoding(
    open_detector: Opener, tiny_models: Any, tmp_path: Path, encoding: str
) -> None:
    path = tiny_models.tiny_camera_model(tmp_path, thresholds={})
    card = load_card(path.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    config = CameraConfig(score_threshold=0.1)
    detector = open_detector(path, card, config)
    on_cpu = CameraDetector(open_engine(path), card, config)
    kind = ENCODINGS[encoding]
    rng = np.random.default_rng(3)
    for i, (rows, width) in enumerate(((120, 180), (66, 150), (120, 180))):
        shape = (rows, width) if kind.channels == 1 else (rows, width, kind.channels)
        image = Image(i, 'camera', rng.integers(0, 256, shape, dtype=np.uint8), encoding)
        expected = on_cpu.detect(image)
        assert len(expected) >= 1
        same(detector.detect(image), expected)


@pytest.mark.parametrize('kind', ['fp32', 'fp16', 'hwc8'])
@pytest.mark.parametrize('score', [0.05, 0.02])
def test_trained_network_on_pictures(
    queue: Any, open_detector: Opener, repository: Path, kind: str, score: float
) -> None:
    path = repository / 'models' / 'apron_yolox.onnx'
    card = load_card(path.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    card = replace(card, thresholds={})
    config = CameraConfig(score_threshold=score)
    engine = FakeEngine(
        path,
        queue,
        layouts={'images': 'hwc8'} if kind == 'hwc8' else {},
        half=['images'] if kind == 'fp16' else ['images', 'output'] if kind == 'hwc8' else [],
    )
    detector = open_detector(path, card, config, engine)
    on_cpu = CameraDetector(open_engine(path), card, config)
    for image in (picture(360, 640), picture(375, 1242)):
        expected = on_cpu.detect(image)
        found = detector.detect(image)
        assert len(expected) >= 3
        if kind != 'hwc8':  # pixels are whole numbers: float16 holds them
            same(found, expected)
        else:
            near_all(found, expected, score)


def test_recorded_drive(open_detector: Opener, repository: Path, shared_data: Path) -> None:
    path = repository / 'models' / 'apron_yolox.onnx'
    card = load_card(path.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    config = CameraConfig(score_threshold=0.05)
    card = replace(card, thresholds={})
    detector = open_detector(path, card, config)
    on_cpu = CameraDetector(open_engine(path), card, config)
    files = sorted((shared_data / 'drive' / 'image_02').glob('**/*.png'))[::10]
    assert files
    for file in files:
        image = Image(0, 'camera', np.asarray(cv2.imread(str(file)), np.uint8))
        expected = on_cpu.detect(image)
        assert len(expected) > 10
        same(detector.detect(image), expected)


def test_live_parameters_need_no_new_recording(
    open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    card = make_card()
    path = make_network(card, seen)
    detector = open_detector(path, card, CameraConfig(nms_iou=0.4))
    on_cpu = CameraDetector(open_engine(path), card, CameraConfig())
    base, counts = detector.config, []
    for change in (
        {},
        {'nms_iou': 0.6},
        {'nms_iou': 0.6, 'max_detections': 2},
        {'max_candidates': 1},
        {'score_threshold': 0.1, 'score_thresholds': {'truck': 0.4}},
        {'score_threshold': 0.8},
        {'score_threshold': 0.0, 'nms_iou': 1.0, 'nms_iou_across': 1.0},
        {'nms_iou': 0.0, 'nms_iou_across': 0.05},
        {'score_threshold': 1.0},
    ):
        on_cpu.config = detector.config = replace(base, **change)
        same(detector.detect(IMAGE), on_cpu.detect(IMAGE))
        counts.append(len(detector.detect(IMAGE)))
    assert counts[:4] == [3, 4, 2, 1]
    assert counts[-3] == 100  # of 120 cells, all of which have a score
    assert counts[-1] == 0
    detector.card = on_cpu.card = replace(card, thresholds={'car': 0.8})
    on_cpu.config = detector.config = base
    same(detector.detect(IMAGE), on_cpu.detect(IMAGE))


def test_classes_published_under_one_name_and_across(
    open_detector: Opener, make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    see(cells, cell(4, 4), CAR, 0.75, 24, 16)
    see(cells, cell(5, 4), TRAIN, 0.5, 24, 16)
    see(cells, cell(9, 4), PERSON, 0.6, 4, 10)
    for publish in ({'car': 'truck', 'train': 'truck', 'person': 'person'}, {}):
        card = make_card(publish=publish)
        path = make_network(card, cells)
        for across in (0.3, 0.35, 0.9):
            config = CameraConfig(nms_iou=0.4 if publish else 0.3, nms_iou_across=across)
            expected = CameraDetector(open_engine(path), card, config).detect(IMAGE)
            same(open_detector(path, card, config).detect(IMAGE), expected)


def test_boxes_outside_the_image_suppress_and_are_not_counted(
    open_detector: Opener, make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    """The image ends at row 48 of the input."""
    see(cells, cell(3, 7), CAR, 0.9, 30, 8)  # from row 52 on: not seen
    see(cells, cell(4, 7), CAR, 0.8, 30, 8)  # suppressed by it
    see(cells, cell(6, 2), CAR, 0.7, 8, 8)
    see(cells, cell(0, 0), PERSON, 0.6, 16, 16)  # half outside
    see(cells, cell(11, 4), PERSON, 0.5, 32, 8)
    card = make_card()
    path = make_network(card, cells)
    image = Image(0, 'camera', np.zeros((96, 192, 3), np.uint8))
    for most in (1, 2, 3, 100):
        config = CameraConfig(max_detections=most)
        expected = CameraDetector(open_engine(path), card, config).detect(image)
        found = open_detector(path, card, config).detect(image)
        same(found, expected)
        assert len(found) == min(most, 3)


def test_a_network_that_returns_no_numbers_is_an_error_and_no_lasting_one(
    queue: Any, open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    card = make_card()

    class Broken(FakeEngine):
        column, value = -1, np.nan

        def _store(self, name: str, value: np.ndarray) -> None:
            if self.column >= 0:
                value[0, cell(4, 4), self.column] = self.value
            super()._store(name, value)

    engine = Broken(make_network(card, seen), queue)
    detector = open_detector(Path(), card, CameraConfig(), engine)
    before = detector.detect(IMAGE)
    assert len(before) == 3
    for column, value, message in (
        (4, np.nan, 'tiny: the output is not finite; is the precision too low?'),
        (4, np.inf, 'tiny: the output is not finite; is the precision too low?'),
        (0, np.nan, 'tiny: the output is not finite in boxes above the threshold'),
        (PERSON, np.inf, 'tiny: the output is not finite in boxes above the threshold'),
    ):
        engine.column, engine.value = column, value
        with pytest.raises(EngineError, match=message.replace('?', r'\?')):
            detector.detect(IMAGE)
        engine.column = -1
        same(detector.detect(IMAGE), before)


def test_an_engine_that_fails_once_does_no_lasting_harm(
    queue: Any, open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    class Failing(FakeEngine):
        fails = False

        def enqueue(self, stream: Any) -> None:
            if self.fails:
                raise EngineError('out of order')
            super().enqueue(stream)

    card = make_card()
    engine = Failing(make_network(card, seen), queue)
    detector = open_detector(Path(), card, CameraConfig(), engine)
    before = detector.detect(IMAGE)
    engine.fails = True
    with pytest.raises(EngineError, match='out of order'):
        detector.detect(IMAGE)
    with pytest.raises(EngineError, match='no image was submitted'):
        detector.collect()
    with pytest.raises(EngineError, match='out of order'):
        detector.detect(replace(IMAGE, encoding='rgb8'))  # not yet recorded
    engine.fails = False
    same(detector.detect(IMAGE), before)
    same(detector.detect(replace(IMAGE, encoding='rgb8')), before)


def test_images_that_cannot_be_read_are_errors(
    open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    card = make_card()
    detector = open_detector(make_network(card, seen), card)
    with pytest.raises(MessageError, match="'16UC1' is not known"):
        detector.detect(replace(IMAGE, encoding='16UC1'))
    with pytest.raises(MessageError, match=r'nv12 image has data of shape \(128, 192, 3\)'):
        detector.detect(replace(IMAGE, encoding='nv12'))
    assert len(detector.detect(IMAGE)) == 3


def test_rows_with_padding_are_packed(
    open_detector: Opener, tiny_models: Any, tmp_path: Path
) -> None:
    path = tiny_models.tiny_camera_model(tmp_path)
    card = load_card(path.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    padded = np.random.default_rng(0).integers(0, 256, (128, 200, 3), dtype=np.uint8)
    image = Image(0, 'camera', padded[:, :192])
    assert not image.data.flags.c_contiguous
    detector = open_detector(path, card)
    expected = CameraDetector(open_engine(path), card, CameraConfig()).detect(image)
    assert len(expected) > 0
    same(detector.detect(image), expected)


def test_an_image_written_where_it_is_copied_from(
    open_detector: Opener, tiny_models: Any, tmp_path: Path
) -> None:
    path = tiny_models.tiny_camera_model(tmp_path)
    card = load_card(path.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    detector = open_detector(path, card)
    pixels = detector.buffer('bgr8', (128, 192, 3))
    for value in (250, 100, 200):
        pixels[...] = value
        boxes = detector.detect(Image(0, 'camera', pixels))
        np.testing.assert_allclose(boxes.scores, np.full(6, value / 255), rtol=1e-5)
    detector.submit(Image(0, 'camera', pixels))
    with pytest.raises(EngineError, match='works on an image'):
        detector.buffer('bgr8', (128, 192, 3))
    detector.collect()


def test_several_cameras_are_submitted_before_any_is_collected(
    queue: Any, open_detector: Opener, tiny_models: Any, tmp_path: Path
) -> None:
    path = tiny_models.tiny_camera_model(tmp_path)
    card = load_card(path.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    detectors = [open_detector(path, card) for _ in range(8)]
    images = [
        Image(i, f'camera_{i}', np.full((64, 96, 3), 100 + 15 * i, np.uint8)) for i in range(8)
    ]
    for detector, image in zip(detectors, images, strict=True):
        detector.submit(image)
    with pytest.raises(EngineError, match='the last image was not collected yet'):
        detectors[0].submit(images[0])
    for i in (3, 0, 1, 7, 6, 5, 4, 2):
        boxes = detectors[i].collect()
        assert (boxes.stamp_ns, boxes.frame_id) == (i, f'camera_{i}')
        np.testing.assert_allclose(boxes.scores, np.full(6, (100 + 15 * i) / 255), rtol=1e-5)
    with pytest.raises(EngineError, match='no image was submitted'):
        detectors[0].collect()


def test_kinds_of_images_come_and_go(
    open_detector: Opener, tiny_models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_models.tiny_camera_model(tmp_path)
    card = load_card(path.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    detector = open_detector(path, card)
    on_cpu = CameraDetector(open_engine(path), card, CameraConfig())
    made = []
    prepared = CudaCameraDetector._prepared
    monkeypatch.setattr(
        CudaCameraDetector, '_prepared', lambda *a: made.append(a[1].data.shape) or prepared(*a)
    )
    rng = np.random.default_rng(0)
    sizes = [(128, 192), (90, 192), (50, 50), (64, 48), (64, 97)]
    images = [Image(i, 'c', rng.integers(150, 256, (*n, 3), dtype=np.uint8))
              for i, n in enumerate(sizes)]  # fmt: skip
    for i in (0, 1, 2, 3, 0, 1, 2, 3, 0, 4, 0, 2, 3, 1):
        same(detector.detect(images[i]), on_cpu.detect(images[i]))
    order = [0, 1, 2, 3, 4, 1]  # 4 takes the place of 1, the longest unused
    assert [shape[:2] for shape in made] == [sizes[i] for i in order]
    assert MOST_PROGRAMS == 4


def test_steps_timings_and_lift(
    open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    camera = CameraModel('camera', 192, 128, [[100, 0, 96], [0, 100, 67], [0, 0, 1]])
    card = make_card()
    path = make_network(card, seen)
    detector = open_detector(path, card)
    boxes = detector.detect(IMAGE)
    assert list(detector.timings) == ['pack', 'gpu', 'boxes']
    lifted = detector.lift(boxes, camera, transform(optical, np.array([0.0, 0.0, 2.0])))
    assert lifted.classes == ('person', 'car')
    assert detector.not_lifted == 1
    assert list(detector.timings) == ['pack', 'gpu', 'boxes', 'lift']
    times = detector.profile(IMAGE, 3)
    assert list(times) == STEPS
    assert all(time >= 0 for time in times.values())
    same(detector.detect(IMAGE), boxes)


def test_one_launch_two_copies_one_wait(
    queue: Any, open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    card = make_card()
    path = make_network(card, seen)
    engine = Answering(path, queue)
    engine.remember()
    detector = open_detector(path, card, CameraConfig(), engine)
    expected = CameraDetector(open_engine(path), card, CameraConfig()).detect(IMAGE)
    same(detector.detect(IMAGE), expected)
    assert detector.no_graph == ''
    kernels = 7  # image, scan, two of selection, boxes, two of suppression
    assert detector.launches == kernels
    assert detector.nodes == kernels + 2 + 1  # two copies, and the engine
    again = detector.detect(IMAGE)
    assert again.xyxy.tobytes() == detector.detect(IMAGE).xyxy.tobytes()


def test_an_engine_that_cannot_be_recorded(
    queue: Any, open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    card = make_card()
    path = make_network(card, seen)
    detector = open_detector(path, card, CameraConfig(), FakeEngine(path, queue, capturable=False))
    assert detector.no_graph == 'the engine cannot be recorded'
    assert (detector.nodes, detector.launches) == (0, 0)
    expected = CameraDetector(open_engine(path), card, CameraConfig()).detect(IMAGE)
    for _ in range(2):
        same(detector.detect(IMAGE), expected)


def test_a_recording_that_fails_is_said_and_all_is_launched_one_by_one(
    make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    class Refusing(EmulatorQueue):
        def capture(self, record: Callable[[], None]) -> Any:
            record()
            raise DeviceError('cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED')

    card = make_card()
    path = make_network(card, seen)
    expected = CameraDetector(open_engine(path), card, CameraConfig()).detect(IMAGE)
    with EmulatorQueue() as memory:
        detector = CudaCameraDetector(FakeEngine(path, memory), card, CameraConfig(), Refusing)
        assert 'CAPTURE_INVALIDATED' in detector.no_graph
        same(detector.detect(IMAGE), expected)
        detector.close()


def test_closing(
    open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    card = make_card()
    detector = open_detector(make_network(card, seen), card)
    detector.submit(IMAGE)
    detector.close()
    detector.close()
    assert (detector.nodes, detector.launches) == (0, 0)
    for use in (detector.submit, detector.detect, detector.profile):
        with pytest.raises(EngineError, match='tiny: the detector is closed'):
            use(IMAGE)
    with pytest.raises(EngineError, match='no image was submitted'):
        detector.collect()


def test_closing_frees_all_memory(
    queue: Any, open_detector: Opener, make_card: Cards, make_network: Networks, seen: np.ndarray
) -> None:
    if isinstance(queue, EmulatorQueue):
        pytest.skip('the emulator does not count memory')
    from airside_perception.cuda.memory import live_bytes

    card = make_card()
    engine = FakeEngine(make_network(card, seen), queue)
    before = live_bytes()
    for _ in range(3):
        detector = open_detector(Path(), card, CameraConfig(), engine)
        for size in range(20, 120, 12):
            detector.detect(Image(0, 'c', np.zeros((size, 96, 3), np.uint8)))
        assert live_bytes() > before
        detector.close()
        assert live_bytes() == before


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'input_name': 'pixels'}, "no input 'pixels'"),
        ({'output_name': 'rows'}, "no output 'rows'"),
        ({'strides': (8, 16, 32)}, r'contradicts .* \[1, 126, 9\]'),
    ],
)
def test_an_engine_of_another_card_is_refused(
    queue: Any,
    make_card: Cards,
    make_network: Networks,
    cells: np.ndarray,
    change: dict[str, Any],
    message: str,
) -> None:
    card = make_card()
    engine = FakeEngine(make_network(card, cells), queue)
    with pytest.raises(EngineError, match=message):
        CudaCameraDetector(engine, replace(card, **change), CameraConfig(), EmulatorQueue)


def test_types_and_layouts_that_cannot_be_used_are_refused(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    card = make_card()
    with EmulatorQueue() as queue:
        double = FakeEngine(make_network(card, cells, TensorProto.DOUBLE), queue)
        with pytest.raises(EngineError, match='takes float32 or float16'):
            CudaCameraDetector(double, card, CameraConfig(), EmulatorQueue)
        path = make_network(card, cells)
        for name in ('images', 'output'):
            engine = FakeEngine(path, queue, layouts={name: 'hwc8'})
            with pytest.raises(EngineError, match=f'{name}: .* has the layout hwc8'):
                CudaCameraDetector(engine, card, CameraConfig(), EmulatorQueue)

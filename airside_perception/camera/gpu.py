"""The camera detector on a GPU: image bytes to boxes in one launch, two copies and one wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.camera.detector import CameraNetwork
from airside_perception.camera.gpu_image import InputLayout
from airside_perception.camera.gpu_program import DeviceEngine, ImageProgram
from airside_perception.camera.gpu_yolox import lowest_float32
from airside_perception.camera.preprocess import Letterbox, image_size
from airside_perception.camera.yolox import Candidates
from airside_perception.card import CameraCard
from airside_perception.config import CameraConfig
from airside_perception.cuda.driver import use_device
from airside_perception.cuda.frame import BAD_BOX, FRAME, LABELS, NAN_SCORE
from airside_perception.cuda.queue import DeviceQueue, Queue
from airside_perception.cuda.suppress import rows_of
from airside_perception.errors import EngineError
from airside_perception.timing import Laps
from airside_perception.types import Boxes2D, Image

MOST_PROGRAMS = 4
"""Kinds of images that are kept ready; a camera has one, a test bench a few."""


class CudaCameraDetector(CameraNetwork):
    """`CameraDetector` with everything between the image's bytes and the boxes on the GPU.

    The bytes are copied once, into page-locked memory behind the live parameters, and go to the
    device as they are. What runs there is recorded as one CUDA graph for each encoding and size
    of images (`MOST_PROGRAMS` are kept, the last used ones) and launched whole; with an engine
    that cannot be recorded (DLA) the same work is launched piece by piece.

    `detect` waits for its image. Several cameras on one GPU overlap when every detector, each
    with an engine of its own and so with its own stream, is given its image by `submit` before
    the first `collect`:

        for detector, image in zip(detectors, images):
            detector.submit(image)
        answers = [detector.collect() for detector in detectors]

    It owns the memory it allocates and writes the input of the engine, border included: nobody
    else may run the engine meanwhile. Close it before its engine. Calls come from one thread at a
    time.

    `timings` has the stages pack (parameters and pixels into page-locked memory), gpu (from
    launch to the end of the wait) and boxes, and after `lift` that.

    Attributes:
        no_graph: why all is launched one by one; '' where one graph is launched.

    Args:
        engine: with its tensors on the device.
        card: of its network.
        config: as of `CameraDetector`.
        queues: makes a queue for each kind of image; None: on the stream of the engine.

    Raises:
        EngineError: the engine is not that of the card, or has a tensor in a layout that is not
            supported.
        CardError: more classes or cells than the GPU takes.
        DeviceError: kernels cannot be compiled, or memory is short.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        card: CameraCard,
        config: CameraConfig,
        queues: Callable[[], Queue] | None = None,
    ) -> None:
        super().__init__(engine, card, config)
        self.no_graph = '' if engine.capturable else 'the engine cannot be recorded'
        self._device_engine = engine
        self._new_queue = queues or (lambda: DeviceQueue(engine.stream))
        self._use_device: Callable[[], object] = _stay if queues else use_device
        self._programs: OrderedDict[tuple[str, tuple[int, ...]], ImageProgram] = OrderedDict()
        self._drawn: Letterbox | None = None
        self._live: tuple[CameraConfig, CameraCard, NDArray[np.void]] | None = None
        self._pending: _Pending | None = None
        self._closed = False
        InputLayout.of(engine.tensor(card.input_name))
        # whatever can fail here does so now, not at the first image
        self._use_device()
        self._program(Image(0, '', np.zeros((card.height, card.width, 3), np.uint8)))

    def detect(self, image: Image) -> Boxes2D:
        """Objects in an image, best first, in its own pixels and clipped to it.

        Raises:
            MessageError: the encoding of the image is not known, or its data contradicts it.
            EngineError: the network failed or returned no numbers.
        """
        self.submit(image)
        return self.collect()

    def submit(self, image: Image) -> None:
        """Lets the GPU begin with an image; its data may change once this returns.

        Raises:
            MessageError: as `detect`.
            EngineError: the last image was not collected, or the detector is closed.
        """
        if self._closed:
            raise EngineError(f'{self.card.name}: the detector is closed')
        if self._pending is not None:
            raise EngineError(f'{self.card.name}: the last image was not collected yet')
        self._use_device()
        config, laps = self.config, Laps()
        program = self._program(image)
        program.fill(self._frame(config), image.data)
        laps('pack')
        self._draw_border(program)
        program.launch()
        self._pending = _Pending(image, program, config, laps)

    def collect(self) -> Boxes2D:
        """Waits for the image that was submitted; its answer is that of `detect`.

        Raises:
            EngineError: as `detect`, or no image was submitted.
        """
        if self._pending is None:
            raise EngineError(f'{self.card.name}: no image was submitted')
        (image, program, config, laps), self._pending = self._pending, None
        self._use_device()
        result = program.wait()
        laps('gpu')
        self._check(int(result['flags'][0]))
        kept = _candidates(rows_of(result))
        boxes = self._answer(image, program.letterbox, kept, config)
        laps('boxes')
        self.timings = laps.ms
        return boxes

    def profile(self, image: Image, repeats: int = 100) -> dict[str, float]:
        """{step: microseconds}, medians: each step launched by itself between two events.

        What a graph saves between launches does not show.

        Raises:
            MessageError, EngineError, DeviceError: as `detect`.
        """
        self.detect(image)
        return self._program(image).profile(repeats)

    @property
    def nodes(self) -> int:
        """Nodes of the graph for the last kind of image: launches and copies; 0 without one."""
        return self._size()[0]

    @property
    def launches(self) -> int:
        """Kernels among them, those of the engine included."""
        return self._size()[1]

    def buffer(self, encoding: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Page-locked memory for images of a kind: an `Image` with this very array is not copied.

        It is valid until `MOST_PROGRAMS` other kinds were seen, or `close`, and may be written
        while no image is worked on.

        Raises:
            MessageError, DeviceError: as `detect`.
        """
        if self._closed or self._pending is not None:
            raise EngineError(f'{self.card.name}: the detector is closed or works on an image')
        self._use_device()
        return self._program(Image(0, '', np.zeros(shape, np.uint8), encoding)).pixels

    def close(self) -> None:
        """Frees what the detector allocated; may be called again."""
        if self._closed:
            return
        self._closed = True
        self._pending = None
        self._use_device()
        while self._programs:
            self._programs.popitem()[1].close()

    def _size(self) -> tuple[int, int]:
        return next(reversed(self._programs.values())).size if self._programs else (0, 0)

    def _program(self, image: Image) -> ImageProgram:
        """What runs for images like this one, made at the first."""
        key = image.encoding, image.data.shape
        if key not in self._programs:
            letterbox = Letterbox.fit(*image_size(image), self.card)
            while len(self._programs) >= MOST_PROGRAMS:
                self._programs.popitem(last=False)[1].close()
            self._programs[key] = self._prepared(image, letterbox)
        self._programs.move_to_end(key)
        return self._programs[key]

    def _prepared(self, image: Image, letterbox: Letterbox) -> ImageProgram:
        """A program that ran once, and is recorded if that can be."""
        program = ImageProgram(
            self._new_queue(), self._device_engine, self.card, image.encoding, image.data.shape,
            letterbox,
        )  # fmt: skip
        try:
            program.fill(self._frame(self.config), image.data)
            self._draw_border(program)
            if not self.no_graph:
                self.no_graph = program.record()
            if self.no_graph:
                program.launch()
                program.wait()
        except BaseException:
            program.close()
            raise
        return program

    def _draw_border(self, program: ImageProgram) -> None:
        """The border of an image's letterbox stays until one with another letterbox comes."""
        if self._drawn != program.letterbox:
            program.draw_border()
            self._drawn = program.letterbox

    def _frame(self, config: CameraConfig) -> NDArray[np.void]:
        """The live parameters as the device reads them."""
        if self._live is not None and self._live[0] is config and self._live[1] is self.card:
            return self._live[2]
        frame = np.zeros(1, FRAME)
        frame['most'] = config.max_candidates
        frame['max_detections'] = config.max_detections
        frame['nms_iou'], frame['nms_iou_across'] = config.nms_iou, config.nms_iou_across
        lowest = lowest_float32(self._thresholds(config))
        frame['thresholds'] = np.inf
        frame['thresholds'][0, : len(lowest)] = lowest
        frame['groups'] = np.arange(LABELS)
        self._live = config, self.card, frame
        return frame

    def _check(self, flags: int) -> None:
        if flags & NAN_SCORE:
            raise EngineError(
                f'{self.card.name}: the output is not finite; is the precision too low?'
            )
        if flags & BAD_BOX:
            raise EngineError(
                f'{self.card.name}: the output is not finite in boxes above the threshold'
            )


class _Pending(NamedTuple):
    """An image that the GPU works on."""

    image: Image
    program: ImageProgram
    config: CameraConfig
    laps: Laps


def _candidates(rows: NDArray[np.float32]) -> Candidates:
    """What suppression left: rows [N, 9] of `cuda.frame.RESULT` to corners in the image."""
    wide = rows.astype(np.float64)
    half = wide[:, [3, 4]] / 2
    xyxy = np.concatenate([wide[:, :2] - half, wide[:, :2] + half], axis=1)
    return Candidates(xyxy, wide[:, 7], wide[:, 8].astype(np.int64))


def _stay() -> None:
    """Where kernels are emulated, no device has to be made current."""

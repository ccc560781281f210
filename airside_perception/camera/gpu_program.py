"""What the GPU does for images of one encoding and size, recorded as one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.camera.gpu_image import BEYOND, ImageKernels
from airside_perception.camera.gpu_yolox import YoloxKernels
from airside_perception.camera.preprocess import Letterbox
from airside_perception.card import CameraCard
from airside_perception.cuda.frame import FRAME, RESULT
from airside_perception.cuda.profile import step_times
from airside_perception.cuda.queue import Queue, Recording
from airside_perception.cuda.suppress import Suppression
from airside_perception.engine.base import Engine
from airside_perception.engine.buffers import DeviceTensor
from airside_perception.errors import DeviceError

if TYPE_CHECKING:
    from airside_perception.cuda.stream import Stream


class DeviceEngine(Engine, Protocol):
    """An engine whose tensors lie on the device, such as `engine.tensorrt.TensorRTEngine`."""

    @property
    def stream(self) -> Stream: ...

    @property
    def capturable(self) -> bool: ...

    def tensor(self, name: str) -> DeviceTensor: ...

    def enqueue(self, stream: Stream) -> None: ...


class ImageProgram:
    """All that runs for images of one encoding and size: memory, steps, and their recording.

    Attributes:
        letterbox: where such images lie in the input of the network.
        pixels: the page-locked memory from which an image is copied, valid until `close`.

    Args:
        queue: is closed with it.
        encoding: of the images.
        shape: of their data.

    Raises:
        CardError, EngineError: as the kernels.
        DeviceError: memory is short.
    """

    def __init__(
        self,
        queue: Queue,
        engine: DeviceEngine,
        card: CameraCard,
        encoding: str,
        shape: tuple[int, ...],
        letterbox: Letterbox,
    ) -> None:
        self.letterbox = letterbox
        self._queue = queue
        self._recording: Recording | None = None
        self._spoilt = False
        try:
            self._build(engine, card, encoding, shape)
        except BaseException:
            queue.close()
            raise

    def _build(
        self, engine: DeviceEngine, card: CameraCard, encoding: str, shape: tuple[int, ...]
    ) -> None:
        queue, header = self._queue, FRAME.itemsize
        staging = queue.pinned((header + int(np.prod(shape)),), np.uint8)
        block = queue.alloc((staging.nbytes + BEYOND,), np.uint8)
        answer = queue.pinned((1,), RESULT)
        self._frame: NDArray[np.void] = staging.array[:header].view(FRAME)
        self.pixels: NDArray[np.uint8] = staging.array[header:].reshape(shape)
        self._answer = answer.array
        frame, pixels = np.uint64(block.address), np.uint64(block.address + header)
        image = ImageKernels(queue, card, engine.tensor(card.input_name), encoding, self.letterbox)
        best = self._suppression = Suppression(queue, YoloxKernels.capacity(card))
        outputs = {card.output_name: engine.tensor(card.output_name)}
        decode = YoloxKernels(queue, card, outputs, best.keys, best.count, best.flags)
        self.draw_border = image.draw_border
        self._steps: dict[str, Callable[[], None]] = {
            'copy in': lambda: queue.copy_in(block, staging, staging.nbytes),
            'image': lambda: image.enqueue(pixels),
            'engine': lambda: queue.call(engine.enqueue),
            'scan': lambda: decode.scan(frame),
            'select': lambda: best.select(frame),
            'boxes': lambda: decode.boxes(best.best, best.chosen, best.boxes, self.letterbox),
            'suppress': lambda: best.suppress(frame),
            'copy out': lambda: queue.copy_out(answer, best.result),
        }

    def fill(self, frame: NDArray[np.void], pixels: NDArray[np.uint8]) -> None:
        """Puts parameters and image where the next launch takes them from."""
        self._frame[...] = frame
        if pixels is not self.pixels:
            np.copyto(self.pixels, pixels)

    def record(self) -> str:
        """Records all steps, having run them once; '' or why that cannot be done."""
        try:
            self._recording = self._queue.capture(self.run)
        except DeviceError as error:
            if error.lost:
                raise
            self._spoilt = True
            return str(error)
        return ''

    def run(self) -> None:
        """Enqueues all steps one by one."""
        for step in self._steps.values():
            step()

    def launch(self) -> None:
        """Enqueues all steps, as one where they are recorded."""
        if self._spoilt:  # the last frame did not come to its end, which empties the lists
            self._suppression.reset()
        self._spoilt = True
        if self._recording is None:
            self.run()
        else:
            self._recording.launch()

    def wait(self) -> NDArray[np.void]:
        """Waits for the last launch: its `cuda.frame.RESULT` [1], valid until the next."""
        self._queue.synchronize()
        self._spoilt = False
        return self._answer

    def profile(self, repeats: int) -> dict[str, float]:
        """Median time of each step in microseconds, with what `fill` has put in last."""
        self._spoilt = True  # if a step fails
        times = step_times(self._queue, self._steps, repeats)
        self._spoilt = False
        return times

    @property
    def size(self) -> tuple[int, int]:
        """Nodes and kernels of the recording; zeros without one."""
        recording = self._recording
        return (0, 0) if recording is None else (recording.nodes, recording.kernels)

    def close(self) -> None:
        """Frees everything, after the work that uses it."""
        self._queue.close()

"""The lidar detector on the GPU: from points to boxes in one launch of one CUDA graph.

What happens, and in which order, is that of `lidar.detector`, and so are the results, to rounding:
pillars.cu for `lidar.pillars` and `lidar.encoder`, the engine, anchors.cu or centers.cu for the
decoder, select.cu and nms.cu for the suppression. A cloud goes to the device in one copy, the
boxes come back in one; the host waits once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.cuda.driver import use_device
from airside_perception.cuda.frame import BAD_BOX, NAN_SCORE
from airside_perception.cuda.profile import step_times
from airside_perception.cuda.queue import DeviceQueue, Queue, Recording
from airside_perception.cuda.suppress import rows_of
from airside_perception.errors import DeviceError, EngineError
from airside_perception.lidar.detector import check_engine
from airside_perception.lidar.gpu_pillars import MOST_CAPACITY
from airside_perception.lidar.gpu_work import LidarWork
from airside_perception.lidar.labels import Labels
from airside_perception.timing import Laps
from airside_perception.types import Boxes3D, Float64, PointCloud


class CudaLidarDetector:
    """Runs one network on pillars on the clouds of one lidar; see `lidar.detector.LidarDetector`.

    It is closed before its engine, whose tensors it uses. Calls may come from any thread, one at a
    time.

    Args:
        engine: with its tensors on the device (`engine.tensorrt.TensorRTEngine`).
        queue: where the work goes, closed with the detector; None: the stream of the engine.

    Attributes:
        card: of the network.
        config: may be replaced between two clouds; `max_points_in_cloud` stays what it was first.
        timings: {stage: ms} of the last cloud: pack (points to page-locked memory), gpu, boxes.
        last_pillars: occupied pillars of the last cloud, also those beyond `card.max_pillars`.
        last_usable: points of the last cloud within the range of the network.
        last_dropped_points: points of the last cloud that were left out, see
            `config.max_points_in_cloud`.
        last_candidates: places of the last cloud that reached their threshold.
        nodes, launches: of the graph: all nodes, and kernels (the engine's too) among them.
        no_graph: why all is launched one by one; '' where one graph is launched.

    Raises:
        EngineError: the inputs and outputs of the engine are not those of the card, or of a type
            or layout that the kernels do not know.
        ConfigError: the network is larger than the kernels can take.
        DeviceError: no GPU, or not enough memory on it.
    """

    def __init__(
        self,
        engine: Any,
        card: LidarCard,
        config: LidarConfig,
        queue: Queue | None = None,
    ) -> None:
        check_engine(engine, card)
        self.card = card
        self.config = config
        self.timings: dict[str, float] = {}
        self.last_pillars = self.last_usable = 0
        self.last_dropped_points = self.last_candidates = 0
        self.nodes = self.launches = 0
        self.no_graph = '' if engine.capturable else 'the engine cannot be recorded'
        self._on_gpu = queue is None or isinstance(queue, DeviceQueue)
        self._closed = self._spoilt = False
        self._graph: Recording | None = None
        self._enter()
        self._queue: Queue = DeviceQueue(engine.stream) if queue is None else queue
        try:
            self._labels = Labels(card)
            self._work = LidarWork(
                self._queue, engine, card, self._labels, _capacity(card, config)
            )
            if not self.no_graph:
                self._record()
        except BaseException:
            self.close()
            raise

    def _record(self) -> None:
        try:
            graph = self._queue.capture(self._work.enqueue)
        except DeviceError as error:
            if error.lost:
                raise
            self.no_graph = str(error)
            self._spoilt = True
            return
        self._graph, self.nodes, self.launches = graph, graph.nodes, graph.kernels

    def detect(self, cloud: PointCloud, lidar2target: Float64 | None = None) -> Boxes3D:
        """Objects in a cloud, best first, in the frame of the network.

        Args:
            cloud: in any frame.
            lidar2target: [4, 4] from that frame to `config.target_frame`, which is that of the
                network; None: the cloud is in the network's frame.

        Raises:
            MessageError: the cloud has no intensity, and the network needs it.
            EngineError: the network failed or put out values that are not finite.
            DeviceError: the GPU failed.
        """
        config, laps = self.config, Laps()
        self._enter()
        nbytes = self._work.cloud.pack(cloud, config, lidar2target)
        laps('pack')
        self._run(nbytes)
        laps('gpu')
        result = self._work.result
        self._check(int(result['flags']))
        rows = rows_of(result).astype(np.float64)
        labels = rows[:, 8].astype(np.int64)
        frame_id = cloud.frame_id if lidar2target is None else config.target_frame
        boxes = self._labels.publish(
            cloud.stamp_ns,
            frame_id,
            rows[:, :7],
            rows[:, 7],
            labels,
            config,
            self._work.velocities(len(rows)),
        )
        self.last_pillars, self.last_usable = int(result['pillars']), int(result['in_range'])
        self.last_candidates = int(result['candidates'])
        self.last_dropped_points = self._work.cloud.dropped
        laps('boxes')
        self.timings = laps.ms
        return boxes

    def profile(self, cloud: PointCloud, repeats: int = 100) -> dict[str, float]:
        """{step: microseconds}, medians: each step launched by itself between two events.

        What a graph saves between launches, and what it does at the same time, does not show.

        Raises:
            MessageError, EngineError, DeviceError: as `detect`.
        """
        self.detect(cloud)
        nbytes = self._work.cloud.pack(cloud, self.config)
        self._spoilt = True  # if a step fails
        times = step_times(self._queue, self._work.steps(nbytes), repeats)
        self._spoilt = False
        return times

    def _run(self, nbytes: int) -> None:
        if self._spoilt:
            self._work.reset()
        self._spoilt = True
        if self._graph is not None:
            self._graph.set_copy_bytes(nbytes)
            self._graph.launch()
        else:
            self._work.enqueue(nbytes)
        self._queue.synchronize()
        self._spoilt = False

    def _check(self, flags: int) -> None:
        """Raises what the decoders on the CPU raise."""
        card = self.card
        scores = card.score_output if card.centers is None else card.centers.heatmap
        if flags & NAN_SCORE:
            raise EngineError(f'{card.name}: output {scores!r} contains NaN')
        if flags & BAD_BOX:
            raise EngineError(f'{card.name}: the outputs give a box that is not finite')

    def _enter(self) -> None:
        """What every thread does before it touches the GPU."""
        if self._closed:
            raise EngineError(f'{self.card.name}: the detector is closed')
        if self._on_gpu:
            use_device()

    def close(self) -> None:
        """Frees everything but the engine; may be called again."""
        if self._closed:
            return
        self._closed = True
        if self._on_gpu:
            use_device()
        self._queue.close()


def _capacity(card: LidarCard, config: LidarConfig) -> int:
    """Most points of all the sweeps that the network sees together."""
    return min(config.max_points_in_cloud * (1 + card.past_sweeps), MOST_CAPACITY)

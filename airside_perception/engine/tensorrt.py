"""TensorRT engines: any version and flavour, through `capabilities`; on the GPU or a DLA core."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from airside_perception.engine.base import Backend, EngineInfo, Tensors, check_feeds
from airside_perception.engine.buffers import DeviceTensor, close_all
from airside_perception.engine.capabilities import TensorRT, family_of, load_tensorrt
from airside_perception.engine.manifest import Machine, Manifest, manifest_path
from airside_perception.engine.plan import Plan, load_plan, ports
from airside_perception.engine.shapes import Shapes
from airside_perception.engine.staging import Staging
from airside_perception.engine.trt_log import collect
from airside_perception.errors import DeviceError, EngineError

if TYPE_CHECKING:
    from airside_perception.cuda.runtime import Graph, Stream

BACKENDS = {
    'full': 'tensorrt', 'rtx': 'tensorrt-rtx', 'lean': 'tensorrt-lean',
    'dispatch': 'tensorrt-dispatch',
}  # fmt: skip
MOST_NOTES = 5
WARM_UPS = 2


def _read(path: Path) -> tuple[bytes, str]:
    """An engine's bytes and their SHA-256: what is checked is what is opened."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f'{path}: not readable: {error.strerror}') from error
    return data, hashlib.sha256(data).hexdigest()


class TensorRTEngine(Backend):
    """An engine file, opened; satisfies `engine.base.Engine`.

    It owns the device memory of its inputs and outputs, a stream and, once `infer` was called,
    page-locked memory; all until `close`, which frees graph, context, engine, runtime, buffers.
    Who reads outputs on the device, uses `tensor`, `enqueue` and a stream of his own and closes
    what depends on these addresses before the engine. Calls from several threads wait for
    one another.

    Args:
        path: the engine; its manifest lies beside it.
        dla_core: core that it was built for, -1: none.
        precision: that is expected; `auto`: any.
        allow_host_code: the plan may bring code that runs on the host, if the manifest knows its
            bytes.
        check_manifest: without, only what is certain is checked: for tools.

    Raises:
        EngineError: the manifest is missing or differs from this machine, or TensorRT refuses it.
        DeviceError: no GPU, or not enough memory on it.
    """

    def __init__(
        self,
        path: Path,
        dla_core: int = -1,
        precision: str = 'auto',
        *,
        allow_host_code: bool = False,
        check_manifest: bool = True,
    ) -> None:
        self._lock = threading.RLock()
        self._path = str(path)
        self._plan: Any = None
        self._shapes: Any = None
        self._staging: Staging | None = None
        self._graph: Graph | None = None
        self._stream: Stream | None = None
        self._no_graph = ''
        self._warm = False
        self._notes: list[str] = []
        try:
            self._open(Path(path), dla_core, precision, allow_host_code, check_manifest)
        except BaseException:
            self.close()
            raise

    def _open(
        self, path: Path, dla_core: int, precision: str, host_code: bool, checked: bool
    ) -> None:
        from airside_perception.cuda import runtime  # nothing of CUDA before an engine is opened

        known = checked or manifest_path(path).is_file()
        manifest = Manifest.read(path) if known else None
        tensorrt = load_tensorrt(family_of(manifest.flavor) if manifest else '')
        reason = runtime.unavailable()
        if reason:
            raise DeviceError(f'{path}: an engine runs on a GPU: {reason}')
        device = runtime.use_device()
        machine = Machine(
            device.name, device.sm, tensorrt.version_text, tensorrt.flavor, dla_core, precision
        )
        data, digest = _read(path)
        if manifest and checked:
            manifest.require(path, machine, digest)
            self._notes += manifest.remarks(machine)
        elif precision != 'auto':
            self._notes.append(f'precision {precision}: not checked, as the manifest is not')
        host_code = self._host_code(manifest, digest, host_code)
        self._stream = runtime.Stream()
        self._plan = load_plan(tensorrt, self._path, data, dla_core, host_code)
        self._notes += self._plan.warnings[:MOST_NOTES]
        if dla_core >= 0:
            self._no_graph = 'DLA work cannot be recorded'
        found = ports(tensorrt, self._path, self._plan.engine)
        self._inputs = tuple(port.spec for port in found if port.is_input)
        self._outputs = tuple(port.spec for port in found if not port.is_input)
        self._shapes = Shapes(self._path, self._plan, found, self._stream)
        self._tensorrt = tensorrt
        self._info = self._describe(tensorrt, manifest, device.name, device.sm, dla_core)
        self._warm_up()

    def _host_code(self, manifest: Manifest | None, digest: str, allowed: bool) -> bool:
        """Whether the plan may bring host code."""
        if manifest and manifest.host_code and not allowed:
            raise EngineError(
                f'{self._path}: the plan carries code that runs on the host with the rights of '
                'this process; allow_host_code allows it, if you trust where it comes from'
            )
        if allowed and (manifest is None or manifest.engine_sha256 != digest):
            self._notes.append('host code stays forbidden: no manifest knows these bytes')
            return False
        return allowed

    def _describe(
        self, tensorrt: TensorRT, manifest: Manifest | None, gpu: str, sm: str, dla_core: int
    ) -> EngineInfo:
        return EngineInfo(
            path=self._path,
            backend=BACKENDS[tensorrt.flavor],
            version=tensorrt.version_text,
            device=f'{gpu} ({sm})' + (f', DLA {dla_core}' if dla_core >= 0 else ''),
            precision=manifest.precision if manifest else 'unknown',
            notes=tuple(self._notes),
            dla_layer_pct=manifest.dla_layer_pct if manifest else None,
            trt_version=tensorrt.version_text,
            manifest=str(manifest_path(self._path)) if manifest else '',
            device_bytes=self._shapes.device_bytes
            + int(getattr(self._plan.engine, tensorrt.can.memory_size, 0)),
        )

    def _warm_up(self) -> None:
        """Runs every profile at its best shapes, and ends at the first."""
        profiles = range(self._shapes.profiles)
        for profile in reversed(profiles):
            self._set(self._shapes.best(profile), profile)
            for _ in range(WARM_UPS):
                self.enqueue(self.stream)
            self.stream.synchronize()

    @property
    def stream(self) -> Stream:
        """The engine's own stream."""
        if self._stream is None:
            raise self._closed()
        return self._stream

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` may be recorded into a CUDA graph. Run it once before."""
        return not self._no_graph

    @property
    def tensorrt(self) -> TensorRT:
        """What runs it."""
        return self._tensorrt

    @property
    def plan(self) -> Plan:
        """TensorRT's own objects, for tools that ask more of them; gone when it is closed."""
        self._require_open()
        plan: Plan = self._plan
        return plan

    @property
    def profiles(self) -> int:
        """How many optimisation profiles there are."""
        self._require_open()
        return int(self._shapes.profiles)

    def best_shapes(self, profile: int = 0) -> dict[str, tuple[int, ...]]:
        """{input: the shape that a profile was optimised for}.

        Raises:
            EngineError: no such profile.
        """
        if not 0 <= profile < self.profiles:
            raise EngineError(f'{self._path}: no profile {profile}; it has {self.profiles}')
        best: dict[str, tuple[int, ...]] = self._shapes.best(profile)
        return best

    def tensor(self, name: str) -> DeviceTensor:
        """Where an input or output lies on the device, with its present shape.

        Raises:
            EngineError: no such tensor, or the engine is closed.
        """
        with self._lock:
            self._require_open()
            found: DeviceTensor = self._shapes.tensor(name)
            return found

    def set_shapes(
        self, shapes: Mapping[str, tuple[int, ...]], profile: int | None = None
    ) -> None:
        """Sets the shapes of all inputs, in the profile that has them; for dynamic shapes.

        A graph that was recorded before must be recorded again after the next `enqueue`.

        Raises:
            EngineError: no profile has them, or not the one that is asked for.
        """
        with self._lock:
            self._require_open()
            self._use_device()
            self._set(dict(shapes), profile)

    def enqueue(self, stream: Stream) -> None:
        """Lets the network run on its device tensors, in the order of `stream`; does not wait.

        Raises:
            EngineError: TensorRT refuses, or the engine is closed.
        """
        with self._lock:
            self._require_open()
            with collect() as said:
                done = self._plan.context.execute_async_v3(stream.handle)
            if not done or said.errors:
                raise EngineError(
                    f'{self._path}: inference failed: {said.reason() or "TensorRT says not why"}'
                )
            self._warm = True

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Runs the network once; see `engine.base.Engine.infer`.

        Raises:
            EngineError: as there, or no profile has the shapes of the feeds.
        """
        with self._lock:
            self._require_open()
            check_feeds(self._path, self._inputs, feeds)
            self._use_device()
            self._set({name: value.shape for name, value in feeds.items()})
            staging = self._staging
            if staging is None:
                staging = self._staging = Staging(self._shapes.capacities)
            tensors = [self.tensor(spec.name) for spec in self._inputs]
            for tensor in tensors:
                staging.write(tensor, feeds[tensor.name])
            self._run(staging)
            self.stream.synchronize()
            return {spec.name: staging.read(self.tensor(spec.name)) for spec in self._outputs}

    def _run(self, staging: Staging) -> None:
        """Copies in, runs, copies out: as a recorded graph from the second time on."""
        if self._graph is None and self._warm and self._may_record():
            self._record(staging)
        if self._graph is not None:
            self._graph.launch(self.stream)
        else:
            self._steps(staging)

    def _may_record(self) -> bool:
        if self._no_graph:
            return False
        context = self._plan.context
        if self._tensorrt.can.stream_capturable and not context.is_stream_capturable(
            self.stream.handle
        ):
            self._give_up_graph('TensorRT does not allow its work to be recorded')
        return not self._no_graph

    def _record(self, staging: Staging) -> None:
        from airside_perception.cuda.runtime import Graph

        try:
            self._graph = Graph.capture(self.stream, lambda: self._steps(staging))
        except EngineError as error:
            self._give_up_graph(str(error))

    def _give_up_graph(self, reason: str) -> None:
        self._no_graph = reason
        self._notes.append(f'runs without a CUDA graph: {reason}')
        self._info = replace(self._info, notes=tuple(self._notes))

    def _steps(self, staging: Staging) -> None:
        for spec in self._inputs:
            staging.upload(self.tensor(spec.name), self.stream)
        self.enqueue(self.stream)
        for spec in self._outputs:
            staging.download(self.tensor(spec.name), self.stream)

    def _set(self, shapes: dict[str, tuple[int, ...]], profile: int | None = None) -> None:
        if self._shapes.set(shapes, profile):
            self._drop_graph()
            self._warm = False

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _use_device(self) -> None:
        from airside_perception.cuda import runtime

        runtime.use_device()

    def _require_open(self) -> None:
        if self._plan is None:
            raise self._closed()

    def _closed(self) -> EngineError:
        return EngineError(f'{self._path}: the engine is closed')

    def close(self) -> None:
        """Frees everything; may be called again."""
        with self._lock:
            if self._stream is None:
                return
            # What runs on a broken device cannot be waited for; its memory must go all the same.
            with suppress(DeviceError):
                self._use_device()
                self._stream.synchronize()
            close_all([self._graph])
            self._graph = None
            if self._plan is not None:
                self._plan.free()
            close_all([self._shapes, self._staging, self._stream])
            self._plan = self._shapes = self._staging = self._stream = None

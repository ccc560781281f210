"""Streams, in which work runs one after another, and events, which mark and time it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airside_perception.closing import Closing
from airside_perception.cuda import driver
from airside_perception.errors import DeviceError

if TYPE_CHECKING:
    pass

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_BLOCKING = 1  # CU_EVENT_BLOCKING_SYNC
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_NOT_READY = 600  # CUDA_ERROR_NOT_READY: no error, the work has not ended


class _Handle(Closing):
    """A driver's object, held until closed."""

    _destroy: str

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._device = driver.current_device()
        self._number = int(raw)

    @property
    def handle(self) -> int:
        """The driver's number of it, which other libraries take too."""
        if self._raw is None:
            raise DeviceError(f'a {type(self).__name__.lower()} is used after it was closed')
        return self._number

    def close(self) -> None:
        """Frees it once its work has ended; may be called again."""
        if self._raw is not None:
            raw, self._raw = self._raw, None
            self._device.use()
            driver.call(self._destroy, raw)


class Stream(_Handle):
    """Work of the GPU that runs in the order given; does not wait for other streams."""

    _destroy = 'cuStreamDestroy'

    def __init__(self) -> None:
        driver.current_device()
        super().__init__(driver.call('cuStreamCreate', _NON_BLOCKING))

    def synchronize(self) -> None:
        """Waits until all work has ended.

        Raises:
            DeviceError: work failed; the GPU cannot be used again by this process.
        """
        driver.call('cuStreamSynchronize', self.handle)

    def wait(self, event: Event) -> None:
        """Work enqueued from here on starts after what `event` marks."""
        driver.call('cuStreamWaitEvent', self.handle, event.handle, 0)


class Event(_Handle):
    """A mark in a stream. Without `timing` it is cheaper and cannot be asked for times.

    Who waits for it keeps a core busy or not, as the driver decides; never with `blocking`.
    """

    _destroy = 'cuEventDestroy'

    def __init__(self, timing: bool = True, blocking: bool = False) -> None:
        driver.current_device()
        flags = (0 if timing else _NO_TIMING) | (_BLOCKING if blocking else 0)
        super().__init__(driver.call('cuEventCreate', flags))

    def record(self, stream: Stream) -> None:
        """Marks what is enqueued so far."""
        driver.call('cuEventRecord', self.handle, stream.handle)

    def synchronize(self) -> None:
        """Waits until the marked work has ended."""
        driver.call('cuEventSynchronize', self.handle)

    def reached(self) -> bool:
        """Whether the marked work has ended; does not wait.

        Raises:
            DeviceError: work failed; the GPU cannot be used again by this process.
        """
        (code,) = driver.bindings().cuEventQuery(self.handle)
        if int(code) == _NOT_READY:
            return False
        driver.check((code,), 'cuEventQuery')
        return True

    def elapsed_ms(self, earlier: Event) -> float:
        """Milliseconds of the GPU from `earlier` to this; both must have been reached."""
        return float(driver.call('cuEventElapsedTime', earlier.handle, self.handle))

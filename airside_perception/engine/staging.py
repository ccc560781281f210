"""Page-locked memory between NumPy arrays and the device tensors of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.engine.buffers import DeviceTensor, close_all, memory_shape, pack, unpack

if TYPE_CHECKING:
    from airside_perception.cuda.runtime import PinnedArray, Stream


class Staging:
    """One page-locked buffer for each tensor, in the tensor's own layout.

    Args:
        capacities: {tensor: most bytes}.

    Raises:
        DeviceError: not enough memory that can be locked.
    """

    def __init__(self, capacities: Mapping[str, int]) -> None:
        from airside_perception.cuda.runtime import PinnedArray  # nothing of CUDA before its use

        self._arrays: dict[str, PinnedArray] = {}
        try:
            for name, size in capacities.items():
                self._arrays[name] = PinnedArray((size,), np.uint8)
        except BaseException:
            self.close()
            raise

    def write(self, tensor: DeviceTensor, value: NDArray[Any]) -> None:
        """Puts a tensor of the present shape into its buffer."""
        pack(value, self._view(tensor), tensor.layout)

    def read(self, tensor: DeviceTensor) -> NDArray[Any]:
        """A copy of what came back."""
        return unpack(self._view(tensor), tensor.shape, tensor.layout)

    def upload(self, tensor: DeviceTensor, stream: Stream) -> None:
        """Copies to the device, in the order of `stream`."""
        from airside_perception.cuda.runtime import copy_to_device

        copy_to_device(tensor.address, self._arrays[tensor.name].address, tensor.nbytes, stream)

    def download(self, tensor: DeviceTensor, stream: Stream) -> None:
        """Copies from the device, in the order of `stream`."""
        from airside_perception.cuda.runtime import copy_to_host

        copy_to_host(self._arrays[tensor.name].address, tensor.address, tensor.nbytes, stream)

    def close(self) -> None:
        """Frees the buffers; may be called again."""
        close_all(self._arrays.values())
        self._arrays.clear()

    def _view(self, tensor: DeviceTensor) -> NDArray[Any]:
        raw = self._arrays[tensor.name].array[: tensor.nbytes]
        view: NDArray[Any] = raw.view(tensor.dtype)
        return view.reshape(memory_shape(tensor.shape, tensor.layout))

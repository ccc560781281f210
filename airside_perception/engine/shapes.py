"""Shapes, optimisation profiles and device memory of an open engine's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from airside_perception.engine.base import TensorSpec
from airside_perception.engine.buffers import (
    DeviceTensor,
    close_all,
    memory_shape,
    padded_channels,
)
from airside_perception.engine.plan import Plan, Port
from airside_perception.errors import EngineError

if TYPE_CHECKING:
    from airside_perception.cuda.runtime import DeviceArray, Stream

Shape = tuple[int, ...]


class Shapes:
    """Binds the tensors of an engine to memory that is large enough for every profile.

    The addresses stay the same until `close`, whatever the shapes.

    Args:
        path: of the engine, for messages.
        stream: for changes of profile.

    Raises:
        EngineError: an output whose shape depends on its data, or TensorRT refuses a shape.
        DeviceError: not enough GPU memory.
    """

    def __init__(self, path: str, plan: Plan, ports: tuple[Port, ...], stream: Stream) -> None:
        self._path = path
        self._plan = plan  # not its context: that is freed before the memory
        self._ports = {port.spec.name: port for port in ports}
        self._stream = stream
        self.profiles: int = max(1, plan.engine.num_optimization_profiles)
        self._profile = 0
        self._key: tuple[int, tuple[tuple[str, Shape], ...]] | None = None
        self._arrays: dict[str, DeviceArray] = {}
        self._tensors: dict[str, DeviceTensor] = {}
        try:
            self.capacities = self._sizes()
            self._allocate()
        except BaseException:
            self.close()
            raise

    @property
    def device_bytes(self) -> int:
        """That the tensors take."""
        return sum(self.capacities.values())

    def best(self, profile: int) -> dict[str, Shape]:
        """The input shapes that a profile was optimised for."""
        return self._bounds(profile, 1)

    def tensor(self, name: str) -> DeviceTensor:
        """Where a tensor lies.

        Raises:
            EngineError: there is none of that name.
        """
        if name not in self._tensors:
            raise EngineError(
                f'{self._path}: no input or output {name!r}; it has {", ".join(self._ports)}'
            )
        return self._tensors[name]

    def set(self, shapes: Mapping[str, Shape], profile: int | None = None) -> bool:
        """Sets the shapes of all inputs; whether this changed anything.

        Args:
            profile: None: the present one if it has these shapes, else the first that has.

        Raises:
            EngineError: no profile has these shapes, or TensorRT refuses them.
        """
        shapes = {name: tuple(shape) for name, shape in shapes.items()}
        profile = self._profile_for(shapes) if profile is None else profile
        key = (profile, tuple(sorted(shapes.items())))
        if key == self._key:
            return False
        self._key = None  # whatever fails from here on, the next call sets everything
        self._shape_inputs(shapes, profile)
        for name, port in self._ports.items():
            shape = self._shape_of(name)
            if not self._plan.context.set_tensor_address(name, self._arrays[name].address):
                raise EngineError(f'{self._path}: TensorRT refuses the memory of {name}')
            nbytes = _bytes(port, shape)
            if nbytes > self.capacities[name]:
                raise EngineError(f'{self._path}: {name} {shape} exceeds what its profile allows')
            self._tensors[name] = DeviceTensor(
                port.spec,
                self._arrays[name].address,
                port.layout,
                shape,
                padded_channels(shape, port.layout),
                nbytes,
            )
        self._key = key
        return True

    def close(self) -> None:
        """Frees the device memory; may be called again."""
        self._tensors.clear()
        close_all(self._arrays.values())
        self._arrays.clear()

    def _inputs(self) -> list[Port]:
        return [port for port in self._ports.values() if port.is_input]

    def _bounds(self, profile: int, which: int) -> dict[str, Shape]:
        return {port.spec.name: port.ranges[profile][which] for port in self._inputs()}

    def _sizes(self) -> dict[str, int]:
        """Bytes of every tensor at its largest."""
        sizes = dict.fromkeys(self._ports, 1)
        for profile in range(self.profiles):
            self._shape_inputs(self._bounds(profile, 2), profile)
            for name, port in self._ports.items():
                sizes[name] = max(sizes[name], _bytes(port, self._shape_of(name)))
        return sizes

    def _allocate(self) -> None:
        from airside_perception.cuda.runtime import DeviceArray  # needs a GPU, as all of this does

        for name, size in self.capacities.items():
            self._arrays[name] = DeviceArray((size,), np.uint8)
            self._arrays[name].clear(self._stream)
        self._stream.synchronize()

    def _shape_inputs(self, shapes: Mapping[str, Shape], profile: int) -> None:
        context = self._plan.context
        if profile != self._profile:
            if not context.set_optimization_profile_async(profile, self._stream.handle):
                raise EngineError(f'{self._path}: TensorRT refuses profile {profile}')
            self._stream.synchronize()
            self._profile = profile
        for port in self._inputs():
            name = port.spec.name
            if _varies(port.spec) and not context.set_input_shape(name, shapes[name]):
                raise EngineError(f'{self._path}: TensorRT refuses {name} {list(shapes[name])}')

    def _shape_of(self, name: str) -> Shape:
        shape = tuple(self._plan.context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise EngineError(
                f'{self._path}: {name} {list(shape)} depends on the data, which is not supported'
            )
        return shape

    def _profile_for(self, shapes: Mapping[str, Shape]) -> int:
        names = [port.spec.name for port in self._inputs()]
        if sorted(shapes) != sorted(names):
            raise EngineError(f'{self._path}: shapes of all inputs are needed: {", ".join(names)}')
        for profile in sorted(range(self.profiles), key=lambda number: number != self._profile):
            if all(_within(shapes[port.spec.name], port, profile) for port in self._inputs()):
                return profile
        raise EngineError(f'{self._path}: {self._misfit(shapes)}')

    def _misfit(self, shapes: Mapping[str, Shape]) -> str:
        for port in self._inputs():
            name = port.spec.name
            if not any(_within(shapes[name], port, p) for p in range(self.profiles)):
                ranges = ', '.join(f'{list(low)} to {list(high)}' for low, _, high in port.ranges)
                return f'input {name!r} is {list(shapes[name])}, its profiles allow {ranges}'
        return f'no profile has all of these shapes together: {dict(shapes)}'


def _within(shape: Shape, port: Port, profile: int) -> bool:
    low, _, high = port.ranges[profile]
    return len(shape) == len(low) and all(
        a <= n <= b for a, n, b in zip(low, shape, high, strict=True)
    )


def _varies(spec: TensorSpec) -> bool:
    return any(size < 0 for size in spec.shape)


def _bytes(port: Port, shape: Shape) -> int:
    count = 1
    for size in memory_shape(shape, port.layout):
        count *= size
    return count * port.spec.dtype.itemsize

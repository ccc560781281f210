"""Power, temperature and clocks of a graphics card, from NVML."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Protocol

from airside_perception.deploy.bench.sensors import INTERVAL_S, Reading, Source
from airside_perception.errors import DeviceError

WATT = 1000.0
GPU_TEMPERATURE, SM_CLOCK, MEMORY_CLOCK = 0, 1, 2
"""NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM."""
REASONS = MappingProxyType(
    {
        0x04: 'power cap', 0x08: 'hardware slowdown', 0x20: 'temperature (software)',
        0x40: 'temperature (hardware)', 0x80: 'power brake',
    }
)  # fmt: skip
"""Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean less than the usual speed."""


class Nvml(Protocol):
    """What is used of the module pynvml."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802  NVML's name, as those below

    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: bytes) -> Any: ...  # noqa: N802

    def nvmlDeviceGetPowerUsage(self, device: Any) -> int: ...  # noqa: N802

    def nvmlDeviceGetTemperature(self, device: Any, sensor: int) -> int: ...  # noqa: N802

    def nvmlDeviceGetUtilizationRates(self, device: Any) -> Any: ...  # noqa: N802

    def nvmlDeviceGetClockInfo(self, device: Any, kind: int) -> int: ...  # noqa: N802

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: Any) -> int: ...  # noqa: N802


class NvmlSource:
    """Reads one graphics card.

    Args:
        module: pynvml.
        bus_id: PCI bus of the card, such as `0000:65:00.0`; empty: the first card.

    Raises:
        NVMLError: of the module: there is no NVML, or no such card.
    """

    name = 'NVML'

    def __init__(self, module: Nvml, bus_id: str = '') -> None:
        self._nvml = module
        self._closed = False
        module.nvmlInit()
        try:
            self._device = (
                module.nvmlDeviceGetHandleByPciBusId(bus_id.encode())
                if bus_id
                else module.nvmlDeviceGetHandleByIndex(0)
            )
        except Exception:
            module.nvmlShutdown()
            raise

    def read(self, stop: threading.Event) -> Reading | None:
        """Waits its interval and asks; what a card does not have is left out."""
        if stop.wait(INTERVAL_S):
            return None
        nvml, device = self._nvml, self._device
        values: dict[str, float] = {}

        def ask(name: str, question: Callable[[], float]) -> None:
            try:
                values[name] = float(question())
            except nvml.NVMLError:
                return

        ask('power_w', lambda: nvml.nvmlDeviceGetPowerUsage(device) / WATT)
        ask('temperature_gpu_c', lambda: nvml.nvmlDeviceGetTemperature(device, GPU_TEMPERATURE))
        ask('gpu_load_pct', lambda: nvml.nvmlDeviceGetUtilizationRates(device).gpu)
        ask('gpu_clock_mhz', lambda: nvml.nvmlDeviceGetClockInfo(device, SM_CLOCK))
        ask('memory_clock_mhz', lambda: nvml.nvmlDeviceGetClockInfo(device, MEMORY_CLOCK))
        try:
            bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)
        except nvml.NVMLError:
            bits = 0
        return Reading(values, tuple(name for bit, name in REASONS.items() if bits & bit))

    def close(self) -> None:
        """Leaves NVML; may be called again."""
        if not self._closed:
            self._closed = True
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()


def open_source() -> Source | None:
    """NVML for the card that CUDA uses, where both are there."""
    try:
        module: Nvml = importlib.import_module('pynvml')
    except ImportError:
        return None
    try:
        return NvmlSource(module, _bus_id())
    except module.NVMLError:
        return None


def _bus_id() -> str:
    """Of the card in use: CUDA and NVML may count them differently."""
    from airside_perception.cuda import runtime

    try:
        device = runtime.call('cuDeviceGet', runtime.current_device().index)
        text = runtime.call('cuDeviceGetPCIBusId', 32, device)
    except DeviceError:
        return ''
    return bytes(text).split(b'\0', 1)[0].decode(errors='replace')

"""GPU, DLA and the software on top of them, against what the parameters ask for."""

from __future__ import annotations

import re

from airside_perception.cuda.runtime import Device
from airside_perception.deploy.doctor.check import OK, PROBLEM, WARNING, Check
from airside_perception.deploy.doctor.host import Host
from airside_perception.deploy.doctor.needs import Needs
from airside_perception.engine.capabilities import ENVIRONMENT, INSTALL, family_of
from airside_perception.errors import DeviceError, EngineError

GIB = 1 << 30
DRIVER = '/proc/driver/nvidia/version'


def look_at_gpu(host: Host, needs: Needs) -> list[Check]:
    """The GPU and its driver; none is needed for networks on the CPU."""
    device, why = _device(host)
    if device is None:
        if not needs.tensorrt:
            return [Check('GPU', OK, 'none, and none is needed: the networks run on the CPU')]
        return [
            Check(
                'GPU',
                PROBLEM,
                f'none, and {", ".join(needs.tensorrt)} need one: {why}',
                'install the NVIDIA driver, or start the container with --gpus all (--runtime '
                'nvidia on a Jetson); without a GPU name a .onnx in engine_path',
            )
        ]
    memory = f'{device.total_memory / GIB:.1f} GiB' + (' (shared)' if device.integrated else '')
    driver = re.search(r'Kernel Module.*?\s(\d+(?:\.\d+)+)\s', host.text(DRIVER))
    version = f'driver {driver[1]} for' if driver else 'driver for'
    found = f'{device.name} ({device.sm}), {memory}, {version} CUDA {device.driver_version}'
    return [Check('GPU', OK, found)]


def look_at_compiler(host: Host, needs: Needs) -> list[Check]:
    """The compiler of CUDA kernels, no newer than the driver."""
    state = PROBLEM if needs.tensorrt else OK
    try:
        major, minor = host.nvrtc()
    except DeviceError as error:
        if state == OK:
            return [Check('NVRTC', OK, 'none, and none is needed without a GPU')]
        return [
            Check(
                'NVRTC',
                state,
                f'CUDA kernels cannot be compiled: {error}',
                'pip install cuda-bindings nvidia-cuda-nvrtc of the CUDA of the driver',
            )
        ]
    found = f'CUDA {major}.{minor}'
    device, _ = _device(host)
    if device is not None:
        driver = device.driver_version
        if major > int(driver.partition('.')[0]):
            return [
                Check(
                    'NVRTC',
                    PROBLEM if needs.tensorrt else WARNING,
                    f'{found}, newer than that of the driver: {driver}',
                    f'nvidia-cuda-nvrtc and cuda-bindings of CUDA {driver}, or a newer driver',
                )
            ]
    return [Check('NVRTC', OK, found)]


def look_at_tensorrt(host: Host, needs: Needs) -> list[Check]:
    """The TensorRT that is used, and what was tried before it."""
    named = host.environment.get(ENVIRONMENT, '')
    try:
        found = host.tensorrt()
    except EngineError as error:
        tried = _listed(str(error))
        if not needs.tensorrt:
            return [
                Check(
                    'TensorRT',
                    OK,
                    'none, and none is needed: the networks are .onnx files',
                    details=tried,
                )
            ]
        return [
            Check(
                'TensorRT',
                PROBLEM,
                f'none, and {", ".join(needs.tensorrt)} need it',
                INSTALL,
                tried,
            )
        ]
    note = f', named by {ENVIRONMENT}' if named else ''
    text = f'{found} ({found.name}{note})'
    wanted = {use.family for use in needs.uses if use.family}
    if wanted - {family_of(found.flavor)}:
        return [
            Check(
                'TensorRT',
                PROBLEM,
                f'{text} runs no engines of {"".join(sorted(wanted))}',
                f'build them again with it, or set {ENVIRONMENT}',
                found.tried,
            )
        ]
    if needs.builders and not found.can.can_build:
        return [
            Check(
                'TensorRT',
                PROBLEM,
                f'{text} builds no engines, and {", ".join(needs.builders)} may have to',
                INSTALL,
                found.tried,
            )
        ]
    return [Check('TensorRT', OK, text, details=found.tried)]


def _listed(text: str) -> tuple[str, ...]:
    """What was tried, in order, out of the error of `load_tensorrt`."""
    inner = text.partition('(')[2].rpartition('): ')[0]
    return tuple(inner.split('; ')) if inner else (text,)


def look_at_dla(host: Host, needs: Needs) -> list[Check]:
    """DLA cores, as TensorRT sees them."""
    wanted = needs.dla_cores
    cores, why = 0, 'there is no GPU beside it'
    if _device(host)[0] is not None:
        try:
            cores, why = host.dla_cores(host.tensorrt()), 'TensorRT sees none'
        except EngineError as error:
            why = str(error)
    if wanted and wanted[-1] >= cores:
        return [
            Check(
                'DLA',
                PROBLEM,
                f'{cores} cores ({why}), the parameters ask for core '
                f'{" and ".join(map(str, wanted))}',
                'in a container: --runtime nvidia; JetPack 6.1 or 6.2 has it on Orin; or '
                'dla_core: -1',
            )
        ]
    return [Check('DLA', OK, f'{cores} cores' if cores else 'no cores, and none are asked for')]


def _device(host: Host) -> tuple[Device | None, str]:
    """The GPU, or why there is none."""
    why = host.no_gpu()
    if why:
        return None, why
    try:
        return host.gpu(), ''
    except DeviceError as error:
        return None, str(error)

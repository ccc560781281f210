"""The board itself: JetPack, power, heat, memory, disks."""

from __future__ import annotations

from airside_perception.deploy.doctor import jetson
from airside_perception.deploy.doctor.check import OK, PROBLEM, WARNING, Check
from airside_perception.deploy.doctor.host import Host
from airside_perception.deploy.doctor.needs import Needs

GIB = 1 << 30
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 2.0, 0.3
"""GiB that are available: a build may fail below the first, a network below the second."""
LITTLE_DISK, TOO_LITTLE_DISK = 2.0, 0.05
SWAP = (
    'sudo fallocate -l 8G /swapfile; sudo chmod 600 /swapfile; sudo mkswap /swapfile; sudo '
    'swapon /swapfile'
)
WARM, HOT = 75.0, 85.0
"""°C; Orin slows down from about the second."""


def look_at_jetson(host: Host, needs: Needs) -> list[Check]:
    """The board and its JetPack."""
    release = jetson.read_release(host)
    if release is None:
        return [Check('JetPack', OK, 'not a Jetson')]
    if release.l4t[0] < 36:
        return [
            Check(
                'JetPack',
                WARNING,
                str(release),
                'its Python 3.8 is too old for this package: JetPack 6.1 or 6.2, or a Python '
                '3.10 of your own without its TensorRT',
            )
        ]
    if (39, 0, 0) <= release.l4t < (39, 2, 2) and needs.dla_cores:
        return [
            Check(
                'JetPack',
                PROBLEM,
                f'{release}: it has no DLA',
                'JetPack 6.1 or 6.2, or 7.2.2 on an AGX Orin',
            )
        ]
    return [Check('JetPack', OK, str(release))]


def look_at_power(host: Host, needs: Needs) -> list[Check]:
    """Power mode and clocks of a Jetson."""
    if jetson.read_release(host) is None:
        return []
    try:
        mode = jetson.power_mode(host.run(('nvpmodel', '-q')))
    except OSError as error:
        return [
            Check('power mode', WARNING, f'nvpmodel does not say: {error}', 'sudo nvpmodel -q')
        ]
    checks = [
        Check(
            'power mode',
            OK if mode else WARNING,
            mode or 'none is set',
            '' if mode else 'sudo nvpmodel -m 0',
        )
    ]
    clock = jetson.gpu_clock(host)
    if clock is None:
        return [*checks, Check('clocks', WARNING, 'the clock of the GPU cannot be read')]
    low, high = (value // 1_000_000 for value in clock)
    if low < high:
        return [
            *checks,
            Check(
                'clocks',
                WARNING,
                f'GPU from {low} to {high} MHz, as load asks',
                'for steady latencies: sudo jetson_clocks',
            ),
        ]
    return [*checks, Check('clocks', OK, f'GPU fixed at {high} MHz')]


def look_at_heat(host: Host, needs: Needs) -> list[Check]:
    """The hottest of the thermal zones."""
    degrees = jetson.hottest(host)
    if degrees is None:
        return []
    state = OK if degrees < WARM else WARNING
    fix = '' if state == OK else f'it slows down from about {HOT:.0f} °C: sudo jetson_clocks --fan'
    return [Check('temperature', state, f'{degrees:.0f} °C at the hottest place', fix)]


def look_at_memory(host: Host, needs: Needs) -> list[Check]:
    """Memory that is left, and swap."""
    sizes = _meminfo(host.text('/proc/meminfo'))
    if 'MemAvailable' not in sizes:
        return [Check('memory', WARNING, '/proc/meminfo does not say')]
    total, free = sizes.get('MemTotal', 0) / GIB, sizes['MemAvailable'] / GIB
    swap, left = sizes.get('SwapTotal', 0) / GIB, sizes.get('SwapFree', 0) / GIB
    found = f'{free:.1f} of {total:.1f} GiB available'
    state = OK
    if free + left < LITTLE_MEMORY:
        state = PROBLEM if free < TOO_LITTLE_MEMORY else WARNING
    fix = '' if state == OK else 'end other programs; a build needs 2 GiB and more'
    checks = [Check('memory', state, found, fix)]
    if swap:
        return [*checks, Check('swap', OK, f'{left:.1f} of {swap:.1f} GiB free')]
    little = jetson.read_release(host) is not None
    return [
        *checks,
        Check(
            'swap',
            WARNING if little else OK,
            'none',
            f'builds of engines may need it: {SWAP}' if little else '',
        ),
    ]


def _meminfo(text: str) -> dict[str, int]:
    """{name: bytes} of /proc/meminfo."""
    found = {}
    for line in text.splitlines():
        words = line.replace(':', ' ').split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1]) * 1024
    return found


def look_at_disk(host: Host, needs: Needs) -> list[Check]:
    """Room for engines, kernels and timings."""
    checks = []
    folders = {use.path.rpartition('/')[0] or '.' for use in needs.uses if use.path}
    for folder in (*sorted(folders), host.cache):
        try:
            free = host.free_disk(folder) / GIB
        except OSError as error:
            checks.append(Check('disk', WARNING, f'{folder}: {error.strerror}'))
            continue
        state = OK if free >= LITTLE_DISK else WARNING
        if free < TOO_LITTLE_DISK:
            state = PROBLEM if needs.builders and folder != host.cache else WARNING
        fix = '' if state == OK else 'make room for engines and timing caches'
        checks.append(Check('disk', state, f'{free:.1f} GiB free at {folder}', fix))
    return checks

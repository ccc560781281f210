"""What a Jetson says of itself: release, power mode, clocks, temperatures."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airside_perception.deploy.doctor.facts import RELEASE
from airside_perception.deploy.doctor.host import Host

MODEL = '/proc/device-tree/model'
GPU_CLOCKS = ('/sys/class/devfreq/17000000.gpu', '/sys/class/devfreq/17000000.ga10b',
              '/sys/class/devfreq/gpu-gpc-0')  # fmt: skip
ZONES = '/sys/class/thermal/thermal_zone*/temp'
JETPACKS = (
    ((39, 2, 2), '7.2.2 or later'), ((39, 2, 0), '7.2'), ((39, 0, 0), '7.x'), ((38, 0, 0), '7.0'),
    ((36, 4, 3), '6.2'), ((36, 4, 0), '6.1'), ((36, 0, 0), '6.0'), ((35, 2, 0), '5.1'),
    ((35, 0, 0), '5.0'),
)  # fmt: skip
"""First release of L4T of each JetPack, newest first."""


@dataclass(frozen=True)
class Release:
    """What is installed on a Jetson.

    Attributes:
        l4t: (major, minor, patch) of the Linux for Tegra.
        jetpack: its JetPack, e.g. `6.2`; empty: not known.
        model: of the board.
    """

    l4t: tuple[int, int, int]
    jetpack: str
    model: str

    def __str__(self) -> str:
        known = f'JetPack {self.jetpack}' if self.jetpack else 'an unknown JetPack'
        return f'{self.model or "Jetson"}, {known} (L4T {".".join(map(str, self.l4t))})'


def read_release(host: Host) -> Release | None:
    """The release of a Jetson; None elsewhere.

    The first line of /etc/nv_tegra_release is `# R36 (release), REVISION: 4.3, GCID: ...`.
    """
    found = re.search(r'R(\d+)[^,]*, REVISION: (\d+)(?:\.(\d+))?', host.text(RELEASE))
    if not found:
        return None
    l4t = (int(found[1]), int(found[2]), int(found[3] or 0))
    jetpack = next((name for first, name in JETPACKS if l4t >= first), '')
    return Release(l4t, jetpack, host.text(MODEL))


def power_mode(text: str) -> str:
    """The mode in what `nvpmodel -q` prints: `NV Power Mode: MODE_30W`; empty: none."""
    found = re.search(r'Power Mode:\s*(\S+)', text)
    return found[1] if found else ''


def power_modes(text: str) -> tuple[str, ...]:
    """All modes in what `nvpmodel -p --verbose` prints: `POWER_MODEL: ID=0 NAME=MAXN`."""
    return tuple(dict.fromkeys(re.findall(r'POWER_MODEL:\s*ID=\d+\s+NAME=(\S+)', text)))


def gpu_clock(host: Host) -> tuple[int, int] | None:
    """(lowest, highest) clock that the GPU may have now, Hz; None: not known.

    Both are equal where `jetson_clocks` has fixed them.
    """
    for folder in GPU_CLOCKS:
        low, high = (host.text(f'{folder}/{name}_freq') for name in ('min', 'max'))
        if low.isdigit() and high.isdigit():
            return int(low), int(high)
    return None


def hottest(host: Host) -> float | None:
    """Highest temperature of the thermal zones, °C; None: there are none.

    Zones that are switched off read 0 or far below.
    """
    readings = [host.text(path) for path in sorted(host.glob(ZONES))]
    degrees = [int(text) / 1000.0 for text in readings if text.lstrip('-').isdigit()]
    usable = [value for value in degrees if 0.0 < value < 150.0]
    return max(usable) if usable else None

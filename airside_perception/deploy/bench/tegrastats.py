"""What `tegrastats` and `nvpmodel` of a Jetson print.

Formats: Jetson Linux Developer Guide, r35 (JetPack 5) and r36 (JetPack 6), 'tegrastats Utility';
lines of both, from AGX Orin, Orin NX and Nano and Xavier NX, are in the tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from contextlib import suppress

from airside_perception.deploy.bench.sensors import INTERVAL_S, Reading, Source
from airside_perception.deploy.doctor import jetson

RAIL = re.compile(r'\b([A-Z][A-Z0-9_]*) (\d+)mW/\d+mW')
"""NAME now/average since the start."""
TEMPERATURE = re.compile(r'\b([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C\b')
GPU = re.compile(r'\bGR3D_FREQ (\d+)%(?:@\[?(\d+))?')
MEMORY = re.compile(r'\bEMC_FREQ (\d+)%(?:@(\d+))?')
DLA = re.compile(r'\bNVDLA(\d)(?:_FREQ)? (?:(\d+)%)?@(\d+)')
RAM = re.compile(r'\bRAM (\d+)/(\d+)MB')
WHOLE = ('VDD_IN',)
"""Rails that feed the whole module (Orin NX and Nano, Xavier NX)."""
PARTS = (
    ('VDD_GPU_SOC', 'VDD_CPU_CV', 'VIN_SYS_5V0'),  # AGX Orin
    ('VDD_GPU', 'VDD_CPU_SOC_MSS', 'VIN_SYS_5V0'),  # AGX Thor
)
"""Rails that make up a module together. VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0."""
OFF_C = -200.0
"""A sensor whose part has no power says -256 degrees."""
WATT = 1000.0
TIMEOUT_S = 2.0


def parse_line(line: str) -> Reading:
    """A line of tegrastats; what it does not have is left out.

    Power is the present one, in watts, not the average since tegrastats began: of every rail as
    `power_RAIL_w`, of the module as `power_w`.
    """
    values: dict[str, float] = {}
    rails = {name: int(now) / WATT for name, now in RAIL.findall(line) if name != 'NC'}
    total = _total(rails)
    if total is not None:
        values['power_w'] = total
    values.update({f'power_{name.lower()}_w': watts for name, watts in rails.items()})
    for name, degrees in TEMPERATURE.findall(line):
        if float(degrees) > OFF_C:
            values[f'temperature_{name.lower()}_c'] = float(degrees)
    for pattern, part in ((GPU, 'gpu'), (MEMORY, 'memory')):
        found = pattern.search(line)
        if found:
            values[f'{part}_load_pct'] = float(found.group(1))
            if found.group(2):
                values[f'{part}_clock_mhz'] = float(found.group(2))
    for core, load, clock in DLA.findall(line):
        if load:
            values[f'dla{core}_load_pct'] = float(load)
        values[f'dla{core}_clock_mhz'] = float(clock)
    ram = RAM.search(line)
    if ram:
        values['ram_mb'] = float(ram.group(1))
    return Reading(values)


def _total(rails: dict[str, float]) -> float | None:
    for name in WHOLE:
        if name in rails:
            return rails[name]
    for names in PARTS:
        if all(name in rails for name in names):
            return sum(rails[name] for name in names)
    return None


def power_mode() -> str:
    """The power mode of this Jetson; empty: not known, or no Jetson."""
    program = shutil.which('nvpmodel')
    if program is None:
        return ''
    try:
        done = subprocess.run(
            [program, '-q'], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ''
    return jetson.power_mode(done.stdout)


class Tegrastats:
    """The program, running until it is closed."""

    name = 'tegrastats'

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [program, '--interval', str(round(INTERVAL_S * 1000))],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def read(self, stop: threading.Event) -> Reading | None:
        """The next line."""
        line = self._process.stdout.readline() if self._process.stdout else ''
        return parse_line(line) if line else None

    def close(self) -> None:
        """Ends the program; may be called again."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def open_source() -> Source | None:
    """Tegrastats, where it is installed and starts."""
    program = shutil.which('tegrastats')
    if program is not None:
        with suppress(OSError):
            return Tegrastats(program)
    return None

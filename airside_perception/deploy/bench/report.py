"""What was timed, as text."""

from __future__ import annotations

from airside_perception.deploy.bench.figures import Figures
from airside_perception.deploy.bench.run import Bench, Timing
from airside_perception.deploy.bench.sensors import SensorSummary

COLUMNS = ('p50', 'p90', 'p95', 'p99', 'min', 'max', 'mean')
UNITS = {'w': 'W', 'c': 'C', 'pct': '%', 'mhz': 'MHz', 'mb': 'MB'}


def describe(found: Bench) -> str:
    """A run as text: each network with its figures, the ratios, the sensors."""
    parts = ['\n'.join(_timing_lines(timing, found)) for timing in found.timings]
    if len(found.timings) > 1:
        parts.append('\n'.join(_ratio_lines(found)))
    if found.sensors.samples or found.sensors.power_mode:
        parts.append('\n'.join(_sensor_lines(found.sensors)))
    return '\n\n'.join(parts)


def _timing_lines(timing: Timing, found: Bench) -> list[str]:
    ways = [f'{timing.streams} stream' + ('s' if timing.streams > 1 else '')]
    if timing.enqueue:
        ways.append('with transfers' if timing.transfers else 'without transfers')
        ways.append('CUDA graph' if timing.cuda_graph else 'no CUDA graph')
    lines = [
        timing.path,
        f'  runs on     {timing.runs_on}',
        *(f'  input       {item}, {found.data}' for item in timing.inputs),
        f'  throughput  {timing.throughput:.2f} inferences/s: {timing.runs} in '
        f'{timing.seconds:.2f} s, {", ".join(ways)}',
        f'  {"ms":11}{"".join(f"{name:>10}" for name in COLUMNS)}',
    ]
    rows = {
        'latency': timing.latency,
        'enqueue': timing.enqueue,
        'H2D': timing.h2d,
        'GPU compute': timing.compute,
        'D2H': timing.d2h,
    }
    lines += [_row(name, row) for name, row in rows.items() if row is not None]
    if timing.joules is not None:
        lines.append(f'  energy      {timing.joules:.4f} J for one inference')
    return [*lines, *(f'  note        {note}' for note in timing.notes)]


def _row(name: str, figures: Figures) -> str:
    return f'  {name:11}' + ''.join(f'{getattr(figures, column):10.3f}' for column in COLUMNS)


def _ratio_lines(found: Bench) -> list[str]:
    first = found.timings[0]
    width = max(len(timing.path) for timing in found.timings)
    lines = [
        f'in turns of {found.settings.turn_ms:g} ms, {found.rounds} rounds; x: by '
        f'{first.path}; in brackets the quartiles over the rounds',
        f'  {"":{width}}{"p50 ms":>10}{"x":>8}{"":18}{"per second":>12}{"x":>8}',
    ]
    for timing in found.timings:
        line = f'  {timing.path:{width}}{timing.latency.p50:10.3f}'
        ratio = timing.ratio
        if ratio is None:
            lines.append(f'{line}{1:8.3f}{"":18}{timing.throughput:12.2f}{1:8.3f}')
            continue
        between = f'[{ratio.low:.3f} - {ratio.high:.3f}]'
        lines.append(
            f'{line}{ratio.latency:8.3f} {between:17}{timing.throughput:12.2f}'
            f'{ratio.throughput:8.3f}'
        )
    return lines


def _sensor_lines(sensors: SensorSummary) -> list[str]:
    mode = f', power mode {sensors.power_mode}' if sensors.power_mode else ''
    lines = [f'{sensors.source}, {sensors.samples} readings{mode}']
    if sensors.values:
        lines.append(f'  {"":30}{"mean":>10}{"min":>10}{"max":>10}')
    for name, spread in sensors.values.items():
        words, _, unit = name.rpartition('_')
        text = f'{words.replace("_", " ")} ({UNITS.get(unit, unit)})'
        lines.append(f'  {text:30}{spread.mean:10.2f}{spread.min:10.2f}{spread.max:10.2f}')
    for reason, share in sensors.slowed.items():
        lines.append(f'  clocks were lowered in {100 * share:.0f} % of the readings: {reason}')
    return lines

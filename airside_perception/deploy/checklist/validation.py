"""Validation: the same results, heat, power, latency, and opening after a restart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airside_perception.deploy.checklist.deployment import Deployment
from airside_perception.deploy.checklist.evidence import BENCH, comparisons_of, timings_of
from airside_perception.deploy.checklist.outcome import (
    Outcome,
    failed,
    passed,
    together,
    unknown,
)
from airside_perception.deploy.doctor import jetson
from airside_perception.engine.manifest import Manifest

HOT_C = 85.0
"""Orin slows down from about here."""
LONG_S = 600.0
"""A run that is long enough to get warm."""
OPENINGS = 2
PATIENCE_S = 300.0


def golden(found: Deployment) -> Outcome:
    """Every engine gives what its network gives on ONNX Runtime."""

    def look(path: Path, manifest: Manifest) -> Outcome:
        network = manifest.onnx_path(path)
        command = f'engine compare {network} {path} --data APRON --json > {path}.compare.json'
        for item in comparisons_of(found.evidence, path):
            said = item.content
            worst = min((row.get('cosine', 1.0) for row in said['outputs']), default=1.0)
            line = (
                f'{path.name}: against {said["a"]} on {said["source"]}, least cosine {worst:.6f} '
                f'({item.path.name})'
            )
            if not said['good']:
                return failed(f'{path.name}: differs from its network beyond the tolerance',
                              command.replace(' --json', ' --layers --json'), line)  # fmt: skip
            return passed(line)
        return unknown(f'{path.name}: no comparison that is newer than it', command)

    return together(
        (look(path, manifest) for path, manifest in found.manifests()),
        unknown(found.no_engines or 'no engine has a manifest',
                'engine compare NETWORK.onnx ENGINE --data APRON --json > ENGINE.compare.json'),
    )  # fmt: skip


def heat(found: Deployment) -> Outcome:
    """A long run under full load, below the temperature at which clocks go down."""
    command = f'on the vehicle: engine bench ENGINE --duration {LONG_S:.0f} --json > heat.json'
    best: Outcome | None = None
    for item in found.evidence:
        if item.kind != BENCH:
            continue
        sensors = item.content['sensors']
        hottest = _hottest(sensors)
        seconds = sum(float(timing['seconds']) for timing in item.content['timings'])
        if hottest is None or seconds < LONG_S:
            continue
        line = f'{item.path.name}: {seconds:.0f} s, {hottest:.0f} °C at most ({sensors["source"]})'
        slowed = {why: share for why, share in sensors.get('slowed', {}).items() if share > 0.0}
        if hottest >= HOT_C or slowed:
            why = ', '.join(slowed) or f'{hottest:.0f} °C'
            return failed(f'it slows down under load: {why}', 'sudo nvpmodel -m MODE', line)
        best = passed(line)
    if best is not None:
        return best
    here = jetson.hottest(found.host)
    now = () if here is None else (f'now, at rest or not: {here:.0f} °C',)
    return unknown(f'no measurement of {LONG_S:.0f} s with temperatures', command, *now)


def _hottest(sensors: Any) -> float | None:
    found = [
        float(spread['max'])
        for name, spread in sensors.get('values', {}).items()
        if name.startswith('temperature') and name.endswith('_c')
    ]
    return max(found) if found else None


def power(found: Deployment) -> Outcome:
    """The power was measured in every mode that the vehicle has."""
    measured = {}
    for item in found.evidence:
        if item.kind == BENCH and item.content['sensors'].get('power_mode'):
            sensors = item.content['sensors']
            watts = sensors['values'].get('power_w', {}).get('mean')
            if watts is not None:
                measured[sensors['power_mode']] = (
                    f'{sensors["power_mode"]}: {watts:.1f} W ({item.path.name})'
                )
    command = (
        'on the vehicle, for each MODE: sudo nvpmodel -m MODE; engine bench ENGINE --duration 60 '
        '--json > power.MODE.json'
    )
    lines = tuple(measured.values())
    try:
        modes = jetson.power_modes(found.host.run(('nvpmodel', '-p', '--verbose')))
    except OSError:
        modes = ()
    if not modes:
        return unknown('this machine has no power modes (nvpmodel)', command, *lines)
    missing = [mode for mode in modes if mode not in measured]
    if missing:
        return unknown(f'not measured in {", ".join(missing)}', command, *lines)
    return passed(*lines)


def latency(found: Deployment) -> Outcome:
    """The slowest of a hundred runs of each engine is within what safety allows."""
    command = 'engine bench ENGINE --duration 60 --json > ENGINE.bench.json; engine checklist ' \
              '--budget-ms 50'  # fmt: skip

    def look(path: Path) -> Outcome:
        for item, timing in timings_of(found.evidence, path):
            p99 = float(timing['latency']['p99'])
            line = f'{path.name}: p99 {p99:.2f} ms of {timing["runs"]} runs ({item.path.name})'
            if found.budget_ms <= 0.0:
                return unknown('nobody has said what is allowed (--budget-ms)', command, line)
            if p99 > found.budget_ms:
                return failed(
                    f'{path.name}: {p99:.2f} ms, allowed {found.budget_ms:g} ms',
                    f'engine profile {path}',
                    line,
                )
            return passed(line)
        return unknown(f'{path.name}: not measured since it was built', command)

    return together(
        (look(path) for path, _ in found.manifests()),
        unknown(found.no_engines or 'no engine has a manifest', command),
    )


def reopening(found: Deployment) -> Outcome:
    """Every engine opens and runs in a fresh process, twice, as after the power came back."""
    command = 'on the vehicle, after switching it off and on: engine checklist'
    if found.no_engines:
        return unknown(found.no_engines, command)
    why = found.host.no_gpu()
    if why:
        return unknown(f'engines open on a GPU only: {why}', command)

    def look(path: Path) -> Outcome:
        for turn in range(OPENINGS):
            problem = found.reopen(path)
            if problem:
                return failed(f'{path.name}: opening {turn + 1} of {OPENINGS}: {problem}',
                              f'engine inspect {path}')  # fmt: skip
        return passed(f'{path.name}: opened and ran in {OPENINGS} fresh processes')

    return together(map(look, [engine.path for engine in found.engines]), unknown('-', command))


def reopen(path: Path, run: Callable[..., Any] = subprocess.run) -> str:
    """Opens and runs an engine in a process of its own; empty, or why it does not."""
    words = [sys.executable, '-m', 'airside_perception.deploy', 'inspect', str(path), '--json']
    try:
        done = run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode not in (0, 1) or not done.stdout:
            return done.stderr.strip() or f'exit status {done.returncode}'
        said = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f'{type(error).__name__}: {error}'
    return str(said.get('not_opened', ''))

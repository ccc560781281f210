"""`python -m benchmarks.simulator`: rig frames a second, and where the time goes.

A rig frame is that of config/rig.yaml: four pictures of 640 x 384, a turn of 64 beams under
motion, and the ground truth with visibility. Three ways take turns: two processes, as the command
starts on two cores; two threads, as in short drives; and the plain one, which casts every ray and
runs one sensor after another. Frames a second are those after the first ones. Beside them stands
the time that the processors spent, which a busy machine stretches less. Every run of a way must
give the same bytes, those of processes and threads each other's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np

from airside_perception.resources import resource
from airside_perception.sim import pixels, processes
from airside_perception.sim.apron import apron
from airside_perception.sim.camera import Light, look, take
from airside_perception.sim.caster import Open3DCaster
from airside_perception.sim.conditions import Conditions, conditions
from airside_perception.sim.frames import EVERY, RATE, WORKERS, Frame, drive
from airside_perception.sim.lidar import rays
from airside_perception.sim.outline import Covered, cells, covered
from airside_perception.sim.rig import Rig, load_rig
from airside_perception.sim.rolling import spin
from airside_perception.sim.shade import Lighting
from airside_perception.sim.truth import towards

GOAL = 5.0
"""Frames a second that the simulator should reach on two cores."""
PROCESSES = 2
SEED = 46
"""Of the stand that the table of skies is of: a full one."""
STANDS = range(46, 51)
"""Seeds of stands, compared by day."""
SKIES: dict[str, Conditions] = {
    'day, clear': Conditions(),
    'dusk, clear': conditions(1, 'dusk', 'clear'),
    'day, fog': conditions(1, 'day', 'fog'),
    'night, clear': conditions(1, 'night', 'clear'),
    'night, rain': conditions(1, 'night', 'rain'),
}


def digest(frames: list[Frame]) -> str:
    """SHA-256 of all pictures, points and truths."""
    found = hashlib.sha256()
    for frame in frames:
        for image in frame.images.values():
            found.update(image.data.tobytes())
        found.update(frame.cloud.points.tobytes())
        found.update(frame.details.encode())
    return found.hexdigest()


def timed(work: Callable[[], object]) -> float:
    """Seconds of this process's processors."""
    cpu = time.process_time()
    work()
    return time.process_time() - cpu


@dataclass(frozen=True)
class Pace:
    """How fast a way made frames.

    Attributes:
        first_s: until the first frame, which includes the start of processes.
        frame_s: of each later one.
        cpu_s: of this process's processors, a frame.
        bytes: digest of the frames.
    """

    first_s: float
    frame_s: float
    cpu_s: float
    bytes: str


def pace(made: Iterator[Frame], at_once: int) -> Pace:
    """Of a way that has `at_once` frames at work at a time: they come at about the same moment."""
    begin, cpu = time.perf_counter(), time.process_time()
    frames, moments = [], []
    for frame in made:
        frames.append(frame)
        moments.append(time.perf_counter())
    cpu = time.process_time() - cpu
    each = (moments[-1] - moments[at_once - 1]) / (len(frames) - at_once)
    return Pace(moments[0] - begin, each, cpu / len(frames), digest(frames))


def side_by_side(rig: Rig, sky: Conditions, seconds: float) -> Pace:
    """What the command does: a process a frame."""
    made = processes.drive(apron(SEED), rig, seconds, 1, sky, PROCESSES)
    return pace(made, PROCESSES)


def threads(rig: Rig, sky: Conditions, seconds: float) -> Pace:
    """What short drives do: threads of one process."""
    return pace(drive(apron(SEED), rig, seconds, 1, sky), 1)


def plain(rig: Rig, sky: Conditions, seconds: float) -> Pace:
    """Every ray, one sensor after another."""
    with (
        mock.patch.object(pixels, 'SMALLEST', 1 << 30),
        mock.patch('airside_perception.sim.frames.covered', Covered.everywhere),
        mock.patch('airside_perception.sim.rolling.covered', Covered.everywhere),
    ):
        return pace(drive(apron(SEED), rig, seconds, 1, sky, Open3DCaster, 1), 1)


WAYS = {'processes': side_by_side, 'threads': threads, 'plain': plain}


def compare(rig: Rig, frames: int, rounds: int) -> bool:
    """Prints a line for each sky; whether the goal is met in all."""
    print(f'{"frames/s":<14}' + ''.join(f'{way:>12}' for way in WAYS), end='')
    print(f'{"ratio":>8}   processor time, threads against plain')
    met = True
    for name, sky in SKIES.items():
        paces: dict[str, list[Pace]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, make in WAYS.items():
                paces[way].append(make(rig, sky, frames / RATE))
        rate = {way: 1 / min(found.frame_s for found in paces[way]) for way in WAYS}
        cpu = {way: 1e3 * min(found.cpu_s for found in paces[way]) for way in WAYS}
        ours = {found.bytes for way in ('processes', 'threads') for found in paces[way]}
        repeats = len(ours) == 1 == len({found.bytes for found in paces['plain']})
        met &= rate['processes'] >= GOAL and repeats
        print(
            f'{name:<14}' + ''.join(f'{rate[way]:>12.2f}' for way in WAYS) +
            f'{rate["processes"] / rate["plain"]:>7.1f}x   {cpu["threads"]:.0f} ms against '
            f'{cpu["plain"]:.0f} ms, {cpu["plain"] / cpu["threads"]:.1f}x; '
            f'{"bytes repeat" if repeats else "BYTES DIFFER"}; first frame of processes after '
            f'{min(found.first_s for found in paces["processes"]):.1f} s',
            flush=True,
        )  # fmt: skip
    return met


def stands(rig: Rig, frames: int, rounds: int) -> None:
    """Prints what processes make of other stands on a clear day."""
    print(f'\n{"stand, day, clear":<20}{"objects":>9}{"triangles":>11}{"frames/s":>10}')
    for seed in STANDS:
        world, scene = apron(seed), apron(seed).at(0.3)
        paces = [
            pace(processes.drive(world, rig, frames / RATE, 1, None, PROCESSES), PROCESSES)
            for _ in range(rounds)
        ]
        rate = 1 / min(found.frame_s for found in paces)
        print(
            f'seed {seed:<15}{len(scene.objects):>9}{len(scene.triangles):>11}{rate:>10.2f}',
            flush=True,
        )


def stages(rig: Rig, rounds: int) -> None:
    """Prints processor time of the stages of one frame, one after another on one thread."""
    scenario = apron(SEED)
    scene = scenario.at(0.3)
    caster = Open3DCaster(scene.triangles, 1)
    lens = rig.lenses['front']
    view = look(lens)
    beams = rays(rig.spec)[: rig.spec.azimuths // 2 * len(rig.spec.elevations)]
    some = view.reshape(lens.model.height, lens.model.width, 3)[::EVERY, ::EVERY].reshape(-1, 3)
    shape = (lens.model.height, lens.model.width)
    roll = partial(
        spin, rig.spec, scenario, scene, 0.3, caster, partial(Open3DCaster, threads=1),
        rig.lidar2base,
    )  # fmt: skip
    origin = lens.camera2base[:3, 3]
    seen, beneath = covered(scene, origin), covered(scene, rig.lidar2base[:3, 3])
    near = seen.anything.take(cells(view))
    asked, asked_beams = seen.objects.take(cells(some)), beneath.objects.take(cells(beams))

    def tree() -> None:
        Open3DCaster(scene.triangles, 1).cast(np.zeros(3), np.ones((1, 3), np.float32))

    print(f'\n{"stage, processor time":<46}{"ms":>8}{"a frame":>10}')
    for name, sky in (('day, clear', SKIES['day, clear']), ('night, rain', SKIES['night, rain'])):
        lighting = Lighting.of(scene, Light(), sky)
        rng = np.random.default_rng
        rows: list[tuple[str, int, Callable[[], object]]] = [
            ('scene of the moment', 1, lambda: scenario.at(0.3)),
            ('the ray-caster', 1, tree),
            ('lighting shared by the cameras', 1, partial(Lighting.of, scene, Light(), sky)),
            ('what rays may meet, of a sensor', 6, partial(covered, scene, origin)),
            ('a turn of the lidar', 1, partial(roll, rng(0), sky)),
            (
                'a picture: first hits', 4,
                partial(pixels.first_hits, scene, caster, origin, view, shape, near=near),
            ),
            (
                'a picture: all of it', 4,
                partial(take, lens, scene, caster, lighting, rng(0), view, rng(1), near),
            ),
            (
                'truth: lidar', 1,
                partial(towards, scene, caster, rig.lidar2base[:3, 3], beams, asked_beams),
            ),
            ('truth: a camera', 4, partial(towards, scene, caster, origin, some, asked)),
        ]  # fmt: skip
        for stage, times, work in rows:
            cost = statistics.median(timed(work) for _ in range(rounds + 1))
            print(f'{name + ": " + stage:<46}{1e3 * cost:>8.1f}{"x " + str(times):>10}')


def main() -> int:
    """The command line; 1 where the goal is missed or bytes differ."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.simulator', description=__doc__)
    parser.add_argument('--frames', type=int, default=20, help='of each run; default: 20')
    parser.add_argument('--rounds', type=int, default=3, help='runs of each way; default: 3')
    given = parser.parse_args()
    rig = load_rig(resource('config', 'rig.yaml'))
    print(
        f'{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python '
        f'{platform.python_version()}, NumPy {np.__version__}; {PROCESSES} processes, {WORKERS} '
        f'threads; best of {given.rounds} runs of {given.frames} frames; goal {GOAL:g} frames/s\n'
    )
    met = compare(rig, given.frames, given.rounds)
    stands(rig, given.frames, given.rounds)
    stages(rig, given.rounds)
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())

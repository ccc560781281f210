"""`python -m benchmarks.sim_statistics`: the simulated HDL-64 beside a real one.

Streets of many seeds, seen by the preset `hdl64`, and the scans of a folder of KITTI's (--data).
The same code looks at both: points by ring, range and incidence, firings without a point, single
gaps, intensities. Prints how much of each histogram lies elsewhere (half the sum of the
differences: 0 alike, 1 apart) and writes a report, one HTML file. That streets differ is part of
every figure: to judge it, the first half of the real scans is also set against the second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from airside_perception.geometry import transform
from airside_perception.html import page, paragraph, section, table
from airside_perception.sim.caster import Open3DCaster
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.lidar import PRESETS, scan
from airside_perception.sim.street import street

Floats = NDArray[np.float64]

RINGS, FIRINGS = 64, 2083
HEIGHT = 1.73
"""Of KITTI's sensor above the ground, metres."""
RANGES, COSINES = np.arange(0, 105, 5.0), np.linspace(0, 1, 11)
INTENSITIES = np.linspace(0, 1.0001, 21)
ALIKE = 0.3
"""Metres by which the neighbours of a gap may differ for it to count as a loss."""
DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'drive' / 'velodyne'
NAMES = {
    'ring': ('Points by ring', 'ring, top first', 'share of points'),
    'range': ('Points by range', 'metres, bins of 5', 'share of points'),
    'incidence': (
        'Points by incidence',
        'cosine between beam and surface normal, from neighbouring points',
        'share of points',
    ),
    'intensity': ('Intensity', 'reported intensity, bins of 0.05', 'share of points'),
}
STYLE = """
.chart text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.chart .real { fill: #5d6878; } .chart .sim { fill: #2b8fbf; }
.chart line { stroke: var(--line); }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 .9em; }
"""


@dataclass(frozen=True)
class Statistics:
    """What some scans of one kind show.

    Attributes:
        scans: how many; points: a scan.
        shares: histograms of `NAMES`, each adds up to 1.
        empty: float64 [RINGS], share of firings without a point.
        gaps: share of firings that are lost between two neighbours of the same range.
        zero: share of points with an intensity below 0.01.
        brightness: float64 [len(RANGES) - 1], mean intensity by range, NaN: no points.
    """

    scans: int
    points: float
    shares: dict[str, Floats]
    empty: Floats
    gaps: float
    zero: float
    brightness: Floats


def rings_of(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rings [N] of a scan that holds one ring after another, each starting straight ahead."""
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    ahead = (azimuth[1:] >= 0) & (azimuth[:-1] < 0) & (np.abs(azimuth[1:]) < 1.5)
    return np.minimum(np.concatenate([[0], np.cumsum(ahead)]), RINGS - 1)


def image_of(points: NDArray[np.float32], ring: NDArray[np.int64]) -> NDArray[np.float32]:
    """Range image float32 [RINGS, FIRINGS, 3] of points, NaN where there is none.

    Firings of every ring have a phase of their own: bins are laid around them, not between.
    """
    place = (np.arctan2(points[:, 1], points[:, 0]) + np.pi) * (FIRINGS / (2 * np.pi))
    wave = np.exp(2j * np.pi * place)
    phase = np.zeros(RINGS, complex)
    np.add.at(phase, ring, wave)
    column = np.rint(place - (np.angle(phase) / (2 * np.pi))[ring]).astype(int) % FIRINGS
    found = np.full((RINGS, FIRINGS, 3), np.nan, np.float32)
    found[ring, column] = points[:, :3]
    return found


def incidence(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines between beams and normals, where the four neighbours belong to one surface."""
    across = np.roll(image, -1, axis=1) - np.roll(image, 1, axis=1)
    along = np.full_like(image, np.nan)
    along[1:-1] = image[2:] - image[:-2]
    normal = np.cross(across, along)
    length = np.linalg.norm(normal, axis=2)
    reach = np.linalg.norm(image, axis=2)
    with np.errstate(divide='ignore', invalid='ignore'):
        cosine = np.abs((normal * image).sum(axis=2)) / (length * reach)
        near = np.linalg.norm(across, axis=2) < 0.05 * reach + 0.1
        near &= np.linalg.norm(along, axis=2) < 0.25 * reach + 0.3
    return cosine[near & np.isfinite(cosine)]


def gaps(image: NDArray[np.float32]) -> tuple[int, int]:
    """Firings that are missing between neighbours of one range, and how many such pairs exist."""
    reach = np.linalg.norm(image, axis=2)
    before, after = np.roll(reach, 1, axis=1), np.roll(reach, -1, axis=1)
    with np.errstate(invalid='ignore'):
        alike = np.abs(before - after) < ALIKE
    return int((alike & np.isnan(reach)).sum()), int(alike.sum())


def look_at(
    scans: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> Statistics:
    """The statistics of scans: points [N, 4] and rings [N] each."""
    cosines, lost, pairs = [], 0, 0
    empty = np.zeros(RINGS)
    for points, ring in scans:
        image = image_of(points, ring)
        cosines.append(incidence(image))
        missing, all_pairs = gaps(image)
        lost, pairs = lost + missing, pairs + all_pairs
        empty += 1 - np.bincount(ring, minlength=RINGS) / FIRINGS
    points = np.concatenate([item for item, _ in scans]).astype(np.float64)
    ring = np.concatenate([item for _, item in scans])
    reach = np.linalg.norm(points[:, :3], axis=1)
    band = np.digitize(reach, RANGES) - 1
    bright = np.full(len(RANGES) - 1, np.nan)
    for number in range(len(bright)):
        mine = band == number
        if mine.sum() >= 50:
            bright[number] = points[mine, 3].mean()
    return Statistics(
        len(scans),
        len(points) / len(scans),
        {
            'ring': np.bincount(ring, minlength=RINGS) / len(ring),
            'range': np.histogram(reach, RANGES)[0] / len(reach),
            'incidence': _share(np.concatenate(cosines), COSINES),
            'intensity': _share(points[:, 3], INTENSITIES),
        },
        empty / len(scans),
        lost / max(pairs, 1),
        float(np.mean(points[:, 3] < 0.01)),
        bright,
    )


def _share(values: NDArray[np.floating], edges: Floats) -> Floats:
    counts = np.histogram(values, edges)[0]
    return counts / max(counts.sum(), 1)


def apart(one: Floats, other: Floats) -> float:
    """Half the sum of differences of two histograms that add up to 1 each."""
    return float(np.abs(one - other).sum() / 2)


def simulated(seeds: Sequence[int]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """A scan of a street of each seed, in clear weather."""
    mount = transform(np.eye(3), np.array([0.0, 0.0, HEIGHT]))
    found = []
    for seed in seeds:
        scene = street(seed).at(0.5)
        sweep = scan(
            PRESETS['hdl64'], scene, Open3DCaster(scene.triangles), mount,
            np.random.default_rng(seed), Conditions(),
        )  # fmt: skip
        found.append((sweep.points, sweep.ring.astype(np.int64)))
    return found


def real(paths: Sequence[Path]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """KITTI's scans."""
    scans = [np.fromfile(path, np.float32).reshape(-1, 4) for path in paths]
    return [(points, rings_of(points)) for points in scans]


def rows(
    sim: Statistics, truth: Statistics, halves: tuple[Statistics, Statistics]
) -> list[tuple[str, ...]]:
    """Lines of the table: name, real, simulated, how far apart, and real from real."""
    lines = [
        ('points a scan', f'{truth.points:,.0f}', f'{sim.points:,.0f}', '', ''),
        ('single gaps', f'{truth.gaps:.2%}', f'{sim.gaps:.2%}', '', ''),
        ('intensity below 0.01', f'{truth.zero:.1%}', f'{sim.zero:.1%}', '', ''),
        (
            'firings without a point',
            f'{truth.empty.mean():.1%}', f'{sim.empty.mean():.1%}',
            f'{np.abs(truth.empty - sim.empty).mean():.3f}',
            f'{np.abs(halves[0].empty - halves[1].empty).mean():.3f}',
        ),
    ]  # fmt: skip
    for key, (title, _, _) in NAMES.items():
        lines.append(
            (
                title.lower(), '', '',
                f'{apart(sim.shares[key], truth.shares[key]):.3f}',
                f'{apart(halves[0].shares[key], halves[1].shares[key]):.3f}',
            )
        )  # fmt: skip
    return lines


def chart(truth: Floats, sim: Floats, ticks: Sequence[str], below: str, left: str) -> str:
    """Bars of real beside simulated values, as inline SVG."""
    width, height, x0, y0 = 880, 220, 60, 28
    highest = float(np.nanmax([np.nanmax(truth), np.nanmax(sim), 1e-9]))
    step = (width - x0 - 8) / len(truth)
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = y0 + height * (1 - share)
        parts.append(f'<line x1="{x0}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f'{highest * share:.3f}' if highest < 0.2 else f'{highest * share:.2f}'
        parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for number, pair in enumerate(zip(truth, sim, strict=True)):
        for place, (value, kind) in enumerate(zip(pair, ('real', 'sim'), strict=True)):
            if not np.isfinite(value):
                continue
            # a real ring may hold a few more points than firings are counted for a turn
            tall = height * max(float(value), 0.0) / highest
            x = x0 + step * (number + 0.08 + 0.42 * place)
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y0 + height - tall:.1f}" '
                f'width="{0.42 * step:.1f}" height="{tall:.1f}">'
                f'<title>{escape(ticks[number])}: {value:.4f}</title></rect>'
            )
    every = max(1, len(truth) // 12)
    for number in range(0, len(truth), every):
        x = x0 + step * (number + 0.5)
        parts.append(
            f'<text x="{x:.1f}" y="{y0 + height + 18}" text-anchor="middle">'
            f'{escape(ticks[number])}</text>'
        )
    middle = x0 + (width - x0) / 2
    parts.append(
        f'<text x="{middle}" y="{y0 + height + 40}" text-anchor="middle">{escape(below)}</text>'
        f'<text x="{x0 - 6}" y="14">{escape(left)}</text>'
    )
    return f'<svg class="chart" viewBox="0 0 {width} {height + y0 + 44}">{"".join(parts)}</svg>'


def report(
    sim: Statistics, truth: Statistics, halves: tuple[Statistics, Statistics], source: str
) -> str:
    """The page."""
    head = ['', 'real', 'simulated', 'apart', 'real halves apart']
    ticks = {
        'ring': [str(n) for n in range(RINGS)],
        'range': [f'{low:.0f}' for low in RANGES[:-1]],
        'incidence': [f'{low:.1f}' for low in COSINES[:-1]],
        'intensity': [f'{low:.2f}' for low in INTENSITIES[:-1]],
    }
    key = '<p><span class="key" style="background:#5d6878"></span>real'
    key += '<span class="key" style="background:#2b8fbf"></span>simulated</p>'
    parts = [
        section(
            'In figures',
            table(head, [[escape(c) for c in line] for line in rows(sim, truth, halves)],
                  (1, 2, 3, 4)),
            paragraph(
                'Apart is half the sum of the differences of two histograms: 0 where they are '
                'alike, 1 where nothing is shared. The last column sets the first half of the '
                'real scans against the second: streets themselves differ by so much at least. '
                'A drive of a few seconds is one street: two streets differ by more. What the '
                'model lacks shows in the lowest rings: the real vehicle stands in its own way.',
                'soft',
            ),
        )
    ]  # fmt: skip
    for name, (title, below, left) in NAMES.items():
        drawn = chart(truth.shares[name], sim.shares[name], ticks[name], below, left)
        parts.append(section(title, key, drawn))
    parts.append(
        section(
            'Firings without a point, by ring', key,
            chart(truth.empty, sim.empty, ticks['ring'], 'ring, top first', 'share of firings'),
        )
    )  # fmt: skip
    parts.append(
        section(
            'Intensity by range', key,
            chart(truth.brightness, sim.brightness, ticks['range'], 'metres', 'mean intensity'),
        )
    )  # fmt: skip
    note = f'{truth.scans} scans of {source}; {sim.scans} simulated streets, preset hdl64'
    return page('Simulated and real HDL-64', parts, note, STYLE)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.sim_statistics', description=__doc__
    )
    parser.add_argument('--data', type=Path, default=DATA, help='folder of .bin scans')
    parser.add_argument('--streets', type=int, default=30, help='simulated; default: 30')
    parser.add_argument('--html', type=Path, default=Path('build/sim_statistics.html'))
    given = parser.parse_args(arguments)
    paths = sorted(given.data.glob('*.bin'))
    if len(paths) < 2:
        print(f'error: {given.data} holds {len(paths)} scans, expected 2 or more', file=sys.stderr)
        return 2
    scans = real(paths)
    truth, sim = look_at(scans), look_at(simulated(range(given.streets)))
    halves = look_at(scans[: len(scans) // 2]), look_at(scans[len(scans) // 2 :])
    print(f'{"":<26}{"real":>12}{"simulated":>12}{"apart":>8}{"real halves apart":>20}')
    for name, *cells in rows(sim, truth, halves):
        print(f'{name:<26}{cells[0]:>12}{cells[1]:>12}{cells[2]:>8}{cells[3]:>20}')
    given.html.parent.mkdir(parents=True, exist_ok=True)
    source = f'{given.data.parent.name}/{given.data.name}'
    given.html.write_text(report(sim, truth, halves, source), encoding='utf-8')
    print(given.html)
    return 0


if __name__ == '__main__':
    sys.exit(main())

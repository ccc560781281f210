from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import sim_statistics as statistics
from benchmarks.sim_statistics import FIRINGS, RINGS


def cloud(keep: float = 1.0, seed: int = 0):
    """Flat ground 1.7 m below 64 rings that look down, ring after ring, ahead first."""
    elevation = np.radians(np.linspace(-3.0, -24.0, RINGS))
    azimuth = 0.001 + np.arange(FIRINGS) * (2 * np.pi / FIRINGS)
    ring = np.repeat(np.arange(RINGS), FIRINGS)
    turn = np.tile(azimuth, RINGS)
    reach = 1.7 / np.sin(-elevation[ring])
    flat = reach * np.cos(elevation[ring])
    points = np.stack([flat * np.cos(turn), flat * np.sin(turn), np.full(len(ring), -1.7)], 1)
    points = np.column_stack([points, np.full(len(ring), 0.3)]).astype(np.float32)
    kept = np.random.default_rng(seed).random(len(ring)) < keep
    return points[kept], ring[kept], np.sin(-elevation)


def test_rings_are_found_from_the_azimuth():
    points, ring, _ = cloud(0.9)
    assert_array_equal(statistics.rings_of(points), ring)


def test_every_point_has_a_place_of_its_own_and_gaps_are_what_was_lost():
    points, ring, _ = cloud()
    image = statistics.image_of(points, ring)
    assert np.isfinite(image[..., 0]).all()
    assert statistics.gaps(image) == (0, RINGS * FIRINGS)
    points, ring, _ = cloud(0.95)
    lost, pairs = statistics.gaps(statistics.image_of(points, ring))
    assert_allclose(lost / pairs, 0.05, atol=0.003)


def test_incidence_on_flat_ground_is_the_sine_of_the_elevation():
    points, ring, cosines = cloud()
    found = statistics.incidence(statistics.image_of(points, ring))
    assert len(found) > 0.8 * (RINGS - 2) * FIRINGS
    near = np.abs(found[:, None] - cosines[None, 1:-1]).min(axis=1)
    assert near.max() < 0.01


def test_histograms_add_up_and_distances_are_half_the_difference():
    one = statistics.look_at([cloud(0.9)[:2]])
    other = statistics.look_at([cloud(0.7, 1)[:2], cloud(0.7, 2)[:2]])
    assert (one.scans, other.scans) == (1, 2)
    for shares in (one.shares, other.shares):
        for name in statistics.NAMES:
            assert_allclose(shares[name].sum(), 1.0, atol=1e-6)
    assert_allclose(other.empty, 0.3, atol=0.05)
    assert_allclose(other.points, 0.7 * RINGS * FIRINGS, rtol=0.01)
    assert_allclose(one.shares['intensity'][5], 1.0)
    assert statistics.apart(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == 0.75


def test_the_report_is_written_and_opens(tmp_path, browser, capsys):
    pytest.importorskip('open3d')
    folder = tmp_path / 'drive' / 'velodyne'
    folder.mkdir(parents=True)
    for seed in range(2):
        cloud(0.8, seed)[0].tofile(folder / f'{seed}.bin')
    page = tmp_path / 'report.html'
    asked = ['--data', str(folder), '--streets', '1', '--html', str(page)]
    assert statistics.main(asked) == 0
    printed = capsys.readouterr().out
    assert 'single gaps' in printed
    text = page.read_text(encoding='utf-8')
    assert text.count('<svg') == len(statistics.NAMES) + 2
    assert '2 scans of drive/velodyne; 1 simulated streets' in text
    assert browser.open_page(page, tmp_path / 'page.png') == []


def test_a_bar_is_never_negative():
    drawn = statistics.chart(np.array([0.5, -0.1]), np.array([1.0, np.nan]), 'ab', 'x', 'y')
    assert drawn.count('<rect class="') == 3
    assert 'height="0.0"' in drawn
    assert 'height="-' not in drawn
    assert 'b: -0.1000' in drawn


def test_too_few_scans_are_refused(tmp_path, capsys):
    assert statistics.main(['--data', str(tmp_path)]) == 2
    assert 'holds 0 scans, expected 2 or more' in capsys.readouterr().err

"""What stands where a network is wrong, and the whole benchmark on one drive."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip('open3d', reason='the benchmark makes drives with the simulator')

from airside_perception.sim import ground_support as gse
from airside_perception.sim import structures
from airside_perception.sim.aircraft import aircraft
from airside_perception.sim.layout import Layout
from airside_perception.sim.people import person
from airside_perception.sim.scene import Motion
from benchmarks import error_analysis
from benchmarks.error_causes import EMPTY, GROUND, WEATHER, Surroundings

PLACES = {
    'mast, pole, fence, bridge column': (lambda rng: structures.mast(rng, 20.0), (10.0, 20.0)),
    'plants': (structures.bush, (10.0, -20.0)),
    'ground power, container, bridge wheels': (gse.container, (-10.0, 20.0)),
    'person': (person, (-10.0, -20.0)),
    'cone': (gse.cone, (20.0, -20.0)),
}


def test_points_are_called_by_what_they_lie_on():
    rng = np.random.default_rng(3)
    layout = Layout(rng)
    for make, (x, y) in PLACES.values():
        assert layout.put(make(rng), x, y, 0.4)
    assert layout.put(aircraft(rng, 'A320'), 60.0, 0.0, 0.0)
    scenario = layout.scenario(Motion(0.0, 0.0, 0.0, 0.0), 'asphalt')
    scene = scenario.at(0.0)
    middles = scene.triangles.mean(axis=1)
    boxes = [[x, y, 1.0, 3, 3, 3, 0.4] for _, (x, y) in PLACES.values()]
    boxes[0][2] = 15.0  # above its foot
    boxes[0][5] = 18.0
    wing = [60.0, 14.0, 4.0, 8, 8, 4, 0.0]
    hull = [66.0, 0.0, 4.0, 6, 4, 4, 0.0]
    bare, air, void = (
        [30.0, 30, 0.5, 2, 2, 2, 0],
        [0.0, 30, 3, 1, 1, 1, 0],
        [0.0, -30, 3, 1, 1, 1, 0],
    )
    floor = [[30.0, 30.0, 30 * sum(scene.slope)]]
    points = np.concatenate([middles, floor, [[0.0, 30.0, 3.0]]]).astype(np.float32)
    names = Surroundings(scenario, 0.0).causes(
        np.array([*boxes, wing, hull, bare, air, void]), points, range(10)
    )
    assert list(names.values()) == [
        *PLACES, 'wing, engine, tail, gear', 'aircraft', GROUND, WEATHER, EMPTY,
    ]  # fmt: skip


def test_the_benchmark_runs_and_reads_again_what_it_kept(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'figures.json'
    words = ['x', '--seeds', '6000:6001', '--conditions', 'clear', '--cache', str(tmp_path),
             '--models', 'apron_pointpillars.onnx', '--json', str(out)]  # fmt: skip
    monkeypatch.setattr('sys.argv', words)
    assert error_analysis.main() == 0
    first, shown = out.read_text(), capsys.readouterr().out
    figures = json.loads(first)['models']['apron_pointpillars.onnx']
    assert figures['frames'] == 1
    assert 0 < figures['map'] < 1
    assert sum(figures['in turn'].values()) == pytest.approx(1 - figures['map'])
    assert 'largest loss' in shown
    monkeypatch.setattr(error_analysis, 'run', None)  # nothing runs again
    assert error_analysis.main() == 0
    assert out.read_text() == first


def test_a_model_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    words = ['x', '--seeds', '6000:6001', '--conditions', 'clear', '--cache', str(tmp_path),
             '--models', 'no.onnx']  # fmt: skip
    monkeypatch.setattr('sys.argv', words)
    monkeypatch.setattr(error_analysis, 'make', lambda *given: tmp_path / 'bag')
    assert error_analysis.main() == 2
    assert 'no.onnx' in capsys.readouterr().err

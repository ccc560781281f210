"""Runs that are killed go on: whole files, a log without gaps or repetitions, the best state."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip('torch', reason='training needs torch')

from training import sitting  # noqa: E402  (after the check for torch)
from training.schedule import one_cycle  # noqa: E402

ROOT = Path(__file__).parents[2]
TINY = {
    'width': 96, 'height': 64, 'batch': 4, 'workers': 1, 'scenes': 4, 'widths': [8, 8, 8, 8, 8],
    'depths': [1, 1, 1, 1], 'neck': [8, 8, 8], 'head': 8, 'at_once': 1, 'first_pictures': 4,
    'pictures': 50, 'taken': 0.0, 'takers': 0, 'least_height': 2, 'least_pixels': 4,
    'validation': {'scenes': 1, 'first_scene': 1900000, 'seconds': 3},
}  # fmt: skip


def test_a_log_is_cut_where_the_state_is(tmp_path):
    path = tmp_path / sitting.LOG
    lines = [json.dumps({'step': step}) for step in (5, 10, 15)]
    path.write_text('\n'.join(lines) + '\n{"step": 2')  # the last one was being written
    sitting.cut_log(tmp_path, 10)
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [5, 10]
    sitting.cut_log(tmp_path / 'nowhere', 10)


def test_resume_without_a_folder_is_the_runs_own_if_it_has_begun(tmp_path):
    parser = argparse.ArgumentParser()
    sitting.add_options(parser, 'out', 10)

    def at(*words):
        return sitting.resumed(parser.parse_args(words), tmp_path)

    assert at() is None
    assert at('--resume') is None
    assert at('--resume', 'elsewhere') == Path('elsewhere')
    sitting.save(tmp_path / sitting.MODEL, {'step': 3})
    assert at('--resume') == tmp_path
    assert at() is None
    assert sitting.chosen(tmp_path)['step'] == 3
    sitting.save(tmp_path / sitting.BEST, {'step': 2})
    assert sitting.chosen(tmp_path)['step'] == 2


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / sitting.MODEL
    sitting.save(path, {'value': torch.arange(3)})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        sitting.save(path, {'value': lambda: 0})
    assert sitting.read(path)['value'].tolist() == [0, 1, 2]
    assert [item.name for item in tmp_path.iterdir()] == [sitting.MODEL]


def test_the_schedule_goes_on_and_does_not_begin_anew():
    clock = sitting.Clock(steps=100, minutes=2, before=60)
    assert clock.progress(0, 0) == 0.5
    assert clock.progress(80, 0) == 0.8
    assert clock.progress(10, 60) == 1.0
    assert sitting.Clock(100, 0, 60).progress(10, 1e6) == 0.1
    rates = [one_cycle(share) for share in np.linspace(0, 1, 101)]
    assert np.argmax(rates) == 10
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.001)


def test_waiting_ends_when_nothing_gets_better():
    best = sitting.Best(patience=2)
    assert best.look(0.1, 1)
    assert best.look(0.3, 2)
    assert not best.look(0.3, 3)
    assert not best.over
    assert not best.look(float('nan'), 4)
    assert best.over
    assert (best.score, best.step) == (0.3, 2)
    assert not best.look(0.28, 5, last=True)  # worse than by luck
    assert best.look(0.295, 6, last=True)
    assert (best.score, best.step) == (0.295, 6)
    endless = sitting.Best(patience=0)
    endless.look(0.1, 1)
    endless.look(0.0, 2)
    assert not endless.over


@pytest.mark.parametrize('name', ['centerpoint', 'pointpillars', 'yolox'])
def test_recipes_run_as_long_as_they_are_told(name):
    """Ten steps a second for an hour are 4 % of the steps, and no plateau ends a run."""
    values = yaml.safe_load((ROOT / 'training' / f'{name}.yaml').read_text(encoding='utf-8'))
    clock = sitting.Clock(values['steps'], minutes=60)
    assert clock.progress(36_000, 1800.0) == 0.5
    assert not values['validation']['patience']


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    """Killed without warning in the middle, and started by the same command."""
    command = [
        sys.executable, '-m', 'training.train_camera', '--out', str(tmp_path), '--device', 'cpu',
        '--every', '1', '--save-seconds', '0.5', '--resume',
        *(part for key, value in TINY.items() for part in ('--set', f'{key}={json.dumps(value)}')),
    ]  # fmt: skip
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': ''}
    log = tmp_path / sitting.LOG

    def steps():
        lines = [json.loads(line) for line in log.read_text().splitlines()[:-1]]
        return [line['step'] for line in lines if 'progress' in line]

    with subprocess.Popen(
        [*command, '--set', 'steps=5000'], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while not ((tmp_path / sitting.MODEL).exists() and len(steps()) > 6):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    saved = sitting.read(tmp_path / sitting.MODEL)
    last = saved['step'] + 4
    subprocess.run(
        [*command, '--set', f'steps={last}'], cwd=ROOT, env=environment, check=True, timeout=300
    )
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    trained = [line for line in lines if 'progress' in line]
    assert [line['step'] for line in trained] == list(range(1, last + 1))
    seconds = [line['seconds'] for line in trained]
    assert seconds == sorted(seconds)
    assert sitting.read(tmp_path / sitting.MODEL)['step'] == last
    assert any('ap50' in line for line in lines)

"""Fixed lidars, and the stages of a recipe that is varied more and more."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip('torch', reason='training needs torch')

from training.ablation import STAGES, stage  # noqa: E402  (after the check for torch)
from training.lidars import lidar_of  # noqa: E402
from training.recipe import load, parse  # noqa: E402
from training.scans import Variation  # noqa: E402

CONFIG = Path(__file__).parents[2] / 'training' / 'centerpoint.yaml'
WHOLE = yaml.safe_load(CONFIG.read_text(encoding='utf-8'))


def test_a_preset_is_always_the_same_lidar():
    rng = np.random.default_rng(0)
    first, second = lidar_of('roof64', rng), lidar_of('roof64', rng)
    np.testing.assert_array_equal(first.elevations, second.elevations)
    assert np.degrees(first.elevations[[0, -1]]) == pytest.approx([15.0, -25.0])
    assert (len(first.elevations), first.firings, first.height) == (64, 1024, 1.95)
    # 10 % of a beam's power at this distance is the weakest that the preset keeps half of the time
    assert 0.1 / first.reach**2 == pytest.approx(3e-6)


def test_any_lidar_is_another_one_every_time():
    rng = np.random.default_rng(0)
    rings = {len(lidar_of('any', rng).elevations) for _ in range(60)}
    assert {32, 64, 128} <= rings


def test_an_unknown_lidar_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"lidar 'roof65'.*roof64"):
        load(CONFIG, lidar='roof65')


def test_the_first_stage_varies_nothing():
    training = parse(stage(WHOLE, 'a'))
    assert training.variation == Variation()
    assert (training.lidar, training.paste) == ('roof64', 0)


def test_the_last_stage_is_the_recipe():
    whole, last = load(CONFIG), parse(stage(WHOLE, 'e'))
    apart = {key for key in vars(whole) if getattr(whole, key) != getattr(last, key)}
    assert apart == {'name', 'validation'}


def test_every_stage_differs_from_the_one_before_in_one_thing():
    made = [parse(stage(WHOLE, name)) for name in STAGES]
    changed = [
        {key for key in vars(one) if getattr(one, key) != getattr(other, key)} - {'name'}
        for one, other in itertools.pairwise(made)
    ]
    assert changed == [{'lidar'}, {'variation'}, {'paste'}, {'variation'}]
    assert made[2].variation.loss == Variation().loss
    assert len({training.seed for training in made}) == 1


def test_validation_chooses_no_weights():
    for name in STAGES:
        held = parse(stage(WHOLE, name)).validation
        assert held.patience == 0
        assert held.seconds > 1e6


def test_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match="stage 'f'"):
        stage(WHOLE, 'f')

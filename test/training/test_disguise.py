"""Textures and distractors of training pictures."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from training.disguise import developed, disguised, noise  # noqa: E402  (after the check for torch)


def pictures(views=4, height=48, width=80):
    """Grey pictures with one object each in the middle."""
    images = torch.full((views, 3, height, width), 120, dtype=torch.uint8)
    owner = torch.full((views, height, width), -1, dtype=torch.int64)
    owner[:, 16:32, 30:50] = torch.arange(views)[:, None, None]
    return images, owner


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def test_no_share_changes_nothing():
    images, owner = pictures()
    assert torch.equal(disguised(images, owner, 0.0, seeded()), images)


def test_the_same_seed_gives_the_same_pictures():
    images, owner = pictures()
    first, second = (disguised(images, owner, 1.0, seeded()) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, disguised(images, owner, 1.0, seeded(2)))


def test_shapes_lie_behind_objects_only(monkeypatch):
    monkeypatch.setattr('training.disguise.ROUGH', 0.0)  # no texture, so only shapes are left
    images, owner = pictures(12)
    changed = (disguised(images, owner, 1.0, seeded()) != images).any(1)
    assert changed[owner < 0].float().mean() > 0.1
    assert not changed[owner >= 0].any()


def test_texture_is_on_objects_as_well(monkeypatch):
    monkeypatch.setattr('training.disguise.SHAPES', 0)
    images, owner = pictures(64)
    levels = disguised(images, owner, 1.0, seeded()).float()
    spread = [
        float(torch.log(levels.clamp(min=1) / 120).permute(0, 2, 3, 1)[part].std())
        for part in (owner >= 0, owner < 0)
    ]
    assert min(spread) > 0.05
    assert max(spread) / min(spread) < 1.5


def test_noise_has_mean_0_and_deviation_1_and_is_nearly_grey():
    made = noise(torch.Size((3, 3, 60, 100)), torch.device('cpu'), seeded())
    assert made.shape == (3, 3, 60, 100)
    for one in made.numpy():
        assert abs(one.mean()) < 1e-4
        assert abs(one.std() - 1) < 1e-3
        assert np.corrcoef(one[0].ravel(), one[1].ravel())[0, 1] > 0.9


def test_neighbours_of_noise_are_alike():
    made = noise(torch.Size((8, 1, 64, 64)), torch.device('cpu'), seeded()).numpy()
    near = np.mean([np.corrcoef(m[0, :, 1:].ravel(), m[0, :, :-1].ravel())[0, 1] for m in made])
    assert near > 0.3  # white noise has 0


def test_gamma_keeps_black_white_and_the_order():
    ramp = torch.linspace(0, 255, 50).expand(6, 3, 4, 50)
    made = developed(ramp, seeded())
    assert torch.allclose(made[..., 0], torch.zeros(()))
    assert torch.allclose(made[..., -1], torch.full((), 255.0))
    assert (made.diff(dim=-1) >= 0).all()
    middle = made[:, 0, 0, 25] / 255
    assert middle.max() - middle.min() > 0.1  # pictures differ
    gamma = torch.log(middle) / torch.log(ramp[0, 0, 0, 25] / 255)
    assert ((gamma > 0.44) & (gamma < 2.24)).all()

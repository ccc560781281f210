from __future__ import annotations

import pytest

from airside_perception.config import (
    FusionConfig,
    flat_values,
    from_values,
    fusion_priors,
    replace_values,
    specs,
)
from airside_perception.errors import ConfigError


def test_sources_are_ranked_and_groups_known_in_lower_case() -> None:
    config = FusionConfig(cameras=('front', 'left'))
    assert config.sources == ('lidar', 'front', 'left')
    assert FusionConfig(lidar=False).sources == ('front',)
    assert FusionConfig(cameras=()).sources == ('lidar',)
    assert config.groups['belt_loader'] == config.groups['car'] == 'vehicle'
    spaced = FusionConfig(class_groups=('thing = Car , BUS',), camera_groups=('thing',))
    assert spaced.groups == {'car': 'thing', 'bus': 'thing'}


@pytest.mark.parametrize(
    ('values', 'text'),
    [
        ({'cameras': ['Front']}, "'Front' cannot be part of a topic"),
        ({'cameras': ['front', 'front']}, 'names differ'),
        ({'cameras': ['lidar']}, '"lidar" is the lidar'),
        ({'cameras': ['lidar'], 'lidar': False}, '"lidar" is the lidar'),
        ({'cameras': [], 'lidar': False}, 'nothing to fuse'),
        ({'rectified_cameras': ['rear']}, r"'rear' is not among cameras = \['front'\]"),
        ({'fixed_frame': ''}, 'must be named'),
        ({'silence_ms': 20.0}, 'shorter than deadline_ms'),
        ({'class_groups': ['vehicle']}, "'vehicle' is not"),
        ({'class_groups': ['=car']}, "'=car' is not"),
        ({'class_groups': ['a=car,']}, "'a=car,' is not"),
        ({'class_groups': ['a=car', 'b=Car']}, "'car' is in 'a' and in 'b'"),
        ({'camera_groups': ['boat']}, "no group 'boat'"),
        ({'gate_chi2': 0.0}, 'gate_chi2'),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, text) -> None:
    with pytest.raises(ConfigError, match=text):
        from_values(FusionConfig, values)


def test_priors_of_classes_can_be_tuned_one_by_one() -> None:
    defaults = fusion_priors(['car', 'person'], 0.2)
    config = from_values(FusionConfig, {'priors.person': 0.3}, defaults)
    assert config.priors == {'car': 0.2, 'person': 0.3}
    config = replace_values(config, {'priors.car': 0.4, 'gate_giou': 0.1})
    assert (config.priors['car'], config.gate_giou) == (0.4, 0.1)
    assert from_values(FusionConfig, flat_values(config), defaults) == config


def test_every_threshold_is_a_scalar_with_two_bounds_and_live() -> None:
    structural = {'lidar', 'cameras', 'rectified_cameras',
                  'fusion_frame', 'fixed_frame', 'class_groups',
                  'camera_groups', 'queue_size', 'queue_ms', 'sync_slop_ms',
                  'lidar_frame'}  # fmt: skip
    for item in specs(FusionConfig, fusion_priors(['car'])):
        assert item.live == (item.name not in structural), item.name
        if item.type in (int, float):
            assert item.low < item.high, item.name
            assert item.low <= item.default <= item.high, item.name

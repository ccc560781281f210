"""Parameters and settings: one place for defaults, ranges and refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airside_perception.config import (
    CameraConfig,
    EngineConfig,
    FusionConfig,
    LidarConfig,
    flat_values,
    from_values,
    replace_values,
    specs,
)
from airside_perception.errors import ConfigError
from airside_perception.parameter import parameter, per_class

ALL = (EngineConfig, CameraConfig, LidarConfig, FusionConfig)
CLASSES = {'score_thresholds': {'car': 0.4, 'person': 0.2}}


@dataclasses.dataclass(frozen=True)
class Knobs:
    speed: float = parameter(1.5, 'Speed.', unit='m/s', low=0.0, high=9.0, live=True)
    count: int = parameter(3, 'Count.', low=1, high=5)
    mode: str = parameter('a', 'Mode.', choices=('a', 'b'))
    on: bool = parameter(True, 'On.')
    names: tuple[str, ...] = parameter((), 'Names.')
    free: float = parameter(0.0, 'Any finite number.')
    place: tuple[float, ...] = parameter((0.0, 0.0), 'Place.')
    limits: dict[str, float] = per_class('Limit.', low=0.0, high=1.0)

    def __post_init__(self) -> None:
        if self.count > self.speed * 10:
            raise ConfigError(f'count = {self.count} is too much for speed = {self.speed}')


@pytest.mark.parametrize('config', ALL)
def test_every_parameter_is_described_and_its_default_fits(config: type) -> None:
    for spec in specs(config, CLASSES):
        assert spec.description.endswith('.'), spec.name
        assert spec.check(spec.default) == spec.default
        if spec.type in (int, float):
            assert spec.low is not None, spec.name
            assert spec.high is not None, spec.name
            assert spec.low < spec.high, spec.name


@pytest.mark.parametrize('config', ALL)
def test_defaults_survive_the_way_out_and_in(config: type) -> None:
    assert from_values(config, flat_values(config())) == config()


@pytest.mark.parametrize('config', [CameraConfig, LidarConfig])
def test_thresholds_are_live_and_networks_are_not(config: type) -> None:
    live = {spec.name: spec.live for spec in specs(config, CLASSES)}
    for name in ('score_threshold', 'score_thresholds.car', 'nms_iou', 'max_detections'):
        assert live[name], name
    for name in ('engine_path', 'card_path', 'precision', 'dla_core'):
        assert not live[name], name


def test_per_class_parameters() -> None:
    found = {spec.name: spec for spec in specs(Knobs, {'limits': {'car': 0.25}})}
    assert 'limits' not in found
    assert found['limits.car'].default == 0.25
    assert found['limits.car'].description == 'Limit. Class: car.'
    assert (found['limits.car'].low, found['limits.car'].high) == (0.0, 1.0)
    assert [spec.name for spec in specs(Knobs) if '.' in spec.name] == []


def test_values_in_and_out() -> None:
    values = {'speed': 2, 'mode': 'b', 'names': ['x', 'y'], 'limits.car': 0.5, 'place': [1, 0.5]}
    knobs = from_values(Knobs, values, {'limits': {'car': 0.1, 'person': 0.2}})
    assert knobs == Knobs(
        speed=2.0,
        mode='b',
        names=('x', 'y'),
        place=(1.0, 0.5),
        limits={'car': 0.5, 'person': 0.2},
    )
    assert isinstance(knobs.speed, float)
    assert all(isinstance(number, float) for number in knobs.place)
    assert flat_values(knobs)['limits.person'] == 0.2
    changed = replace_values(knobs, {'limits.person': 0.9, 'count': 5})
    assert changed.limits == {'car': 0.5, 'person': 0.9}
    assert (changed.count, changed.speed) == (5, 2.0)
    assert knobs.limits == {'car': 0.5, 'person': 0.2}


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('speed', 9.1, r'outside \[0, 9\] m/s'),
        ('speed', float('nan'), 'expected a finite number'),
        ('free', float('inf'), 'expected a finite number'),
        ('speed', '3', 'expected a number'),
        ('speed', True, 'expected a number'),
        ('count', 0, r'outside \[1, 5\]'),
        ('count', 2.0, 'expected an integer'),
        ('count', True, 'expected an integer'),
        ('mode', 'c', "not one of 'a', 'b'"),
        ('on', 1, 'expected true or false'),
        ('names', 'x', 'expected a list of strings'),
        ('names', [1], 'expected a list of strings'),
        ('names', None, 'expected a list of strings'),
        ('place', 1.0, 'expected a list of numbers'),
        ('place', ['x'], 'expected a list of numbers'),
        ('place', [True], 'expected a list of numbers'),
        ('place', [0.0, float('inf')], 'expected finite numbers'),
        ('limits.car', 2.0, r'outside \[0, 1\]'),
        ('limits.tree', 0.5, "unknown parameter 'limits.tree'"),
        ('sped', 1.0, "unknown parameter 'sped' for Knobs; known: count"),
    ],
)
def test_refusals_name_parameter_and_reason(name: str, value: Any, message: str) -> None:
    classes = {'limits': {'car': 0.5}}
    for change in (
        lambda: from_values(Knobs, {name: value}, classes),
        lambda: replace_values(Knobs(limits={'car': 0.5}), {name: value}),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            change()
        assert name in str(caught.value)


def test_values_are_judged_together() -> None:
    with pytest.raises(ConfigError, match='too much'):
        from_values(Knobs, {'speed': 0.1})
    knobs = replace_values(Knobs(), {'speed': 0.1, 'count': 1})
    with pytest.raises(ConfigError, match='too much'):
        replace_values(knobs, {'count': 2})


def test_the_ground_must_have_a_name() -> None:
    with pytest.raises(ConfigError, match="ground_frame = '': name the frame"):
        from_values(CameraConfig, {'ground_frame': ''})

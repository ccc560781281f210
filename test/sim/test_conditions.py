from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from airside_perception.errors import ConfigError
from airside_perception.sim.conditions import LIGHTS, WEATHERS, Conditions, conditions


def test_conditions_follow_from_the_seed_and_all_kinds_occur():
    drawn = [conditions(seed) for seed in range(200)]
    assert drawn[:20] == [conditions(seed) for seed in range(20)]
    assert {item.light for item in drawn} == set(LIGHTS)
    assert {item.weather for item in drawn} == set(WEATHERS)
    for item in drawn:
        assert (item.rain > 0) == (item.weather == 'rain')
        assert (item.visibility <= 300) == (item.weather == 'fog')
        assert item.lamps or item.light == 'day'
        assert {'day': item.sun_elevation > 0.2, 'dusk': abs(item.sun_elevation) < 0.1,
                'night': item.sun_elevation < -0.1}[item.light]  # fmt: skip


@pytest.mark.parametrize('light', LIGHTS)
@pytest.mark.parametrize('weather', WEATHERS)
def test_light_and_weather_may_be_asked_for(light, weather):
    for seed in range(5):
        item = conditions(seed, light, weather)
        assert (item.light, item.weather) == (light, weather)


@pytest.mark.parametrize('visibility', [50.0, 400.0, 10_000.0])
def test_contrast_falls_to_5_percent_at_the_visibility(visibility):
    item = Conditions(weather='fog', visibility=visibility)
    assert_allclose(np.exp(-item.extinction * visibility), 0.05, rtol=0.01)


def test_rain_loses_as_many_decibels_as_the_formula_says():
    wet = Conditions(weather='rain', rain=20.0)
    assert_allclose(-10 * np.log10(np.exp(-1000 * wet.extinction)), 1.076 * 20**0.67, rtol=1e-6)


def test_a_visibility_in_rain_has_the_rain_in_it():
    wet = Conditions(weather='rain', rain=20.0, visibility=500.0)
    assert_allclose(wet.extinction, Conditions(visibility=500.0).extinction)


def test_there_is_less_light_the_later_it_is_and_no_shadow_without_a_sun():
    def brightness(item):
        light = item.sky()
        return light.sun * np.sin(light.elevation) + light.sky

    for weather in WEATHERS:
        day, dusk, night = (brightness(conditions(1, light, weather)) for light in LIGHTS)
        assert day > 3 * dusk
        assert dusk > 3 * night
    assert conditions(1, 'day', 'clear').sky().shadows
    assert not conditions(1, 'day', 'fog').sky().shadows
    assert not conditions(1, 'night', 'clear').sky().shadows
    assert not replace(conditions(1, 'dusk', 'clear'), sun_elevation=-0.05).sky().shadows


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'light': 'noon'}, "'noon' is not one of day, dusk, night"),
        ({'weather': 'snow'}, "'snow' is not one of clear, fog, rain"),
        ({'visibility': 0.5}, r'0\.5 m'),
        ({'visibility': float('nan')}, 'nan m'),
        ({'rain': -1.0}, r'-1\.0 mm/h'),
        ({'wetness': 1.5}, r'1\.5'),
    ],
)
def test_impossible_conditions_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        Conditions(**change)

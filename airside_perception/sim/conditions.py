"""Light and weather: drawn from a seed or given, used by the cameras and by the lidar alike.

Visibility is the meteorological optical range: the distance at which contrast falls to 5 % (WMO),
so light falls by exp(-a r) with a = 3 / visibility. Fog's droplets are larger than the wavelength
of either sensor, and one coefficient serves both (Kim, McArthur and Korevaar, 2001). Rain of R
mm/h takes 1.076 R^0.67 dB/km (Carbonneau and Wisely, 1998); a visibility that is measured in rain
has that in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airside_perception.errors import ConfigError
from airside_perception.types import Float64

LIGHTS = ('day', 'dusk', 'night')
WEATHERS = ('clear', 'fog', 'rain')

Colour = tuple[float, float, float]
"""Blue, green, red."""


@dataclass(frozen=True)
class Light:
    """Sun and sky, as the cameras see them.

    Attributes:
        azimuth, elevation: of the sun in the world, radians.
        sun, sky: brightness of the light from each.
        visibility: distance in metres at which contrast falls to 37 %.
        shadows: whether to cast them.
        sun_tint, sky_tint: colours of the two lights.
        horizon, zenith: colours of the sky itself.
        above: brightness of the sky itself; 0: what follows from `sun` and `sky`.
    """

    azimuth: float = 2.2
    elevation: float = 0.8
    sun: float = 0.75
    sky: float = 0.45
    visibility: float = 900.0
    shadows: bool = True
    sun_tint: Colour = (1.0, 1.0, 1.0)
    sky_tint: Colour = (1.0, 1.0, 1.0)
    horizon: Colour = (0.92, 0.88, 0.84)
    zenith: Colour = (0.85, 0.62, 0.42)
    above: float = 0.0

    def direction(self, base2world: Float64) -> Float64:
        """Unit vector [3] towards the sun in base_link."""
        flat = np.cos(self.elevation)
        towards = [
            flat * np.cos(self.azimuth),
            flat * np.sin(self.azimuth),
            np.sin(self.elevation),
        ]
        return np.asarray(base2world[:3, :3].T @ np.array(towards))


@dataclass(frozen=True)
class Conditions:
    """Light and weather of a drive.

    Attributes:
        light: one of LIGHTS; weather: one of WEATHERS.
        sun_azimuth, sun_elevation: radians, in the world; below 0: the sun has set.
        visibility: meteorological optical range, metres.
        rain: rate, mm/h.
        wetness: of the ground, 0 dry .. 1 under a film of water.
        lamps: whether flood-lights, street lamps and head lights are lit.

    Raises:
        ConfigError: a value that cannot be; made by the constructor.
    """

    light: str = 'day'
    weather: str = 'clear'
    sun_azimuth: float = 2.2
    sun_elevation: float = 0.8
    visibility: float = 20_000.0
    rain: float = 0.0
    wetness: float = 0.0
    lamps: bool = False

    def __post_init__(self) -> None:
        if self.light not in LIGHTS:
            raise ConfigError(f'light {self.light!r} is not one of {", ".join(LIGHTS)}')
        if self.weather not in WEATHERS:
            raise ConfigError(f'weather {self.weather!r} is not one of {", ".join(WEATHERS)}')
        if not self.visibility > 1.0:
            raise ConfigError(f'visibility of {self.visibility} m, expected more than 1 m')
        if not 0 <= self.rain <= 200:
            raise ConfigError(f'rain of {self.rain} mm/h, expected 0 .. 200')
        if not 0 <= self.wetness <= 1:
            raise ConfigError(f'wetness of {self.wetness}, expected 0 .. 1')

    @property
    def extinction(self) -> float:
        """Share of light lost a metre, 1/m: by the visibility, or by rain where that is more."""
        decibels = 1.076e-3 * self.rain**0.67
        return float(max(3.0 / self.visibility, decibels * np.log(10) / 10))

    def sky(self) -> Light:
        """What the cameras need: clouds take the sun away, dusk colours it, night ends it."""
        plain = Light(self.sun_azimuth, max(self.sun_elevation, 0.02))
        reach = min(1 / self.extinction, plain.visibility)
        cloudy = self.weather != 'clear'
        if self.light == 'day':
            # Below clouds or in fog all light comes from above, and there are no shadows.
            grey = (0.80, 0.78, 0.76)
            if cloudy:
                return Light(
                    self.sun_azimuth, plain.elevation, 0.0, 0.62, reach, False,
                    horizon=grey, zenith=(0.66, 0.63, 0.61) if self.rain else grey, above=1.0,
                )  # fmt: skip
            return Light(self.sun_azimuth, plain.elevation, visibility=reach)
        if self.light == 'dusk':
            if cloudy:
                grey = (0.20, 0.165, 0.145)
                return Light(
                    self.sun_azimuth, plain.elevation, 0.0, 0.12, reach, False,
                    sky_tint=(1.2, 1.0, 0.86), horizon=grey, zenith=(0.17, 0.13, 0.11), above=1.0,
                )  # fmt: skip
            return Light(
                self.sun_azimuth, plain.elevation, 0.16, 0.11, reach, self.sun_elevation > 0,
                sun_tint=(0.35, 0.66, 1.15), sky_tint=(1.25, 1.0, 0.86),
                horizon=(0.26, 0.34, 0.50), zenith=(0.24, 0.14, 0.09), above=1.0,
            )  # fmt: skip
        glow = 2.5 if cloudy else 1.0  # clouds and fog throw the town's light back
        return Light(
            self.sun_azimuth, plain.elevation, 0.0, 0.0035 * glow, reach, False,
            sky_tint=(1.2, 1.0, 0.9),
            horizon=(0.0060 * glow, 0.0052 * glow, 0.0050 * glow),
            zenith=(0.0028 * glow, 0.0018 * glow, 0.0014 * glow), above=1.0,
        )  # fmt: skip


def conditions(seed: int, light: str = '', weather: str = '') -> Conditions:
    """Light and weather that follow from `seed`; either may be asked for by name."""
    rng = np.random.default_rng([seed, 5])
    drawn = (
        str(rng.choice(LIGHTS, p=[0.5, 0.2, 0.3])),
        str(rng.choice(WEATHERS, p=[0.6, 0.2, 0.2])),
    )
    low, high = {'day': (0.25, 1.1), 'dusk': (-0.08, 0.07), 'night': (-0.6, -0.2)}[
        light or drawn[0]
    ]
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(low, high)
    thick, rate = float(np.exp(rng.uniform(np.log(40), np.log(300)))), float(rng.uniform(2, 35))
    damp = float(rng.uniform(0.2, 0.6) * (rng.random() < 0.25))
    sky = weather or drawn[1]
    far = float(rng.uniform(8_000, 30_000))
    visibility = {'clear': far, 'fog': thick, 'rain': min(far, 12_000 / (1 + rate / 3))}[sky]
    wetness = {'clear': damp, 'fog': max(damp, 0.3), 'rain': min(1.0, 0.55 + rate / 40)}[sky]
    lamps = (light or drawn[0]) != 'day' or (sky == 'fog' and visibility < 150)
    return Conditions(
        light or drawn[0], sky, float(azimuth), float(elevation), visibility,
        rate if sky == 'rain' else 0.0, wetness, lamps,
    )  # fmt: skip

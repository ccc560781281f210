"""What surfaces look like to a lidar at 905 nm and to a camera: one table, addressed by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.types import Float32

# name: reflectivity at 905 nm 0..1, retro-reflective, share of beams lost, red green blue 0..255
_TABLE: dict[str, tuple[float, bool, float, tuple[int, int, int]]] = {
    'asphalt': (0.24, False, 0.0, (84, 84, 88)),
    'concrete': (0.34, False, 0.0, (150, 148, 142)),
    'grass': (0.40, False, 0.0, (88, 110, 52)),
    'pavement': (0.36, False, 0.0, (140, 134, 128)),
    'line_white': (0.62, False, 0.0, (226, 226, 222)),
    'line_yellow': (0.56, False, 0.0, (222, 180, 40)),
    'line_red': (0.40, False, 0.0, (176, 44, 40)),
    'facade': (0.42, False, 0.0, (176, 166, 150)),
    'brick': (0.34, False, 0.0, (140, 84, 66)),
    'cladding': (0.50, False, 0.0, (190, 194, 198)),
    'glass': (0.10, False, 0.65, (54, 66, 78)),
    'steel': (0.38, False, 0.05, (150, 152, 156)),
    'rubber': (0.06, False, 0.1, (28, 28, 30)),
    'dark': (0.10, False, 0.05, (46, 46, 48)),
    'engine': (0.40, False, 0.05, (196, 198, 200)),
    'fuselage': (0.72, False, 0.02, (236, 238, 240)),
    'livery_blue': (0.40, False, 0.02, (30, 60, 130)),
    'livery_red': (0.55, False, 0.02, (184, 30, 40)),
    'livery_green': (0.42, False, 0.02, (20, 110, 80)),
    'livery_grey': (0.55, False, 0.02, (170, 176, 182)),
    'white': (0.72, False, 0.03, (232, 232, 230)),
    'silver': (0.50, False, 0.05, (178, 182, 186)),
    'grey': (0.30, False, 0.05, (108, 112, 116)),
    'black': (0.07, False, 0.15, (24, 24, 28)),
    'blue': (0.30, False, 0.05, (36, 66, 130)),
    'red': (0.45, False, 0.04, (168, 28, 34)),
    'green': (0.32, False, 0.04, (38, 92, 60)),
    'yellow': (0.60, False, 0.03, (228, 186, 30)),
    'orange': (0.58, False, 0.03, (222, 110, 28)),
    'beige': (0.48, False, 0.03, (190, 176, 148)),
    'tarpaulin': (0.40, False, 0.02, (112, 124, 120)),
    'cloth_dark': (0.28, False, 0.01, (40, 44, 58)),
    'cloth_light': (0.45, False, 0.01, (150, 140, 130)),
    'cloth_red': (0.42, False, 0.01, (150, 50, 50)),
    'cloth_blue': (0.40, False, 0.01, (60, 86, 140)),
    'vest_yellow': (0.75, False, 0.0, (210, 236, 40)),
    'vest_orange': (0.68, False, 0.0, (244, 112, 30)),
    'tape': (0.90, True, 0.0, (220, 222, 226)),
    'plate': (0.85, True, 0.0, (236, 234, 210)),
    'lamp': (0.50, True, 0.0, (200, 60, 50)),
    'skin': (0.42, False, 0.0, (196, 150, 124)),
    'bark': (0.30, False, 0.0, (86, 68, 50)),
    'leaves': (0.48, False, 0.2, (62, 92, 40)),
    'luggage': (0.30, False, 0.0, (70, 56, 72)),
    'pane': (0.10, False, 0.65, (54, 66, 78)),  # glass of a building: lit at night
}

NAMES = tuple(_TABLE)
PAINTS = ('white', 'silver', 'grey', 'black', 'blue', 'red', 'green', 'beige')
CLOTHES = ('cloth_dark', 'cloth_light', 'cloth_red', 'cloth_blue')
LIVERIES = ('livery_blue', 'livery_red', 'livery_green', 'livery_grey')
_ROWS = {name: row for row, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Materials:
    """The table as arrays of M rows.

    Attributes:
        reflectivity: float32 [M], 0..1 at 905 nm, at perpendicular incidence.
        retro: bool [M], whether the surface throws the beam back to its source.
        loss: float32 [M], share of beams that give no return (glass, gaps between leaves).
        colour: float32 [M, 3], blue, green, red, 0..1.
    """

    reflectivity: Float32
    retro: NDArray[np.bool_]
    loss: Float32
    colour: Float32

    def jittered(self, rng: np.random.Generator, amount: float = 0.25) -> Materials:
        """Another day's paint and dirt: reflectivity and colour scaled by about 1 +- `amount`."""
        gain = np.exp(rng.normal(0, amount, len(self.reflectivity)))
        tint = np.exp(
            rng.normal(0, 0.15 * amount, self.colour.shape)
            + rng.normal(0, amount / 2, (len(gain), 1))
        )
        return Materials(
            np.clip(self.reflectivity * gain, 0.02, 0.95).astype(np.float32),
            self.retro,
            np.clip(self.loss * gain, 0.0, 0.95).astype(np.float32),
            np.clip(self.colour * tint, 0.02, 1.0).astype(np.float32),
        )


def row(name: str) -> int:
    """The table's row of a material; KeyError names one that does not exist."""
    return _ROWS[name]


def standard() -> Materials:
    """The table as written above."""
    values = list(_TABLE.values())
    colour = np.array([v[3][::-1] for v in values], np.float32) / np.float32(255)
    return Materials(
        np.array([v[0] for v in values], np.float32),
        np.array([v[1] for v in values], np.bool_),
        np.array([v[2] for v in values], np.float32),
        colour,
    )

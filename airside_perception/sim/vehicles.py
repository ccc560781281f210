"""Road vehicles: cars of five body shapes, vans, trucks, buses, cyclists."""

from __future__ import annotations

import numpy as np

from airside_perception.sim.bodies import Body, body, pick, wheels
from airside_perception.sim.materials import CLOTHES, PAINTS, row
from airside_perception.sim.mesh import Mesh, box, cylinder, frustum
from airside_perception.sim.people import figure

# Shape: length, width, height ranges; then fractions of the length from the rear:
# (boot end, roof start, roof end, windscreen foot), and of the height: beltline, bonnet.
_CARS: dict[str, tuple[tuple[float, float], ...]] = {
    'sedan': ((4.3, 4.95), (1.70, 1.90), (1.38, 1.50), (0.13, 0.28), (0.57, 0.72), (0.63, 0.56)),
    'hatchback': (
        (3.5, 4.35),
        (1.62, 1.82),
        (1.42, 1.56),
        (0.02, 0.13),
        (0.58, 0.75),
        (0.60, 0.55),
    ),
    'estate': ((4.4, 4.95), (1.72, 1.88), (1.42, 1.54), (0.02, 0.10), (0.58, 0.73), (0.61, 0.55)),
    'suv': ((4.2, 4.95), (1.78, 1.98), (1.60, 1.85), (0.02, 0.10), (0.58, 0.74), (0.62, 0.58)),
    'minivan': ((4.3, 5.1), (1.76, 1.98), (1.65, 1.98), (0.02, 0.07), (0.66, 0.86), (0.56, 0.50)),
}
SHAPES = tuple(_CARS)


def car(rng: np.random.Generator, shape: str = '') -> Body:
    """A passenger car: body, bonnet, cabin with glass, wheels, plates, lamps, mirrors."""
    shape = shape or SHAPES[int(rng.choice(len(SHAPES), p=[0.27, 0.33, 0.14, 0.16, 0.10]))]
    lengths, widths, heights, rear, front, levels = _CARS[shape]
    length, width, height = rng.uniform(*lengths), rng.uniform(*widths), rng.uniform(*heights)
    boot, roof_start, roof_end, screen = (f * length - length / 2 for f in (*rear, *front))
    belt, bonnet = levels[0] * height, levels[1] * height
    paint, glass, dark = pick(rng, PAINTS), row('glass'), row('dark')
    half = length / 2
    sill = 0.16 * height
    tuck = 0.10  # how far bumpers and sills draw in at the bottom
    parts = [
        # Lower body to the bonnet line, then shoulder from the rear to the windscreen's foot.
        frustum(
            (-half + tuck, half - tuck, width - 0.16),
            (-half, half - 0.03, width),
            (sill, 0.5 * bonnet),
            paint,
        ),
        frustum(
            (-half, half - 0.03, width),
            (-half + 0.05, half - 0.16, width - 0.1),
            (0.5 * bonnet, bonnet),
            paint,
        ),
        frustum(
            (-half + 0.04, screen + 0.15, width - 0.1),
            (-half + 0.08, screen, width - 0.12),
            (bonnet, belt),
            paint,
        ),
        frustum(
            (boot, screen, width - 0.14),
            (roof_start, roof_end, width - 0.5),
            (belt, height - 0.05),
            (glass, glass, glass, glass, paint, paint),
        ),
        frustum(
            (roof_start, roof_end, width - 0.5),
            (roof_start + 0.12, roof_end - 0.12, width - 0.62),
            (height - 0.05, height),
            paint,
        ),
        box((0.04, 0.52, 0.11), (-half, 0, 0.55 * bonnet + 0.12), row('plate')),
        box((0.04, 0.52, 0.11), (half - 0.035, 0, 0.30), row('plate')),
        *(
            box(
                (0.05, 0.16, 0.14),
                (-half + 0.03, s * (width / 2 - 0.18), 0.80 * bonnet),
                row('lamp'),
            )
            for s in (1, -1)
        ),
        *(
            box((0.10, 0.18, 0.13), (screen - 0.25, s * (width / 2 + 0.06), belt), dark)
            for s in (1, -1)
        ),
        *wheels(
            (-half + 0.19 * length, half - 0.18 * length), width + 0.01, 0.21 * min(height, 1.55)
        ),
    ]
    return body('car', parts, _without_mirrors(length, width, height))


def pickup(rng: np.random.Generator) -> Body:
    """A pickup: cabin in front of an open bed."""
    length, width, height = rng.uniform(4.9, 5.6), rng.uniform(1.8, 2.0), rng.uniform(1.7, 1.9)
    paint, glass, half = pick(rng, PAINTS), row('glass'), length / 2
    bed = -half + 0.36 * length
    parts = [
        box((length, width, 0.45 * height), (0, 0, 0.22 * height), paint),
        frustum(
            (bed, half - 0.24 * length, width),
            (bed, half - 0.27 * length, width - 0.1),
            (0.66 * height, 0.7 * height),
            paint,
        ),
        frustum(
            (bed + 0.02, half - 0.27 * length, width - 0.12),
            (bed + 0.2, half - 0.42 * length, width - 0.4),
            (0.7 * height, height),
            (glass, glass, glass, glass, paint, paint),
        ),
        box(
            (0.36 * length - 0.2, width - 0.2, 0.01),
            (bed - 0.18 * length, 0, 0.67 * height),
            row('dark'),
        ),
        *(
            box(
                (0.36 * length, 0.08, 0.12),
                (bed - 0.18 * length, s * (width / 2 - 0.04), 0.67 * height),
                paint,
            )
            for s in (1, -1)
        ),
        *wheels((-half + 1.1, half - 0.95), width + 0.02, 0.38),
    ]
    return body('car', parts, _without_mirrors(length, width, height))


def van(rng: np.random.Generator, large: bool = False) -> Body:
    """A panel van; the large one is labelled truck, as most data sets do."""
    length = rng.uniform(5.6, 7.2) if large else rng.uniform(4.6, 5.4)
    width, height = (
        rng.uniform(1.85, 2.1),
        rng.uniform(2.4, 2.9) if large else rng.uniform(1.85, 2.15),
    )
    paint, glass, half = (
        pick(rng, ('white', 'white', 'silver', 'blue', 'red', 'yellow')),
        row('glass'),
        length / 2,
    )
    nose = half - 0.9
    parts = [
        frustum((-half + 0.04, half, width), (-half, half - 0.1, width), (0.25, 1.05), paint),
        frustum(
            (-half, nose, width), (-half + 0.05, nose - 0.75, width - 0.25), (1.05, height), paint
        ),
        frustum(
            (nose - 0.9, half - 0.1, width - 0.04),
            (nose - 0.9, nose - 0.55, width - 0.3),
            (1.05, 0.88 * height),
            (glass, paint, glass, glass, paint, paint),
        ),
        box((0.04, 0.5, 0.11), (-half - 0.005, 0, 0.8), row('plate')),
        *wheels((-half + 0.9, half - 0.85), width + 0.02, 0.34),
    ]
    return body('truck' if large else 'car', parts, _without_mirrors(length, width, height))


def truck(rng: np.random.Generator) -> Body:
    """A rigid truck: cab, and a box, tank, tarpaulin or flat load."""
    length, width = rng.uniform(6.5, 10.5), rng.uniform(2.3, 2.5)
    cab, cab_height = rng.uniform(1.7, 2.2), rng.uniform(2.5, 3.1)
    load_height = rng.uniform(2.9, 3.7)
    half, load = length / 2, length - cab - 0.2
    middle = -half + load / 2
    kind = int(rng.integers(4))
    paint = pick(rng, PAINTS)
    parts = [*truck_cab(half, cab, width, cab_height, paint), _chassis(length, width)]
    if kind == 0:
        parts.append(
            box(
                (load, width, load_height - 1.0),
                (middle, 0, 1.0),
                pick(rng, ('white', 'silver', 'blue')),
            )
        )
    elif kind == 1:
        radius = min(width, load_height - 1.1) / 2
        parts.append(
            cylinder(
                radius, (-half, -half + load), (0, 1.1 + radius), row('silver'), 'x', sides=12
            )
        )
    elif kind == 2:
        parts.append(box((load, width, load_height - 1.0), (middle, 0, 1.0), row('tarpaulin')))
    else:
        parts.append(box((load, width, 0.5), (middle, 0, 1.0), row('grey')))
        parts.append(
            box((0.7 * load, 0.8 * width, rng.uniform(0.4, 1.4)), (middle, 0, 1.2), row('beige'))
        )
    parts += wheels((-half + 1.0, -half + 2.2, half - cab / 2 - 0.1), width + 0.02, 0.48)
    return body('truck', parts)


def bus(rng: np.random.Generator) -> Body:
    """A city or apron bus: a long box with a band of windows."""
    length, width, height = rng.uniform(10.0, 13.8), rng.uniform(2.5, 3.0), rng.uniform(2.9, 3.3)
    paint, glass, half = (
        pick(rng, ('white', 'blue', 'red', 'yellow', 'silver')),
        row('glass'),
        length / 2,
    )
    parts = [
        box((length, width, 0.95), (0, 0, 0.3), paint),
        frustum(
            (-half, half, width - 0.04),
            (-half + 0.05, half - 0.15, width - 0.1),
            (1.25, 0.8 * height),
            (glass, paint, glass, glass, paint, paint),
        ),
        frustum(
            (-half, half - 0.1, width),
            (-half + 0.1, half - 0.3, width - 0.3),
            (0.8 * height, height),
            paint,
        ),
        *(
            box((0.12, width, 1.3), (x, 0, 1.2), paint)
            for x in np.linspace(-half + 0.1, half - 0.6, 6)
        ),
        *wheels((-half + 2.8, half - 2.6), width + 0.02, 0.48),
    ]
    return body('bus', parts)


def cyclist(rng: np.random.Generator) -> Body:
    """A rider on a bicycle."""
    metal = pick(rng, ('black', 'red', 'blue', 'silver'))
    tyre = row('rubber')
    parts = [
        *(cylinder(0.34, (-0.03, 0.03), (x, 0.35), tyre, 'y', sides=10) for x in (-0.52, 0.52)),
        box((0.95, 0.05, 0.06), (0, 0, 0.52), metal),
        box((0.06, 0.05, 0.45), (-0.18, 0, 0.45), metal),
        box((0.06, 0.05, 0.6), (0.45, 0, 0.45), metal),
        box((0.08, 0.52, 0.05), (0.42, 0, 1.02), metal),
        *(part.moved((-0.2, 0, 0.0)) for part in figure(rng, 'riding', pick(rng, CLOTHES))),
    ]
    return body('cyclist', parts)


def truck_cab(front: float, length: float, width: float, height: float, paint: int) -> list[Mesh]:
    """A cab over the front axle, its nose at x = `front`: body, windscreen and side windows."""
    rear, glass = front - length, row('glass')
    return [
        box((length, width, 0.5 * height - 0.4), (front - length / 2, 0, 0.4), paint),
        frustum(
            (rear, front, width),
            (rear, front - 0.15, width - 0.1),
            (0.5 * height, 0.85 * height),
            (glass, paint, glass, glass, paint, paint),
        ),
        frustum(
            (rear, front - 0.12, width - 0.08),
            (rear, front - 0.3, width - 0.2),
            (0.85 * height, height),
            paint,
        ),
    ]


def _chassis(length: float, width: float) -> Mesh:
    return box((length - 0.3, width - 0.9, 0.35), (-0.05, 0, 0.65), row('dark'))


def _without_mirrors(length: float, width: float, height: float) -> tuple[float, ...]:
    return (0.0, 0.0, height / 2, length, width, height)

"""What stands around and has no label: buildings, jet bridges, masts, trees, fences."""

from __future__ import annotations

import numpy as np

from airside_perception.sim.bodies import Body, pick, structure
from airside_perception.sim.lamps import FLOOD, SODIUM, STREET, WARM, Lamp
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import Mesh, box, cylinder, ellipsoid


def building(rng: np.random.Generator, length: float, depth: float, height: float) -> Body:
    """A house front along x: walls, rows of windows, sometimes a plinth."""
    wall = pick(rng, ('facade', 'brick', 'cladding', 'concrete', 'white'))
    parts = [box((length, depth, height), (0, 0, 0), wall)]
    storeys = int(min(height // 3, 3))
    for storey in range(storeys):
        pane = box(
            (length * rng.uniform(0.5, 0.85), depth + 0.06, 1.4),
            (0, 0, 1.0 + 3 * storey),
            row('glass'),
        )
        parts.append(pane)
        posts = np.linspace(-0.45, 0.45, 5) * length
        parts += [
            box((0.12 * length, depth + 0.1, 1.5), (x, 0, 0.95 + 3 * storey), wall)
            for x in posts[::2]
        ]
    if rng.random() < 0.4:
        parts.append(box((length + 0.1, depth + 0.2, 0.6), (0, 0, 0), row('concrete')))
    return structure(parts)


def terminal(rng: np.random.Generator, length: float) -> Body:
    """A long terminal along y with its glass front at x = 0, facing -x."""
    height = rng.uniform(9, 16)
    parts = [
        box((20, length, height), (10.4, 0, 0), row('cladding')),
        box((0.5, length, 0.45 * height), (0.2, 0, 0.35 * height), row('pane')),
    ]
    parts += [
        box((0.8, 0.8, height), (0.0, y, 0), row('concrete'))
        for y in np.arange(-length / 2, length / 2, 14)
    ]
    # Flood-lights under the edge of the roof, looking at the stands.
    down = (-0.78, 0.0, -0.63)
    lamps = [
        Lamp((-0.7, y, height - 0.6), down, 0.35 * FLOOD, 1.0, WARM, 0.2)
        for y in np.arange(-length / 2 + 18, length / 2 - 10, 36)
    ]
    return structure(parts, lamps)


def jet_bridge(rng: np.random.Generator, reach: float) -> Body:
    """A bridge from a rotunda at the origin along +x: two tunnels on a wheeled column."""
    floor, tunnel = rng.uniform(3.2, 4.2), 2.6
    first = 0.55 * reach
    parts = [
        cylinder(2.2, (floor - 0.2, floor + tunnel + 0.4), (0, 0), row('white'), sides=10),
        cylinder(0.6, (0, floor), (0, 0), row('concrete'), sides=8),
        box(
            (first, 3.0, tunnel),
            (first / 2 + 1, 0, floor),
            pick(rng, ('white', 'livery_grey', 'glass')),
        ),
        box(
            (reach - first + 1, 2.5, tunnel - 0.4),
            ((reach + first) / 2, 0, floor + 0.1),
            row('livery_grey'),
        ),
        cylinder(1.9, (floor - 0.1, floor + tunnel), (reach, 0), row('dark'), sides=8),
        box((0.8, 2.8, floor - 1.0), (0.85 * reach, 0, 1.0), row('steel')),
        *(
            cylinder(0.5, (y, y + 0.5), (0.85 * reach, 0.5), row('rubber'), 'y', sides=8)
            for y in (-1.4, 0.9)
        ),
    ]
    return structure(parts)


def mast(rng: np.random.Generator, height: float) -> Body:
    """A flood-light mast on a concrete foot."""
    return structure(
        [
            box((1.2, 1.2, 0.8), (0, 0, 0), row('concrete')),
            cylinder((0.28, 0.14), (0.8, height), (0, 0), row('steel'), sides=8),
            box((0.6, rng.uniform(2, 4), 0.6), (0, 0, height), row('steel')),
        ],
        [Lamp((-0.4, y, height), (-0.6, 0.25 * y, -0.77), FLOOD, 1.0) for y in (1.0, -1.0)],
    )


def pole(rng: np.random.Generator) -> Body:
    """A lamp post or sign post."""
    height, radius = rng.uniform(2.5, 7), rng.uniform(0.04, 0.12)
    lamps: list[Lamp] = []
    parts = [cylinder(radius, (0, height), (0, 0), pick(rng, ('steel', 'grey', 'dark')), sides=6)]
    if rng.random() < 0.5:
        parts.append(
            box(
                (0.04, rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.9)),
                (-0.1, 0, height - 0.9),
                row('tape'),
            )
        )
    elif height > 4.5:
        parts.append(box((1.6, 0.12, 0.1), (0.7, 0, height - 0.1), row('steel')))
        lamps = [Lamp((1.4, 0.0, height - 0.2), (0.0, 0.0, -1.0), STREET, 0.8, SODIUM, 0.12)]
    return structure(parts, lamps)


def tree(rng: np.random.Generator) -> Body:
    """A trunk with two to four blobs of leaves."""
    height, spread = rng.uniform(4, 10), rng.uniform(2, 5)
    bare = height * rng.uniform(0.25, 0.45)
    parts: list[Mesh] = [
        cylinder((rng.uniform(0.12, 0.3), 0.1), (0, 0.75 * height), (0, 0), row('bark'), sides=6)
    ]
    for _ in range(int(rng.integers(2, 5))):
        size = rng.uniform(0.5, 0.9, 3) * [spread, spread, height - bare]
        offset = rng.uniform(-0.25, 0.25, 2) * spread
        centre = (
            *offset,
            rng.uniform(bare + size[2] / 2, max(bare + size[2] / 2 + 0.1, height - size[2] / 2)),
        )
        parts.append(
            ellipsoid(size, centre, row('leaves'), sides=7, rings=5).moved(yaw=rng.uniform(0, 1))
        )
    return structure(parts)


def bush(rng: np.random.Generator) -> Body:
    """A low rounded bush."""
    size = rng.uniform((0.6, 0.6, 0.5), (2.5, 2.0, 1.8))
    return structure([ellipsoid(size, (0, 0, 0.4 * size[2]), row('leaves'), sides=7, rings=5)])


def hedge(rng: np.random.Generator, length: float) -> Body:
    """A trimmed hedge along x."""
    return structure(
        [box((length, rng.uniform(0.5, 1.2), rng.uniform(0.7, 2.2)), (0, 0, 0), row('leaves'))]
    )


def fence(rng: np.random.Generator, length: float) -> Body:
    """A fence along x: posts and two rails, or a low wall."""
    height = rng.uniform(0.9, 2.2)
    if rng.random() < 0.5:
        return structure(
            [box((length, 0.25, height), (0, 0, 0), pick(rng, ('brick', 'concrete', 'facade')))]
        )
    posts = np.arange(-length / 2, length / 2 + 0.1, max(2.5, length / 12))
    parts = [box((0.08, 0.08, height), (x, 0, 0), row('steel')) for x in posts]
    parts += [
        box((length, 0.05, 0.15), (0, 0, z), row('steel')) for z in (0.3 * height, 0.85 * height)
    ]
    return structure(parts)


def kerb(length: float, width: float, height: float = 0.12) -> Body:
    """A raised strip of pavement along x."""
    return structure([box((length, width, height), (0, 0, 0), row('pavement'))])

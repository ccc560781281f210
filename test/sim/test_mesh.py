from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from airside_perception.sim import aircraft, ground_support, people, structures, vehicles
from airside_perception.sim.bodies import CLASSES, SMALL
from airside_perception.sim.mesh import box, cylinder, ellipsoid, halved, loft, merge, plate, quad

SOLIDS = {
    'box': (box((2, 3, 4), (1, 1, 1), 0), (0, -0.5, 1), (2, 2.5, 5), 24.0),
    'cylinder z': (cylinder(1, (0, 2), (3, 4), 0), (2, 3, 0), (4, 5, 2), None),
    'cylinder x': (cylinder(1, (0, 2), (3, 4), 0, 'x'), (0, 2, 3), (2, 4, 5), None),
    'cylinder y': (cylinder(1, (0, 2), (3, 4), 0, 'y'), (2, 0, 3), (4, 2, 5), None),
    'cone': (cylinder((1, 0.1), (0, 2), (0, 0), 0), (-1, -1, 0), (1, 1, 2), None),
    'ellipsoid': (ellipsoid((1, 2, 3), (0, 0, 1), 0), (-0.5, -1, -0.5), (0.5, 1, 2.5), None),
    'loft': (loft([(0, 0, 0, 1, 1), (3, 0, 1, 2, 1)], 0), (0, -2, -1), (3, 2, 2), None),
    'plate': (
        plate([[2, 5, 0], [0, 5, 0], [0, 0, 0], [2, 0, 0]], 0.3, 0), (0, 0, 0), (2, 5, 0.3), 3.0
    ),
}  # fmt: skip

BODIES = {
    'car': vehicles.car,
    'pickup': vehicles.pickup,
    'van': vehicles.van,
    'large van': lambda rng: vehicles.van(rng, large=True),
    'truck': vehicles.truck,
    'bus': vehicles.bus,
    'cyclist': vehicles.cyclist,
    'belt loader': ground_support.belt_loader,
    'pushback tug': ground_support.pushback_tug,
    'tractor': ground_support.baggage_tractor,
    'cart': ground_support.baggage_cart,
    'fuel truck': ground_support.fuel_truck,
    'catering truck': ground_support.catering_truck,
    'stairs': ground_support.stairs,
    'cone': ground_support.cone,
    'ground power': ground_support.ground_power,
    'container': ground_support.container,
    'chock': ground_support.chock,
    'foreign object': ground_support.fod,
    'jet bridge': lambda rng: structures.jet_bridge(rng, 20.0),
    'building': lambda rng: structures.building(rng, 12.0, 9.0, 8.0),
    'tree': structures.tree,
    'fence': lambda rng: structures.fence(rng, 9.0),
    **{pose: lambda rng, pose=pose: people.person(rng, pose) for pose in people.POSES},
    **{kind: lambda rng, kind=kind: aircraft.aircraft(rng, kind) for kind in aircraft.AIRLINERS},
}

# Length, width, height in metres: what such things measure, with room for their variety.
SIZES = {
    'car': ((3.4, 5.2), (1.6, 2.1), (1.3, 2.1)),
    'truck': ((6.4, 10.6), (2.2, 2.6), (2.4, 3.8)),
    'bus': ((9.9, 14.0), (2.4, 3.1), (2.8, 3.4)),
    'belt loader': ((5.5, 8.1), (1.9, 2.6), (2.1, 3.8)),
    'pushback tug': ((4.5, 8.3), (2.2, 3.1), (1.7, 2.5)),
    'fuel truck': ((7.4, 11.1), (2.3, 2.7), (2.7, 3.5)),
    'catering truck': ((6.7, 9.1), (2.2, 2.6), (2.4, 6.5)),
    'cart': ((1.9, 3.8), (1.1, 2.0), (0.5, 2.1)),
    'standing': ((0.5, 0.7), (0.5, 0.75), (1.5, 2.0)),
    'walking': ((0.5, 1.2), (0.5, 0.75), (1.5, 2.0)),
    'A320': ((35.0, 40.0), (3.9, 4.0), (3.9, 4.2)),
}


def volumes(triangles: np.ndarray) -> np.ndarray:
    """Signed volume of every connected solid among the triangles."""
    points, index = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    corners = index.reshape(-1, 3)
    links = coo_matrix(
        (np.ones(len(corners) * 2), (np.repeat(corners[:, 0], 2), corners[:, 1:].ravel())),
        shape=(len(points), len(points)),
    )
    _, part = connected_components(links, directed=False)
    t = triangles.astype(np.float64)
    pieces = np.einsum('ij,ij->i', t[:, 0], np.cross(t[:, 1], t[:, 2])) / 6
    return np.bincount(part[corners[:, 0]], weights=pieces)


def open_edges(triangles: np.ndarray) -> int:
    """Edges that are not run through once in each direction."""
    edges: Counter[tuple[bytes, bytes]] = Counter()
    for triangle in triangles:
        names = [corner.tobytes() for corner in triangle + np.float32(0)]  # +0: no negative zero
        for a, b in zip(names, [*names[1:], names[0]], strict=True):
            if a != b:
                edges[a, b] += 1
    return sum(edges[a, b] != edges[b, a] for a, b in edges)


@pytest.mark.parametrize('name', SOLIDS)
def test_solids_are_closed_and_as_large_as_asked(name):
    mesh, low, high, volume = SOLIDS[name]
    assert_allclose(mesh.extents, (low, high), atol=1e-6)
    assert open_edges(mesh.triangles) == 0
    assert volumes(mesh.triangles).min() > 0
    if volume is not None:
        assert_allclose(volumes(mesh.triangles).sum(), volume, rtol=1e-6)


def test_the_volume_of_a_cylinder_is_that_of_its_prism():
    sides = 24
    mesh = cylinder(2.0, (1.0, 4.0), (0.0, 0.0), 0, sides=sides)
    assert 0.95 * np.pi * 4 * 3 < volumes(mesh.triangles).sum() < 1.02 * np.pi * 4 * 3


@pytest.mark.parametrize('name', BODIES)
def test_bodies_consist_of_closed_solids_with_normals_outwards(name):
    for seed in range(6):
        body = BODIES[name](np.random.default_rng(seed))
        assert open_edges(body.mesh.triangles) == 0
        assert volumes(body.mesh.triangles).min() > -1e-9
        assert len(body.mesh) < 1200


@pytest.mark.parametrize('name', BODIES)
def test_labelled_triangles_lie_in_the_box_and_fill_it(name):
    for seed in range(6):
        body = BODIES[name](np.random.default_rng(seed))
        if not body.label:
            continue
        assert body.label in (*CLASSES, *SMALL)
        points = body.mesh.triangles[: body.labelled].reshape(-1, 3)
        middle, half = body.box[:3], body.box[3:] / 2
        # Mirrors stand out of a car's box, as annotators leave them out.
        assert (np.abs(points - middle) <= half + 0.2).all()
        inside = (np.abs(points - middle) <= half + 0.03).all(axis=1)
        assert inside.mean() > 0.85
        spans = np.ptp(points[inside], axis=0)
        assert (spans > 0.8 * body.box[3:]).all() or body.label in ('person', 'fod')
        assert_allclose(body.box[:2], 0.0)


@pytest.mark.parametrize('name', SIZES)
def test_sizes_are_those_of_the_real_things(name):
    for seed in range(12):
        size = BODIES[name](np.random.default_rng(seed)).box[3:]
        for value, (low, high) in zip(size, SIZES[name], strict=True):
            assert low <= value <= high


def test_only_the_fuselage_of_an_aircraft_is_labelled():
    body = aircraft.aircraft(np.random.default_rng(0), 'A320')
    assert 0 < body.labelled < len(body.mesh)
    low, high = body.mesh.extents
    assert high[1] - low[1] > 30 > 5 > body.box[4]


def test_moving_turns_about_the_origin_first():
    mesh = quad((2, 1), (0, 0, 0), 0.0, 3).moved((10, 0, 1), np.pi / 2)
    assert_allclose(mesh.extents, ((9.5, -1, 1), (10.5, 1, 1)), atol=1e-6)
    assert mesh.materials.tolist() == [3, 3]


def test_merging_keeps_order_and_materials():
    whole = merge([box((1, 1, 1), (0, 0, 0), 4), quad((1, 1), (0, 0, 0), 0.0, 5)])
    assert whole.materials.tolist() == [4] * 12 + [5] * 2
    assert whole.triangles.dtype == np.float32


def test_long_triangles_are_halved_and_cover_what_they_did():
    """Pieces lie in their triangle, are wound as it is and have its area; near ones are short."""
    rng = np.random.default_rng(0)
    triangles = rng.uniform(-4, 4, (40, 3, 3)).astype(np.float32)
    triangles[:20] = triangles[:20, :1] + 0.02 * triangles[:20]
    pieces, owner = halved(triangles, 1.0, 0.3)
    assert_array_equal(np.unique(owner), np.arange(40))
    assert_array_equal(np.bincount(owner)[:20], 1)
    across = area(pieces)
    whole = area(triangles)
    for number in range(40):
        mine = across[owner == number]
        assert_allclose(mine.sum(axis=0), whole[number], rtol=1e-4, atol=1e-4)
        assert (mine @ whole[number] > 0).all()
        corners = pieces[owner == number].reshape(-1, 3) - triangles[number, 0]
        edges = (triangles[number, 1:] - triangles[number, 0]).T.astype(np.float64)
        shares, _, _, _ = np.linalg.lstsq(edges, corners.T.astype(np.float64), rcond=None)
        assert (shares > -1e-5).all()
        assert (shares.sum(axis=0) < 1 + 1e-5).all()
    edges = np.linalg.norm(pieces - np.roll(pieces, 1, axis=1), axis=2).max(axis=1)
    away = np.hypot(*pieces.mean(axis=1)[:, :2].T)
    assert (edges <= np.maximum(1.001, 0.301 * away)).all()


def area(triangles: np.ndarray) -> np.ndarray:
    """Area along the normal [N, 3]."""
    first, second = np.moveaxis(triangles[:, 1:] - triangles[:, :1], 1, 0).astype(np.float64)
    return np.cross(first, second) / 2

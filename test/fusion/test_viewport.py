from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import HalfspaceIntersection

from airside_perception.fusion.viewport import NEAR, Viewport, see
from airside_perception.geometry import apply, invert
from airside_perception.projection import CameraModel

NONE = np.empty((0, 7))
BENT = (-0.3, 0.09, 0.0005, -0.0003, -0.01)


def look(camera: CameraModel, pose: np.ndarray, boxes: np.ndarray, lifted: np.ndarray = NONE):
    (seen,) = see([Viewport.of(camera)], [invert(pose)], boxes, [lifted])
    return seen


def frustum(camera: CameraModel) -> np.ndarray:
    """Half spaces a x + b <= 0 of what a camera without distortion has in its image."""
    (left, top, _), (right, bottom, _) = camera.rays([[0, 0], [camera.width, camera.height]])
    return np.array(
        [
            [-1, 0, left, 0], [1, 0, -right, 0], [0, -1, top, 0], [0, 1, -bottom, 0],
            [0, 0, -1, NEAR],
        ]
    )  # fmt: skip


def exact(camera: CameraModel, pose: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The rectangle from the vertices of the convex body that is both in the box and in view."""
    x, y, z, length, width, height, yaw = box
    c, s = np.cos(yaw), np.sin(yaw)
    axes = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ pose[:3, :3]  # rows, in camera axes
    centre = apply(invert(pose), np.array([[x, y, z]]))[0]
    half = np.array([length, width, height]) / 2
    planes = np.concatenate([axes, -axes])
    offsets = -planes @ centre - np.concatenate([half, half])
    spaces = np.concatenate([np.column_stack([planes, offsets]), frustum(camera)])
    # the point that is deepest inside; if there is none, nothing is seen
    norms = np.linalg.norm(spaces[:, :3], axis=1)
    best = linprog(
        [0, 0, 0, -1], A_ub=np.column_stack([spaces[:, :3], norms]), b_ub=-spaces[:, 3],
        bounds=[(None, None)] * 3 + [(0, None)], method='highs',
    )  # fmt: skip
    if best.status != 0 or best.x[3] < 1e-4:
        return None
    pixels, valid = camera.project(HalfspaceIntersection(spaces, best.x[:3]).intersections)
    assert valid.all()
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(
        st.floats(-10, 25), st.floats(-12, 12), st.floats(-2, 4),
        st.floats(0.3, 30), st.floats(0.3, 30), st.floats(0.3, 12), st.floats(-3.1, 3.1),
    ),
    st.floats(-0.3, 0.3),
)  # fmt: skip
def test_rectangles_are_those_of_the_clipped_body(rig, box, pitch) -> None:
    camera, pose = rig.lens(), rig.camera2base(0.3, pitch)
    seen = look(camera, pose, np.array([box]))
    expected = exact(camera, pose, np.array(box))
    if expected is not None:
        assert seen.visible[0]
        np.testing.assert_allclose(seen.xyxy[0], expected, atol=0.02)
    else:  # nothing of it, or less than the reference can tell
        assert (seen.xyxy >= 0).all()


@pytest.mark.parametrize(
    ('x', 'y', 'visible'),
    [(10, 0, True), (-10, 0, False), (1.5, 0, True), (10, 30, False), (3, 4.5, True)],
)
def test_what_lies_behind_is_not_seen_and_what_starts_beside_is(rig, x, y, visible) -> None:
    box = np.array([[x, y, 1.0, 8.0, 2.5, 3.0, 0.0]])
    seen = look(rig.lens(), rig.camera2base(), box)
    assert seen.visible[0] == visible
    assert bool(seen.xyxy.any()) == visible


def test_a_box_around_the_camera_fills_the_image(rig) -> None:
    for wide in (3.0, 60.0):  # its edges cross the view, or lie outside of it
        box = np.array([[4.0, 0, 2.0, 12.0, wide, wide, 0.0]])
        seen = look(rig.lens(), rig.camera2base(), box)
        np.testing.assert_allclose(seen.xyxy[0], [0, 0, 1280, 720], atol=1e-6)
        assert seen.depth[0] < 0


@pytest.mark.parametrize('distortion', [(), BENT])
def test_bodies_inside_and_cut_contain_what_is_sampled(rig, distortion) -> None:
    camera, pose = rig.lens(distortion), rig.camera2base(0.1, 0.05)
    rng = np.random.default_rng(1)
    boxes = np.column_stack(
        [rng.uniform(3, 40, 60), rng.uniform(-15, 15, 60), rng.uniform(0, 2, 60),
         rng.uniform(0.5, 9, (60, 3)), rng.uniform(-3, 3, 60)]
    )  # fmt: skip
    seen = look(camera, pose, boxes)
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 25)] * 3), -1).reshape(-1, 3)
    size = np.array([1280, 720])
    for box, xyxy, visible in zip(boxes, seen.xyxy, seen.visible, strict=True):
        c, s = np.cos(box[6]), np.sin(box[6])
        points = grid * box[3:6] @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + box[:3]
        local = apply(invert(pose), points)
        pixels, valid = camera.project(local[local[:, 2] > NEAR])
        pixels = pixels[valid]
        pixels = pixels[((pixels >= 0) & (pixels <= size)).all(axis=1)]
        assert visible or not len(pixels)
        if len(pixels):  # the lens bends the edges of large boxes outwards
            bend = 0.02 * (xyxy[2:] - xyxy[:2]).max() if distortion else 1e-6
            assert (pixels.min(axis=0) >= xyxy[:2] - bend).all()
            assert (pixels.max(axis=0) <= xyxy[2:] + bend).all()


@pytest.mark.parametrize('distortion', [(), BENT])
@pytest.mark.parametrize('pitch', [0.0, 0.12])
def test_lifted_boxes_show_the_rectangle_that_they_came_from(rig, distortion, pitch) -> None:
    camera, pose = rig.lens(distortion), rig.camera2base(0.7, pitch)
    c, s = np.cos(0.7), np.sin(0.7)
    places = [(6, 0.5), (12, -4), (25, 6), (40, -9), (18, 12)]
    objects = rig.boxes(*(('car', c * x - s * y, s * x + c * y, 0.4) for x, y in places))
    view = rig.seen_by(objects, pose, camera)
    seen = look(camera, pose, objects.boxes, view.boxes.boxes)
    assert seen.found.all()
    np.testing.assert_allclose(seen.lifted, seen.xyxy, atol=1.5)


def test_several_cameras_see_what_each_sees_alone(rig) -> None:
    poses = [rig.camera2base(0.0), rig.camera2base(1.5, 0.1), rig.camera2base(3.0)]
    cameras = [rig.lens(), rig.lens(BENT), rig.lens((), 640, 480)]
    objects = rig.boxes(('car', 9, 1), ('car', 1, 12), ('truck', -14, 2), ('person', 5, 6))
    lifted = [objects.boxes[:1], NONE, objects.boxes[2:]]
    together = see(
        [Viewport.of(c) for c in cameras], [invert(p) for p in poses], objects.boxes, lifted
    )
    for camera, pose, own, seen in zip(cameras, poses, lifted, together, strict=True):
        alone = look(camera, pose, objects.boxes, own)
        for name in ('xyxy', 'visible', 'depth', 'distance', 'lifted', 'found'):
            np.testing.assert_allclose(getattr(seen, name), getattr(alone, name), atol=1e-9)
        assert seen.size == (camera.width, camera.height)


def test_distance_is_to_the_centre_and_depth_to_the_nearest_corner(rig) -> None:
    seen = look(rig.lens(), rig.camera2base(), np.array([[11.5, 0, 2.0, 4.0, 2.0, 2.0, 0.0]]))
    assert seen.distance[0] == pytest.approx(10.0)
    assert seen.depth[0] == pytest.approx(8.0)


def test_no_boxes_and_no_cameras(rig) -> None:
    seen = look(rig.lens(), rig.camera2base(), NONE)
    assert (seen.xyxy.shape, seen.lifted.shape) == ((0, 4), (0, 4))
    assert see([], [], NONE, []) == []


def test_a_fisheye_without_rays_in_its_corners_still_has_a_view(rig) -> None:
    matrix = np.array([[300.0, 0, 640], [0, 300, 480], [0, 0, 1]])
    camera = CameraModel('fisheye', 1280, 960, matrix, (0.02, -0.01, 0.0, 0.0), 'equidistant')
    assert np.isnan(camera.rays([[0, 0]])).any()
    boxes = np.array([[6.0, 0, 1, 4, 2, 2, 0], [2.5, 6.0, 1, 4, 2, 2, 0.3]])
    seen = look(camera, rig.camera2base(), boxes)
    assert seen.visible.all()
    assert (seen.xyxy[:, 2:] <= [1280, 960]).all()
    left, _, right, _ = seen.xyxy[0]
    assert left < 640 < right

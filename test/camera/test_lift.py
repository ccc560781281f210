"""The lift to the ground against projection, published figures and simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from airside_perception.camera.lift import YAW_VARIANCE, in_sky, lift
from airside_perception.config import CameraConfig
from airside_perception.errors import TransformError
from airside_perception.geometry import apply, corners, invert, transform
from airside_perception.projection import CameraModel
from airside_perception.types import Boxes2D, Boxes3D

K = np.array([[600.0, 0.0, 640.0], [0.0, 600.0, 360.0], [0.0, 0.0, 1.0]])
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Optical axes (right, down, forward) in axes of a body (forward, left, up)."""
LENSES = {
    'pinhole': CameraModel('camera', 1280, 720, K),
    'barrel': CameraModel('camera', 1280, 720, K, (-0.3, 0.1, 0.001, -0.002, -0.01)),
    'rational': CameraModel(
        'camera', 1280, 720, K, (0.5, 0.2, 5e-4, -3e-4, 0.02, 0.8, 0.3, 0.05),
        'rational_polynomial',
    ),
    'fisheye': CameraModel(
        'camera', 1280, 720, K * [[0.6], [0.6], [1]] + [[0, 0, 256.0], [0, 0, 144.0], [0, 0, 0]],
        (0.03, -0.01, 0.002, -0.0005), 'equidistant',
    ),
}  # fmt: skip
MOUNTS = {
    'level': (0.0, 0.0, 0.0), 'pitched': (0.0, 15.0, 0.0), 'rolled': (0.0, 0.0, 3.0),
    'turned': (120.0, 0.0, 0.0), 'everything': (-70.0, 10.0, -3.0), 'up': (0.0, -3.0, 0.0),
}  # fmt: skip
SIZES = {'car': (4.3, 1.8, 1.55), 'person': (0.5, 0.5, 1.75), 'truck': (8.0, 2.5, 3.2)}
EXACT = CameraConfig(pixel_sigma=0.1, pitch_sigma=0.0)


def mount(
    yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, height: float = 2.0
) -> np.ndarray:
    """camera2ground: degrees; pitch is positive downwards."""
    body = Rotation.from_euler('ZYX', [yaw, pitch, roll], degrees=True).as_matrix()
    return transform(body @ OPTICAL, np.array([1.5, -0.4, height]))


def boxes_2d(xyxy: object, name: str = 'car') -> Boxes2D:
    rows = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
    scores = np.linspace(0.9, 0.4, len(rows))
    return Boxes2D(7, 'camera_optical', rows, scores, (name,) * len(rows))


def standing_faces(camera2ground: np.ndarray, seed: int = 0, count: int = 300) -> np.ndarray:
    """Boxes [N, 7] on the ground that face the camera from places all around its axis."""
    rng = np.random.default_rng(seed)
    ahead = camera2ground[:2, 2]
    bearing = np.arctan2(ahead[1], ahead[0]) + rng.uniform(-0.6, 0.6, count)
    reach, width, tall = (rng.uniform(*span, count) for span in ((4, 70), (0.5, 4), (0.7, 4)))
    centre = reach + SIZES['car'][0] / 2
    return np.stack(
        [
            camera2ground[0, 3] + centre * np.cos(bearing),
            camera2ground[1, 3] + centre * np.sin(bearing),
            tall / 2, np.full(count, SIZES['car'][0]), width, tall, bearing,
        ],
        axis=1,
    )  # fmt: skip


def images_of_faces(
    boxes: np.ndarray, camera: CameraModel, camera2ground: np.ndarray
) -> np.ndarray:
    """2D boxes [N, 4] around the nearest side of camera-facing boxes; NaN where not seen.

    Boxes have edges, of which the first pixel's are 0 and 1; a projection has its centre at 0.
    """
    rear = corners(boxes)[:, [1, 2, 5, 6]]  # the box looks away from the camera
    pixels, _ = camera.project(apply(invert(camera2ground), rear.reshape(-1, 3)))
    pixels = pixels.reshape(-1, 4, 2)
    return np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1) + 0.5


def inside(xyxy: np.ndarray) -> np.ndarray:
    margin = 5
    low, high = (xyxy[:, :2] > margin).all(1), (xyxy[:, 2:] < [1280 - margin, 720 - margin]).all(1)
    return low & high


@pytest.mark.parametrize('place', MOUNTS)
@pytest.mark.parametrize('lens', LENSES)
def test_what_faces_the_camera_is_found_where_it_stands(lens: str, place: str) -> None:
    """From an object to its 2D box and back, and that the front face meets the 2D box again."""
    camera, camera2ground = LENSES[lens], mount(*MOUNTS[place])
    truth = standing_faces(camera2ground)
    xyxy = images_of_faces(truth, camera, camera2ground)
    seen = inside(xyxy)
    assert seen.sum() > 60
    lifted = lift(boxes_2d(xyxy[seen]), camera, camera2ground, SIZES, EXACT)
    assert len(lifted) == seen.sum()
    again = images_of_faces(lifted.boxes, camera, camera2ground)
    assert np.abs(again - xyxy[seen]).max() < 0.2
    offset = np.hypot(*(lifted.boxes[:, :2] - truth[seen, :2]).T)
    reach = np.hypot(*(truth[seen, :2] - camera2ground[:2, 3]).T)
    assert (offset < 0.2 * reach**2 / (2 * 300)).all()  # 0.2 pixels, seen from that far
    np.testing.assert_allclose(lifted.boxes[:, 4:6], truth[seen, 4:6], rtol=0.05, atol=0.05)
    np.testing.assert_allclose(lifted.boxes[:, 6], truth[seen, 6], atol=0.01)


@pytest.mark.parametrize('place', MOUNTS)
@pytest.mark.parametrize('lens', LENSES)
def test_boxes_of_any_shape_meet_their_image_again(lens: str, place: str) -> None:
    """Within 2 pixels where some upright face looks like that; others keep their contact."""
    camera, camera2ground = LENSES[lens], mount(*MOUNTS[place])
    rng = np.random.default_rng(5)
    size = rng.uniform([20, 30], [160, 200], (200, 2))
    corner = rng.uniform([200, 100], np.array([1080, 650]) - size)
    xyxy = np.concatenate([corner, corner + size], axis=1)
    lifted = lift(boxes_2d(xyxy), camera, camera2ground, SIZES, CameraConfig(max_range=300.0))
    rows = np.searchsorted(-boxes_2d(xyxy).scores, -lifted.scores)
    error = np.abs(images_of_faces(lifted.boxes, camera, camera2ground) - xyxy[rows]).max(axis=1)
    assert len(lifted) > 50
    assert (error < 2.0).mean() > 0.93
    foot = lifted.boxes[:, :2] - camera2ground[:2, 3]
    ahead = np.hypot(*foot.T) - lifted.boxes[:, 3] / 2
    contact = camera2ground[:2, 3] + foot / np.hypot(*foot.T)[:, None] * ahead[:, None]
    ground = np.concatenate([contact, np.zeros((len(contact), 1))], axis=1)
    pixels, _ = camera.project(apply(invert(camera2ground), ground))
    odd = error >= 2.0
    expected = np.stack([xyxy[rows, ::2].mean(axis=1), xyxy[rows, 3]], axis=1)
    np.testing.assert_allclose(pixels[odd], expected[odd] - 0.5, atol=0.01)


def ahead(reach: float, height: float = 2.0, width: float = 1.8, tall: float = 1.5) -> np.ndarray:
    """2D box of a face straight ahead of a level camera: by its edges, see `images_of_faces`."""
    top, bottom = 360 + 600 * (height - tall) / reach, 360 + 600 * height / reach
    return np.array([640 - 300 * width / reach, top, 640 + 300 * width / reach, bottom]) + 0.5


def along(lifted: Boxes3D) -> np.ndarray:
    """Standard deviation along the bearing, without what the class says about the length."""
    hidden = ((4.3 - 1.8) / 2) ** 2 / 3 + (0.1 * 4.3) ** 2
    direction = np.stack([np.cos(lifted.boxes[:, 6]), np.sin(lifted.boxes[:, 6])], axis=1)
    variance = np.einsum('ni,nij,nj->n', direction, lifted.covariances[:, :2, :2], direction)
    return np.sqrt(variance - hidden)


def test_range_error_of_the_literature() -> None:
    """r^2 s / (h f) with h = 2 m, f = 600, s = 2: 0.67, 2.7 and 6 m at 20, 40 and 60 m."""
    config = CameraConfig(pixel_sigma=2.0, pitch_sigma=0.0)
    boxes = boxes_2d([ahead(20.0), ahead(40.0), ahead(60.0)])
    lifted = lift(boxes, LENSES['pinhole'], mount(), SIZES, config)
    np.testing.assert_allclose(lifted.boxes[:, 0] - 1.5, np.array([20, 40, 60]) + 4.3 / 2)
    np.testing.assert_allclose(along(lifted), [2 / 3, 8 / 3, 6.0], rtol=1e-3)


def test_tilt_error_of_the_literature() -> None:
    """0.2 degrees of pitch add 2.8 m at 40 m."""
    config = CameraConfig(pixel_sigma=0.1, pitch_sigma=np.deg2rad(0.2))
    lifted = lift(boxes_2d([ahead(40.0)]), LENSES['pinhole'], mount(), SIZES, config)
    assert along(lifted)[0] == pytest.approx(2.8, abs=0.01)


def test_the_bearing_is_much_better_known_than_the_range() -> None:
    lifted = lift(boxes_2d([ahead(50.0)]), LENSES['pinhole'], mount(), SIZES, CameraConfig())
    covariance = lifted.covariances[0]
    assert covariance[0, 0] > 100 * covariance[1, 1]
    assert covariance[1, 1] > (50 * 3 / 600) ** 2 / 2
    assert covariance[3, 3] == pytest.approx(np.pi**2 / 3) == pytest.approx(YAW_VARIANCE)


def test_sides_are_less_certain_the_wider_a_box_is() -> None:
    """Each edge errs by s = hypot(pixel_sigma, side_sigma w), their middle by s / sqrt(2)."""
    config = CameraConfig(pixel_sigma=1.0, side_sigma=0.2, pitch_sigma=0.0)
    plain = CameraConfig(pixel_sigma=1.0, side_sigma=0.0, pitch_sigma=0.0)
    boxes = boxes_2d([ahead(20.0)])
    width = boxes.xyxy[0, 2] - boxes.xyxy[0, 0]
    with_sides, without = (
        lift(boxes, LENSES['pinhole'], mount(), SIZES, item).covariances[0]
        for item in (config, plain)
    )
    reach = 20.0 + 4.3 / 2
    expected = (0.2 * width / 600 * reach) ** 2 / 2
    assert with_sides[1, 1] - without[1, 1] == pytest.approx(expected, rel=1e-2)  # small angles
    assert with_sides[0, 0] == pytest.approx(without[0, 0], rel=1e-3)


@pytest.mark.parametrize('place', ['level', 'pitched', 'everything'])
@pytest.mark.parametrize('lens', ['pinhole', 'barrel'])
def test_covariance_against_simulation(lens: str, place: str) -> None:
    """Shake the edges by their sigmas and the camera by pitch_sigma; see how lifts spread."""
    camera, camera2ground = LENSES[lens], mount(*MOUNTS[place])
    config = CameraConfig(pixel_sigma=0.5, side_sigma=0.02, pitch_sigma=0.002, max_range=300.0)
    faces = standing_faces(camera2ground, seed=2)
    xyxy = images_of_faces(faces, camera, camera2ground)
    reach = np.hypot(*(faces[:, :2] - camera2ground[:2, 3]).T)
    chosen = np.flatnonzero(inside(xyxy) & (reach < 45) & (reach > 6) & (faces[:, 4] > 1))[:5]
    assert len(chosen) == 5
    shakes = np.random.default_rng(4).normal(0.0, 1.0, (1000, 4))
    tilts = config.pitch_sigma * norm.ppf((np.arange(30) + 0.5) / 30)
    for row in chosen:
        predicted = lift(boxes_2d(xyxy[[row]]), camera, camera2ground, SIZES, config)
        bearing = predicted.boxes[0, 6]
        c, s = np.cos(bearing), np.sin(bearing)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        side = np.hypot(config.pixel_sigma, config.side_sigma * (xyxy[row, 2] - xyxy[row, 0]))
        noise = shakes * [side, config.pixel_sigma, side, config.pixel_sigma]
        shaken = lift(boxes_2d(xyxy[row] + noise), camera, camera2ground, SIZES, config)
        tilted = []
        for tilt in tilts:
            moved = camera2ground.copy()
            moved[:3, :3] = (
                Rotation.from_rotvec([-s * tilt, c * tilt, 0]).as_matrix() @ moved[:3, :3]
            )
            tilted.append(lift(boxes_2d(xyxy[row]), camera, moved, SIZES, config).boxes[0, :3])
        spread = np.cov(shaken.boxes[:, :3].T) + np.cov(np.array(tilted).T)
        simulated = turn @ spread @ turn.T
        width, tall = predicted.boxes[0, 4:6]
        hidden = np.diag([(2.5 / 2) ** 2 / 3 + 0.43**2, (0.1 * width) ** 2, (0.1 * tall) ** 2])
        model = turn @ predicted.covariances[0, :3, :3] @ turn.T - hidden
        np.testing.assert_allclose(np.diag(model), np.diag(simulated), rtol=0.2)
        deviation = np.sqrt(np.diag(simulated))
        correlation = (model - simulated) / np.outer(deviation, deviation)
        assert np.abs(correlation).max() < 0.2


def test_covariances_can_be_inverted_and_are_symmetric() -> None:
    xyxy = images_of_faces(standing_faces(mount()), LENSES['barrel'], mount())
    lifted = lift(boxes_2d(xyxy[inside(xyxy)]), LENSES['barrel'], mount(), SIZES, CameraConfig())
    assert (np.linalg.eigvalsh(lifted.covariances) > 0).all()
    np.testing.assert_allclose(lifted.covariances, np.swapaxes(lifted.covariances, 1, 2))


def test_only_boxes_on_the_ground_in_range_are_lifted() -> None:
    sky = [600.0, 100.0, 660.0, 200.0]
    horizon = [600.0, 300.0, 660.0, 360.0]
    boxes = boxes_2d([sky, ahead(79.0), horizon, ahead(81.0), ahead(10.0)])
    lifted = lift(boxes, LENSES['pinhole'], mount(), SIZES, CameraConfig(max_range=80.0))
    assert lifted.scores.tolist() == boxes.scores[[1, 4]].tolist()
    np.testing.assert_allclose(lifted.boxes[:, 0], np.array([79, 10]) + 1.5 + 4.3 / 2, rtol=1e-6)
    assert (lifted.stamp_ns, lifted.frame_id) == (7, 'base_link')


def test_the_length_is_that_of_the_class() -> None:
    boxes = replace(boxes_2d([ahead(20), ahead(20)]), classes=('person', 'truck'))
    lifted = lift(boxes, LENSES['pinhole'], mount(), SIZES, replace(EXACT, ground_frame='map'))
    assert lifted.boxes[:, 3].tolist() == [0.5, 8.0]
    np.testing.assert_allclose(lifted.boxes[:, 0], [1.5 + 20.25, 1.5 + 24.0])
    assert lifted.classes == ('person', 'truck')
    assert lifted.frame_id == 'map'


def test_a_box_cut_off_below_may_be_anywhere_nearer() -> None:
    cut, whole = [500.0, 300.0, 800.0, 719.0], [500.0, 300.0, 800.0, 700.0]
    lifted = lift(boxes_2d([cut, whole]), LENSES['pinhole'], mount(), SIZES, EXACT)
    reach = 2.0 * 600 / 359
    assert lifted.covariances[0, 0, 0] > reach**2 / 3
    assert along(lifted)[1] < 0.1


@pytest.mark.parametrize(('left', 'right'), [(0.0, 100.0), (1180.0, 1280.0)])
def test_a_box_cut_off_at_a_side_may_be_wider(left: float, right: float) -> None:
    cut, whole = [left, 350.0, right, 500.0], [500.0, 350.0, 600.0, 500.0]
    lifted = lift(boxes_2d([cut, whole]), LENSES['pinhole'], mount(), SIZES, EXACT)
    bearing = lifted.boxes[:, 6]
    normal = np.stack([-np.sin(bearing), np.cos(bearing)], axis=1)
    across = np.einsum('ni,nij,nj->n', normal, lifted.covariances[:, :2, :2], normal)
    missing = (4.3 - lifted.boxes[:, 4]) / 2
    assert across[0] > missing[0] ** 2 / 3 > 4 * across[1]


def test_a_box_cut_off_above_may_be_taller() -> None:
    cut, whole = [500.0, 0.0, 800.0, 563.0], [500.0, 10.0, 800.0, 563.0]
    boxes, camera2ground = boxes_2d([cut, whole], 'truck'), mount(pitch=15.0)
    lifted = lift(boxes, LENSES['pinhole'], camera2ground, SIZES, EXACT)
    missing = (3.2 - lifted.boxes[0, 5]) / 2
    assert missing > 0
    assert lifted.covariances[0, 2, 2] - lifted.covariances[1, 2, 2] > 0.8 * missing**2 / 3


def test_a_sliver_keeps_its_contact() -> None:
    """Off the axis no upright face is 200 pixels wide and 4 high; its place is still known."""
    flat = [80.0, 600.0, 280.0, 604.0]
    lifted = lift(boxes_2d([flat]), LENSES['pinhole'], mount(), SIZES, CameraConfig())
    ray = mount()[:3, :3] @ LENSES['pinhole'].rays([[179.5, 603.5]])[0]
    contact = mount()[:3, 3] - ray * 2.0 / ray[2]
    reach = np.hypot(*(contact[:2] - [1.5, -0.4]))
    away = lifted.boxes[0, :2] - [1.5, -0.4]
    assert np.hypot(*away) == pytest.approx(reach + 4.3 / 2)
    assert np.arctan2(*away[::-1]) == pytest.approx(lifted.boxes[0, 6])


def test_a_box_off_the_lens_is_not_lifted() -> None:
    """This fisheye's picture ends 74 degrees from its axis, 400 pixels out."""
    camera = CameraModel(
        'camera', 1280, 720, LENSES['fisheye'].matrix, (-0.2, 0, 0, 0), 'equidistant'
    )
    boxes = boxes_2d([[600, 300, 700, 500], [10, 600, 60, 700]])
    lifted = lift(boxes, camera, mount(), SIZES, CameraConfig())
    assert lifted.scores.tolist() == [boxes.scores[0]]


def test_boxes_far_above_the_horizon_are_in_the_sky() -> None:
    # a level camera: 5 degrees above the horizon are 52.5 px above the principal point
    boxes = boxes_2d([[600, 200, 700, 306], [600, 200, 700, 310], [600, 200, 700, 500]])
    lens = LENSES['pinhole']
    assert in_sky(boxes, lens, mount()).tolist() == [True, False, False]
    assert in_sky(boxes, lens, mount(pitch=10.0)).tolist() == [False, False, False]
    body = transform(np.eye(3), np.array([1.5, -0.4, 2.0]))  # x forward: z leads into the sky
    assert in_sky(boxes, lens, body).tolist() == [True, True, True]
    assert len(lift(boxes, lens, body, SIZES, CameraConfig())) == 0
    off = boxes_2d([[1000, 0, 1200, 100]])  # no ray of this fisheye: nothing is known
    narrow = CameraModel('camera', 1280, 720, LENSES['fisheye'].matrix, (-0.2,) * 4, 'equidistant')
    assert in_sky(off, narrow, mount()).tolist() == [False]
    assert in_sky(boxes_2d([]), lens, mount()).shape == (0,)


@pytest.mark.parametrize('lens', LENSES)
def test_nothing_in_nothing_out(lens: str) -> None:
    lifted = lift(boxes_2d([]), LENSES[lens], mount(), SIZES, CameraConfig())
    assert (len(lifted), lifted.frame_id, lifted.stamp_ns) == (0, 'base_link', 7)


@pytest.mark.parametrize(
    ('camera2ground', 'message'),
    [
        (mount(height=0.0), 'camera is 0.00 m above the plane z = 0; is ground_frame right'),
        (mount(height=-1.2), '-1.20 m above'),
        (np.eye(3), 'expected 4 x 4 numbers'),
        (np.full((4, 4), np.nan), 'expected 4 x 4 numbers'),
    ],
)
def test_a_transform_without_ground_is_refused(camera2ground: np.ndarray, message: str) -> None:
    with pytest.raises(TransformError, match=message):
        lift(boxes_2d([ahead(20)]), LENSES['pinhole'], camera2ground, SIZES, CameraConfig())

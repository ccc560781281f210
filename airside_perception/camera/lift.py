"""From a box in the image to a box on the ground plane, with its uncertainty.

The lifted box faces the camera. Its front face is the upright rectangle that stands on the ground
across the bearing and whose image the 2D box bounds; behind it the box is as long as its class
usually is. The four edges of the 2D box fix the four numbers of the face, whatever the lens and
however the camera is tilted or rolled:

    bearing  of the middle of the face from the camera's foot point, radians
    drop     camera height / range: tangent of the angle of depression of the ground contact
    spread   width / range
    rise     height / range

In these the image of the face is nearly linear, so Newton's method needs two or three steps, and
its Jacobian carries the noise of the edges over to the face. For a level camera of height h and
focal length f that is sigma_range = r^2 sigma_pixel / (h f).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from airside_perception.config import CameraConfig
from airside_perception.errors import TransformError
from airside_perception.projection import CameraModel
from airside_perception.types import Boxes2D, Boxes3D, Float64

NEWTON_STEPS = 8
GOOD_FIT = 0.1
"""Largest difference, in pixels, between the image of the face and the 2D box."""
EDGE = 0.5
"""What an edge of `Boxes2D` lies beyond the same place in pixels of `CameraModel`."""
SKY = np.deg2rad(5.0)
"""Angle above the horizon from which a lower edge is in the sky."""
SINGULAR = 1.0
"""Determinant, in pixels^4, of derivatives that say nothing; usual is the focal length^4."""
DIFFERENCE = 1e-6
"""Step of the numeric derivatives; the parameters have magnitude 1."""
SIZE_SPREAD = 0.1
"""Standard deviation of the size of an object against that of its class, and of the middle of what
is seen of it against its own middle: a part of the size."""
YAW_VARIANCE = np.pi**2 / 3
"""Of a yaw of which nothing is known."""


def lift(
    boxes: Boxes2D,
    camera: CameraModel,
    camera2ground: Float64,
    sizes: Mapping[str, tuple[float, float, float]],
    config: CameraConfig,
) -> Boxes3D:
    """Boxes on the plane z = 0 of the ground frame, for those 2D boxes that touch it in range.

    Left out are boxes whose lower edge lies above the horizon or beyond `max_range`, or that no
    ray of the lens model meets.

    Args:
        boxes: in pixels of the image of `camera`.
        camera: lens and image size.
        camera2ground: [4, 4], optical frame to ground frame, at the stamp of the image.
        sizes: {class: (length, width, height)}, metres.
        config: ground_frame, max_range, pixel_sigma, side_sigma, pitch_sigma, truncation_margin.

    Raises:
        TransformError: the transform is not 4 x 4 numbers, or the camera not above the ground.
    """
    height = _height(camera2ground)
    view = _View(camera, np.asarray(camera2ground, dtype=np.float64)[:3, :3])
    faces, slopes, found = view.fit(boxes.xyxy - EDGE, height / config.max_range)
    boxes = boxes.select(found)
    priors = np.array([sizes[name] for name in boxes.classes]).reshape(-1, 3)

    bearing, drop, spread, rise = faces.T
    reach = height / drop
    centre = reach + priors[:, 0] / 2
    rows = np.stack(
        [
            camera2ground[0, 3] + centre * np.cos(bearing),
            camera2ground[1, 3] + centre * np.sin(bearing),
            rise * reach / 2,
            priors[:, 0],
            spread * reach,
            rise * reach,
            bearing,
        ],
        axis=1,
    )
    local = _face_covariance(
        faces, slopes, height, priors, _edge_noise(boxes.xyxy, config), config
    )
    local += _hidden(boxes.xyxy, camera, rows, reach, priors, config.truncation_margin)
    return Boxes3D(
        boxes.stamp_ns,
        config.ground_frame,
        rows,
        boxes.scores,
        boxes.classes,
        _turn(local, bearing),
    )


def in_sky(boxes: Boxes2D, camera: CameraModel, camera2ground: Float64) -> NDArray[np.bool_]:
    """Which boxes end more than `SKY` above the horizon, where no object stands on the ground.

    The ground about an object may rise, the camera may pitch and the box may err, but not by so
    much. Where no ray of the lens model meets the lower edge, nothing is known: false.
    """
    left, _, right, bottom = boxes.xyxy.T - EDGE
    contact = np.stack([(left + right) / 2, bottom], axis=1)
    x, y, z = (camera.rays(contact) @ np.asarray(camera2ground)[:3, :3].T).T
    above: NDArray[np.bool_] = np.arctan2(z, np.hypot(x, y)) > SKY
    return above


class _View:
    """A camera over the ground, as far as directions matter: lens and rotation [3, 3]."""

    def __init__(self, camera: CameraModel, rotation: Float64) -> None:
        self._camera = camera
        self._rotation = rotation

    def fit(self, xyxy: Float64, least_drop: float) -> tuple[Float64, Float64, NDArray[np.bool_]]:
        """The faces whose images are the boxes [N, 4].

        A box may be flatter or narrower than any upright face can look where it stands (an edge
        may err by more than the face is wide); it keeps the first guess.

        Returns:
            Faces [M, 4], derivatives of their edges [M, 4, 4], and which M boxes they are of [N].
        """
        guess = self._guess(xyxy)
        with np.errstate(invalid='ignore'):  # NaN is no drop
            found = np.isfinite(guess).all(axis=1) & (guess[:, 1] > 0.0)
        faces, slopes = self._improve(xyxy[found], guess[found])
        sound = _regular(slopes) & (faces[:, 1] >= least_drop)
        found[found] = sound
        return faces[sound], slopes[sound], found

    def _improve(self, xyxy: Float64, guess: Float64) -> tuple[Float64, Float64]:
        """Newton's method from faces [N, 4]: those that fit, or where none does the guess.

        Returns:
            Faces [N, 4] and the derivatives of their edges [N, 4, 4].
        """
        edges, slopes = self._edges_and_slopes(guess)
        fitted, faces = guess.copy(), guess.copy()
        going, local = np.arange(len(guess)), slopes
        for _ in range(NEWTON_STEPS):
            error = xyxy[going] - edges
            near = np.abs(error).max(axis=1) < GOOD_FIT
            fitted[going[near]], slopes[going[near]] = faces[going[near]], local[near]
            off_lens = np.isnan(error).any(axis=1)
            regular = _regular(local)
            step = np.linalg.solve(local[regular], error[regular][..., None])[..., 0]
            faces[going[regular]] += step
            faces[going[off_lens], 2:] /= 2  # a smaller face is seen
            going = going[~near & (regular | off_lens)]
            if not len(going):
                break
            faces[going, 2:] = np.maximum(faces[going, 2:], DIFFERENCE)
            edges, local = self._edges_and_slopes(faces[going])
        return fitted, slopes

    def _guess(self, xyxy: Float64) -> Float64:
        """Faces from the rays through the middles of both level edges and the lower corners."""
        left, top, right, bottom = xyxy.T
        middle = (left + right) / 2
        pixels = np.stack([middle, bottom, left, bottom, right, bottom, middle, top], axis=1)
        rays = self._camera.rays(pixels.reshape(-1, 2)) @ self._rotation.T
        contact, first, last, crest = np.moveaxis(rays.reshape(-1, 4, 3), 1, 0)
        bearing = np.arctan2(contact[:, 1], contact[:, 0])
        c, s = np.cos(bearing), np.sin(bearing)

        def across(ray: Float64) -> Float64:
            return _ratio(c * ray[:, 1] - s * ray[:, 0], c * ray[:, 0] + s * ray[:, 1])

        def slope(ray: Float64) -> Float64:
            return _ratio(ray[:, 2], c * ray[:, 0] + s * ray[:, 1])

        drop = -slope(contact)
        spread = np.maximum(across(first) - across(last), DIFFERENCE)
        rise = np.maximum(slope(crest) + drop, DIFFERENCE)
        return np.stack([bearing, drop, spread, rise], axis=1)

    def _edges(self, faces: Float64) -> Float64:
        """Left, top, right, bottom [..., 4] of the images of faces [..., 4], NaN off the lens."""
        bearing, drop, spread, rise = np.moveaxis(faces[..., None], -2, 0)
        side = np.array([0.5, -0.5, 0.5, -0.5]) * spread
        c, s = np.cos(bearing), np.sin(bearing)
        up = np.array([0.0, 0.0, 1.0, 1.0]) * rise - drop
        corners = np.stack([c - side * s, s + side * c, up], axis=-1) @ self._rotation
        pixels, _ = self._camera.project(corners.reshape(-1, 3))
        pixels = pixels.reshape((*corners.shape[:-1], 2))
        return np.concatenate([pixels.min(axis=-2), pixels.max(axis=-2)], axis=-1)

    def _edges_and_slopes(self, faces: Float64) -> tuple[Float64, Float64]:
        """`_edges` of faces [N, 4] and their derivatives [N, 4, 4] by central differences."""
        steps = np.concatenate([np.zeros((1, 4)), np.eye(4), -np.eye(4)]) * DIFFERENCE / 2
        edges = self._edges(faces[:, None] + steps)
        return edges[:, 0], np.swapaxes(edges[:, 1:5] - edges[:, 5:], 1, 2) / DIFFERENCE


def _edge_noise(xyxy: Float64, config: CameraConfig) -> Float64:
    """Variances [N, 4] of the edges of boxes [N, 4], pixels^2.

    Where an object ends to the left and to the right depends on how it is turned and on what
    stands before it; networks err there by a part of the width.
    """
    noise = np.full(xyxy.shape, config.pixel_sigma**2)
    noise[:, [0, 2]] += ((xyxy[:, 2] - xyxy[:, 0])[:, None] * config.side_sigma) ** 2
    return noise


def _face_covariance(
    faces: Float64,
    slopes: Float64,
    height: float,
    priors: Float64,
    noise: Float64,
    config: CameraConfig,
) -> Float64:
    """Covariance [N, 3, 3] of the centre (along, across, up) from noise of the edges and tilt.

    A tilt of the camera against the ground by e, about the axis across the bearing, adds e to all
    angles of depression: tan(a + e) ~ tan(a) + (1 + tan(a)^2) e. At range r that is
    (r^2 + h^2) / h e.
    """
    _, drop, _, rise = faces.T
    reach = height / drop
    inverse = np.linalg.inv(slopes)
    spread = (inverse * noise[:, None]) @ np.swapaxes(inverse, 1, 2)
    crest = rise - drop
    tilt = np.stack([0 * drop, 1 + drop**2, 0 * drop, drop**2 - crest**2], axis=1)
    spread += tilt[:, :, None] * tilt[:, None] * config.pitch_sigma**2
    centre = np.zeros((len(faces), 3, 4))
    centre[:, 0, 1] = -reach / drop
    centre[:, 1, 0] = reach + priors[:, 0] / 2
    centre[:, 2, 1] = -rise * reach / drop / 2
    centre[:, 2, 3] = reach / 2
    return centre @ spread @ np.swapaxes(centre, 1, 2)


def _hidden(
    xyxy: Float64,
    camera: CameraModel,
    rows: Float64,
    reach: Float64,
    priors: Float64,
    margin: int,
) -> Float64:
    """Covariance [N, 3, 3] of the centre (along, across, up) from what the image does not show.

    Second moments about the centre that was chosen, of a true one that is uniform: between half
    a width and half a length behind the face; anywhere nearer where the lower border of the image
    cuts the contact off; as far outside as the object is longer than what the image shows of it.
    """
    length, width, tall = priors.T
    left, top, right, bottom = xyxy.T
    sideways = (left <= margin) | (right >= camera.width - margin)
    missing = np.maximum(np.maximum(length, width) - rows[:, 4], 0.0) / 2
    missing_top = np.maximum(tall - rows[:, 5], 0.0) / 2
    hidden = np.zeros((len(rows), 3, 3))
    hidden[:, 0, 0] = ((length - width) / 2) ** 2 / 3 + (SIZE_SPREAD * length) ** 2
    hidden[:, 0, 0] += np.where(bottom >= camera.height - margin, reach**2 / 3, 0.0)
    hidden[:, 1, 1] = (SIZE_SPREAD * rows[:, 4]) ** 2
    hidden[:, 1, 1] += np.where(sideways, missing**2 / 3, 0.0)
    hidden[:, 2, 2] = (SIZE_SPREAD * rows[:, 5]) ** 2
    hidden[:, 2, 2] += np.where(top <= margin, missing_top**2 / 3, 0.0)
    return hidden


def _turn(local: Float64, bearing: Float64) -> Float64:
    """Covariances [N, 4, 4] of (x, y, z, yaw) from [N, 3, 3] of (along, across, up)."""
    axes = np.zeros((len(local), 3, 3))
    axes[:, 0, 0] = axes[:, 1, 1] = np.cos(bearing)
    axes[:, 1, 0] = np.sin(bearing)
    axes[:, 0, 1] = -axes[:, 1, 0]
    axes[:, 2, 2] = 1.0
    covariances = np.zeros((len(local), 4, 4))
    covariances[:, :3, :3] = axes @ local @ np.swapaxes(axes, 1, 2)
    covariances[:, 3, 3] = YAW_VARIANCE
    return covariances


def _height(camera2ground: Float64) -> float:
    matrix = np.asarray(camera2ground, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise TransformError(f'camera2ground is {matrix.tolist()}, expected 4 x 4 numbers')
    if matrix[2, 3] <= 0.0:
        raise TransformError(
            f'the camera is {matrix[2, 3]:.2f} m above the plane z = 0; is ground_frame right?'
        )
    return float(matrix[2, 3])


def _regular(slopes: Float64) -> NDArray[np.bool_]:
    """Which of the derivatives [N, 4, 4] can be inverted."""
    regular = np.isfinite(slopes).all(axis=(1, 2))
    regular[regular] = np.abs(np.linalg.det(slopes[regular])) > SINGULAR
    return regular


def _ratio(above: Float64, below: Float64) -> Float64:
    """Quotients, NaN where a ray leads away from the face: its denominator is not positive."""
    return above / np.where(below > 0.0, below, np.nan)

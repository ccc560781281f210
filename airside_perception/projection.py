"""From points to pixels and back: the lens models of `sensor_msgs/CameraInfo`.

Points lie in the camera's optical frame (REP-103: z forward, x right, y down); pixels are (u, v)
of the image as it comes from the camera, or of the rectified one where the model says so, the
centre of the first pixel at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray

from airside_perception.errors import MessageError
from airside_perception.types import Float64

COEFFICIENTS = {'plumb_bob': (0, 4, 5), 'rational_polynomial': (8,), 'equidistant': (4,)}
NEAREST_DEPTH = 1e-9
"""Smallest z, in metres, that is in front of the camera."""
WIDEST_ANGLE = np.deg2rad(89.9)
"""Largest angle between a ray and the optical axis: a ray has z = 1, so 90 degrees has none."""
NEAR_AXIS = 1e-8
"""Square of the radius up to which a fisheye's quotients are their limits."""
NEGLIGIBLE = 1e-18
"""Coefficient that changes nothing even at the square of the widest radius, cubed."""
PROFILE_STEPS = 1024
NEWTON_STEPS = 30
PIXEL_ACCURACY = 1e-7
"""Residual of the undistortion, in pixels."""
NO_TURN = np.eye(3)
ROTATION_ACCURACY = 1e-3
"""How far the product of a rotation and its transpose may be from 1: files hold few digits."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated camera.

    Attributes:
        frame_id: the optical frame.
        width, height: of the image, pixels.
        matrix: float64 [3, 3], upper triangular: K; of a rectified image P[:3, :3].
        distortion: `plumb_bob` () or (k1, k2, p1, p2[, k3]), `rational_polynomial`
            (k1, k2, p1, p2, k3, k4, k5, k6), `equidistant` (k1, k2, k3, k4).
        model: one of those names.
        rotation: R, float64 [3, 3], from the optical frame to that of the rectified image, which
            differs from it where the cameras of a stereo pair are turned to face one way.
    """

    frame_id: str
    width: int
    height: int
    matrix: Float64
    distortion: tuple[float, ...] = ()
    model: str = 'plumb_bob'
    rotation: Float64 = field(default_factory=lambda: NO_TURN)

    def __post_init__(self) -> None:
        for name in ('matrix', 'rotation'):
            values = np.array(getattr(self, name), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        matrix = self.matrix
        object.__setattr__(self, 'distortion', tuple(float(k) for k in self.distortion))
        if self.width <= 0 or self.height <= 0:
            raise MessageError(f'camera image is {self.width} x {self.height} pixels')
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise MessageError(f'camera matrix is {matrix.tolist()}, expected 3 x 3 numbers')
        if matrix[0, 0] <= 0.0 or matrix[1, 1] <= 0.0:
            raise MessageError(
                f'camera matrix has fx = {matrix[0, 0]:g}, fy = {matrix[1, 1]:g}: not calibrated'
            )
        if matrix[1, 0] != 0.0 or matrix[2].tolist() != [0.0, 0.0, 1.0]:
            raise MessageError(f'camera matrix is {matrix.tolist()}, not upper triangular')
        if not _is_rotation(self.rotation):
            raise MessageError(f'rectification R is {self.rotation.tolist()}, not a rotation')
        if self.model not in COEFFICIENTS:
            known = ', '.join(COEFFICIENTS)
            raise MessageError(f'distortion model {self.model!r} is not one of {known}')
        if len(self.distortion) not in COEFFICIENTS[self.model]:
            counts = ' or '.join(map(str, COEFFICIENTS[self.model]))
            raise MessageError(
                f'{len(self.distortion)} distortion coefficients; {self.model} has {counts}'
            )
        if not np.isfinite(self.distortion).all():
            raise MessageError(f'distortion coefficients {self.distortion} are not finite')

    def project(self, points: ArrayLike) -> tuple[Float64, NDArray[np.bool_]]:
        """Pixels of points in the optical frame, not clipped to the image.

        Args:
            points: [N, 3], metres.

        Returns:
            Pixels [N, 2] and whether each is valid: the point lies in front of the camera, and
            inside the angle up to which the lens model maps farther out to farther out. The
            pixels of the others are NaN.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        if self._turned:
            points = points @ self.rotation.T
        depth = points[:, 2]
        valid = depth > NEAREST_DEPTH
        flat = points[:, :2] / np.where(valid, depth, 1.0)[:, None]
        if not self._pinhole:
            flat, one_to_one = self._distort(flat)
            valid &= one_to_one
        pixels = flat @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        pixels[~valid] = np.nan
        return pixels, valid

    def rays(self, pixels: ArrayLike) -> Float64:
        """Viewing rays [N, 3] with z = 1 of pixels [N, 2]: the inverse of `project`.

        NaN where no ray of the lens model meets the pixel, as in the corners of fisheye images.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        (fx, skew), (_, fy) = self.matrix[:2, :2]
        y = (pixels[:, 1] - self.matrix[1, 2]) / fy
        x = (pixels[:, 0] - self.matrix[0, 2] - skew * y) / fx
        flat = np.stack([x, y], axis=1)
        if not self._pinhole:
            flat = self._undistort(flat)
        rays = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
        if self._turned:
            rays = rays @ self.rotation
            rays /= np.where(rays[:, 2:] > NEAREST_DEPTH, rays[:, 2:], np.nan)
        return rays

    def _distort(self, flat: Float64) -> tuple[Float64, NDArray[np.bool_]]:
        """Distorted coordinates [N, 2] of undistorted ones, and where that is one-to-one.

        `plumb_bob` and `rational_polynomial` as in OpenCV's `projectPoints`, `equidistant` as in
        its `fisheye.projectPoints` (Kannala and Brandt, 2006).
        """
        x, y = flat.T
        square = x * x + y * y
        distorted = flat * self._scale(square)[:, None]
        one_to_one = square < np.tan(self._widest) ** 2
        p1, p2 = self._tangential
        if p1 or p2:
            distorted[:, 0] += 2 * p1 * x * y + p2 * (square + 2 * x * x)
            distorted[:, 1] += 2 * p2 * x * y + p1 * (square + 2 * y * y)
            slopes = self._slopes(flat)  # its determinant by hand: a tenth of the time
            one_to_one &= slopes[:, 0, 0] * slopes[:, 1, 1] > slopes[:, 0, 1] ** 2
        return distorted, one_to_one

    def _slopes(self, flat: Float64) -> Float64:
        """Jacobian [N, 2, 2] of `_distort`."""
        x, y = flat.T
        square = x * x + y * y
        scale = self._scale(square)
        slope = self._scale_slope(square, scale)
        p1, p2 = self._tangential
        jacobian = np.empty((len(flat), 2, 2))
        jacobian[:, 0, 0] = scale + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
        jacobian[:, 0, 1] = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        jacobian[:, 1, 0] = jacobian[:, 0, 1]
        jacobian[:, 1, 1] = scale + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
        return jacobian

    def _scale(self, square: Float64) -> Float64:
        """Distorted radius / radius, without the tangential part, by the square of the radius."""
        if self.model == 'equidistant':
            radius = np.sqrt(square)
            angle = np.arctan(radius)
            ratio = np.divide(angle, radius, out=np.ones_like(angle), where=radius > 0.0)
            return ratio * _horner(angle * angle, (1.0, *self.distortion))
        above, below = self._radial
        return _horner(square, above) / _horner(square, below)

    def _scale_slope(self, square: Float64, scale: Float64) -> Float64:
        """Derivative of `_scale`."""
        if self.model == 'equidistant':
            series = (1.0, *self.distortion)
            angle2 = np.arctan(np.sqrt(square)) ** 2
            grown = _horner(angle2, series) + 2 * angle2 * _horner(angle2, _derivative(series))
            limit = self.distortion[0] - 1 / 3  # of the quotient at the axis, where it is 0 / 0
            slope = np.full_like(square, limit)
            return np.divide(
                grown / (1.0 + square) - scale, 2 * square, out=slope, where=square > NEAR_AXIS
            )
        above, below = self._radial
        growth = _horner(square, _derivative(above)) - scale * _horner(square, _derivative(below))
        return growth / _horner(square, below)

    def _undistort(self, distorted: Float64) -> Float64:
        """Newton's method from the radius that the lens model has without its tangential part."""
        radius = np.hypot(*distorted.T)
        radii, bent = self._profile
        start = np.interp(radius, bent, radii)
        flat = distorted * (start / np.where(radius > 0.0, radius, 1.0))[:, None]
        focal = max(self.matrix[0, 0], self.matrix[1, 1])
        active = np.arange(len(flat))
        done = np.zeros(len(flat), dtype=bool)
        for _ in range(NEWTON_STEPS):
            reached, one_to_one = self._distort(flat[active])
            error = distorted[active] - reached
            near = np.abs(error).max(axis=1) * focal < PIXEL_ACCURACY
            done[active[near & one_to_one]] = True
            going = ~near & one_to_one
            active = active[going]
            if not len(active):
                break
            slopes = self._slopes(flat[active])
            flat[active] += np.linalg.solve(slopes, error[going][..., None])[..., 0]
        flat[~done] = np.nan
        return flat

    @cached_property
    def _turned(self) -> bool:
        return not np.array_equal(self.rotation, NO_TURN)

    @cached_property
    def _pinhole(self) -> bool:
        return self.model != 'equidistant' and not any(self.distortion)

    @cached_property
    def _tangential(self) -> tuple[float, float]:
        if self.model == 'equidistant' or not self.distortion:
            return 0.0, 0.0
        return self.distortion[2], self.distortion[3]

    @cached_property
    def _radial(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Coefficients of the numerator and denominator of the scale, by powers of r^2."""
        k1, k2, _, _, k3, k4, k5, k6 = (*self.distortion, *[0.0] * 8)[:8]
        return (1.0, k1, k2, k3), (1.0, k4, k5, k6) if k4 or k5 or k6 else (1.0,)

    @cached_property
    def _widest(self) -> float:
        """Angle from the axis, in radians, up to which the distorted radius grows."""
        twice = Polynomial([0, 2])
        if self.model == 'equidistant':
            series = Polynomial([1.0, *self.distortion])
            limit = np.sqrt(_smallest_root(series + twice * series.deriv()))
        else:
            above, below = map(Polynomial, self._radial)
            growth = (above + twice * above.deriv()) * below - twice * above * below.deriv()
            limit = np.arctan(np.sqrt(min(_smallest_root(growth), _smallest_root(below))))
        return float(min(limit, WIDEST_ANGLE))

    @cached_property
    def _profile(self) -> tuple[Float64, Float64]:
        """Radii and distorted radii, both rising, of many angles: where Newton's method starts."""
        radii = np.tan(np.linspace(0.0, self._widest, PROFILE_STEPS, endpoint=False))
        return radii, radii * self._scale(radii * radii)


def _is_rotation(matrix: Float64) -> bool:
    """Whether this is [3, 3], orthogonal and no mirror image."""
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return False
    error = np.abs(matrix @ matrix.T - NO_TURN).max()
    return bool(error < ROTATION_ACCURACY and np.linalg.det(matrix) > 0.0)


def _horner(x: Float64, coefficients: tuple[float, ...]) -> Float64:
    """Value of a polynomial; lowest power first."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _derivative(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(power * value for power, value in enumerate(coefficients))[1:] or (0.0,)


def _smallest_root(polynomial: Polynomial) -> float:
    """Smallest real root above 0, infinite where there is none."""
    roots = polynomial.trim(NEGLIGIBLE).roots()
    real = roots[np.abs(roots.imag) < 1e-7 * (1 + np.abs(roots.real))].real
    return float(min(real[real > 0.0], default=np.inf))

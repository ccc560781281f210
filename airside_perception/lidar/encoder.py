"""The pillar feature net: from points in pillars to the canvas that a dense network reads.

With batch norm folded, a pillar's feature vector is max over its points of ReLU(W' f + b), where f
holds a point's coordinates, its offsets to the pillar's mean (xc, yc, zc) and to the pillar's
centre (xp, yp, zp). ReLU is monotonic, and W' f is a part that changes from point to point plus
one that a pillar's points share. With (u, v, w) = (x, y, z) - centre of the pillar,

    x Wx + (x - mean) Wxc + (x - centre) Wxp = u (Wx + Wxc + Wxp) + centre Wx + (centre - mean) Wxc

so a point costs four products a channel instead of nine or ten, and as u, v, w are small, nothing
is lost to cancellation far from the origin. This is algebra on the formula of Lang et al.,
PointPillars, CVPR 2019; no approximation. Networks that see past sweeps have one product more, for
the age of a point's sweep (time_lag).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.lidar.pillars import Index, Pillars
from airside_perception.types import Float32


class Encoder:
    """Pillar feature net and canvas of one network.

    The canvas belongs to the encoder: it is valid until the next call of `encode`. Nothing large
    is allocated between calls, and only cells that the last cloud filled are cleared.
    """

    def __init__(self, card: LidarCard) -> None:
        self._card = card
        self._max_points = card.max_points
        self._of_point, self._of_pillar, least = weights(card)
        self._least = least[:, None]
        self._intensity = int(card.needs_intensity)
        self._best = np.empty((len(least), card.max_pillars), np.float32)
        self._spare = np.empty_like(self._best)
        self._canvas = np.zeros((1, len(least), *card.grid), np.float32)
        self._drawn = np.empty(0, np.intp)

    def encode(self, points: Float32, pillars: Pillars, intensity_scale: float = 1.0) -> Float32:
        """The canvas, float32 [1, C, rows, columns], zero where there is no pillar.

        Args:
            points: the cloud [N, C or more] with the C columns `card.point_columns`: x, y, z in
                metres, then intensity and age (seconds) as far as the network uses them.
            pillars: of that cloud.
            intensity_scale: brings the intensity to 0..1.
        """
        # the fullest first: the k-th points of the pillars that have k points are one block then
        order = np.argsort(-pillars.counts, kind='stable')
        features = self._features(points, pillars, order, intensity_scale)
        cells = pillars.cells[order].astype(np.intp)
        for channel, values in zip(self._canvas.reshape(len(features), -1), features, strict=True):
            channel[self._drawn] = 0.0
            channel[cells] = values
        self._drawn = cells
        return self._canvas

    def _features(
        self, points: Float32, pillars: Pillars, order: Index, intensity_scale: float
    ) -> Float32:
        """Feature vectors float32 [C, P] of the pillars in `order`, the fullest first."""
        centres = centres_of(self._card, pillars.cells[order])
        starts, having = pillars.starts[order], _having(pillars.counts, self._max_points)
        best, spare = self._best[:, : len(order)], self._spare[:, : len(order)]
        weight = self._of_point.copy()
        needed = weight.shape[1]
        weight[:, 3 : 3 + self._intensity] *= np.float32(intensity_scale)
        for k, n in enumerate(having):
            if n == 0:
                break
            block = points[pillars.members[starts[:n] + k]][:, :needed]
            block[:, :3] -= centres[:n]
            if k == 0:
                np.matmul(weight, block.T, out=best)
            else:
                out = np.matmul(weight, block.T, out=spare[:, :n])
                np.maximum(best[:, :n], out, out=best[:, :n])
        shared = np.ones((len(order), 7), np.float32)
        shared[:, :3] = centres
        shared[:, 3:6] = centres - pillars.means[order]
        best += np.matmul(self._of_pillar, shared.T, out=spare)
        np.maximum(best, 0.0, out=best)
        padded = best[:, having[-1] :]  # fewer than max_points: the row of zeros takes part
        np.maximum(padded, self._least, out=padded)
        return best


def weights(card: LidarCard) -> tuple[Float32, Float32, Float32]:
    """The weights of a pillar feature net, as the formula above groups them.

    Returns:
        Of a point's u, v, w and what follows them in `card.point_columns` [C, 3 to 5]; of a
        pillar's centre, centre - mean and 1 [C, 7]; the least value of a pillar with fewer than
        `max_points` points [C].
    """
    weight = dict(zip(card.features, card.weight, strict=True))
    none = np.zeros_like(card.bias)
    absolute, to_mean, to_centre = (
        np.stack([weight.get(axis + kind, none) for axis in 'xyz']) for kind in ('', 'c', 'p')
    )
    varying = [*(absolute + to_mean + to_centre), *(weight[n] for n in card.point_columns[3:])]
    of_pillar = np.concatenate([absolute, to_mean, [card.bias]])
    least = np.maximum(card.bias, np.float32(0.0)) if card.zero_row else none
    return np.stack(varying, axis=1), of_pillar.T.copy(), least


def centres_of(card: LidarCard, cells: NDArray[np.integer]) -> Float32:
    """Centres of cells, float32 [P, 3], metres; z is the middle of the grid."""
    x0, y0, z0, _, _, z1 = card.limits
    row, column = np.divmod(cells, card.grid[1])
    centres = np.full((len(cells), 3), (z0 + z1) / 2)
    centres[:, :2] = [x0, y0] + (np.stack([column, row], axis=1) + 0.5) * np.array(card.pillar)
    return centres.astype(np.float32)


def _having(counts: Index, most: int) -> list[int]:
    """For k = 1 .. most: the number of pillars with k points or more."""
    histogram = np.bincount(counts, minlength=most + 1)
    return [int(n) for n in np.cumsum(histogram[::-1])[-2::-1]]

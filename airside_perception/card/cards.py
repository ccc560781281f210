"""What a model card says, checked and typed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from airside_perception.evaluate.calibration import Curve
from airside_perception.types import Float32

POINT_FEATURES = (
    'x', 'y', 'z', 'intensity', 'xc', 'yc', 'zc', 'xp', 'yp', 'zp', 'time_lag',
)  # fmt: skip
MOST_LABELS = 128
"""Classes of a lidar network: a label has 7 bits where candidates are sorted."""
HEADINGS = {'x_counterclockwise': (1.0, 0.0), 'minus_y_clockwise': (-1.0, -math.pi / 2)}
"""Where a network's angle is 0 and which way it grows: (a, b) of yaw = a * angle + b."""
MOST_PAST_SWEEPS = 5
"""Sweeps that a network may see beside the newest one."""
MOST_CELLS = 65535
"""Rows or columns of a pillar grid: they are sorted as 16-bit numbers."""


@dataclass(frozen=True)
class ModelCard:
    """What every card says.

    Attributes:
        name: of the network.
        architecture: `yolox`, `pointpillars` or `centerpoint`.
        classes: label names in the order of the network's outputs.
        publish: {label: published class name}; labels that are not named are dropped. Empty: all
            are published as they are.
        thresholds: {published class: lowest score}, the defaults of `score_thresholds.<class>`.
        sha256: of the network file, empty where not pinned.
        about: licence, training, accuracy and whatever else, as written.
        calibration: {published class: curve} from the network's scores to probabilities, which are
            published in their place; thresholds are of what is published. Empty: scores stay.
    """

    path: str
    name: str
    architecture: str
    classes: tuple[str, ...]
    publish: Mapping[str, str]
    thresholds: Mapping[str, float]
    sha256: str = ''
    about: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def published(self) -> tuple[str, ...]:
        """The class names that leave the node, each once, in label order."""
        names = [self.publish.get(label, '') if self.publish else label for label in self.classes]
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def only_cpu(self) -> str:
        """Why the network can be run on the CPU alone, '' where it runs on a GPU, too."""
        return ''

    def published_name(self, label: int) -> str:
        """Published class of a label index, '' where it is dropped."""
        return self.publish.get(self.classes[label], '') if self.publish else self.classes[label]


@dataclass(frozen=True)
class CameraCard(ModelCard):
    """A YOLOX-family network.

    Attributes:
        height, width: of the network's input, pixels.
        color: `bgr` or `rgb`, the channel order that the network was trained on.
        mean, std: per channel in that order; input = (pixel - mean) / std, pixel in 0..255.
        pad: value of the letterbox border.
        centered: whether the letterbox centres the image (False: top left).
        strides: of the output levels, in the order of the rows.
        input_name, output_name: of the network.
        activated: whether objectness and class scores have passed the sigmoid in the graph.
        sizes: {published class: (length, width, height)} in metres, priors for the lift to 3D.
    """

    height: int = 0
    width: int = 0
    color: str = 'bgr'
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    pad: int = 114
    centered: bool = False
    strides: tuple[int, ...] = (8, 16, 32)
    input_name: str = 'images'
    output_name: str = 'output'
    activated: bool = True
    sizes: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Anchor:
    """One anchor shape: label index, size in metres, height of its centre, yaw in radians.

    `labels` are the label indices that it scores, in the order of its score channels. Empty: all,
    in the order of the classes.
    """

    label: int
    length: float
    width: float
    height: float
    z: float
    yaw: float
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class CenterHead:
    """Outputs of a centre head, each [1, channels, rows / stride, columns / stride].

    Networks disagree about the order of channels and about what an angle of 0 is:

    | network | size_order | rotation_order | heading |
    |---|---|---|---|
    | OpenPCDet | lwh | cos_sin | x_counterclockwise |
    | mmdetection3d 1.0 and later | lwh | sin_cos | x_counterclockwise |
    | Autoware (deployed), det3d, mmdetection3d 0.x | wlh | sin_cos | minus_y_clockwise |

    Attributes:
        heatmap: name of the output with a logit for every class.
        offset: of the two with x and y of the centre from the corner of the cell, in cells.
        height: of the one with z of the centre, metres.
        size: of the three with the logarithms of the sizes, metres.
        rotation: of the two with sine and cosine of the angle, of any length.
        size_order: `lwh` or `wlh`, channels of `size`.
        rotation_order: `sin_cos` or `cos_sin`, channels of `rotation`.
        heading: `x_counterclockwise`: the angle is the yaw; `minus_y_clockwise`: it is 0 towards
            -y and grows clockwise seen from above, so yaw = -angle - pi / 2.
        peaks: whether a class is found only where none of the eight cells around has more of it.
        least_norms: for every class: a box whose (sine, cosine) is shorter is left out. Networks
            put out short ones where they see nothing with a heading.
        velocity: of the two with vx and vy, m/s over ground, in the axes of the network's frame;
            empty: none.
    """

    heatmap: str = 'heatmap'
    offset: str = 'reg'
    height: str = 'height'
    size: str = 'dim'
    rotation: str = 'rot'
    size_order: str = 'lwh'
    rotation_order: str = 'sin_cos'
    heading: str = 'x_counterclockwise'
    peaks: bool = False
    least_norms: tuple[float, ...] = ()
    velocity: str = ''


@dataclass(frozen=True)
class LidarCard(ModelCard):
    """A network on pillars whose feature net is linear (batch norm folded); anchors or centres.

    Attributes:
        limits: (x0, y0, z0, x1, y1, z1) of the grid in metres, lower bounds inclusive.
        pillar: (x, y) extent of a pillar in metres.
        max_points, max_pillars: points kept in a pillar; pillars kept.
        past_sweeps: that the network sees beside the newest one, moved to where they are now.
        features: point features in the order of the weights' rows: x, y, z (metres, frame of the
            network), intensity (0..1), xc, yc, zc (offset to the mean of the points in the
            pillar), xp, yp, zp (offset to the centre of the pillar, z: to the middle of the grid),
            time_lag (age of the sweep of a point, seconds: positive for past sweeps, 0 for the
            newest, as in Autoware's densification).
        weight, bias: float32 [F, C] and [C] of the pillar feature net.
        zero_row: whether a pillar with fewer than `max_points` points takes ReLU(bias) into its
            maximum (networks that were trained on zero-padded pillars).
        stride: of the output grid against the pillar grid.
        centers: the outputs of a centre head; None: there are anchors.
        anchors: shapes at every output cell, in the order of the outputs' channels.
        anchor_places: `cells`: anchors stand in the middle of the output cells; `borders`: evenly
            from border to border, as OpenPCDet places them.
        direction_offset: radians, as in OpenPCDet; directions split the circle in two bins there.
        input_name: canvas, float32 [1, C, rows (y), columns (x)].
        score_output: [1, S, rows / stride, columns / stride] with one channel for every entry of
            `scored`; where no anchor names its labels, S = A * K and channel = anchor * K + label.
            Scores are logits, one sigmoid a class.
        box_output, direction_output: [1, A * n, rows / stride, columns / stride] with n = 7 and 2;
            channel = anchor * n + k.
        sigmas: {published class: (along, across, yaw)}, standard deviations of the centre along
            and across the object, metres at 0 m, and of the yaw, radians; other classes have those
            of LidarConfig.
    """

    limits: tuple[float, ...] = ()
    pillar: tuple[float, float] = (0.0, 0.0)
    max_points: int = 32
    max_pillars: int = 40000
    past_sweeps: int = 0
    features: tuple[str, ...] = ()
    weight: Float32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    bias: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    zero_row: bool = False
    stride: int = 2
    centers: CenterHead | None = None
    anchors: tuple[Anchor, ...] = ()
    anchor_places: str = 'cells'
    direction_offset: float = 0.0
    input_name: str = 'canvas'
    score_output: str = 'scores'
    box_output: str = 'boxes'
    direction_output: str = 'directions'
    sigmas: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows (y) and columns (x) of the pillar grid."""
        x0, y0, _, x1, y1, _ = self.limits
        return round((y1 - y0) / self.pillar[1]), round((x1 - x0) / self.pillar[0])

    @property
    def output_grid(self) -> tuple[int, int]:
        """Rows and columns of the outputs."""
        rows, columns = self.grid
        return rows // self.stride, columns // self.stride

    @property
    def outputs(self) -> Mapping[str, int]:
        """{name: channels} of the outputs that are decoded, each [1, channels, *output_grid]."""
        if self.centers is not None:
            head = self.centers
            return {
                head.heatmap: len(self.classes),
                head.offset: 2,
                head.height: 1,
                head.size: 3,
                head.rotation: 2,
                **({head.velocity: 2} if head.velocity else {}),
            }
        count = len(self.anchors)
        return {
            self.score_output: len(self.scored),
            self.box_output: 7 * count,
            self.direction_output: 2 * count,
        }

    @property
    def scored(self) -> tuple[tuple[int, int], ...]:
        """(anchor, label index) of every channel of the score output: anchor after anchor."""
        every = tuple(range(len(self.classes)))
        return tuple(
            (index, label)
            for index, anchor in enumerate(self.anchors)
            for label in anchor.labels or every
        )

    @property
    def needs_intensity(self) -> bool:
        """Whether a cloud without intensity cannot be used."""
        return 'intensity' in self.features

    @property
    def point_columns(self) -> tuple[str, ...]:
        """What the network uses of a point, in the order in which it is handed on.

        With one sweep, `time_lag` is 0 everywhere, and left out.
        """
        intensity = ('intensity',) if self.needs_intensity else ()
        return ('x', 'y', 'z', *intensity, *(('time_lag',) if self.past_sweeps else ()))

    @property
    def only_cpu(self) -> str:
        """Points have four values on the GPU."""
        more = self.point_columns[3:]
        if len(more) < 2:
            return ''
        return (
            f'needs {" and ".join(more)} of every point; the GPU takes one of them, the CPU both'
        )

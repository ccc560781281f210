"""Settings of the fusion."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from airside_perception.errors import ConfigError
from airside_perception.parameter import parameter, per_class


@dataclass(frozen=True)
class FusionConfig:
    """bev_fusion: boxes of one lidar and several cameras to fused objects.

    `lidar` and the names in `cameras` are the sources of the fusion; their order is their rank:
    the first live one paces the output.
    """

    lidar: bool = parameter(True, 'Whether lidar boxes are fused (source "lidar").')
    cameras: tuple[str, ...] = parameter(('front',), 'Names of the fused cameras.')
    rectified_cameras: tuple[str, ...] = parameter(
        (),
        'Those of them whose images are rectified, as their camera_detector has it; '
        'full.launch.py and replay take this from there.',
    )
    fusion_frame: str = parameter('base_link', 'Frame of the fused objects (z = 0 is the ground).')
    fixed_frame: str = parameter(
        'odom',
        'World-fixed frame that takes boxes from one stamp to another. Without odometry, name '
        'the fusion frame itself: ego motion is then left out.',
    )
    class_groups: tuple[str, ...] = parameter(
        (
            'vehicle=car,truck,bus,van,train,tram,trailer,construction_vehicle,vehicle,belt_loader,'
            'pushback_tug,tug,fuel_truck,catering_truck,baggage_cart,baggage_tractor,gse',
            'person=person,pedestrian,person_sitting',
            'cyclist=cyclist,bicycle,motorcycle',
            'aircraft=aircraft,airplane',
        ),
        'Classes that may be one object seen by two sensors, as "group=class,class,...". '
        'A class that is not named is a group of its own. Upper and lower case are one.',
    )
    camera_groups: tuple[str, ...] = parameter(
        ('vehicle', 'person', 'cyclist'),
        'Groups that the camera networks report; only their lidar boxes are penalised if unseen.',
    )
    queue_size: int = parameter(10, 'Messages kept of each source.', low=2, high=100)
    queue_ms: float = parameter(
        1000.0,
        'Beyond these, what came in the last so many ms is kept, up to ten times as many; longer '
        'than the slowest detector takes more than the fastest.',
        unit='ms', low=0.0, high=10000.0,
    )  # fmt: skip
    sync_slop_ms: float = parameter(
        40.0,
        'Largest difference of a stamp from that of the message that paces its set.',
        unit='ms', low=0.0, high=1000.0,
    )  # fmt: skip
    deadline_ms: float = parameter(
        50.0,
        'Longest wait for missing inputs, from the arrival of the pacing one. For a pacing one '
        'that is later than lately by so much the next in rank stands in.',
        unit='ms', low=1.0, high=5000.0, live=True,
    )  # fmt: skip
    silence_ms: float = parameter(
        1000.0,
        'A source that sent nothing for so long is not waited for and does not pace the output, '
        'nor does one whose stamps are so far behind; longer than the slowest source ever takes '
        'from one message to the next.',
        unit='ms', low=10.0, high=60000.0, live=True,
    )  # fmt: skip
    gate_chi2: float = parameter(
        9.21,
        'Largest squared Mahalanobis distance of two centres in BEV (chi-squared, 2 degrees of '
        'freedom; 9.21: 99 %).',
        low=0.1, high=100.0, live=True,
    )  # fmt: skip
    gate_giou: float = parameter(
        -0.2, 'Smallest generalised IoU of two boxes in the image.', low=-1.0, high=1.0, live=True
    )
    gate_cost: float = parameter(
        1.5, 'Largest sum of the costs below of a match.', low=0.01, high=100.0, live=True
    )
    image_cost: float = parameter(
        1.0, 'Cost of a match for each 1 - GIoU.', low=0.0, high=10.0, live=True
    )
    distance_cost: float = parameter(
        0.33, 'Cost of a match for each sigma between the centres.', low=0.0, high=10.0, live=True
    )
    class_cost: float = parameter(
        1.0, 'Cost of a match of two classes of one group.', low=0.0, high=10.0, live=True
    )
    prior: float = parameter(
        0.1,
        'Probability that a detection is an object before its score is known. A camera whose '
        'score is higher than this raises the score of another one; for a lidar box the fact '
        'that it is seen counts too, see match_evidence.',
        low=0.001, high=0.999, live=True,
    )  # fmt: skip
    priors: dict[str, float] = per_class('As prior, for one class.', low=0.001, high=0.999)
    camera_weight: float = parameter(
        0.22,
        'Part of the log-odds of a camera, less those of the prior, that a lidar box gains from '
        'it: what the networks err in together is counted once.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    match_evidence: float = parameter(
        0.5,
        'Log-odds that a lidar box gains, beside this, because a camera has a box of its class in '
        'its place in the image.',
        low=0.0, high=10.0, live=True,
    )  # fmt: skip
    class_weight: float = parameter(
        0.0,
        'Part of both where the camera calls it by another class of the group.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    repeat_weight: float = parameter(
        0.5,
        'Part of what every further camera adds: networks of one kind err together.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    lidar_silence: float = parameter(
        2.0,
        'Log-odds taken from what only cameras see where a lidar that answers should see it: from '
        'lidar_min_range to lidar_range, and not in a shadow (lidar_shadow).',
        low=0.0, high=10.0, live=True,
    )  # fmt: skip
    lidar_min_range: float = parameter(
        0.0,
        'Nearest object that a lidar should see, from the origin of fusion_frame. Parameter files '
        'that do not set this hand over the min_range of lidar_detector.',
        unit='m', low=0.0, high=20.0, live=True,
    )  # fmt: skip
    lidar_range: float = parameter(
        50.0,
        'Farthest object that a lidar should see.', unit='m', low=0.0, high=300.0, live=True,
    )  # fmt: skip
    lidar_shadow: bool = parameter(
        True,
        'Whether a lidar need not see what, seen from it and from above, lies at least by half '
        'behind nearer boxes of its own.',
        live=True,
    )
    lidar_frame: str = parameter(
        '',
        'Frame of the lidar, from whose origin shadows fall; empty: the frame of its boxes, which '
        'is that of the vehicle as a rule.',
    )
    place_tolerance: float = parameter(
        1.0,
        'Beside a lidar that answers, the score of what only cameras see is the probability that '
        'it is there and within so much of its place; 0: that it is there.',
        unit='m', low=0.0, high=50.0, live=True,
    )  # fmt: skip
    score_limit: float = parameter(
        0.001, 'Fused scores stay this far from 0 and 1.', low=1e-6, high=0.1, live=True
    )
    score_threshold: float = parameter(
        0.0, 'Lowest score of a fused object; 0 passes all.', low=0.0, high=1.0, live=True
    )
    penalty: float = parameter(
        0.3,
        'Log-odds taken from a lidar box that a camera should see and does not.',
        low=0.0, high=10.0, live=True,
    )  # fmt: skip
    penalty_floor: float = parameter(
        0.05, 'The penalty takes no score below this.', low=0.0, high=1.0, live=True
    )
    penalty_range: float = parameter(
        40.0, 'Farthest box that a camera should see.', unit='m', low=1.0, high=300.0, live=True
    )
    penalty_height: float = parameter(
        25.0, 'Smallest box that a camera should see.', unit='px', low=1.0, high=2000.0, live=True
    )
    penalty_occlusion: float = parameter(
        0.3,
        'Largest part of its image box hidden by nearer lidar boxes of a box that a camera '
        'should see.',
        low=0.0, high=1.0, live=True,
    )  # fmt: skip
    unknown_sigma: float = parameter(
        0.5,
        'Standard deviation, per axis, of the place of boxes whose covariance is all zeros: not '
        'known.',
        unit='m', low=0.01, high=10.0, live=True,
    )  # fmt: skip
    object_speed_sigma: float = parameter(
        3.0,
        'Speed of objects (standard deviation per axis) where boxes are brought to another stamp.',
        unit='m/s', low=0.0, high=50.0, live=True,
    )  # fmt: skip
    marker_lifetime_ms: float = parameter(
        300.0, 'How long a marker is shown.', unit='ms', low=0.0, high=10000.0, live=True
    )
    expected_time_ms: float = parameter(
        50.0,
        'Longest processing time that diagnostics call normal.',
        unit='ms', low=1.0, high=5000.0, live=True,
    )  # fmt: skip
    tf_timeout_ms: float = parameter(
        50.0,
        'Longest wait for the transforms of one set, all together.',
        unit='ms', low=0.0, high=1000.0, live=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        names = self.sources
        for name in self.cameras:
            if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
                raise ConfigError(
                    f'cameras = {list(self.cameras)}: {name!r} cannot be part of a topic; '
                    'use small letters, digits and _'
                )
        if len(set(names)) != len(names) or 'lidar' in self.cameras:
            raise ConfigError(
                f'cameras = {list(self.cameras)}: names differ, and "lidar" is the lidar'
            )
        strangers = sorted(set(self.rectified_cameras) - set(self.cameras))
        if strangers:
            raise ConfigError(
                f'rectified_cameras: {strangers[0]!r} is not among cameras = {list(self.cameras)}'
            )
        if not names:
            raise ConfigError('lidar = False and cameras = []: nothing to fuse')
        if not self.fusion_frame or not self.fixed_frame:
            raise ConfigError('fusion_frame and fixed_frame must be named')
        if self.silence_ms < self.deadline_ms:
            raise ConfigError(
                f'silence_ms = {self.silence_ms:g} is shorter than deadline_ms = '
                f'{self.deadline_ms:g}: every late source would count as silent'
            )
        groups = set(self.groups.values())
        for name in self.camera_groups:
            if name not in groups:
                raise ConfigError(
                    f'camera_groups: no group {name!r} in class_groups; there are {sorted(groups)}'
                )

    @property
    def sources(self) -> tuple[str, ...]:
        """The inputs of the fusion by rank: the lidar, then the cameras as they are listed."""
        return ('lidar',) * self.lidar + self.cameras

    @property
    def groups(self) -> dict[str, str]:
        """{class in lower case: group}.

        Raises:
            ConfigError: an entry that is not "group=class,...", or a class in two groups.
        """
        found: dict[str, str] = {}
        for entry in self.class_groups:
            group, _, classes = entry.partition('=')
            names = [name.strip().casefold() for name in classes.split(',')]
            if not group.strip() or not all(names):
                raise ConfigError(f'class_groups: {entry!r} is not "group=class,class,..."')
            for name in names:
                if found.setdefault(name, group.strip()) != group.strip():
                    raise ConfigError(
                        f'class_groups: {name!r} is in {found[name]!r} and in {group.strip()!r}'
                    )
        return found


def fusion_priors(classes: Iterable[str], prior: float = 0.1) -> dict[str, dict[str, float]]:
    """The per-class defaults of a FusionConfig whose priors can be tuned for each of `classes`."""
    return {'priors': dict.fromkeys(classes, prior)}

"""Where average precision is lost: what it would be if one kind of mistake were taken away.

In the manner of D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox for Identifying
Object Detection Errors", ECCV 2020, for any nearness of boxes. A detection that finds nothing of
its own has one kind, the first of these that fits; `hit` is the nearness that a true positive
must have, `near` a weaker one (twice the distance, or an overlap of 0.1):

    place        an object of its class that nothing finds is near
    class        an object of another class that nothing finds is a hit
    far          an object of its class that nothing finds has the detection's centre in its box
    duplicate    an object of its class that is found already is near, or holds the centre
    second name  an object of another class that is found already is a hit
    both         an object of another class is near, or holds the centre
    unseen       an object that is not asked for is near
    background   none of these

    missed       objects that nothing finds, nor comes as near as `place`, `class` and `far` do

Taken away means: `place`, `class` and `far` find the object after all, with the best score of
those that came near it; other detections are gone, missed objects are not asked for. The order of
choice stays that of the plain evaluation. With all taken away, average precision is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from airside_perception.evaluate.frames import Frame, Mask
from airside_perception.evaluate.images import IOU, image_iou
from airside_perception.evaluate.matching import Matches, Nearness, centre_nearness, match
from airside_perception.evaluate.precision import coco_ap, nuscenes_ap
from airside_perception.types import LENGTH, WIDTH, YAW, Float64, Int64, by_score

REPAIRED = ('place', 'class', 'far')
REMOVED = ('duplicate', 'second name', 'both', 'unseen', 'background')
MISSED = 'missed'
KINDS = (*REPAIRED, *REMOVED, MISSED)
BARELY = 0.1
"""Overlap in images that counts as near; TIDE's."""


@dataclass(frozen=True)
class Ruler:
    """What a hit is.

    Attributes:
        nearness: of boxes, the larger the better.
        hit, near: least nearness of a hit, and of what is near.
        inclusive: whether `hit` itself is a hit.
        precision: average precision of matches.
    """

    nearness: Nearness
    hit: float
    near: float
    inclusive: bool
    precision: Callable[[Matches], float]

    def hits(self, near: Float64) -> Mask:
        """Which nearnesses are hits."""
        return np.asarray(near >= self.hit if self.inclusive else near > self.hit)


def by_distance(reach: float) -> Ruler:
    """Centres closer than `reach` metres are a hit, than twice that near; nuScenes' AP."""
    return Ruler(centre_nearness, -reach, -2 * reach, False, nuscenes_ap)


def by_overlap(iou: float = IOU) -> Ruler:
    """Flat boxes that overlap by `iou`; COCO's AP."""
    return Ruler(image_iou, iou, BARELY, True, coco_ap)


@dataclass(frozen=True)
class Mistakes:
    """One class under one ruler.

    Attributes:
        found: its detections, best score first.
        kinds: str [D], '' for hits.
        targets: [D], (frame, object) that a detection of a repaired kind meant; (-1, -1): none.
        meant: [D], class of that object, '' for none.
        missed: (frame, object) of its own class.
    """

    found: Matches
    kinds: tuple[str, ...]
    targets: tuple[tuple[int, int], ...]
    meant: tuple[str, ...]
    missed: tuple[tuple[int, int], ...]


Chosen = Callable[[int, int], bool]
"""Of (frame, row): whether the mistake of this detection, or of this object, is taken away."""


def mistakes(frames: Sequence[Frame], names: Sequence[str], ruler: Ruler) -> dict[str, Mistakes]:
    """Every detection's kind and every miss, by class."""
    every = {
        name: match(frames, name, ruler.nearness, ruler.hit, ruler.inclusive) for name in names
    }
    taken = [np.zeros(len(frame.truth), bool) for frame in frames]
    for found in every.values():
        for number, row in zip(found.frames[found.hits], found.objects[found.hits], strict=True):
            taken[int(number)][int(row)] = True
    scenes = [_Scene(frame, names, ruler, own) for frame, own in zip(frames, taken, strict=True)]
    covered: set[tuple[int, int]] = set()
    kinds: dict[str, list[tuple[str, int]]] = {}
    for name, found in every.items():
        kinds[name] = []
        for hit, number, row in zip(found.hits, found.frames, found.rows, strict=True):
            kind, target = ('', -1) if hit else scenes[int(number)].kind(name, int(row))
            kinds[name].append((kind, target))
            if target >= 0:
                covered.add((int(number), target))
    answer = {}
    for name, found in every.items():
        targets = tuple(
            (int(number) if target >= 0 else -1, target)
            for number, (_, target) in zip(found.frames, kinds[name], strict=True)
        )
        missed = tuple(
            (number, int(row))
            for number, scene in enumerate(scenes)
            for row in np.flatnonzero(scene.wanted(name) & ~scene.taken)
            if (number, int(row)) not in covered
        )
        meant = tuple(frames[f].truth.classes[o] if o >= 0 else '' for f, o in targets)
        answer[name] = Mistakes(found, tuple(k for k, _ in kinds[name]), targets, meant, missed)
    return answer


def repaired(
    judged: Mapping[str, Mistakes],
    kinds: Collection[str],
    detections: Chosen = lambda frame, row: True,
    objects: Chosen = lambda frame, row: True,
) -> dict[str, Matches]:
    """Matches of every class with mistakes of some kinds taken away.

    Args:
        judged: from `mistakes`.
        kinds: those that are taken away.
        detections: which detections of them; objects: which of the missed objects.
    """
    rows: dict[str, list[tuple[float, bool]]] = {name: [] for name in judged}
    claims: dict[tuple[str, int, int], float] = {}
    for name, item in judged.items():
        found = item.found
        for place, kind in enumerate(item.kinds):
            score = float(found.scores[place])
            away = kind in kinds and detections(int(found.frames[place]), int(found.rows[place]))
            if not away:
                rows[name].append((score, bool(found.hits[place])))
            elif kind in REPAIRED:
                key = (item.meant[place], *item.targets[place])
                claims[key] = max(score, claims.get(key, score))
    for (name, _, _), score in claims.items():
        rows[name].append((score, True))
    answer = {}
    for name, item in judged.items():
        gone = [key for key in item.missed if MISSED in kinds and objects(*key)]
        scores = np.array([score for score, _ in rows[name]], np.float64)
        hits = np.array([hit for _, hit in rows[name]], bool)
        order = by_score(scores)
        none: Int64 = np.full(len(order), -1)
        answer[name] = replace(
            item.found, scores=scores[order], hits=hits[order], frames=none, rows=none,
            objects=none, asked=item.found.asked - len(gone),
        )  # fmt: skip
    return answer


def precisions(matches: Mapping[str, Matches], asked: Mapping[str, int], ruler: Ruler) -> Float64:
    """Average precision [C] of the classes that were asked for before anything was taken away.

    Where nothing is left to be asked for, nothing is lost either: 1.
    """
    values = [
        ruler.precision(found) if found.asked else 1.0
        for name, found in matches.items()
        if asked[name]
    ]
    return np.array(values, np.float64)


class _Scene:
    """One frame: how near its detections are to its objects, and which of these are found."""

    def __init__(self, frame: Frame, names: Sequence[str], ruler: Ruler, taken: Mask) -> None:
        self._ruler = ruler
        self.taken = taken
        self._asked = np.asarray(frame.truth.asked)
        self._classes: NDArray[np.str_] = np.array(frame.truth.classes, dtype=np.str_)
        self._known = np.isin(self._classes, names)
        boxes, truth = frame.found.boxes, frame.truth.boxes
        self._near = ruler.nearness(boxes, truth)
        self._within = centre_inside(boxes, truth)

    def wanted(self, name: str) -> Mask:
        """Objects of a class that are asked for, bool [N]."""
        return np.asarray((self._classes == name) & self._asked)

    def kind(self, name: str, row: int) -> tuple[str, int]:
        """Kind of a detection that finds nothing, and the object it meant, -1: none."""
        near, within = self._near[row], self._within[row]
        hit, close = self._ruler.hits(near), near >= self._ruler.near
        same = self.wanted(name)
        other = (self._classes != name) & self._asked & self._known
        free = ~self.taken
        for kind, fits in (
            ('place', same & free & close),
            ('class', other & free & hit),
            ('far', same & free & within),
        ):
            if fits.any():
                return kind, int(np.where(fits, near, -np.inf).argmax())
        for kind, fits in (
            ('duplicate', same & self.taken & (close | within)),
            ('second name', other & self.taken & hit),
            ('both', other & (close | within)),
            ('unseen', ~self._asked & self._known & (close | within)),
        ):
            if fits.any():
                return kind, -1
        return 'background', -1


def centre_inside(found: Float64, truth: Float64) -> Mask:
    """Whether the centre of each box [N, 7] is above the footprint of each other [M, 7]."""
    offset = found[:, None, :2] - truth[None, :, :2]
    c, s = np.cos(truth[:, YAW]), np.sin(truth[:, YAW])
    along = offset[..., 0] * c + offset[..., 1] * s
    across = offset[..., 1] * c - offset[..., 0] * s
    long, wide = truth[:, LENGTH] / 2, truth[:, WIDTH] / 2
    return np.asarray((np.abs(along) <= long) & (np.abs(across) <= wide))

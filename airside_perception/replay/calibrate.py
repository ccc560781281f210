"""`replay calibrate-scores`: fits the curves of a model card on bags that have ground truth.

Lidar: a detection is right where an object of its class has its centre within 2 m, as in
`replay evaluate`. Camera: where a visible object overlaps it by half in the image, so that the
probability is that of the object and not of its place on the ground. For a lidar card, how far its
boxes lie off is measured as well: `sigmas`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from airside_perception.card import CameraCard, LidarCard, ModelCard, load_card
from airside_perception.config import LidarConfig
from airside_perception.errors import BagError, CardError, ConfigError
from airside_perception.evaluate.fit import FEW_HITS, Fitted, Sample, fit_classes
from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.images import in_images
from airside_perception.evaluate.matching import Matches, centre_nearness, match
from airside_perception.evaluate.places import deviations
from airside_perception.evaluate.question import reached
from airside_perception.files import write_whole
from airside_perception.network import Network
from airside_perception.replay.bag import BagReader
from airside_perception.replay.evaluate import Progress, every_network, run_detectors, with_floor
from airside_perception.replay.judge import aliases_of, judge, judge_images
from airside_perception.replay.runner import CAMERA_2D_TOPIC, LIDAR_TOPIC, read_transforms
from airside_perception.replay.settings import (
    THREADS,
    Settings,
    load_settings,
    rectified_cameras,
)
from airside_perception.replay.truth import read_image_truth, read_labelled, read_truth
from airside_perception.replay.view import lenses

FLOOR = 0.05
"""Detections from this score of the network up are looked at."""
MAX_RANGE = 80.0
DIGITS = 4
"""Of thresholds; cut off, not rounded, so that nothing that was published is lost."""
WIDTH = 110
FARTHEST = 4.0
"""Metres within which a centre is that of an object when deviations of places are measured."""
CAUTIOUS = 0.3
"""Threshold that is chosen where too few are found to choose by."""


@dataclass(frozen=True)
class Calibrated:
    """Curves for one card.

    Attributes:
        card: as it was, its old curves left out.
        classes: {class: its curve and figures}.
        thresholds: {class: (as it was, of probabilities)}: what was published still is, and no
            more; of a card that has curves already, the first is taken back through them.
        note: what was fitted to, for the card.
        sigmas: those of `LidarCard`, of the classes that are found often enough.
    """

    card: ModelCard
    classes: Mapping[str, Fitted]
    thresholds: Mapping[str, tuple[float, float]]
    note: Mapping[str, Any]
    sigmas: Mapping[str, tuple[float, float, float]]


def calibrate(
    bags: Sequence[Path],
    card_path: Path,
    params: Path | None = None,
    method: str = 'auto',
    floor: float = FLOOR,
    threads: int = THREADS,
    progress: Progress = lambda done, of: None,
    choose: bool = False,
    threshold: float | None = None,
) -> Calibrated:
    """Runs the network of a card over bags and fits a curve for each class.

    Args:
        bags: with ground truth; `Fitted.after` needs two or more.
        card_path: of a network that the parameters run.
        params: ROS parameter file; None: the shipped configuration.
        method: `auto`, `isotonic` or `temperature`.
        floor: lowest score of the network that is looked at.
        threads: of a network whose parameters fix none.
        choose: thresholds by `balanced` instead of those of the card.
        threshold: probability from which every class is published instead, a score of the network
            where a class has no curve; None: see `choose`.

    Raises:
        BagError: a bag without what is needed.
        CardError: not a card.
        ConfigError: the parameters run no network of that card, or too few detections.
    """
    card = load_card(card_path)
    found: dict[str, list[Sample]] = defaultdict(list)
    asked: dict[str, int] = defaultdict(int)
    frames: list[Frame] = []
    for number, bag in enumerate(bags):
        judged, matches = _judged(bag, card, params, floor, threads, progress)
        frames += judged
        for name in card.published:
            item = matches(judged, name)
            groups = np.full(len(item.scores), number, np.int64)
            found[name].append(Sample(item.scores, item.hits, groups))
            asked[name] += item.asked
    samples = {
        name: Sample(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.hits for part in parts]),
            np.concatenate([part.groups for part in parts]),
        )
        for name, parts in found.items()
    }
    classes = fit_classes(samples, method)
    thresholds = {}
    for name in card.thresholds if not choose and threshold is None else card.published:
        old = card.thresholds.get(name, 0.0)
        before = card.calibration[name].lowest(old) if name in card.calibration else old
        after = float(classes[name].curve(min(before, 1.0))) if name in classes else old
        if threshold is not None:
            after = threshold
        elif choose:
            after = CAUTIOUS
            if name in classes and classes[name].hits >= FEW_HITS:
                after = float(classes[name].curve(balanced(samples[name], asked[name])))
        if threshold is None:  # what was published shall still be
            after = math.floor(after * 10**DIGITS) / 10**DIGITS
        thresholds[name] = (old, after)
    note = {
        'frames': len(frames),
        'bags': [bag.name for bag in bags] if len(bags) <= 4 else
        f'{len(bags)}, {bags[0].name} to {bags[-1].name}',
        'detections': sum(item.detections for item in classes.values()),
        'from_score': floor,
    }  # fmt: skip
    sigmas = {}
    if isinstance(card, LidarCard):
        lowest = {
            name: item.curve.lowest(thresholds.get(name, (0.0, 0.0))[1])
            for name, item in classes.items()
        }
        sigmas = _sigmas(frames, lowest)
    return Calibrated(replace(card, calibration={}), classes, thresholds, note, sigmas)


def _sigmas(
    frames: Sequence[Frame], lowest: Mapping[str, float]
) -> dict[str, tuple[float, float, float]]:
    """Deviations of the places of what is published: {class: lowest score of the network}.

    None is below that of LidarConfig: simulated places are better than real ones, and with tighter
    ones the fusion matches less (simulated, seeds 5000 to 5039: -1.0 points of mAP).
    """
    plain = LidarConfig()
    growth = plain.position_sigma_per_m
    found = {}
    for name, score in lowest.items():
        matches = match(frames, name, centre_nearness, -FARTHEST)
        matches = replace(matches, hits=matches.hits & (matches.scores >= score))
        if np.count_nonzero(matches.hits) >= FEW_HITS:
            item = deviations(frames, matches, growth)
            least = plain.position_sigma
            values = (max(item.along, least), max(item.across, least), item.yaw)
            found[name] = tuple(round(value, 3) for value in values)
    return found  # type: ignore[return-value]  # three numbers each


def balanced(sample: Sample, asked: int) -> float:
    """The score from which on detections have the best F1, 2 hits / (detections + objects).

    Args:
        sample: detections of one class.
        asked: objects of that class that are to be found.
    """
    order = np.argsort(-sample.scores, kind='stable')
    scores, hits = sample.scores[order], np.cumsum(sample.hits[order])
    values = 2 * hits / (np.arange(1, len(hits) + 1) + asked)
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are taken together
    return float(scores[int(np.argmax(np.where(last, values, -1.0)))])


def write_calibrated(found: Calibrated, source: Path, out: Path) -> None:
    """Writes the card anew: its text with other thresholds, curves and a note, all else as it was.

    Raises:
        CardError: it cannot be written, or would not be read as what it should be.
    """
    try:
        text = source.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f'{source}: not readable: {error}') from error
    thresholds = {name: after for name, (_, after) in found.thresholds.items()}
    curves = {
        name: {
            'scores': item.curve.scores.tolist(),
            'probabilities': item.curve.probabilities.tolist(),
        }
        for name, item in found.classes.items()
    }
    text = _without(text, 'calibration')
    if thresholds:
        text = _without(text, 'thresholds')
    block: dict[str, Any] = {'thresholds': thresholds} if thresholds else {}
    block['calibration'] = curves
    if found.sigmas:
        text = _without(text, 'sigmas')
        block['sigmas'] = {name: list(values) for name, values in found.sigmas.items()}
    text = _after(text, 'publish' if found.card.publish else 'classes', _yaml(block))
    text = _with_note(text, found.note)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'.{out.name}.check')
    try:
        write_whole(part, text, CardError)
        read = load_card(part)
    except CardError as error:
        raise CardError(f'{source}: its text could not be changed: {error}') from error
    finally:
        part.unlink(missing_ok=True)
    same = {name: curve.scores.tolist() for name, curve in read.calibration.items()}
    wanted = {name: item['scores'] for name, item in curves.items()}
    if same != wanted or dict(read.thresholds) != (thresholds or dict(found.card.thresholds)):
        raise CardError(f'{source}: its text could not be changed; write the curves by hand')
    write_whole(out, text, CardError)


def calibrated_text(found: Calibrated) -> str:
    """What was fitted, class by class."""
    head = (
        f'{"class":<18} detections   hits  share   ECE before  after (other half)  threshold  '
        'curve'
    )
    lines = [f'{found.card.name}: {found.note["frames"]} frames', head]
    for name, item in found.classes.items():
        old, new = found.thresholds.get(name, (0.0, 0.0))
        share = item.hits / item.detections
        after = f'{item.after:.3f}' if math.isfinite(item.after) else '-'
        lines.append(
            f'{name:<18} {item.detections:>10} {item.hits:>6} {share:>6.2f} {item.before:>12.3f} '
            f'{after:>19}  {old:.2f}-> {new:.2f}  {item.method}'
        )
    lines += [
        f'{name:<18} centre off by {along:.2f} m along, {across:.2f} m across, yaw {yaw:.2f} rad'
        for name, (along, across, yaw) in found.sigmas.items()
    ]
    lines.append(
        'share: hits of all detections from the lowest score up, what priors.CLASS of bev_fusion '
        'mean'
    )
    return '\n'.join(lines)


def _judged(
    bag: Path,
    card: ModelCard,
    params: Path | None,
    floor: float,
    threads: int,
    progress: Progress,
) -> tuple[list[Frame], Callable[[Sequence[Frame], str], Matches]]:
    """Frames of all sensors that run the network, and how their detections are matched."""
    aliases = aliases_of([card])
    with BagReader(bag) as reader:
        settings = _only(load_settings(reader.topics, params, threads), card)
        settings = every_network(settings, lambda network: with_floor(_plain(network), floor))
        results, _ = run_detectors(reader, settings, progress)
        if isinstance(card, CameraCard):
            frames = []
            for camera in settings.cameras:
                topic = CAMERA_2D_TOPIC.format(camera.name)
                own = [result for result in results if result.topic == topic]
                visible = read_image_truth(reader, camera.name)
                where = read_labelled(reader, camera.name)
                frames += judge_images(visible, own, aliases, bag.name, where).frames
            if not frames:
                raise BagError(f'{bag}: no ground truth of images; camera networks need it')
            return frames, in_images
        transforms = read_transforms(reader)
        rectified = rectified_cameras(reader.topics, settings.parameters.for_node)
        views = lenses(reader, transforms, rectified)
        judged = judge(read_truth(reader), results, transforms, aliases, views, bag.name)
    found = judged[LIDAR_TOPIC].frames if LIDAR_TOPIC in judged else []
    return [frame.in_range(0.0, MAX_RANGE) for frame in found], reached


def _only(settings: Settings, card: ModelCard) -> Settings:
    """The sensors that run the network of the card."""

    def same(network: Network[Any, Any] | None) -> bool:
        return network is not None and Path(network.card.path).resolve() == own

    own = Path(card.path).resolve()
    cameras = tuple(camera for camera in settings.cameras if same(camera.network))
    lidar = settings.lidar if same(settings.lidar) else None
    if not cameras and lidar is None:
        networks = [camera.network for camera in settings.cameras]
        cards = sorted({str(item.card.path) for item in (*networks, settings.lidar) if item})
        raise ConfigError(
            f'{settings.parameters.path} runs {", ".join(cards)}, not {card.path}; --params names '
            'a parameter file that does'
        )
    names = tuple(camera.name for camera in cameras)
    fusion = replace(settings.fusion, lidar=lidar is not None, cameras=names)
    return replace(settings, cameras=cameras, lidar=lidar, fusion=fusion)


def _plain(network: Network[Any, Any]) -> Network[Any, Any]:
    return replace(network, card=replace(network.card, calibration={}))


def _block(key: str) -> str:
    """A pattern of a key of the first level, with all lines up to the next key or remark."""
    return rf'^{key}:.*?(?=^[^\s\-\]}}]|\Z)'


def _without(text: str, key: str) -> str:
    """Without a block of the first level."""
    return re.sub(_block(key), '', text, count=1, flags=re.MULTILINE | re.DOTALL)


def _after(text: str, key: str, block: str) -> str:
    """With `block` after the block of a key."""
    found = re.search(_block(key), text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise CardError(f'the card has no key {key!r} at the start of a line')
    return text[: found.end()] + block + text[found.end() :]


def _with_note(text: str, note: Mapping[str, Any]) -> str:
    """With `calibration: note` first in `about`, in the place of an earlier one."""
    line = _yaml({'calibration': dict(note)})
    indented = ''.join(f'  {part}\n' for part in line.splitlines())
    about = re.search(r'^about:[ \t]*(?:#.*)?\n', text, re.MULTILINE)
    if about is None:
        block = re.search(_block('about'), text, re.MULTILINE | re.DOTALL)
        if block is None:
            return f'{text}about:\n{indented}'
        known = yaml.safe_load(block[0])['about'] or {}  # written as {...}
        known.pop('calibration', None)
        whole = _yaml({'about': {'calibration': dict(note), **known}})
        return text[: block.start()] + whole + text[block.end() :]
    head, tail = text[: about.end()], text[about.end() :]
    end = re.search(r'^\S', tail, re.MULTILINE)
    own, rest = (tail[: end.start()], tail[end.start() :]) if end else (tail, '')
    own = re.sub(r'^  calibration:.*?(?=^  \S|\Z)', '', own, flags=re.MULTILINE | re.DOTALL)
    return head + indented + own + rest


def _yaml(block: Mapping[str, Any]) -> str:
    return yaml.safe_dump(
        dict(block), sort_keys=False, width=WIDTH, default_flow_style=None, allow_unicode=True
    )

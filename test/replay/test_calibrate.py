"""`replay calibrate-scores`: a card gets the curve that made its detections right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from airside_perception.card import load_card
from airside_perception.evaluate.fit import Sample
from airside_perception.messages import (
    detections2d,
    detections3d,
    image_message,
    point_cloud_message,
)
from airside_perception.replay.__main__ import main
from airside_perception.replay.calibrate import balanced
from airside_perception.replay.evaluate import Options, evaluate_bags
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud

Capture = pytest.CaptureFixture[str]
LIDAR = '/perception/lidar/detections'
CELLS = [(x + 0.5, y + 0.5) for x in (6, 12, 18, 24, 30) for y in (-12, -4, 4, 12)]
FRAMES = 6


def chance(score: np.ndarray) -> np.ndarray:
    """How often a car of this score is one: much less often than the score says."""
    return np.asarray(score) ** 4


@pytest.fixture
def drives(street: Any) -> list[Path]:
    """Four bags of clouds and images with things in all places, some of which are cars."""
    rng = np.random.default_rng(5)
    street.frames = FRAMES

    def frame(stamp_ns: int) -> Iterator[tuple[str, Any]]:
        types = street._types
        scores = rng.uniform(0.5, 1.0, len(CELLS))
        intensity = 0.5 + np.log(scores / (1 - scores)) / 20  # of the tiny network, see there
        points = np.array([[x, y, -1.0, i] for (x, y), i in zip(CELLS, intensity, strict=True)])
        cloud = PointCloud(stamp_ns, 'lidar', points.astype(np.float32))
        yield '/sensing/lidar/points', point_cloud_message(cloud, types)
        real = [cell for cell, p in zip(CELLS, chance(scores), strict=True) if rng.random() < p]
        boxes = np.array([[x, y, 0.75, 4, 2, 1.5, 0] for x, y in real]).reshape(-1, 7)
        truth = Boxes3D(
            stamp_ns, 'base_link', boxes, np.ones(len(boxes)), ('sedan',) * len(boxes),
            np.zeros((len(boxes), 4, 4)),
        )  # fmt: skip
        yield '/ground_truth/objects', detections3d(truth, types)
        bright = rng.uniform(0.1, 1.0, 6)
        data = (255 * bright.reshape(2, 3)).astype(np.uint8).repeat(32, 0).repeat(32, 1)
        image = Image(stamp_ns, 'camera_front_optical', np.repeat(data[..., None], 3, axis=2))
        yield '/sensing/camera/front/image', image_message(image, types)
        here = np.flatnonzero(rng.random(6) < chance(bright))
        corners = np.array([[32 * (n % 3), 32 * (n // 3)] * 2 for n in here], float).reshape(-1, 4)
        corners[:, 2:] += 32
        seen = Boxes2D(stamp_ns, 'c', corners, np.ones(len(here)), ('car',) * len(here))
        yield '/ground_truth/camera/front/objects', detections2d(seen, types)

    street._frame = frame
    return [Path(street.write()) for _ in range(4)]


def calibrate(bags: list[Path], card: Path, out: Path, params: Path, *more: str) -> int:
    bag_names = [str(bag) for bag in bags]
    return main([
        'calibrate-scores', *bag_names, '--card', str(card), '--out', str(out),
        '--params', str(params), *more,
    ])  # fmt: skip


def lidar_card(tmp_path: Path) -> Path:
    """The tiny lidar card, with comments and a name of the truth."""
    path = tmp_path / 'networks' / 'tiny_lidar.yaml'
    content = yaml.safe_load(path.read_text())
    content['about'] = {'licence': 'none', 'simulated_classes': {'car': ['sedan']}}
    text = yaml.safe_dump(content, sort_keys=False)
    path.write_text(text.replace('encoder:', '# a remark that stays\nencoder:'))
    return path


def test_a_lidar_card_learns_what_its_scores_mean(
    drives: list[Path], parameters: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    params = parameters(lidar_detector={'score_threshold': 0.0})
    card = lidar_card(tmp_path)
    before = load_card(card)
    options = Options(tuple(drives[2:]), params=params, topics=(LIDAR,))
    plain = evaluate_bags(options).figures[LIDAR]
    assert calibrate(drives[:2], card, card, params) == 0
    text = capsys.readouterr().out
    assert 'after (other half)' in text
    after = load_card(card)
    assert replace(after, calibration={}, thresholds={}, about={}).published == before.published
    assert '# a remark that stays\nencoder:' in card.read_text()
    assert after.about['licence'] == 'none'
    assert after.about['calibration']['frames'] == 2 * FRAMES
    curve = after.calibration['car']
    scores = np.array([0.6, 0.75, 0.9])
    assert np.abs(curve(scores) - chance(scores)).max() < 0.15
    assert 0 < after.thresholds['car'] < before.thresholds['car'] == 0.3
    # a card that has curves is fitted anew, not on top of them, and its thresholds go along
    again = tmp_path / 'networks' / 'again.yaml'
    assert calibrate(drives[:2], card, again, params) == 0
    assert load_card(again).calibration['car'].scores.tolist() == curve.scores.tolist()
    assert load_card(again).thresholds['car'] == pytest.approx(after.thresholds['car'], abs=2e-4)
    assert again.read_text().count('calibration:') == 2
    # nor does an earlier note stay where something stands before it
    card.write_text(card.read_text().replace('about:\n', 'about:\n  first: [1,\n    2]\n', 1))
    assert calibrate(drives[:2], card, again, params) == 0
    assert again.read_text().count('calibration:') == 2
    assert load_card(again).about['first'] == [1, 2]
    # and what is written in braces, as YAML writes a flat mapping, is not lost
    flat = "about: {licence: none, first: 'a: b ±', simulated_classes: {car: [sedan]}}\n"
    card.write_text(flat + card.read_text().split('about:')[0])
    assert calibrate(drives[:2], card, again, params) == 0
    noted = load_card(again)
    assert noted.about['calibration']['frames'] == 2 * FRAMES
    assert (noted.about['licence'], noted.about['first']) == ('none', 'a: b ±')
    assert again.read_text().index('about:') < again.read_text().index('encoder:')
    assert 'a: b ±' in again.read_text()
    assert '# a remark that stays\nencoder:' in again.read_text()
    block = 'about:  # ours\n  licence: none  # still\n  simulated_classes: {car: [sedan]}\n'
    card.write_text(card.read_text().replace(flat, block))
    assert calibrate(drives[:2], card, again, params) == 0
    assert 'about:  # ours\n  calibration:' in again.read_text()
    assert '  licence: none  # still\n' in again.read_text()
    # the tiny network puts boxes where the cars are: places keep the least deviation there is
    assert after.sigmas == load_card(again).sigmas == {'car': (0.15, 0.15, 0.02)}
    assert again.read_text().count('sigmas:') == 1
    # other bags: the same detections, better scores
    found = evaluate_bags(options)
    figures = found.figures[LIDAR]
    assert found.calibrated == {'tiny_lidar': ('car', 'person')}
    assert figures.counts.asked == plain.counts.asked
    assert figures.counts.hits == plain.counts.hits
    assert figures.calibration_error < 0.5 * plain.calibration_error
    assert figures.classes[0].ap == pytest.approx(plain.classes[0].ap, abs=1e-9)
    without = evaluate_bags(replace(options, uncalibrated=True)).figures[LIDAR]
    assert without.calibration_error == pytest.approx(plain.calibration_error, abs=0.01)


def test_with_and_without_curves_the_same_detections_are_judged(
    drives: list[Path], parameters: Callable[..., Path], tmp_path: Path
) -> None:
    """With a floor, too: it is one of probabilities."""
    params, card = parameters(), lidar_card(tmp_path)
    assert calibrate(drives[:2], card, card, params) == 0
    curve = load_card(card).calibration['car']
    for floor in (None, 0.3):
        options = Options((drives[2],), params=params, topics=(LIDAR,), floor=floor)
        both = evaluate_bags(options), evaluate_bags(replace(options, uncalibrated=True))
        kept = 0
        for one, other in zip(*(found.frames[LIDAR] for found in both), strict=True):
            a, b = (item.found.select(np.lexsort(item.found.boxes.T)) for item in (one, other))
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_allclose(a.scores, curve(b.scores), atol=1e-5)
            kept += len(a)
        assert kept > 0
        figures, raw = (found.figures[LIDAR] for found in both)
        assert figures.counts == raw.counts
        assert figures.mean_ap == pytest.approx(raw.mean_ap)
        assert figures.calibration_error < raw.calibration_error


def test_a_camera_card_learns_from_images(
    drives: list[Path], parameters: Callable[..., Path], tmp_path: Path
) -> None:
    card = tmp_path / 'networks' / 'tiny_camera.yaml'
    out = tmp_path / 'new' / 'card.yaml'
    params = parameters()
    assert calibrate(drives, card, out, params, '--method', 'temperature') == 0
    curve = load_card(out).calibration['car']
    scores = np.array([0.3, 0.6, 0.9])
    assert np.abs(curve(scores) - chance(scores)).max() < 0.2
    assert load_card(card).calibration == {}


def test_what_cannot_be_calibrated(
    drives: list[Path], parameters: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    params, out = parameters(), tmp_path / 'out.yaml'
    card = tmp_path / 'networks' / 'tiny_lidar.yaml'
    stranger = tmp_path / 'other.yaml'
    stranger.write_text(card.read_text())
    assert calibrate(drives[:1], stranger, out, params) == 2
    assert 'tiny_lidar.yaml, not' in capsys.readouterr().err
    # without its name in the truth, no car is right
    assert calibrate(drives[:1], card, out, params) == 2
    assert 'are the least that a curve can be fitted to' in capsys.readouterr().err
    assert calibrate(drives[:1], tmp_path / 'none.yaml', out, params) == 2
    assert 'no model card' in capsys.readouterr().err
    assert not out.exists()


def test_the_balanced_threshold_has_the_best_f1_of_all() -> None:
    """By a loop over every score that may be the threshold."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores = rng.integers(1, 12, 40) / 12
        hits = rng.random(40) < scores
        asked = int(hits.sum()) + int(rng.integers(0, 9))
        found = balanced(Sample(scores, hits, np.zeros(40, np.int64)), asked)

        def f1(low: float, scores: Any = scores, hits: Any = hits, asked: int = asked) -> float:
            kept = scores >= low
            return float(2 * hits[kept].sum() / (kept.sum() + asked))

        assert found in scores
        assert f1(found) == pytest.approx(max(f1(low) for low in scores))


def test_thresholds_are_chosen_where_that_is_asked_for(
    drives: list[Path], parameters: Callable[..., Path], tmp_path: Path
) -> None:
    card, out = lidar_card(tmp_path), tmp_path / 'networks' / 'chosen.yaml'
    assert calibrate(drives, card, out, parameters(), '--choose-thresholds') == 0
    after = load_card(out)
    assert set(after.thresholds) == set(after.published)
    # a score is right with its fourth power: best F1 at about half of the best that F1 can be
    assert 0.2 < after.thresholds['car'] < 0.6
    assert after.thresholds['person'] == 0.3  # none is there to choose by
    # nor is there a detection of some classes at all: they are not let through either
    assert min(after.thresholds.values()) > 0.1


def test_one_probability_for_all_classes(
    drives: list[Path], parameters: Callable[..., Path], tmp_path: Path
) -> None:
    card, out = lidar_card(tmp_path), tmp_path / 'networks' / 'same.yaml'
    assert calibrate(drives, card, out, parameters(), '--threshold', '0.35') == 0
    after = load_card(out)
    assert after.thresholds == dict.fromkeys(after.published, 0.35)
    assert calibrate(drives, card, out, parameters(), '--threshold', '0.57') == 0  # no 0.5699
    assert set(load_card(out).thresholds.values()) == {0.57}
    with pytest.raises(SystemExit):
        calibrate(drives, card, out, parameters(), '--threshold', '0.35', '--choose-thresholds')
    with pytest.raises(SystemExit):
        calibrate(drives, card, out, parameters(), '--threshold', '1.5')

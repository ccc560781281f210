"""An evaluation in words and tables, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from airside_perception.evaluate.breakdown import ENOUGH_POINTS, People
from airside_perception.evaluate.errors import Errors
from airside_perception.evaluate.evaluation import ClassFigures, Figures
from airside_perception.evaluate.images import ImageClass, ImageFigures
from airside_perception.evaluate.question import DISTANCES, Cell, Counts
from airside_perception.replay.evaluate import Evaluation
from airside_perception.replay.report import latencies

EXPLANATION = (
    'AP: mean over centre distances of 0.5, 1, 2 and 4 m, as nuScenes, but that one detection of '
    'an object that need not be found (out of range, or unseen) is no false alarm, which there it '
    'is. AP40: overlap in space of '
    '0.7 for car, van, truck and bus, 0.5 for others, as KITTI. Recall, precision, errors and '
    'ECE: centres within 2 m. Score: (5 mAP + sum of 1 - error) / (5 + number of errors), no NDS. '
    'In images: overlap of 0.5; AP as COCO, mean of 0.5 to 0.95.'
)


def number(value: float, decimals: int = 3) -> str:
    """A figure, `-` where there is none."""
    return f'{value:.{decimals}f}' if math.isfinite(value) else '-'


def evaluation_text(found: Evaluation) -> str:
    """All tables."""
    lines = [EXPLANATION, '', *_summary(found.figures)]
    for topic, figures in found.figures.items():
        lines += ['', *_topic(topic, figures)]
    for topic, images in found.images.items():
        lines += ['', *_images(topic, images)]
    for topic in (*found.figures, *found.images):
        for count, what in (
            (found.silent[topic], 'moments without a message: nothing was found there'),
            (found.strays[topic], 'messages without a truth near them: left out'),
            (found.unlabelled[topic], 'detections beyond the labels: no false alarms'),
        ):
            lines += [f'{topic}: {count} {what}'] if count else []
    if found.unknown:
        names = ', '.join(f'{name} {count}' for name, count in sorted(found.unknown.items()))
        lines += ['', f'objects of classes that are not asked for: {names}']
    for card, calibrated in found.calibrated.items():
        lines.append(f'{card}: scores are calibrated: {", ".join(calibrated)}')
    if found.times:
        lines += ['', 'time in ms             calls     p50     p99     max']
        lines += [
            f'{stage:<22} {row["calls"]:>5} {row["p50"]:>7.1f} {row["p99"]:>7.1f} '
            f'{row["max"]:>7.1f}'
            for stage, row in latencies(found.times).items()
        ]
    return '\n'.join(lines)


def people_text(name: str, people: People) -> str:
    """Recall of people in one line."""
    which = 'people' if name == 'all' else f'with {ENOUGH_POINTS} lidar points or more'
    at = f' from score {people.score:.2f} up' if math.isfinite(people.score) else ''
    return f'{number(people.recall)}{at}, of {people.asked} {which}'


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """The figures as JSON takes them; null where there is none."""
    return {
        'topics': {topic: _plain(figures) for topic, figures in found.figures.items()},
        'images': {topic: _plain(figures) for topic, figures in found.images.items()},
        'questions': {topic: _plain(item) for topic, item in found.questions.items()},
        'silent': dict(found.silent),
        'strays': dict(found.strays),
        'unlabelled': dict(found.unlabelled),
        'not_asked': dict(found.unknown),
        'calibrated': {card: list(names) for card, names in found.calibrated.items()},
        'times_ms': latencies(found.times),
    }


def _summary(table: Mapping[str, Figures]) -> Iterator[str]:
    yield (
        f'{"topic":<40} {"frames":>6} {"objects":>7}    mAP  AP40  score recall  prec.    ECE'
        '   move  scale    yaw  speed'
    )
    for topic, item in table.items():
        counts = item.counts
        yield (
            f'{topic:<40} {item.frames:>6} {counts.asked:>7} {number(item.mean_ap):>6} '
            f'{number(item.mean_ap40):>5} {number(item.score):>6} {number(counts.recall):>6} '
            f'{number(counts.precision):>6} {number(item.calibration_error):>6} '
            f'{_errors(item.errors)}'
        )


def _topic(topic: str, figures: Figures) -> Iterator[str]:
    yield topic
    for name, people in figures.people.items():
        yield (
            '  people to 30 m within 1 m, one false alarm in ten frames: recall '
            f'{people_text(name, people)}'
        )
    distances = ''.join(f'{f"{reach:g} m":>6}' for reach in DISTANCES)
    yield (
        f'  {"class":<16} {"objects":>7}     AP{distances}   AP40  from recall  prec. alarms'
        '    ECE   move  scale    yaw  speed'
    )
    for item in figures.classes:
        yield f'  {_class(item)}'
    for title, cells in breakdowns(figures):
        if cells:
            yield f'  {title:<27} objects  recall  prec.    mAP'
            yield from (f'    {_cell(cell)}' for cell in cells)
    yield f'  {"class by range, AP":<27}' + ''.join(f'{c.name:>10}' for c in figures.ranges)
    for item in figures.classes:
        yield f'    {item.name:<25}' + ''.join(f'{number(c.ap):>10}' for c in item.ranges)
    yield f'  {"class by range, AP40":<27}' + ''.join(f'{c.name:>10}' for c in figures.ranges)
    for item in figures.classes:
        yield f'    {item.name:<25}' + ''.join(f'{number(c.ap40):>10}' for c in item.ranges)
    yield f'  {"class by range, recall":<27}' + ''.join(f'{c.name:>10}' for c in figures.ranges)
    for item in figures.classes:
        recalls = (number(c.counts.recall) for c in item.ranges)
        yield f'    {item.name:<25}' + ''.join(f'{recall:>10}' for recall in recalls)


def _images(topic: str, images: ImageFigures) -> Iterator[str]:
    yield f'{topic}, boxes in {images.frames} images'
    yield f'  {"class":<16} {"objects":>7}   AP50     AP recall  prec. alarms    ECE'
    total = ImageClass('all', images.counts, images.ap50, images.ap, images.calibration_error)
    for item in (*images.classes, total):
        counts = item.counts
        yield (
            f'  {item.name:<16} {counts.asked:>7} {number(item.ap50):>6} {number(item.ap):>6} '
            f'{number(counts.recall):>6} {number(counts.precision):>6} {counts.alarms:>6} '
            f'{number(item.calibration_error):>6}'
        )


def breakdowns(figures: Figures) -> list[tuple[str, Sequence[Cell]]]:
    """(title, cells) of everything that is counted for all classes together."""
    return [
        ('range', figures.ranges),
        ('visible share', figures.visibility),
        ('lidar points on the object', figures.points),
        *((key, cells) for key, cells in figures.conditions.items()),
    ]


def _class(item: ClassFigures) -> str:
    counts = item.counts
    aps = ''.join(f'{number(item.aps[reach]):>6}' for reach in DISTANCES)
    return (
        f'{item.name:<16} {counts.asked:>7} {number(item.ap):>6}{aps} {number(item.ap40):>6} '
        f'{item.threshold:>5.2f} {number(counts.recall):>6} {number(counts.precision):>6} '
        f'{counts.alarms:>6} {number(item.calibration_error):>6} {_errors(item.errors)}'
    )


def _errors(errors: Errors) -> str:
    values = (errors.translation, errors.scale, errors.orientation, errors.velocity)
    return ' '.join(f'{number(value):>6}' for value in values)


def _cell(cell: Cell) -> str:
    counts = cell.counts
    return (
        f'{cell.name:<25} {counts.asked:>7} {number(counts.recall):>7} '
        f'{number(counts.precision):>6} {number(cell.ap):>6}'
    )


def _plain(value: Any) -> Any:
    """As JSON takes it: dataclasses and arrays unfolded, NaN and infinity as null."""
    if isinstance(value, Counts):
        return {**asdict(value), 'recall': _plain(value.recall),
                'precision': _plain(value.precision)}  # fmt: skip
    if is_dataclass(value) and not isinstance(value, type):
        unfolded = {key: _plain(item) for key, item in vars(value).items()}
        if isinstance(value, ClassFigures):
            unfolded['ap'] = _plain(value.ap)
        return unfolded
    if isinstance(value, Mapping):
        return {f'{key:g}' if isinstance(key, float) else str(key): _plain(item)
                for key, item in value.items()}  # fmt: skip
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value

"""An evaluation as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from airside_perception.evaluate import plots
from airside_perception.evaluate.evaluation import Figures
from airside_perception.evaluate.images import ImageClass
from airside_perception.evaluate.plots import COLOURS, Bars, Line, legend, panel, panels
from airside_perception.evaluate.question import DISTANCES, Cell
from airside_perception.evaluate.worst import Verdict, worst
from airside_perception.html import bar, page, paragraph, section, table
from airside_perception.replay import evaluate_picture
from airside_perception.replay.evaluate import Evaluation, Place
from airside_perception.replay.evaluate_text import (
    EXPLANATION,
    breakdowns,
    number,
    people_text,
)
from airside_perception.replay.report import latencies
from airside_perception.types import Float64

WORST = 6
APART_NS = 1_000_000_000
AHEAD = 50.0
"""Metres from the vehicle to the border of the pictures."""


STYLE = """
.wide th, .wide td { white-space: nowrap; overflow-wrap: normal; padding-right: .9rem; }
table { margin-bottom: 1rem; }
"""


def evaluation_page(found: Evaluation, title: str, pictures: int = WORST) -> str:
    """The page.

    Args:
        title: above it.
        pictures: frames that are drawn at most.
    """
    colours = {topic: COLOURS[i % len(COLOURS)] for i, topic in enumerate(found.figures)}
    key = legend([(short(topic), colour) for topic, colour in colours.items()])
    first = next(iter(found.figures))
    parts = [
        section('Overview', _overview(found), _people(found)),
        section(
            f'Precision over recall, by class, {DISTANCES[2]:g} m', key, _curves(found, colours)
        ),
        section('Recall by range, at the thresholds', key, _by_range(found, colours)),
        section(
            'Scores as probabilities',
            paragraph(
                'On the dashed line a score of 0.7 is right seven times in ten. Columns: share of '
                'the detections.',
                'soft',
            ),
            _reliability(found, colours),
        ),
        section(f'Worst frames of {first}', evaluate_picture.key(), _frames(found, pictures)),
        *(section(topic, *_tables(figures)) for topic, figures in found.figures.items()),
    ]
    parts += [section('Boxes in images', _images(found))] if found.images else []
    parts += [section('Time in ms', _times(found))] if found.times else []
    notes = _notes(found)
    parts += [section('Notes', *notes)] if notes else []
    style = plots.STYLE + evaluate_picture.STYLE + STYLE
    return page(title, parts, EXPLANATION, style)


def short(topic: str) -> str:
    """`front camera` for /perception/camera/front/detections, and so on."""
    names = [
        part
        for part in topic.split('/')
        if part not in ('', 'perception', 'detections', 'detections_2d')
    ]
    if len(names) == 2 and names[0] == 'camera':
        return f'{names[1]} camera'
    return {'objects': 'fused'}.get(names[-1], names[-1]) if names else topic


def _overview(found: Evaluation) -> str:
    head = (
        '', 'frames', 'objects', 'mAP', '', 'AP40', 'score', 'recall', 'precision', 'ECE',
        'centre m', 'scale', 'yaw rad', 'speed m/s',
    )  # fmt: skip
    rows = []
    for topic, item in found.figures.items():
        counts, errors = item.counts, item.errors
        share = item.mean_ap if np.isfinite(item.mean_ap) else 0.0
        rows.append((
            escape(short(topic)), str(item.frames), str(counts.asked),
            f'<b>{number(item.mean_ap)}</b>', bar(share, width_rem=4), number(item.mean_ap40),
            number(item.score), number(counts.recall), number(counts.precision),
            number(item.calibration_error), number(errors.translation, 2),
            number(errors.scale, 2), number(errors.orientation, 2), number(errors.velocity, 2),
        ))  # fmt: skip
    return f'<div class="wide">{table(head, rows, (1, 2, 3, *range(5, 14)))}</div>'


def _people(found: Evaluation) -> str:
    rows = [
        (escape(short(topic)), escape(people_text(name, people)))
        for topic, figures in found.figures.items()
        for name, people in figures.people.items()
    ]
    head = ('', 'recall of people to 30 m, centre within 1 m, at one false alarm in ten frames')
    return table(head, rows) if rows else ''


def _curves(found: Evaluation, colours: dict[str, str]) -> str:
    names = dict.fromkeys(c.name for item in found.figures.values() for c in item.classes)
    plots_of = []
    for name in names:
        lines, asked = [], 0
        for topic, item in found.figures.items():
            for one in item.classes:
                if one.name == name and len(one.recall):
                    asked = max(asked, one.counts.asked)
                    x, y = _steps(one.recall, one.precision)
                    lines.append(Line(f'{short(topic)}: AP {number(one.ap)}', x, y,
                                      colours[topic]))  # fmt: skip
        plots_of.append(panel(f'{name} ({asked})', ('recall', 'precision'), lines))
    return panels(plots_of)


def _steps(recall: Float64, precision: Float64) -> tuple[Float64, Float64]:
    """The curve without points that change nothing: at most some hundred."""
    every = max(len(recall) // 300, 1)
    keep = np.unique(np.concatenate([np.arange(0, len(recall), every), [len(recall) - 1]]))
    return recall[keep], precision[keep]


def _by_range(found: Evaluation, colours: dict[str, str]) -> str:
    names = dict.fromkeys(c.name for item in found.figures.values() for c in item.classes)
    all_plots = []
    farthest = max(q.bins()[-1][1] for q in found.questions.values() if q.bins())
    for name in ('all classes', *names):
        lines = []
        for topic, item in found.figures.items():
            cells: Sequence[Cell] = item.ranges
            if name != 'all classes':
                one = [c for c in item.classes if c.name == name]
                cells = one[0].ranges if one else ()
            middles = [(low + high) / 2 for low, high in found.questions[topic].bins()]
            if any(np.isfinite(cell.counts.recall) for cell in cells):
                recall = np.array([cell.counts.recall for cell in cells])
                lines.append(
                    Line(short(topic), np.array(middles), recall, colours[topic], dots=True)
                )
        if lines:
            all_plots.append(panel(name, ('range, m', 'recall'), lines, farthest))
    return panels(all_plots)


def _reliability(found: Evaluation, colours: dict[str, str]) -> str:
    all_plots = []
    for topic, item in found.figures.items():
        known, count = item.calibration, len(item.calibration.counts)
        edges = np.linspace(0, 1, count + 1)
        share = known.counts / max(int(known.counts.sum()), 1)
        titles = tuple(f'{n} detections' for n in known.counts.tolist())
        bars = Bars(edges[:-1], edges[1:], share, titles)
        line = Line('share that is right', known.scores, known.precision, colours[topic], True)
        name = f'{short(topic)}, ECE {number(item.calibration_error)}'
        all_plots.append(panel(name, ('score', 'share right'), [line], ideal=True, bars=bars))
    return panels(all_plots)


def _frames(found: Evaluation, pictures: int) -> str:
    topic = next(iter(found.figures))
    places = found.places[topic]
    every = worst(found.frames[topic], found.questions[topic], len(places))
    verdicts = _apart(every, places)[:pictures]
    points = evaluate_picture.clouds({item.number: places[item.number] for item in verdicts})
    figures = []
    for item in verdicts:
        view = evaluate_picture.bird_view(points.get(item.number), item, AHEAD)
        text = escape(evaluate_picture.caption(item))
        figures.append(f'<figure>{view}<figcaption>{text}</figcaption></figure>')
    if not figures:
        return paragraph('No frame has a miss or a false alarm.', 'good')
    return f'<div class="frames">{"".join(figures)}</div>'


def _apart(verdicts: Sequence[Verdict], places: Sequence[Place]) -> list[Verdict]:
    """Those that are not of the same second as a worse one."""
    chosen: list[Verdict] = []
    for item in verdicts:
        here = places[item.number]
        others = (places[one.number] for one in chosen)
        if all(here.bag != p.bag or abs(here.moment.stamp_ns - p.moment.stamp_ns) >= APART_NS
               for p in others):  # fmt: skip
            chosen.append(item)
    return chosen


def _tables(figures: Figures) -> list[str]:
    head = (
        'class', 'objects', 'AP', *(f'{reach:g} m' for reach in DISTANCES), 'AP40', 'from',
        'recall', 'precision', 'alarms', 'ECE', 'centre m', 'scale', 'yaw', 'speed',
    )  # fmt: skip
    rows = []
    for item in figures.classes:
        counts, errors = item.counts, item.errors
        rows.append((
            escape(item.name), str(counts.asked), f'<b>{number(item.ap)}</b>',
            *(number(item.aps[reach]) for reach in DISTANCES), number(item.ap40),
            number(item.threshold, 2), number(counts.recall), number(counts.precision),
            str(counts.alarms), number(item.calibration_error), number(errors.translation, 2),
            number(errors.scale, 2), number(errors.orientation, 2), number(errors.velocity, 2),
        ))  # fmt: skip
    parts = [f'<div class="wide">{table(head, rows, range(1, len(head)))}</div>']
    for title, cells in breakdowns(figures):
        if cells:
            lines = [
                (escape(c.name), str(c.counts.asked), number(c.counts.recall),
                 number(c.counts.precision), number(c.ap))
                for c in cells
            ]  # fmt: skip
            columns = (title, 'objects', 'recall', 'precision', 'mAP')
            parts.append(table(columns, lines, range(1, 5)))
    return parts


def _images(found: Evaluation) -> str:
    head = ('', 'class', 'objects', 'AP50', 'AP', 'recall', 'precision', 'alarms', 'ECE')
    rows = []
    for topic, images in found.images.items():
        total = ImageClass('all', images.counts, images.ap50, images.ap, images.calibration_error)
        for item in (total, *images.classes):
            counts, first = item.counts, item is total
            cells = (
                str(counts.asked), number(item.ap50), number(item.ap), number(counts.recall),
                number(counts.precision), str(counts.alarms), number(item.calibration_error),
            )  # fmt: skip
            name = escape(short(topic)) if first else ''
            rows.append((name, escape(item.name), *(f'<b>{c}</b>' if first else c for c in cells)))
    return table(head, rows, range(2, len(head)))


def _times(found: Evaluation) -> str:
    rows = [
        (escape(stage), str(row['calls']), *(f'{row[q]:.1f}' for q in ('p50', 'p99', 'max')))
        for stage, row in latencies(found.times).items()
    ]
    return table(('stage', 'calls', 'p50', 'p99', 'max'), rows, range(1, 5))


def _notes(found: Evaluation) -> list[str]:
    notes = []
    for topic in found.figures:
        if found.silent[topic]:
            notes.append(f'{topic}: {found.silent[topic]} moments without a message; nothing was '
                         'found there.')  # fmt: skip
        if found.strays[topic]:
            notes.append(f'{topic}: {found.strays[topic]} messages without a truth near them; '
                         'left out.')  # fmt: skip
        if found.unlabelled[topic]:
            notes.append(f'{topic}: {found.unlabelled[topic]} detections beyond the labels; no '
                         'false alarms.')  # fmt: skip
    if found.unknown:
        names = ', '.join(f'{name} {count}' for name, count in sorted(found.unknown.items()))
        notes.append(f'Objects of classes that are not asked for: {names}.')
    for card, calibrated in found.calibrated.items():
        notes.append(f'{card}: scores are calibrated: {", ".join(calibrated)}.')
    return [paragraph(note) for note in notes]

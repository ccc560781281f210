"""Reads model cards and checks that they do not contradict themselves or their network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from airside_perception.card.cards import (
    MOST_CELLS,
    MOST_LABELS,
    MOST_PAST_SWEEPS,
    POINT_FEATURES,
    CameraCard,
    LidarCard,
    ModelCard,
)
from airside_perception.card.heads import read_anchors, read_centers
from airside_perception.card.reader import Reader
from airside_perception.card.scores import read_curves
from airside_perception.errors import CardError
from airside_perception.yaml_text import load_yaml


def load_card(path: str | Path) -> ModelCard:
    """Reads a card and checks it.

    Raises:
        CardError: missing, not YAML, a key missing, unknown or of the wrong kind, or values that
            contradict one another.
    """
    path = Path(path)
    try:
        text = load_yaml(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise CardError(
            f'{path}: no model card; card_path names one, or NAME.yaml lies beside the network'
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CardError(f'{path}: not readable as YAML: {str(error).splitlines()[0]}') from error
    if not isinstance(text, dict):
        raise CardError(f'{path}: a model card is a YAML mapping, this is {type(text).__name__}')
    reader = Reader(str(path), text)
    architecture = reader.take('architecture', str)
    common: dict[str, Any] = {
        'path': str(path),
        'name': reader.take('name', str),
        'architecture': architecture,
        'classes': reader.names('classes'),
        'publish': reader.take('publish', dict, {}),
        'thresholds': reader.nested('thresholds', {}).all_numbers(),
        'sha256': reader.take('sha256', str, ''),
        'about': reader.take('about', dict, {}),
        'calibration': read_curves(reader.nested('calibration', {})),
    }
    if architecture == 'yolox':
        card: ModelCard = _camera(reader, common)
    elif architecture in ('pointpillars', 'centerpoint'):
        card = _lidar(reader, common)
    else:
        raise CardError(
            f'{path}: architecture {architecture!r} is not one of yolox, pointpillars, centerpoint'
        )
    reader.finish()
    _check_names(card)
    return card


def _check_names(card: ModelCard) -> None:
    """Classes, published names and thresholds must speak of one another."""
    for label, name in card.publish.items():
        if label not in card.classes or not isinstance(name, str):
            raise CardError(
                f'{card.path}: publish: {label!r}: {name!r} gives no published name to one of the '
                f'classes {", ".join(card.classes)}'
            )
    for name, value in card.thresholds.items():
        if name not in card.published or not 0.0 <= value <= 1.0:
            raise CardError(
                f'{card.path}: thresholds: {name!r}: {value:g} is no score (0..1) of one of the '
                f'published classes {", ".join(card.published)}'
            )
    for name in card.calibration:
        if name not in card.published:
            raise CardError(
                f'{card.path}: calibration: {name!r} is not among the published classes '
                f'{", ".join(card.published)}'
            )


def _camera(reader: Reader, common: dict[str, Any]) -> CameraCard:
    shape = reader.nested('input')
    output = reader.nested('output')
    color = shape.take('color', str, 'bgr')
    if color not in ('bgr', 'rgb'):
        raise CardError(f'{shape.path}: color is {color!r}, expected bgr or rgb')
    table = reader.nested('sizes', {})
    sizes = {name: table.numbers(name, 3) for name in table.left}
    card = CameraCard(
        **common,
        height=shape.count('height'),
        width=shape.count('width'),
        color=color,
        mean=shape.numbers('mean', 3, (0.0, 0.0, 0.0)),
        std=shape.numbers('std', 3, (1.0, 1.0, 1.0)),
        pad=shape.take('pad', int, 114),
        centered=shape.take('centered', bool, False),
        input_name=shape.take('name', str, 'images'),
        strides=_strides(output),
        output_name=output.take('name', str, 'output'),
        activated=output.take('activated', bool, True),
        sizes=sizes,  # type: ignore[arg-type]  # three numbers each
    )
    shape.finish()
    output.finish()
    if min(card.std) <= 0.0:
        raise CardError(f'{shape.path}: std is {card.std}, expected positive numbers')
    if any(card.height % stride or card.width % stride for stride in card.strides):
        raise CardError(
            f'{reader.path}: input {card.height} x {card.width} is no multiple of the strides '
            f'{card.strides}'
        )
    for name, size in sizes.items():
        if min(size) <= 0.0:
            raise CardError(f'{table.path}: {name!r} has a size of {size} m')
    missing = [name for name in card.published if name not in sizes]
    if missing:
        raise CardError(f'{reader.path}: sizes lack {missing[0]!r}')
    return card


def _strides(output: Reader) -> tuple[int, ...]:
    strides = output.take('strides', list, [8, 16, 32])
    if not strides or not all(type(n) is int and n > 0 for n in strides):
        raise CardError(f'{output.path}: strides is {strides!r}, expected positive integers')
    return tuple(strides)


def _lidar(reader: Reader, common: dict[str, Any]) -> LidarCard:
    shape, encoder = reader.nested('input'), reader.nested('encoder')
    output = reader.nested('output')
    features = encoder.names('features')
    for name in features:
        if name not in POINT_FEATURES:
            raise CardError(
                f'{encoder.path}: feature {name!r} is not among {", ".join(POINT_FEATURES)}'
            )
    table = reader.nested('sigmas', {})
    sigmas = {name: table.numbers(name, 3) for name in table.left}
    for name, values in sigmas.items():
        if min(values) <= 0.0:
            raise CardError(f'{table.path}: {name!r} is {values}, expected positive numbers')
    weight, bias = encoder.array('weight', 2), encoder.array('bias', 1)
    if weight.shape != (len(features), len(bias)):
        raise CardError(
            f'{encoder.path}: weight {weight.shape} and bias {bias.shape} do not fit '
            f'{len(features)} features'
        )
    card = LidarCard(
        **common,
        limits=shape.numbers('range', 6),
        pillar=shape.numbers('pillar', 2),  # type: ignore[arg-type]  # two numbers, checked
        max_points=shape.count('max_points'),
        max_pillars=shape.count('max_pillars'),
        past_sweeps=_past_sweeps(shape, encoder.path, features),
        input_name=shape.take('name', str, 'canvas'),
        features=features,
        weight=weight,
        bias=bias,
        zero_row=encoder.take('zero_row', bool, False),
        stride=output.count('stride'),
        sigmas=sigmas,  # type: ignore[arg-type]  # three numbers each
        **_head(output, common),
    )
    for part in (shape, encoder, output):
        part.finish()
    _check_grid(shape.path, card)
    for name in sigmas:
        if name not in card.published:
            raise CardError(f'{table.path}: {name!r} is not among the published classes')
    return card


def _past_sweeps(shape: Reader, encoder: str, features: tuple[str, ...]) -> int:
    """How many past sweeps the network sees; it must know how old their points are."""
    count: int = shape.take('past_sweeps', int, 0)
    if not 0 <= count <= MOST_PAST_SWEEPS:
        raise CardError(f'{shape.path}: past_sweeps is {count}, expected 0 to {MOST_PAST_SWEEPS}')
    if count and 'time_lag' not in features:
        raise CardError(
            f"{encoder}: features lack 'time_lag', the age of a point's sweep, but past_sweeps is "
            f'{count}'
        )
    return count


def _head(output: Reader, common: dict[str, Any]) -> dict[str, Any]:
    """The fields of a lidar card that belong to its kind of head."""
    classes = common['classes']
    if len(classes) > MOST_LABELS:
        raise CardError(f'{common["path"]}: {len(classes)} classes, at most {MOST_LABELS} can be')
    if common['architecture'] == 'centerpoint':
        return {'centers': read_centers(output, classes)}
    places = output.take('anchor_places', str, 'cells')
    if places not in ('cells', 'borders'):
        raise CardError(f'{output.path}: anchor_places is {places!r}, expected cells or borders')
    return {
        'anchors': read_anchors(output, classes),
        'anchor_places': places,
        'direction_offset': output.number('direction_offset', 0.0),
        'score_output': output.take('scores', str, 'scores'),
        'box_output': output.take('boxes', str, 'boxes'),
        'direction_output': output.take('directions', str, 'directions'),
    }


def _check_grid(path: str, card: LidarCard) -> None:
    """The range must be whole pillars, and these whole strides."""
    x0, y0, z0, x1, y1, z1 = card.limits
    width, length = card.pillar
    if not (x0 < x1 and y0 < y1 and z0 < z1 and width > 0.0 and length > 0.0):
        raise CardError(f'{path}: range {card.limits} or pillar {card.pillar} is empty')
    rows, columns = card.grid
    whole = abs(columns * width - (x1 - x0)) < 1e-3 and abs(rows * length - (y1 - y0)) < 1e-3
    if not whole or rows % card.stride or columns % card.stride:
        raise CardError(
            f'{path}: range {card.limits} is no whole number of {card.pillar} m pillars and '
            f'strides of {card.stride}'
        )
    if max(rows, columns) > MOST_CELLS or rows * columns >= 2**31:
        raise CardError(f'{path}: a grid of {rows} x {columns} pillars is too large')

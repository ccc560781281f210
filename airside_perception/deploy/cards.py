"""Model cards beside networks and engines: what they say, and whether the two fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, LidarCard, ModelCard, find_card
from airside_perception.card.find import card_file
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.engine import Engine
from airside_perception.errors import CardError, EngineError
from airside_perception.lidar.detector import LidarDetector

TEXT_WIDTH = 110


def card_beside(path: Path, card_path: str) -> ModelCard | None:
    """The card that `card_path` names, else the one that belongs to the network, else None."""
    if not card_path and not card_file(path).is_file():
        return None
    return find_card(path, card_path)


def card_summary(card: ModelCard) -> dict[str, Any]:
    """What a card says, in short."""
    summary: dict[str, Any] = {
        'path': card.path,
        'name': card.name,
        'kind': card.architecture,
        'classes': list(card.classes),
        'published': list(card.published),
        'thresholds': dict(card.thresholds),
    }
    if isinstance(card, CameraCard):
        summary['input'] = f'{card.width} x {card.height}, {card.color}'
    if isinstance(card, LidarCard):
        rows, columns = card.grid
        summary['input'] = (
            f'{columns} x {rows} pillars of {card.pillar[0]:g} x {card.pillar[1]:g} m'
        )
        if card.past_sweeps:
            summary['past_sweeps'] = card.past_sweeps
        if card.centers is None:
            summary['anchors'] = len(card.anchors)
        else:
            head = card.centers
            summary['centers'] = f'sizes {head.size_order}, angle {head.heading}'
            summary['centers'] += f', velocity {head.velocity}' if head.velocity else ''
    return {**summary, **card.about, **summary}  # the order of the first, the values of the last


def contradiction(engine: Engine, card: ModelCard) -> str:
    """Why the detector of this card refuses this network; empty if it takes it."""
    try:
        if isinstance(card, CameraCard):
            CameraDetector(engine, card, CameraConfig())
        elif isinstance(card, LidarCard):
            LidarDetector(engine, card, LidarConfig())
    except (CardError, EngineError) as error:
        return str(error)
    return ''


def card_lines(card: Mapping[str, Any] | None, problem: str) -> list[str]:
    """A summary as lines of text."""
    if card is None:
        return ['  card        none beside it (NAME.yaml): the detectors need one']
    lines = [f'  card        {card["path"]}']
    lines += [f'    {key:<9} {_short(value)}' for key, value in card.items() if key != 'path']
    return [*lines, *([f'  PROBLEM     {problem}'] if problem else [])]


def _short(value: Any) -> str:
    if isinstance(value, list):
        text = ', '.join(map(str, value))
    elif isinstance(value, dict):
        text = ', '.join(f'{key} {item}' for key, item in value.items())
    else:
        text = str(value)
    return text if len(text) <= TEXT_WIDTH else f'{text[: TEXT_WIDTH - 4]} ...'

"""Model cards: everything about a network that its file does not say, as YAML beside it.

A third-party network runs by writing a card; nothing else in the package knows network names.
"""

from __future__ import annotations

from airside_perception.card.cards import (
    HEADINGS,
    POINT_FEATURES,
    Anchor,
    CameraCard,
    CenterHead,
    LidarCard,
    ModelCard,
)
from airside_perception.card.find import find_card
from airside_perception.card.load import load_card

__all__ = [
    'HEADINGS',
    'POINT_FEATURES',
    'Anchor',
    'CameraCard',
    'CenterHead',
    'LidarCard',
    'ModelCard',
    'find_card',
    'load_card',
]

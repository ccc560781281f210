"""Cards of small networks, made in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from airside_perception.card import POINT_FEATURES, Anchor, LidarCard


@pytest.fixture
def make_card() -> Callable[..., LidarCard]:
    """A card of 8 x 6 pillars, 0.32 x 0.4 m, with random weights of 5 channels."""

    def make(seed: int = 0, **changes: Any) -> LidarCard:
        rng = np.random.default_rng(seed)
        features = changes.get('features', POINT_FEATURES)
        values: dict[str, Any] = {
            'path': 'small.yaml',
            'name': 'small',
            'architecture': 'pointpillars',
            'classes': ('car', 'person'),
            'publish': {},
            'thresholds': {},
            'limits': (-0.96, -1.6, -1.0, 0.96, 1.6, 3.0),
            'pillar': (0.32, 0.4),
            'max_points': 4,
            'max_pillars': 100,
            'features': features,
            'weight': rng.normal(size=(len(features), 5)).astype(np.float32),
            'bias': rng.normal(size=5).astype(np.float32),
            'stride': 2,
            'anchors': (
                Anchor(0, 4.0, 1.8, 1.5, 0.75, 0.0),
                Anchor(0, 4.0, 1.8, 1.5, 0.75, np.pi / 2),
                Anchor(1, 0.6, 0.5, 1.8, 0.9, 0.0),
            ),
        }
        return LidarCard(**{**values, **changes})

    return make

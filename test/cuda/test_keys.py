"""Keys of candidates sort as candidates do."""

from __future__ import annotations

import numpy as np

from airside_perception.cuda.suppress import MOST_PLACES, key_of


def test_keys_sort_by_score_then_place() -> None:
    scores = np.float32([0.5, np.inf, -1, 0.5, -0.0, 0.0, -np.inf, 1e-45, -1e-45])
    places = np.array([7, MOST_PLACES - 1, 3, 6, 9, 10, 0, 11, 12])
    labels = np.array([127, 0, 5, 3, 0, 1, 2, 4, 6])
    keys = key_of(scores, places, labels)
    assert np.argsort(keys)[::-1].tolist() == [1, 3, 0, 7, 4, 5, 8, 2, 6]
    assert (keys & np.uint64(127)).tolist() == labels.tolist()
    assert (MOST_PLACES - 1 - (keys >> np.uint64(7) & np.uint64(MOST_PLACES - 1))).tolist() == (
        places.tolist()
    )

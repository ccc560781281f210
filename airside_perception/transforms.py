"""Where transforms come from: tf2 on a vehicle, a recording in replay; the core sees only this."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TransformSource(Protocol):
    """Looks up rigid transforms by frame and stamp."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """`source2target`, float64 [4, 4]: maps points of `source` at `stamp_ns` into `target`.

        Raises:
            TransformError: unknown frame, or no data for that stamp. Never an identity in its
                place (only `target == source` is the identity).
        """
        ...

    def lookup_between(
        self, target: str, target_ns: int, source: str, source_ns: int, fixed: str
    ) -> NDArray[np.float64]:
        """`source` at `source_ns` into `target` at `target_ns`, through world-fixed frame `fixed`.

        Raises:
            TransformError: as `lookup`.
        """
        ...

"""A network in service: what runs it, and who may close it when."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airside_perception.engine import Engine
    from airside_perception.network import Network


class Serving:
    """An opened network with its pipeline; the worker holds `in_work` while it runs a frame.

    So it is closed between two frames, by whichever thread closes it.

    Attributes:
        network: settings, card and file.
        engine: opened.
        pipeline: runs on it, and closes it.
    """

    def __init__(self, network: Network[Any, Any], engine: Engine, pipeline: Any) -> None:
        self.network = network
        self.engine = engine
        self.pipeline = pipeline
        self.in_work = threading.Lock()

    def close(self) -> None:
        """Closes detector and engine after the frame in work; may be called again."""
        with self.in_work:
            self.pipeline.close()

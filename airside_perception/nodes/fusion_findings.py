"""What keeps a sensor out of the fusion, or the fusion from its results: the findings on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from airside_perception.config import FusionConfig
from airside_perception.fusion.collect import Collector
from airside_perception.nodes.calibration import Calibration
from airside_perception.nodes.diagnostics import ERROR, WARN, Diagnostics, Report

LEAST_SHARE = 0.5
"""Part of the sets that a source could be in and is in; less is a finding."""
LEAST_SETS = 5
"""Sets that a source could be in before its share says anything."""
STILL_S = 1.0
"""For so long stamps may stand still while messages arrive."""
UNPUBLISHED_S = 1.0
"""For so long messages may arrive while nothing is published."""
UNCALIBRATED_S = 2.0
"""For so long detections of a camera may arrive without a camera_info."""
NS_PER_MS = 1e6


class FusionFindings:
    """Looks at the inputs of one fusion from its activation on.

    `arrived` and `find` are called on the executor's thread, `published` on any.

    Args:
        topics: {source: topic of its detections}.
        calibrations: {camera: its calibration}.
        now: seconds on a steady clock.
    """

    def __init__(
        self,
        topics: Mapping[str, str],
        calibrations: Mapping[str, Calibration],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics, self._calibrations, self._now = topics, calibrations, now
        self._last = now()
        self._unpublished: tuple[float, int] | None = None
        self._uncalibrated: dict[str, float] = {}

    def arrived(self, name: str, collector: Collector[Any]) -> None:
        """A message of source `name` arrived."""
        self._last = self._now()
        if self._unpublished is None:
            self._unpublished = self._last, _sets(collector)
        if name in self._calibrations and not self._calibrations[name].known:
            self._uncalibrated.setdefault(name, self._last)

    def published(self) -> None:
        """A result was published."""
        self._unpublished = None

    def find(
        self,
        report: Report,
        collector: Collector[Any],
        diagnostics: Diagnostics,
        config: FusionConfig,
    ) -> None:
        """Adds values and findings of every source, and of the result."""
        limit_ms = config.silence_ms
        silent = dict(diagnostics.silent_inputs(limit_ms / 1e3))
        for name, age in silent.items():
            report.find(
                _severity(name, len(silent) == len(config.sources)),
                f'input/{name}/age_ms {age * 1e3:.0f}, limit {limit_ms:.0f}: '
                f'nothing on {self._topics[name]}',
            )
        for name in config.sources:
            self._find_source(report, name, collector, config, alive=name not in silent)
        for name, calibration in self._calibrations.items():
            self._find_calibration(report, name, calibration, alive=name not in silent)
        if len(silent) < len(config.sources):
            self._find_result(report, collector)

    def _find_source(
        self,
        report: Report,
        name: str,
        collector: Collector[Any],
        config: FusionConfig,
        *,
        alive: bool,
    ) -> None:
        """Stamps that stand still, and a source that is in too few sets."""
        still_s = collector.still_ns(name) / 1e9
        if alive and still_s > STILL_S:
            report.find(
                ERROR,
                f'input/{name}/still_ms {still_s * 1e3:.0f}, limit {STILL_S * 1e3:.0f}: '
                f'the stamps on {self._topics[name]} do not advance',
            )
            return
        seen = collector.attendance(name)
        if seen is None:
            return
        offset, delay = seen.offset_ns / NS_PER_MS, seen.delay_ns / NS_PER_MS
        report.add(f'input/{name}/share_pct', 100.0 * seen.share)
        report.add(f'input/{name}/offset_ms', offset)
        report.add(f'input/{name}/delay_ms', delay)
        if alive and seen.expected >= LEAST_SETS and seen.share < LEAST_SHARE:
            share, least = 100.0 * seen.share, 100.0 * LEAST_SHARE
            report.find(
                _severity(name),
                f'input/{name}/share_pct {share:.0f}, limit {least:.0f}: in {seen.taken} of the '
                f'last {seen.sets} sets; against the source that paces them its stamps are '
                f'{offset:+.1f} ms off (median; sync_slop_ms {config.sync_slop_ms:g}), and it '
                f'arrives {delay:+.1f} ms after (deadline_ms {config.deadline_ms:g})',
            )

    def _find_calibration(
        self, report: Report, name: str, calibration: Calibration, *, alive: bool
    ) -> None:
        report.add(f'input/{name}/calibrated', calibration.known)
        if calibration.known or not alive:
            self._uncalibrated.pop(name, None)
            return
        age = self._now() - self._uncalibrated.get(name, self._now())
        if age > UNCALIBRATED_S:
            report.find(
                WARN,
                f'input/{name}/calibrated False for {age:.1f} s, limit {UNCALIBRATED_S:.1f}: '
                f'nothing on {calibration.topic}; its boxes are matched by their places alone',
            )

    def _find_result(self, report: Report, collector: Collector[Any]) -> None:
        """Messages that arrive, and nothing that is published."""
        waiting = self._unpublished
        if waiting is None:
            return
        since, sets = waiting
        if sets == _sets(collector) and collector.holds():
            # they wait for sources that may still come: at the start, and for slow ones
            self._unpublished = self._now(), sets
            return
        age = self._last - since
        if age > UNPUBLISHED_S:
            report.find(
                ERROR,
                f'nothing published for {age:.1f} s, limit {UNPUBLISHED_S:.1f}, in which messages '
                f'arrived and {_sets(collector) - sets} sets were made',
            )


def _sets(collector: Collector[Any]) -> int:
    """How many sets were made."""
    return collector.counts['complete'] + collector.counts['incomplete']


def _severity(name: str, worst: bool = False) -> bytes:
    """Without its lidar the fusion is not what it should be; without a camera it sees less."""
    return ERROR if worst or name == 'lidar' else WARN

"""What a calibration did, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airside_perception.deploy.calibrate.scales import Calibration

SHOWN = 3


@dataclass
class Report:
    """Files and remarks of one run.

    Attributes:
        model: the network.
        scales: file of the scales, and how many there are.
        tensors: how many scales.
        calibration: how they were made; None where stored ones were read.
        state: file of the statistics.
        qdq, operators: network with Q/DQ, and how many operators are INT8 in it.
        cache, header: TensorRT's cache and its first line.
        notes, warnings: remarks.
    """

    model: str
    scales: str
    tensors: int = 0
    calibration: Calibration | None = None
    state: str = ''
    qdq: str = ''
    operators: int = 0
    cache: str = ''
    header: str = ''
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For people."""
        made = self.calibration
        how = 'as stored' if made is None else f'{_method(made)} of {made.frames} frames'
        lines = [f'{self.scales}: scales of {self.tensors} tensors, {how}']
        if made is not None:
            lines.append(f'  statistics  {self.state}: another --method needs no second pass')
            lines += [
                f'  cut off     {name}: values up to {factor:g} times what INT8 holds'
                for name, factor in list(made.cut.items())[:SHOWN]
            ]
        if self.qdq:
            lines.append(f'  Q/DQ        {self.qdq}: {self.operators} operators in INT8')
        if self.cache:
            lines.append(f'  cache       {self.cache}: {self.header}')
        lines += _lines('note', self.notes)
        return '\n'.join([*lines, *_lines('WARNING', self.warnings)])

    def table(self) -> Mapping[str, Any]:
        """For JSON."""
        made = self.calibration
        about: dict[str, Any] = {}
        if made is not None:
            about = {
                'method': made.method, 'percentile': made.percentile, 'frames': made.frames,
                'uniformly_zero': list(made.zero), 'cut': dict(made.cut), 'dla': made.dla,
                'network_sha256': made.network_sha256, 'data_sha256': made.data_sha256,
                'state': self.state,
            }  # fmt: skip
        return {
            'model': self.model, 'scales': self.scales, 'tensors': self.tensors, **about,
            'qdq': self.qdq, 'int8_operators': self.operators, 'cache': self.cache,
            'header': self.header, 'notes': self.notes, 'warnings': self.warnings,
        }  # fmt: skip


def _method(made: Calibration) -> str:
    share = f' {made.percentile:g} %' if made.method == 'percentile' else ''
    return f'{made.method}{share}{", alike for DLA" if made.dla else ""}'


def _lines(head: str, texts: Iterable[str]) -> list[str]:
    return [f'  {head:<11} {text}' for text in texts]

"""What makes a run survive its end: files that are whole, a log that goes on, a best state."""

from __future__ import annotations

import argparse
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from airside_perception.files import write_whole

MODEL, OPTIMIZER, BEST, LOG = 'model.pt', 'optimizer.pt', 'best.pt', 'log.jsonl'
NOISE = 0.01
"""By so much mean precisions on a few dozen held-out scenes differ for no reason. The best of many
looks is the best by luck, too, and a one-cycle schedule gains most at its end: earlier weights are
taken only if they are better than the last ones by more than this."""


def save(path: Path, values: dict[str, Any]) -> None:
    """Writes values for `torch.load`; a kill leaves the file that was there."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    write_whole(path, buffer.getvalue())


def read(path: Path, device: torch.device | str = 'cpu') -> dict[str, Any]:
    """What `save` wrote."""
    values: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return values


def chosen(run: Path) -> dict[str, Any]:
    """The state of a run that is exported: the one of the best validation, else the last."""
    return read(run / BEST if (run / BEST).exists() else run / MODEL)


def cut_log(out: Path, step: int) -> None:
    """Takes out of the log what came after `step`: it will be trained again."""
    path = out / LOG
    if not path.exists():
        return
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    kept = [line for line in lines if line.endswith('\n') and json.loads(line)['step'] <= step]
    write_whole(path, ''.join(kept))


def resumed(options: argparse.Namespace, out: Path) -> Path | None:
    """The folder that a run goes on from, None: it begins anew.

    `--resume` alone means the run's own folder, if there is something in it yet.
    """
    if options.resume is None:
        return out if (out / MODEL).exists() else None
    return Path(options.resume) if options.resume else None


@dataclass
class Clock:
    """Where in its schedule a run is: by steps or by time, whichever is further.

    Attributes:
        steps: of the whole schedule; minutes: the same, 0: no limit.
        before: seconds of this schedule that earlier sittings took.
    """

    steps: int
    minutes: float
    before: float = 0.0

    def progress(self, step: int, seconds: float) -> float:
        """0 .. 1 after `step` steps and `seconds` of this sitting."""
        limit = self.minutes * 60 if self.minutes else math.inf
        return max(step / self.steps, min(1.0, (self.before + seconds) / limit))


@dataclass
class Best:
    """The best validation so far, and how many there have been since.

    Attributes:
        patience: how many end a run; 0: none does.
        score: the best one; step: when it was; misses: looks since.
    """

    patience: int
    score: float = -math.inf
    step: int = 0
    misses: int = 0

    def look(self, score: float, step: int, last: bool = False) -> bool:
        """Takes a score; whether it is the best, or the `last` one and worse by NOISE at most."""
        if score > self.score - (NOISE if last else 0.0):
            self.score, self.step, self.misses = score, step, 0
            return True
        self.misses += 1
        return False

    @property
    def over(self) -> bool:
        """Whether waiting longer is of no use."""
        return bool(self.patience) and self.misses >= self.patience


def add_options(parser: argparse.ArgumentParser, out: str, every: int) -> None:
    """The options that every training command has."""
    parser.add_argument('--out', default=out, help='folder of the run, %(default)s')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--minutes', type=float, default=0, help='end the schedule after this time (0: all steps)'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const=None,
        default='',
        metavar='FOLDER',
        help='go on from a run; without a folder from that of --out, if it has begun',
    )
    parser.add_argument(
        '--every', type=int, default=every, help='steps from one log line to the next, %(default)s'
    )
    parser.add_argument(
        '--save-seconds', type=float, default=60, help='from one saved state to the next'
    )
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=YAML', help='replace a key of the YAML'
    )

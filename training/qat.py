"""Goes on with a trained network so that it bears INT8: `python -m training.qat --run OUT`.

    python -m training.qat --run output/camera --minutes 3 --out output/camera_int8
    python -m training.qat --onnx models/apron_yolox.onnx --config training/yolox.yaml

The network without batch norm rounds its weights and the tensors that convolutions read as INT8
does. It learns from what there is to be found, and from what it said itself in fp32. The folder
--out gets, besides what training leaves:

    NAME.onnx             the network in fp32, for every target
    NAME.yaml             its card
    NAME.scales.json      {tensor: scale} as of `engine calibrate`: of what convolutions read
    NAME.dla.scales.json  of all tensors, with those alike that a DLA core wants alike
    NAME_qdq.onnx         the network with Q/DQ nodes, and its card
    scores.json           on held-out scenes: fp32, rounded after calibration, rounded and trained
                          at the end, and which of the rounded ones was kept: the best there was

After a kill the same command with --resume goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from airside_perception.files import write_whole
from training import sitting
from training.export_int8 import export
from training.quantize import calibrate, drop, matching, quantized
from training.schedule import one_cycle
from training.subjects import Subject, subject_of

NEVER = 1_000_000_000
"""Steps of a schedule that ends by its minutes."""


class Run:
    """The rounding network, its average and its optimiser.

    Attributes:
        step: updates so far; seconds: so far, over all sittings.
        scores: {'fp32' or 'calibrated': scores on held-out scenes}.
        best: of the averages that were judged, that after calibration among them.
    """

    def __init__(self, subject: Subject, options: argparse.Namespace) -> None:
        self.subject, self.options = subject, options
        self.teacher = subject.network.eval()
        self.kept = matching(self.teacher, options.floats)
        self.network = quantized(copy.deepcopy(self.teacher), options.float_first, self.kept)
        self.network.requires_grad_(True)  # biases that batch norm was folded into learn, too
        self.average = copy.deepcopy(self.network)
        self._pairs = self._paired()
        self._weights: list[nn.Parameter] = []
        rate = subject.rate if options.rate is None else options.rate
        groups = []
        for name, value in self.network.named_parameters():
            size = 1.0  # of what changes in proportion by itself
            if not name.endswith('log_step'):
                # Without batch norm weights of one layer may be a hundredth of another's.
                size = float(value.detach().square().mean().sqrt().clamp(min=1e-6))
                self._weights.append(value)
            groups.append({'params': [value], 'lr': 0.0, 'peak': rate * size})
        self.optimizer = torch.optim.Adam(groups, fused='cuda' in options.device)
        self.step, self.seconds = 0, 0.0
        self.scores: dict[str, dict[str, float]] = {}
        self.best = sitting.Best(0)
        self._best: dict[str, Tensor] = {}

    def calibrate(self, lessons: Iterator[tuple[Tensor, Any]]) -> None:
        """Scales from the first lessons."""
        given = [value for value, _ in islice(lessons, self.options.calibrate)]
        calibrate(self.network, lambda: iter(given))
        self.average.load_state_dict(self.network.state_dict())

    def update(self, given: Tensor, told: Any, progress: float) -> Tensor:
        """One step; the losses from what there is and from the teacher, [2]."""
        for group in self.optimizer.param_groups:
            group['lr'] = group['peak'] * one_cycle(progress, 0.05, 0.01)
        drop(self.network, np.random.default_rng([self.subject.training.seed, 2, self.step]))
        found = self.network(given)
        with torch.no_grad():
            taught = self.teacher(given)
        losses = torch.stack([self.subject.cost(found, told), self.subject.unlike(found, taught)])
        self.optimizer.zero_grad(set_to_none=True)
        (losses[0] + self.options.likeness * losses[1]).backward()
        nn.utils.clip_grad_norm_(self._weights, 10.0)
        self.optimizer.step()
        self.step += 1
        self._follow()
        return losses.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(0.998, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(*self._pairs, 1 - keep)

    def _paired(self) -> tuple[list[Tensor], list[Tensor]]:
        """Averages and what each follows; the tensors stay while steps change their values."""
        average, now = self.average.state_dict(), self.network.state_dict()
        return list(average.values()), list(now.values())

    def judge(self, validation: Any) -> dict[str, float]:
        """Scores of the average; the best average so far is kept."""
        found = _rounded(validation(self.average))
        if self.best.look(next(iter(found.values())), self.step):
            state = self.average.state_dict()
            self._best = {name: value.clone() for name, value in state.items()}
        return found

    def take_best(self) -> None:
        """Makes the average the best of those that were judged."""
        if self._best:
            self.average.load_state_dict(self._best)
        self.scores['kept'] = {'step': self.best.step, 'score': self.best.score}

    def save(self, out: Path) -> None:
        """Writes what `restore` reads."""
        values = {
            'network': self.network.state_dict(),
            'average': self.average.state_dict(),
            'scores': self.scores,
            'best': {'score': self.best.score, 'step': self.best.step},
            'best_average': self._best,
            'step': self.step,
            'seconds': self.seconds,
        }
        sitting.save(out / sitting.OPTIMIZER, self.optimizer.state_dict())
        sitting.save(out / sitting.MODEL, values)

    def restore(self, run: Path, device: torch.device) -> None:
        """Goes on from `save`."""
        saved = sitting.read(run / sitting.MODEL, device)
        self.network.load_state_dict(saved['network'])
        self.average.load_state_dict(saved['average'])
        self._pairs = self._paired()
        self.optimizer.load_state_dict(sitting.read(run / sitting.OPTIMIZER, device))
        self.step, self.seconds, self.scores = saved['step'], saved['seconds'], saved['scores']
        self.best = sitting.Best(0, **saved['best'])
        self._best = saved['best_average']


def run(subject: Subject, out: Path, options: argparse.Namespace) -> None:
    """Calibrates, trains and writes what comes of it."""
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')
    sys.setswitchinterval(1e-4)
    state = Run(subject, options)
    source = sitting.resumed(options, out)
    if source:
        state.restore(source, device)
        sitting.cut_log(out, state.step)
    out.mkdir(parents=True, exist_ok=True)
    clock = sitting.Clock(options.steps, options.minutes, state.seconds)
    with (
        subject.pool(int(state.seconds) + 1) as pool,
        open(out / sitting.LOG, 'a', encoding='utf-8') as log,
        ExitStack() as stack,
    ):

        def write(line: dict[str, Any]) -> None:
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + '\n')
            log.flush()

        lessons = stack.enter_context(closing(subject.lessons(pool, state.step)))
        judge = subject.validation(pool)
        if not state.scores:
            state.scores['fp32'] = _rounded(judge(state.teacher))
            state.calibrate(lessons)
            state.scores['calibrated'] = state.judge(judge)
            write({'step': 0, **state.scores})
            state.save(out)
        learning = saved = judged = last = time.monotonic()
        recent: list[Tensor] = []
        while True:
            progress = clock.progress(state.step, time.monotonic() - learning)
            if progress >= 1:
                break
            recent.append(state.update(*next(lessons), progress))
            now = time.monotonic()
            state.seconds = clock.before + now - learning
            if state.step % options.every == 0:
                cost, unlike = torch.stack(recent).mean(0).tolist()
                now = time.monotonic()
                write(
                    {
                        'step': state.step,
                        'progress': round(progress, 4),
                        'cost': round(cost, 4),
                        'unlike': round(unlike, 5),
                        'steps_per_s': round(len(recent) / (now - last), 2),
                        'seconds': round(state.seconds, 1),
                    }
                )
                recent, last = [], now
            if now - judged > options.judge_seconds:
                write({'step': state.step, 'trained': state.judge(judge)})
                judged = time.monotonic()
            if now - saved > options.save_seconds:
                state.save(out)
                saved = time.monotonic()
        state.scores['trained'] = state.judge(judge)
        state.save(out)
        state.take_best()
        write({'step': state.step} | {key: state.scores[key] for key in ('trained', 'kept')})
        given = [value[:1].cpu() for value, _ in islice(lessons, options.calibrate)]
    write_whole(out / 'scores.json', json.dumps(state.scores, indent=1) + '\n')
    print(export(state, out, given), flush=True)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument('--run', default='', help='folder that training wrote')
    given.add_argument('--onnx', default='', help='network with its card, e.g. of models/')
    parser.add_argument('--config', default='', help='recipe of the training, for --onnx')
    sitting.add_options(parser, 'output/int8', 50)
    parser.add_argument('--steps', type=int, help='end the schedule; 3000 without --minutes')
    parser.add_argument(
        '--rate', type=float, help='of learning, in shares of weights; camera 2e-4, lidar 5e-5'
    )
    parser.add_argument(
        '--likeness', type=float, default=4.0, help='weight of the fp32 answers, %(default)s'
    )
    parser.add_argument(
        '--calibrate', type=int, default=16, help='batches for the first scales, %(default)s'
    )
    parser.add_argument(
        '--float-first', type=int, default=0, metavar='N', help='so many first convolutions stay'
    )
    parser.add_argument(
        '--float', nargs='+', default=[], dest='floats', metavar='LAYER',
        help="convolutions that stay as well, by name, e.g. 'laterals.0*' heatmap",
    )  # fmt: skip
    parser.add_argument(
        '--judge-seconds', type=float, default=45, help='from one look at the held-out scenes to '
        'the next, %(default)s',
    )  # fmt: skip
    options = parser.parse_args()
    if options.onnx and not options.config:
        parser.error('--onnx needs --config, the recipe of its training')
    if options.steps is None:
        options.steps = NEVER if options.minutes else 3000
    pairs = (item.split('=', 1) for item in options.set)
    changes = {key: yaml.safe_load(value) for key, value in pairs}
    device = torch.device(options.device)
    subject = subject_of(options.run, options.onnx, options.config, device, **changes)
    run(subject, Path(options.out), options)


if __name__ == '__main__':
    main()

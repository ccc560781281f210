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

After a kill the same command with --resume goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from airside_perception.deploy.calibrate import write_qdq
from airside_perception.deploy.calibrate.activations import Activations
from airside_perception.deploy.calibrate.collect import collect
from airside_perception.deploy.calibrate.scales import find_scales, same_scales
from airside_perception.engine.typed import read_network
from airside_perception.files import write_whole
from training import sitting
from training.quantize import calibrate, plain_state, quantized, scales, write_scales
from training.schedule import one_cycle
from training.subjects import Subject, sha256_of, subject_of

TOLERANCE = 1e-3
"""Largest difference of outputs, of the order of 1 to 10, as a share of values that may exceed it:
where sums of floats differ in their last bit, a value may round to its neighbour."""
SHARE = 0.01
NOISE = 1.0
"""In a deep network one value that rounds to its neighbour moves others across theirs, layer by
layer, until two ways of adding differ by what the rounding itself adds. Hence a larger share is
borne where the differences, root mean square, are no more than this share of those to fp32."""


class Run:
    """The rounding network, its average and its optimiser.

    Attributes:
        step: updates so far; seconds: so far, over all sittings.
        scores: {'fp32' or 'calibrated': scores on held-out scenes}.
    """

    def __init__(self, subject: Subject, options: argparse.Namespace) -> None:
        self.subject, self.options = subject, options
        self.teacher = subject.network.eval()
        self.network = quantized(copy.deepcopy(self.teacher), options.float_first)
        self.average = copy.deepcopy(self.network)
        self._weights: list[nn.Parameter] = []
        groups = []
        for name, value in self.network.named_parameters():
            size = 1.0  # of what changes in proportion by itself
            if not name.endswith('log_step'):
                # Without batch norm weights of one layer may be a hundredth of another's.
                size = float(value.detach().square().mean().sqrt().clamp(min=1e-6))
                self._weights.append(value)
            groups.append({'params': [value], 'lr': 0.0, 'peak': options.rate * size})
        self.optimizer = torch.optim.Adam(groups, fused='cuda' in options.device)
        self.step, self.seconds = 0, 0.0
        self.scores: dict[str, dict[str, float]] = {}
        self.best = sitting.Best(0)

    def calibrate(self, lessons: Iterator[tuple[Tensor, Any]]) -> None:
        """Scales from the first lessons."""
        given = [value for value, _ in islice(lessons, self.options.calibrate)]
        calibrate(self.network, lambda: iter(given))
        self.average.load_state_dict(self.network.state_dict())

    def update(self, given: Tensor, told: Any, progress: float) -> Tensor:
        """One step; the losses from what there is and from the teacher, [2]."""
        for group in self.optimizer.param_groups:
            group['lr'] = group['peak'] * one_cycle(progress, 0.05, 0.01)
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
        average, now = self.average.state_dict(), self.network.state_dict()
        torch._foreach_lerp_(list(average.values()), list(now.values()), 1 - keep)

    def save(self, out: Path) -> None:
        """Writes what `restore` reads."""
        values = {
            'network': self.network.state_dict(),
            'average': self.average.state_dict(),
            'scores': self.scores,
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
        self.optimizer.load_state_dict(sitting.read(run / sitting.OPTIMIZER, device))
        self.step, self.seconds, self.scores = saved['step'], saved['seconds'], saved['scores']


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
            state.scores['calibrated'] = _rounded(judge(state.average))
            write({'step': 0, **state.scores})
            state.save(out)
        learning = saved = last = time.monotonic()
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
            if now - saved > options.save_seconds:
                state.save(out)
                saved = time.monotonic()
        state.save(out)
        state.scores['trained'] = _rounded(judge(state.average))
        write({'step': state.step, 'trained': state.scores['trained']})
        given = [value[:1].cpu() for value, _ in islice(lessons, options.calibrate)]
    write_whole(out / 'scores.json', json.dumps(state.scores, indent=1) + '\n')
    print(export(state, out, given), flush=True)


def export(state: Run, out: Path, given: list[Tensor]) -> str:
    """Writes network, scales and cards; returns what there is to say.

    Args:
        state: of the run; its average is written.
        out: folder.
        given: inputs of batch 1, for scales of what no convolution reads, and for the check.

    Raises:
        ValueError: the network with Q/DQ nodes is not the one that was trained.
    """
    subject, path = state.subject, out / f'{state.subject.name}.onnx'
    network = copy.deepcopy(state.average).cpu()
    plain = copy.deepcopy(state.teacher).cpu()
    plain.load_state_dict(plain_state(network))
    subject.write(plain, path)
    model = onnx.load(str(path))
    known = scales(network, model)
    write_scales(path.with_suffix('.scales.json'), known)
    feeds = Feeds(subject.input_name, given)
    write_scales(path.with_suffix('.dla.scales.json'), every_scale(path, feeds, known))
    about = {
        'int8': {
            'recipe': (
                f'python -m training.qat, {state.step} steps in {state.seconds:.0f} s; '
                'weights and scales learnt with the rounding of INT8'
            ),
            'held-out scenes while training': state.scores,
        }
    }
    path.with_suffix('.yaml').write_text(subject.card(sha256_of(path), about), encoding='utf-8')
    rounding = out / f'{subject.name}_qdq.onnx'
    count = write_qdq(path, known, rounding, first=state.options.float_first)
    error, share, noise = difference(network, plain, rounding, feeds)
    if share > SHARE and noise > NOISE:
        raise ValueError(
            f'{rounding}: {share:.1%} of the outputs differ from torch by more than {TOLERANCE}, '
            f'by {error} at most, which is {noise:.2f} of what INT8 changes'
        )
    return (
        f'{path}: {path.stat().st_size / 1e6:.2f} MB; {count} operators with Q/DQ in {rounding}, '
        f'{share:.2%} of whose outputs differ from torch by more than {TOLERANCE}, by {error:.1e} '
        f'at most ({noise:.2f} of what INT8 changes); every layer is one of the DLA'
    )


class Feeds:
    """Inputs of a network, as calibration takes them."""

    def __init__(self, name: str, given: list[Tensor]) -> None:
        self.input_name, self.given = name, given

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        return {self.input_name: self.given[index].contiguous().numpy()}

    def name(self, index: int) -> str:
        """For messages."""
        return f'input {index}'


def every_scale(path: Path, feeds: Feeds, known: dict[str, float]) -> dict[str, float]:
    """Scales of all tensors of a network: those that are known, and others from `feeds`.

    Where a DLA core wants tensors alike, all have the largest.
    """
    model = read_network(path)
    network = Activations(model, str(path))
    identity = {'network': '', 'data': ''}
    with tempfile.TemporaryDirectory() as folder:
        found, _, _ = collect(network, feeds, Path(folder, 'state.npz'), identity)
    rest = find_scales(network, model, found, identity, 'percentile', 99.99, False).scales
    return same_scales(model, {**rest, **known})


@torch.no_grad()
def difference(
    network: nn.Module, plain: nn.Module, rounding: Path, feeds: Feeds
) -> tuple[float, float, float]:
    """What ONNX Runtime makes of Q/DQ nodes, beside torch.

    ONNX Runtime computes Q/DQ nodes as they are written: its own INT8 kernels round elsewhere.

    Args:
        network: that rounds; plain: the same in fp32, on the CPU.
        rounding: with Q/DQ nodes.
        feeds: inputs; four of them are looked at.

    Returns:
        The largest difference of outputs, the share above TOLERANCE, and the root mean square as
        a share of that between `network` and `plain`.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(rounding), options, providers=['CPUExecutionProvider']
    )
    apart, changed = [], []
    for index in range(min(len(feeds), 4)):
        given = feeds.given[index]
        found = session.run(None, feeds[index])
        for mine, other, whole in zip(
            found, _listed(network(given)), _listed(plain(given)), strict=True
        ):
            apart.append(np.ravel(mine - other.numpy()).astype(np.float64))
            changed.append(np.ravel(whole.numpy() - other.numpy()).astype(np.float64))
    off, noise = np.abs(np.concatenate(apart)), np.concatenate(changed)
    size = float(np.sqrt(np.square(noise).mean()))
    ratio = float(np.sqrt(np.square(off).mean())) / max(size, 1e-12)
    return float(off.max()), float((off > TOLERANCE).mean()), ratio


def _listed(outputs: Any) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


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
    parser.add_argument('--steps', type=int, default=3000, help='%(default)s')
    parser.add_argument(
        '--rate', type=float, default=2e-4, help='of learning, in shares of weights, %(default)s'
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
    options = parser.parse_args()
    if options.onnx and not options.config:
        parser.error('--onnx needs --config, the recipe of its training')
    pairs = (item.split('=', 1) for item in options.set)
    changes = {key: yaml.safe_load(value) for key, value in pairs}
    device = torch.device(options.device)
    subject = subject_of(options.run, options.onnx, options.config, device, **changes)
    run(subject, Path(options.out), options)


if __name__ == '__main__':
    main()

"""Trains a network: `python -m training.train --config training/pointpillars.yaml --out OUT`.

Scans are made while training, on the same accelerator. OUT gets `model.pt` (weights, their moving
average, progress), `optimizer.pt` and `log.jsonl`; with `--resume` the run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor

from training.lidars import random_lidar
from training.loss import box_loss, score_loss
from training.network import Dense, PillarNet
from training.pillars import Decorated, decorate
from training.recipe import Training, load
from training.scans import make_batch
from training.targets import Targets, assign
from training.worlds import Pool, Recipe, surfaces


class Model(torch.nn.Module):
    """Both networks, from decorated points to the three outputs."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.pillars: PillarNet
        self.dense: Dense
        self.pillars, self.dense = training.networks()


class Lesson(NamedTuple):
    """What one step learns from."""

    points: Decorated
    targets: Targets


class Run:
    """Everything that changes while training."""

    def __init__(self, training: Training, device: torch.device, compiled: bool = False) -> None:
        torch.manual_seed(training.seed)
        self.training, self.device = training, device
        self.model = Model(training).to(device)
        self.model.dense.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
        self.average = {
            name: value.detach().clone() for name, value in self.model.state_dict().items()
        }
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=training.rate,
            weight_decay=training.decay,
            fused=device.type == 'cuda',
        )
        self.dense: Any = torch.compile(self.model.dense) if compiled else self.model.dense
        self.step = 0
        self.seconds = 0.0

    def losses(self, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of the scores, of the boxes and of their directions."""
        points, targets = lesson
        shape = (self.training.batch, *self.training.grid.shape)
        canvas = self.model.pillars(points.features, points.pillar, points.cells, shape)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == 'cuda'):
            scores, boxes, directions = self.dense(
                canvas.contiguous(memory_format=torch.channels_last)
            )
        return score_loss(scores, targets), *box_loss(boxes, directions, targets)

    def update(self, lesson: Lesson, progress: float) -> Tensor:
        """One step of the optimiser; returns the three losses, float [3], still on the device."""
        t = self.training
        for group in self.optimizer.param_groups:
            group['lr'] = t.rate * one_cycle(progress)
        losses = torch.stack(self.losses(lesson))
        weights = torch.tensor(
            [1.0, t.weights['boxes'], t.weights['directions']], device=self.device
        )
        self.optimizer.zero_grad(set_to_none=True)
        (losses * weights).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.step += 1
        blend = 1 - min(t.average, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        names = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in names], [state[n] for n in names], blend)
        return losses.detach()

    def save(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        progress = {'step': self.step, 'seconds': self.seconds, 'training': asdict(self.training)}
        torch.save(
            {'model': self.model.state_dict(), 'average': self.average, **progress},
            out / 'model.pt',
        )
        torch.save(self.optimizer.state_dict(), out / 'optimizer.pt')

    def restore(self, out: Path, fresh_schedule: bool = False) -> None:
        """Goes on from `save`; with `fresh_schedule` only the weights are taken over."""
        saved = torch.load(out / 'model.pt', map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved['average' if fresh_schedule else 'model'])
        self.average = {name: value.to(self.device) for name, value in saved['average'].items()}
        self.seconds = saved['seconds']
        if not fresh_schedule:
            self.optimizer.load_state_dict(
                torch.load(out / 'optimizer.pt', map_location=self.device)
            )
            self.step = saved['step']


def one_cycle(progress: float) -> float:
    """Factor of the learning rate: up in the first tenth, then a cosine down to a thousandth."""
    if progress < 0.1:
        return 0.05 + 0.95 * progress / 0.1
    return 0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


def lessons(training: Training, device: torch.device, pool: Pool, step: int) -> Iterator[Lesson]:
    """Endless lessons: draws follow from seed and step, scenes from what is built by then."""
    rng = np.random.default_rng([training.seed, step])
    generator = torch.Generator(device).manual_seed(training.seed + step)
    looks, anchors = surfaces(device), training.anchor_tensors(device)
    rows, columns = training.grid.shape
    t = training
    while True:
        worlds = pool.draw(t.batch, rng)
        with torch.no_grad():
            lidars = [random_lidar(rng) for _ in worlds]
            spots = rng.random(t.batch)
            batch = make_batch(
                worlds, lidars, spots, looks, t.variation, generator, t.least_points
            )
            points = decorate(
                batch.points, batch.scan, t.grid, t.features, t.max_points, t.max_pillars
            )
            targets = assign(
                batch.truth,
                anchors,
                t.batch,
                (rows // t.stride, columns // t.stride),
                t.pillar[0] * t.stride,
                (t.limits[0], t.limits[1]),
                t.direction_offset,
            )
        yield Lesson(points, targets)


def ahead(source: Iterator[Lesson], device: torch.device) -> Iterator[Lesson]:
    """The same lessons, made by a thread on a stream of its own while the last one is learnt."""
    if device.type != 'cuda':
        yield from source
        return
    ready: queue.Queue[Any] = queue.Queue(maxsize=2)
    stream = torch.cuda.Stream(device)

    def work() -> None:
        try:
            with torch.cuda.stream(stream):
                for lesson in source:
                    event = torch.cuda.Event()
                    event.record(stream)
                    ready.put((lesson, event))
        except BaseException as error:  # noqa: BLE001  (handed over to the thread that trains)
            ready.put((error, None))

    threading.Thread(target=work, daemon=True).start()
    while True:
        lesson, event = ready.get()
        if event is None:
            raise lesson
        main = torch.cuda.current_stream(device)
        main.wait_event(event)
        for part in lesson:
            for value in vars(part).values():
                value.record_stream(main)
        yield lesson


def run(training: Training, out: Path, options: argparse.Namespace) -> None:
    """Trains until the steps or the minutes are over."""
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')
    state = Run(training, device, options.compile)
    if options.resume:
        state.restore(Path(options.resume), options.fresh_schedule)
    out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(training.simulated, training.streets)
    first = training.first_scene + 1000 * training.workers * int(state.seconds)
    start = last = saved = time.monotonic()
    limit = options.minutes * 60 if options.minutes else math.inf
    with (
        Pool(recipe, first, training.pool, training.workers, device) as pool,
        open(out / 'log.jsonl', 'a') as log,
    ):
        data = ahead(lessons(training, device, pool, state.step), device)
        recent = []
        before = state.seconds
        while state.step < training.steps and time.monotonic() - start < limit:
            elapsed = time.monotonic() - start
            progress = max(state.step / training.steps, min(1.0, elapsed / limit))
            recent.append(state.update(next(data), progress))
            state.seconds = before + time.monotonic() - start
            if state.step % options.every == 0:
                mean = torch.stack(recent).mean(0).tolist()
                now = time.monotonic()
                line = {
                    'step': state.step,
                    'progress': round(progress, 4),
                    'scores': round(mean[0], 4),
                    'boxes': round(mean[1], 4),
                    'directions': round(mean[2], 4),
                    'scans_per_s': round(len(recent) * training.batch / (now - last), 1),
                    'scenes': pool.built,
                    'seconds': round(state.seconds, 1),
                }
                print(json.dumps(line), flush=True)
                log.write(json.dumps(line) + '\n')
                log.flush()
                recent, last = [], now
            if time.monotonic() - saved > 120:
                state.save(out)
                saved = time.monotonic()
    state.save(out)
    print(
        f'{state.step} steps, {state.seconds:.0f} s, {pool.built} scenes: {out}/model.pt',
        flush=True,
    )


def main() -> None:
    """Trains as the options say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='training/pointpillars.yaml')
    parser.add_argument('--out', default='output/training')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--minutes',
        type=float,
        default=0,
        help='end the schedule after this time (0: after all steps)',
    )
    parser.add_argument('--resume', default='', metavar='FOLDER', help='go on from this run')
    parser.add_argument(
        '--fresh-schedule',
        action='store_true',
        help='take over the weights only, start the schedule anew',
    )
    parser.add_argument('--compile', action='store_true', help='torch.compile the dense network')
    parser.add_argument(
        '--every', type=int, default=100, help='steps between two lines of the log'
    )
    parser.add_argument(
        '--set',
        action='append',
        default=[],
        metavar='KEY=YAML',
        help='replace a key of the configuration',
    )
    options = parser.parse_args()
    changes = {
        key: yaml.safe_load(value) for key, value in (item.split('=', 1) for item in options.set)
    }
    run(load(options.config, **changes), Path(options.out), options)


if __name__ == '__main__':
    main()

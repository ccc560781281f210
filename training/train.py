"""Trains a lidar network: `python -m training.train --config training/centerpoint.yaml`.

Scans are made while training, on the same accelerator. The folder --out gets `model.pt` (weights,
their moving average, progress), `best.pt` (the same at the best validation), `optimizer.pt` and
`log.jsonl`. After a kill the same command with --resume goes on.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor

from training import sitting
from training.export import card
from training.heads import Head, head_of
from training.lidars import lidar_of
from training.model import Model
from training.pillars import Decorated, decorate
from training.recipe import Training, load
from training.scans import make_batch
from training.schedule import one_cycle
from training.validate import Validation
from training.worlds import Pool, Recipe, surfaces


class Lesson(NamedTuple):
    """What one step learns from."""

    points: Decorated
    targets: Any


class Run:
    """Everything that changes while training.

    Attributes:
        step: updates so far; seconds: of the schedule so far; earlier: of schedules before it.
        best: of the validations; scores: those of the best.
    """

    def __init__(self, training: Training, device: torch.device, compiled: bool = False) -> None:
        torch.manual_seed(training.seed)
        self.training, self.device = training, device
        self.head: Head = head_of(training, device)
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
        self._pairs = self._paired()
        self.dense: Any = torch.compile(self.model.dense) if compiled else self.model.dense
        weights = [training.weights.get(name, 1.0) for name in self.head.losses]
        self._weights = torch.tensor(weights, device=device)
        self._judged = Model(training).to(device).eval()
        self.best = sitting.Best(training.validation.patience)
        self.scores: dict[str, float] = {}
        self.step = 0
        self.seconds = self.earlier = 0.0

    def _paired(self) -> tuple[list[Tensor], list[Tensor]]:
        """Averages and what each follows; the tensors stay while steps change their values."""
        state = self.model.state_dict()
        names = [name for name, value in state.items() if value.is_floating_point()]
        return [self.average[name] for name in names], [state[name] for name in names]

    def losses(self, lesson: Lesson) -> tuple[Tensor, ...]:
        """As the head names them."""
        points, targets = lesson
        shape = (self.training.batch, *self.training.grid.shape)
        short = self.device.type == 'cuda'
        dtype = torch.bfloat16 if short else torch.float32
        canvas = self.model.pillars(points.features, points.pillar, points.cells, shape, dtype)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=short):
            maps = self.dense(canvas.contiguous(memory_format=torch.channels_last))
        return self.head.cost(maps, targets)

    def update(self, lesson: Lesson, progress: float) -> Tensor:
        """One step of the optimiser; returns the losses, float [N], still on the device."""
        t = self.training
        for group in self.optimizer.param_groups:
            group['lr'] = t.rate * one_cycle(progress)
        losses = torch.stack(self.losses(lesson))
        self.optimizer.zero_grad(set_to_none=True)
        (losses * self._weights).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.step += 1
        blend = 1 - min(t.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(*self._pairs, blend)
        return losses.detach()

    def judge(self, validation: Validation, out: Path, last: bool = False) -> dict[str, float]:
        """The average's scores; the best one is kept, or the `last`, see `sitting.Best`."""
        self._judged.load_state_dict(self.average)
        found: dict[str, float] = validation(self._judged)
        if self.best.look(found['map'], self.step, last):
            self.scores = _rounded(found)
            self.save(out, sitting.BEST)
        self.save(out)  # so that both know of the same best
        return found

    def save(self, out: Path, name: str = sitting.MODEL) -> None:
        """Writes what `restore` and the export read."""
        best = {key: getattr(self.best, key) for key in ('score', 'step', 'misses')}
        values = {
            'model': self.model.state_dict(),
            'average': self.average,
            'step': self.step,
            'seconds': self.seconds,
            'earlier': self.earlier,
            'best': best,
            'scores': self.scores,
            'training': asdict(self.training),
            'device': torch.cuda.get_device_name() if self.device.type == 'cuda' else 'CPU',
        }
        if name == sitting.MODEL:  # after a kill in between the moments are some steps newer
            sitting.save(out / sitting.OPTIMIZER, self.optimizer.state_dict())
        sitting.save(out / name, values)

    def restore(self, run: Path, fresh_schedule: bool = False) -> None:
        """Goes on from `save`; with `fresh_schedule` only the weights are taken over."""
        saved = sitting.chosen(run) if fresh_schedule else sitting.read(run / sitting.MODEL)
        self.model.load_state_dict(saved['average' if fresh_schedule else 'model'])
        self.average = {name: value.to(self.device) for name, value in saved['average'].items()}
        self._pairs = self._paired()
        if fresh_schedule:
            self.earlier = saved['earlier'] + saved['seconds']
            return
        self.optimizer.load_state_dict(sitting.read(run / sitting.OPTIMIZER))
        self.step, self.seconds, self.earlier = saved['step'], saved['seconds'], saved['earlier']
        self.scores = saved['scores']
        for key, value in saved['best'].items():
            setattr(self.best, key, value)


def lessons(training: Training, device: torch.device, pool: Pool, step: int) -> Iterator[Lesson]:
    """Endless lessons: draws follow from seed and step, scenes from what is built by then."""
    rng = np.random.default_rng([training.seed, step])
    generator = torch.Generator(device).manual_seed(training.seed + step)
    looks, head = surfaces(device), head_of(training, device)
    t = training
    while True:
        worlds = pool.draw(t.batch, rng)
        with torch.no_grad():
            lidars = [lidar_of(t.lidar, rng) for _ in worlds]
            spots = rng.random(t.batch).tolist()
            batch = make_batch(
                worlds, lidars, spots, looks, t.variation, generator, t.least_points, t.past
            )
            points = decorate(
                batch.points, batch.scan, t.grid, t.features, t.max_points, t.max_pillars
            )
            targets = head.assign(batch.truth, t.batch)
        yield Lesson(points, targets)


def ahead(source: Iterator[Lesson], device: torch.device) -> Generator[Lesson, None, None]:
    """The same lessons, made by a thread on a stream of its own while the last one is learnt."""
    if device.type != 'cuda':
        yield from source
        return
    ready: queue.Queue[Any] = queue.Queue(maxsize=2)
    # Its kernels are short and go first: what learns is busy all the time.
    stream, enough = torch.cuda.Stream(device, priority=-1), threading.Event()

    def hand_over(item: Any) -> None:
        while not enough.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            with torch.cuda.stream(stream):
                for lesson in source:
                    event = torch.cuda.Event()
                    event.record(stream)
                    hand_over((lesson, event))
                    if enough.is_set():
                        return
        except BaseException as error:  # noqa: BLE001  (handed over to the thread that trains)
            hand_over((error, None))

    maker = threading.Thread(target=work, daemon=True)
    maker.start()
    try:
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
    finally:  # a thread that is still at work when Python ends aborts the process
        enough.set()
        maker.join()


class Journal:
    """The log: one line of JSON from time to time, printed as well."""

    def __init__(self, file: Any, names: tuple[str, ...], training: Training) -> None:
        self._file, self._names, self._batch = file, names, training.batch
        self._recent: list[Tensor] = []
        self._last, self._waited = time.monotonic(), 0.0

    def add(self, losses: Tensor, waited: float) -> None:
        """Losses of a step, and how many seconds it waited for its lesson."""
        self._recent.append(losses)
        self._waited += waited

    def means(self, state: Run, progress: float, scenes: int) -> None:
        """A line of the means since the last one."""
        values = torch.stack(self._recent).mean(0).tolist()
        now = time.monotonic()
        line = {'step': state.step, 'progress': round(progress, 4)}
        line |= {n: round(v, 4) for n, v in zip(self._names, values, strict=True)}
        line['scans_per_s'] = round(len(self._recent) * self._batch / (now - self._last), 1)
        line['waiting'] = round(self._waited / (now - self._last), 3)
        line['scenes'] = scenes
        line['seconds'] = round(state.earlier + state.seconds, 1)
        self.write(line)
        self._recent, self._last, self._waited = [], now, 0.0

    def write(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)
        self._file.write(json.dumps(line) + '\n')
        self._file.flush()


def run(training: Training, out: Path, options: argparse.Namespace) -> None:
    """Trains until the steps or the minutes are over, or validation says that it is enough."""
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')
    # Scenes arrive in a thread; with the usual 5 ms every launch of a kernel may wait for it.
    sys.setswitchinterval(1e-4)
    state = Run(training, device, options.compile)
    source = sitting.resumed(options, out)
    if source:
        state.restore(source, options.fresh_schedule)
        if source.resolve() != out.resolve():
            state.best = sitting.Best(training.validation.patience)
        elif not options.fresh_schedule:
            sitting.cut_log(out, state.step)
    out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(training.simulated, training.streets, paste=training.paste)
    past = int(state.earlier + state.seconds)
    first = training.first_scene + 1000 * training.workers * past
    held = training.validation
    kept = range(held.first_scene, held.first_scene + held.scenes)
    start = time.monotonic()
    clock = sitting.Clock(training.steps, options.minutes, state.seconds)
    with (
        Pool(recipe, first, training.pool, training.workers, device, kept) as pool,
        open(out / sitting.LOG, 'a', encoding='utf-8') as file,
        ExitStack() as stack,
    ):
        validation = None
        if kept:
            text = card(training, training.pillar_net(), '', {}, {})
            validation = Validation(training, text, pool.held_out(), surfaces(device))
        data = stack.enter_context(
            closing(ahead(lessons(training, device, pool, state.step), device))
        )
        given = chain([next(data)], data)
        # The schedule begins when there is something to learn from.
        learning = looked = saved = time.monotonic()
        print(f'first lesson after {learning - start:.1f} s', flush=True)
        journal = Journal(file, state.head.losses, training)
        while True:
            progress = clock.progress(state.step, time.monotonic() - learning)
            if progress >= 1 or state.best.over:
                break
            before = time.monotonic()
            lesson = next(given)
            waited = time.monotonic() - before
            journal.add(state.update(lesson, progress), waited)
            now = time.monotonic()
            state.seconds = clock.before + now - learning
            if state.step % options.every == 0:
                journal.means(state, progress, pool.built)
            if validation and now - looked > held.seconds:
                journal.write({'step': state.step, **_rounded(state.judge(validation, out))})
                looked = time.monotonic()
            if now - saved > options.save_seconds:
                state.save(out)
                saved = time.monotonic()
        if validation:
            journal.write(
                {'step': state.step, **_rounded(state.judge(validation, out, last=True))}
            )
        state.save(out)
        scenes = pool.built
    best = f'; kept: score {state.best.score:.4f} at step {state.best.step}' if kept else ''
    print(f'{state.step} steps, {state.seconds:.0f} s, {scenes} scenes: {out}{best}', flush=True)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def main() -> None:
    """Trains as the options say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='training/centerpoint.yaml')
    sitting.add_options(parser, 'output/training', 100)
    parser.add_argument(
        '--fresh-schedule',
        action='store_true',
        help='take over the weights only, start the schedule anew',
    )
    parser.add_argument('--compile', action='store_true', help='torch.compile the dense network')
    options = parser.parse_args()
    changes = {
        key: yaml.safe_load(value) for key, value in (item.split('=', 1) for item in options.set)
    }
    run(load(options.config, **changes), Path(options.out), options)


if __name__ == '__main__':
    main()

"""Trains the camera network on pictures of simulated scenes that are drawn while it learns.

    python -m training.train_camera --config training/yolox.yaml --out output/camera

writes OUT/model.pt (weights, their average), OUT/best.pt (those of the best validation),
OUT/optimizer.pt and OUT/log.jsonl; after a kill the same command with --resume goes on. One
accelerator and a handful of CPU cores; minutes. A CPU alone will do for a trial.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from training import sitting
from training.camera_loss import Truth, loss
from training.camera_network import cells
from training.camera_recipe import CameraTraining, load
from training.export_camera import card
from training.schedule import one_cycle
from training.sources import Sources
from training.validate_camera import CameraValidation


class Run:
    """The network, its average and its optimiser.

    Attributes:
        step: updates so far.
        made: pictures so far.
        seconds: of the schedule so far, over all sittings; earlier: of schedules before it.
        minutes: that end the schedule, 0: none.
        best: of the validations.
    """

    def __init__(self, training: CameraTraining, device: torch.device) -> None:
        torch.manual_seed(training.seed)
        self.training, self.device = training, device
        self.network = training.network().to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        plain = [p for p in self.network.parameters() if p.ndim == 1]
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        self.optimizer = torch.optim.AdamW(
            [{'params': decayed, 'weight_decay': training.decay}, {'params': plain}],
            lr=training.rate,
            weight_decay=0.0,
            fused=device.type == 'cuda',
        )
        self._pairs = self._paired()
        self._grid = cells(training.height, training.width, device)
        weights = (training.weights[key] for key in ('boxes', 'objects', 'classes'))
        self._weights = torch.tensor(list(weights), device=device)
        self.step = self.made = 0
        self.seconds = self.earlier = self.minutes = 0.0
        self.best = sitting.Best(training.validation.patience)

    def update(self, images: Tensor, truth: Truth, progress: float) -> Tensor:
        """One step; the three losses, [3]."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.training.rate * one_cycle(progress, 0.05, 0.01)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, self.device.type == 'cuda'):
            rows = self.network(images)
        losses = loss(rows.float(), truth, self._grid)
        self.optimizer.zero_grad(set_to_none=True)
        (losses * self._weights).sum().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 30.0)
        self.optimizer.step()
        self.step += 1
        self._follow()
        return losses.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.training.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(*self._pairs, 1 - keep)

    def _paired(self) -> tuple[list[Tensor], list[Tensor]]:
        """Averages and what each follows; the tensors stay while steps change their values."""
        average, now = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in now.items() if value.is_floating_point()]
        return [average[name] for name in names], [now[name] for name in names]

    def judge(
        self, validation: CameraValidation, out: Path, last: bool = False
    ) -> dict[str, float]:
        """The average's scores; the best one is kept, or the `last`, see `sitting.Best`."""
        found: dict[str, float] = validation(self.average)
        if self.best.look(found['ap50'], self.step, last):
            self.save(out, sitting.BEST)
        self.save(out)  # so that both know of the same best
        return found

    def save(self, out: Path, name: str = sitting.MODEL) -> None:
        """Writes what `restore` and the export read."""
        values = {
            'training': dataclasses.asdict(self.training),
            'network': self.network.state_dict(),
            'average': self.average.state_dict(),
            'step': self.step,
            'made': self.made,
            'seconds': self.seconds,
            'earlier': self.earlier,
            'minutes': self.minutes,
            'best': {key: getattr(self.best, key) for key in ('score', 'step', 'misses')},
            'device': torch.cuda.get_device_name() if self.device.type == 'cuda' else 'CPU',
        }
        if name == sitting.MODEL:  # after a kill in between the moments are some steps newer
            sitting.save(out / sitting.OPTIMIZER, self.optimizer.state_dict())
        sitting.save(out / name, values)

    def restore(self, run: Path, fresh_schedule: bool = False) -> None:
        """Goes on from `save`; with `fresh_schedule` only the weights are taken over."""
        saved = sitting.chosen(run) if fresh_schedule else sitting.read(run / sitting.MODEL)
        self.network.load_state_dict(saved['average' if fresh_schedule else 'network'])
        self.average.load_state_dict(saved['average'])
        self._pairs = self._paired()
        self.made = saved['made']
        if fresh_schedule:
            self.earlier = saved['earlier'] + saved['seconds']
            return
        self.optimizer.load_state_dict(sitting.read(run / sitting.OPTIMIZER))
        self.step, self.seconds, self.earlier = saved['step'], saved['seconds'], saved['earlier']
        for key, value in saved['best'].items():
            setattr(self.best, key, value)


def run(training: CameraTraining, out: Path, options: argparse.Namespace) -> None:
    """Trains until the steps or the minutes are over, or validation says that it is enough."""
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')
    # Scenes arrive in a thread; with the usual 5 ms every launch of a kernel may wait for it.
    sys.setswitchinterval(1e-4)
    state = Run(training, device)
    source = sitting.resumed(options, out)
    if source:
        state.restore(source, options.fresh_schedule)
        if source.resolve() != out.resolve():
            state.best = sitting.Best(training.validation.patience)
        elif not options.fresh_schedule:
            sitting.cut_log(out, state.step)
    state.minutes = options.minutes
    out.mkdir(parents=True, exist_ok=True)
    held = training.validation
    kept = range(held.first_scene, held.first_scene + held.scenes)
    rng = np.random.default_rng([training.seed, state.step])
    generator = torch.Generator(device).manual_seed(training.seed + state.step)
    start = time.monotonic()
    made_before = state.made
    recent: list[Tensor] = []
    sources = Sources(training, device, int(state.earlier + state.seconds), kept)
    with sources, open(out / sitting.LOG, 'a', encoding='utf-8') as log:

        def write(line: dict[str, float]) -> None:
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + '\n')
            log.flush()

        validation = None
        if kept:
            text = card(training, '', {})
            validation = CameraValidation(training, text, sources.held_out(), device)
        gallery = sources.gallery(rng, generator)
        learning = last = looked = saved = time.monotonic()
        print(f'{gallery.made} pictures after {learning - start:.1f} s', flush=True)
        # The schedule begins with the first step; what came before takes of its time.
        left = max(options.minutes * 60 - (learning - start), 1.0) if options.minutes else 0.0
        clock = sitting.Clock(training.steps, left / 60, state.seconds)
        while True:
            progress = clock.progress(state.step, time.monotonic() - learning)
            if progress >= 1 or state.best.over:
                break
            recent.append(state.update(*gallery.lesson(generator), progress))
            if state.step % training.steps_between == 0:
                sources.extend(gallery, rng, generator)
            now = time.monotonic()
            state.seconds = clock.before + now - learning
            state.made = made_before + gallery.made
            if state.step % options.every == 0:
                mean = torch.stack(recent).mean(0).tolist()
                now = time.monotonic()
                write(
                    {
                        'step': state.step,
                        'progress': round(progress, 4),
                        'boxes': round(mean[0], 4),
                        'objects': round(mean[1], 4),
                        'classes': round(mean[2], 4),
                        'learnt_per_s': round(len(recent) * training.batch / (now - last), 1),
                        'pictures': gallery.made,
                        'drawn': gallery.drawn,
                        'seconds': round(state.earlier + state.seconds, 1),
                    }
                )
                recent, last = [], now
            if validation and now - looked > held.seconds:
                write({'step': state.step, **_rounded(state.judge(validation, out))})
                looked = time.monotonic()
            if now - saved > options.save_seconds:
                state.save(out)
                saved = time.monotonic()
        if validation:
            write({'step': state.step, **_rounded(state.judge(validation, out, last=True))})
        state.save(out)
    best = f'; kept: score {state.best.score:.4f} at step {state.best.step}' if kept else ''
    print(f'{state.step} steps, {state.seconds:.0f} s, {gallery.made} pictures: {out}{best}')


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='training/yolox.yaml')
    sitting.add_options(parser, 'output/camera', 100)
    parser.add_argument(
        '--fresh-schedule', action='store_true', help='take over weights, start the schedule anew'
    )
    options = parser.parse_args()
    pairs = (item.split('=', 1) for item in options.set)
    changes = {key: yaml.safe_load(value) for key, value in pairs}
    run(load(options.config, **changes), Path(options.out), options)


if __name__ == '__main__':
    main()

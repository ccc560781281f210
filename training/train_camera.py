"""Trains the camera network on pictures of simulated scenes that are drawn while it learns.

    python -m training.train_camera --config training/yolox.yaml --out output/camera

writes OUT/model.pt (weights and their average), OUT/optimizer.pt and OUT/log.jsonl; --resume goes
on from them. One accelerator and a handful of CPU cores; minutes. A CPU alone will do for a trial.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from airside_perception.sim.materials import standard
from training.camera_loss import Truth, loss
from training.camera_network import cells
from training.camera_recipe import CameraTraining, load
from training.gallery import Gallery
from training.worlds import Pool, Recipe


def one_cycle(progress: float) -> float:
    """Factor of the learning rate: up for the first twentieth, then a cosine to a hundredth."""
    if progress < 0.05:
        return 0.05 + 0.95 * progress / 0.05
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))


class Run:
    """The network, its average and its optimiser.

    Attributes:
        step: updates so far.
        made: pictures drawn so far.
        seconds: of training so far, over all sittings.
        minutes: that end the schedule, 0: none.
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
        )
        self._grid = cells(training.height, training.width, device)
        weights = (training.weights[key] for key in ('boxes', 'objects', 'classes'))
        self._weights = torch.tensor(list(weights), device=device)
        self.step = self.made = 0
        self.seconds = self.minutes = 0.0

    def update(self, images: Tensor, truth: Truth, progress: float) -> Tensor:
        """One step; the three losses, [3]."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.training.rate * one_cycle(progress)
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
        average, now = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[n] for n in names], [now[n] for n in names], 1 - keep)

    def save(self, out: Path) -> None:
        """Writes what `restore` and the export read."""
        torch.save(
            {
                'training': dataclasses.asdict(self.training),
                'network': self.network.state_dict(),
                'average': self.average.state_dict(),
                'step': self.step,
                'made': self.made,
                'seconds': self.seconds,
                'minutes': self.minutes,
                'device': torch.cuda.get_device_name() if self.device.type == 'cuda' else 'CPU',
            },
            out / 'model.pt',
        )
        torch.save(self.optimizer.state_dict(), out / 'optimizer.pt')

    def restore(self, out: Path, fresh_schedule: bool = False) -> None:
        """Goes on from `out`."""
        saved = torch.load(out / 'model.pt', map_location=self.device)
        self.network.load_state_dict(saved['network'])
        self.average.load_state_dict(saved['average'])
        self.seconds, self.made = saved['seconds'], saved['made']
        if not fresh_schedule:
            state = torch.load(out / 'optimizer.pt', map_location=self.device)
            self.optimizer.load_state_dict(state)
            self.step = saved['step']


def run(training: CameraTraining, out: Path, options: argparse.Namespace) -> None:
    """Trains until the steps or the minutes are over."""
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')
    # Scenes arrive in a thread; with the usual 5 ms every launch of a kernel may wait for it.
    sys.setswitchinterval(1e-4)
    state = Run(training, device)
    state.minutes = options.minutes
    if options.resume:
        state.restore(Path(options.resume), options.fresh_schedule)
    out.mkdir(parents=True, exist_ok=True)
    labels = {name: index for index, name in enumerate(training.classes)}
    recipe = Recipe(labels, training.streets)
    first = training.first_scene + 1000 * training.workers * int(state.seconds)
    rng = np.random.default_rng([training.seed, state.step])
    generator = torch.Generator(device).manual_seed(training.seed + state.step)
    gallery = Gallery(training, torch.as_tensor(standard().colour), device)
    start = last = saved = time.monotonic()
    limit = options.minutes * 60 if options.minutes else math.inf
    before, made_before = state.seconds, state.made
    recent: list[Tensor] = []
    pool = Pool(recipe, first, training.scenes, training.workers, device)
    with pool, open(out / 'log.jsonl', 'a', encoding='utf-8') as log:
        while gallery.made < training.first_pictures:
            gallery.extend(pool, rng, generator)
        learning = time.monotonic()
        print(f'{gallery.made} pictures after {learning - start:.1f} s', flush=True)
        while state.step < training.steps and time.monotonic() - start < limit:
            now = time.monotonic()
            by_time = min(1.0, (now - learning) / max(limit - (learning - start), 1e-3))
            progress = max(state.step / training.steps, by_time)
            recent.append(state.update(*gallery.lesson(generator), progress))
            if state.step % training.steps_between == 0:
                gallery.extend(pool, rng, generator)
            state.seconds = before + time.monotonic() - start
            state.made = made_before + gallery.made
            if state.step % options.every == 0:
                mean = torch.stack(recent).mean(0).tolist()
                now = time.monotonic()
                line = {
                    'step': state.step,
                    'progress': round(progress, 4),
                    'boxes': round(mean[0], 4),
                    'objects': round(mean[1], 4),
                    'classes': round(mean[2], 4),
                    'learnt_per_s': round(len(recent) * training.batch / (now - last), 1),
                    'pictures': gallery.made,
                    'scenes': pool.built,
                    'seconds': round(state.seconds, 1),
                }
                print(json.dumps(line), flush=True)
                log.write(json.dumps(line) + '\n')
                log.flush()
                recent, last = [], now
            if time.monotonic() - saved > 60:
                state.save(out)
                saved = time.monotonic()
    state.save(out)
    print(f'{state.step} steps, {state.seconds:.0f} s, {gallery.made} pictures: {out}/model.pt')


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='training/yolox.yaml')
    parser.add_argument('--out', default='output/camera')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--minutes', type=float, default=0, help='end the schedule after this time (0: all steps)'
    )
    parser.add_argument('--resume', default='', metavar='FOLDER', help='go on from this run')
    parser.add_argument(
        '--fresh-schedule', action='store_true', help='take over weights, start the schedule anew'
    )
    parser.add_argument(
        '--every', type=int, default=100, help='steps from one log line to the next'
    )
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=YAML', help='replace a key of the YAML'
    )
    options = parser.parse_args()
    pairs = (item.split('=', 1) for item in options.set)
    changes = {key: yaml.safe_load(value) for key, value in pairs}
    run(load(options.config, **changes), Path(options.out), options)


if __name__ == '__main__':
    main()

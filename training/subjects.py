"""The networks that `training.qat` goes on with: weights, lessons, costs, scores and files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
import torch.nn.functional as nnf
import yaml
from torch import Tensor, nn

from airside_perception.engine.graph import weights
from training import export, export_camera, sitting
from training.camera_loss import loss
from training.camera_network import cells
from training.camera_network import folded as folded_camera
from training.camera_recipe import CameraTraining
from training.camera_recipe import parse as parse_camera
from training.evaluate_camera import dump as dump_camera
from training.export import example as example_canvas
from training.export import folded, illegal_on_dla, write_onnx
from training.heads import head_of
from training.network import PillarNet
from training.recipe import Training, keys
from training.recipe import parse as parse_lidar
from training.sources import Sources
from training.train import ahead, lessons
from training.validate import Validation
from training.validate_camera import CameraValidation
from training.worlds import Pool, Recipe, surfaces

LIKE = 0.02
"""Weight of cells that hold nothing, where a camera network is to answer as another one does."""
SEEN = 0.05
"""Probability from which a lidar network sees something: there its boxes count."""


class Subject(Protocol):
    """One network.

    Attributes:
        name: of its files; input_name: of its input.
        network: without batch norm, fp32, on the accelerator.
        past: seconds of earlier training, whose scenes do not come again.
        rate: of learning, in shares of the weights.
        training: the recipe.
    """

    name: str
    rate: float
    training: Any
    past: int
    input_name: str
    network: nn.Module

    def pool(self, past: int) -> Any:
        """Scenes or pictures of them, beyond those of `past` seconds."""

    def lessons(self, pool: Any, step: int) -> Iterator[tuple[Tensor, Any]]:
        """Endless inputs with what there is to be found in them."""

    def cost(self, found: Any, told: Any) -> Tensor:
        """Loss of outputs."""

    def unlike(self, found: Any, taught: Any) -> Tensor:
        """How far outputs are from those of a teacher, most where it sees something."""

    def validation(self, pool: Any) -> Any:
        """A function network -> {name: score}; the first score decides."""

    def example(self, seed: int) -> Tensor:
        """A random input of batch 1 on the CPU."""

    def write(self, network: nn.Module, path: Path) -> None:
        """Writes an fp32 network as ONNX that the DLA runs; raises ValueError if it cannot."""

    def card(self, sha256: str, about: dict[str, Any]) -> str:
        """The model card."""


def subject_of(run: str, onnx_path: str, config: str, device: torch.device, **changes: Any) -> Any:
    """The network of a run, or of an ONNX file with its card and the recipe of its training.

    Args:
        run: folder that training wrote, or ''.
        onnx_path: else.
        config: YAML of the recipe of that file.
        device: accelerator.
        changes: keys of the recipe to replace.

    Raises:
        ValueError: a file whose weights are not those of the recipe's network.
    """
    saved = sitting.chosen(Path(run)) if run else {}
    values = saved.get('training') or keys(config)
    values = {**values, **changes}
    past = int(saved.get('earlier', 0.0) + saved.get('seconds', 0.0))
    if 'publish' in values:
        training = parse_camera(values)
        network = training.network()
        if run:
            network.load_state_dict(saved['average'])
            own = parse_camera(saved['training'])
            about = export_camera.described(own, saved, network, config or export_camera.CONFIG)
            text = yaml.safe_load(export_camera.card(training, '', about))
            return CameraSubject(training, folded_camera(network), device, text, past)
        whole = folded_camera(network)
        _load(whole, onnx_path)
        return CameraSubject(training, whole, device, _card(onnx_path), past)
    lidar = parse_lidar(values)
    lidar = dataclasses.replace(lidar, velocity=lidar.velocity and lidar.past.sweeps > 0)
    dense, pillars = head_of(lidar, torch.device('cpu')).network(), lidar.pillar_net()
    if run:
        state = saved['average']
        if not lidar.velocity:
            state = {k: v for k, v in state.items() if not k.startswith('dense.vel')}
        nn.ModuleDict({'dense': dense, 'pillars': pillars}).load_state_dict(state)
        about = export.described(parse_lidar(saved['training']), saved, dense)
        text = yaml.safe_load(export.card(lidar, pillars, '', about, {}))
        return LidarSubject(lidar, pillars, folded(dense), device, text, past)
    text = _card(onnx_path)
    whole = folded(dense)
    _load(whole, onnx_path)
    _encode(pillars, text['encoder'])
    return LidarSubject(lidar, pillars, whole, device, text, past)


def _card(onnx_path: str) -> dict[str, Any]:
    """The card beside a file, as YAML has it."""
    text = Path(onnx_path).with_suffix('.yaml').read_text(encoding='utf-8')
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def _load(network: nn.Module, onnx_path: str) -> None:
    """Takes over the weights of an ONNX file, by their names."""
    stored = weights(onnx.load(onnx_path))
    state = network.state_dict()
    odd = [k for k, v in state.items() if k not in stored or stored[k].shape != tuple(v.shape)]
    if odd:
        raise ValueError(f'{onnx_path}: {odd[0]!r} is not as the recipe has it')
    network.load_state_dict({name: torch.tensor(stored[name]) for name in state})


def _encode(pillars: PillarNet, encoder: dict[str, Any]) -> None:
    """Takes over the pillar feature net of a card, whose batch norm is folded."""
    norm = pillars.norm
    with torch.no_grad():
        pillars.linear.weight.copy_(torch.tensor(encoder['weight']).T)
        norm.weight.fill_(1.0)
        norm.bias.copy_(torch.tensor(encoder['bias']))
        norm.running_mean.zero_()  # type: ignore[union-attr]  # it has one
        norm.running_var.fill_(1.0 - norm.eps)  # type: ignore[union-attr]  # the same


def _updated(card: dict[str, Any], sha256: str, about: dict[str, Any]) -> dict[str, Any]:
    """A card with another file and more to say."""
    return {**card, 'sha256': sha256, 'about': {**card.get('about', {}), **about}}


class CameraSubject:
    """A YOLOX-family network.

    Args:
        training: the recipe; network: without batch norm; device: accelerator.
        card: of the network as it was trained, as YAML has it.
        past: see `Subject`.
    """

    input_name = 'images'
    rate = 2e-4

    def __init__(
        self,
        training: CameraTraining,
        network: nn.Module,
        device: torch.device,
        card: dict[str, Any],
        past: int,
    ) -> None:
        self.name, self.training, self.past = training.name, training, past
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
        self._device, self._card = device, card
        self._grid = cells(training.height, training.width, device)
        keys = ('boxes', 'objects', 'classes')
        self._weights = torch.tensor([training.weights[key] for key in keys], device=device)

    def pool(self, past: int) -> Sources:
        held = self.training.validation
        kept = range(held.first_scene, held.first_scene + held.scenes)
        return Sources(self.training, self._device, self.past + past, kept)

    def lessons(self, pool: Sources, step: int) -> Iterator[tuple[Tensor, Any]]:
        t = self.training
        rng = np.random.default_rng([t.seed, 1, step])
        generator = torch.Generator(self._device).manual_seed(t.seed + 1 + step)
        gallery = pool.gallery(rng, generator)
        while True:
            for _ in range(t.steps_between):
                images, truth = gallery.lesson(generator)
                yield images.contiguous(memory_format=torch.channels_last), truth
            pool.extend(gallery, rng, generator)

    def cost(self, found: Any, told: Any) -> Tensor:
        return (loss(found.float(), told, self._grid) * self._weights).sum()

    def unlike(self, found: Any, taught: Any) -> Tensor:
        weight = torch.sigmoid(taught[..., 4:5]) + LIKE
        apart = nnf.smooth_l1_loss(found, taught, reduction='none')
        return (apart * weight).sum() / weight.sum() / found.shape[2]

    def validation(self, pool: Sources) -> Any:
        text = export_camera.card(self.training, '', {})
        return CameraValidation(self.training, text, pool.held_out(), self._device)

    def example(self, seed: int) -> Tensor:
        return export_camera.example(self.training, seed)

    def write(self, network: nn.Module, path: Path) -> None:
        export_camera.write_legal(network, self.example(0), path)

    def card(self, sha256: str, about: dict[str, Any]) -> str:
        return dump_camera(_updated(self._card, sha256, about))


class LidarSubject:
    """The dense network behind pillars; their feature net stays as it is, in fp32.

    Args:
        training: the recipe; network: without batch norm; device: accelerator.
        pillars: the feature net.
        card: of the network as it was trained, as YAML has it.
        past: see `Subject`.
    """

    input_name = 'canvas'
    rate = 5e-5

    def __init__(
        self,
        training: Training,
        pillars: PillarNet,
        network: nn.Module,
        device: torch.device,
        card: dict[str, Any],
        past: int,
    ) -> None:
        self.name, self.training, self.past = training.name, training, past
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
        self._pillars = pillars.to(device).eval()
        self._device, self._card = device, card
        self._head = head_of(training, device)
        weights_ = [training.weights.get(name, 1.0) for name in self._head.losses]
        self._weights = torch.tensor(weights_, device=device)

    def pool(self, past: int) -> Pool:
        t, held = self.training, self.training.validation
        recipe = Recipe(t.simulated, t.streets, paste=t.paste)
        first = t.first_scene + 1000 * t.workers * (self.past + past)
        kept = range(held.first_scene, held.first_scene + held.scenes)
        return Pool(recipe, first, t.pool, t.workers, self._device, kept)

    def lessons(self, pool: Pool, step: int) -> Iterator[tuple[Tensor, Any]]:
        t = dataclasses.replace(self.training, seed=self.training.seed + 1)
        shape = (t.batch, *t.grid.shape)
        for points, targets in ahead(lessons(t, self._device, pool, step), self._device):
            with torch.no_grad():
                canvas = self._pillars(points.features, points.pillar, points.cells, shape)
            yield canvas.contiguous(memory_format=torch.channels_last), targets

    def cost(self, found: Any, told: Any) -> Tensor:
        return (torch.stack(self._head.cost(found, told)) * self._weights).sum()

    def unlike(self, found: Any, taught: Any) -> Tensor:
        """Divergence of the scores from the teacher's, and errors of boxes where it sees any.

        Both are sums over all cells, a share of what the teacher sees in sum.
        """
        heat, other = found[0], taught[0]
        sure = torch.sigmoid(other)
        seen = sure.amax(1, keepdim=True)
        seen = torch.where(seen > SEEN, seen, 0.0)
        # Cross-entropy less the teacher's own entropy, so that answers alike cost nothing.
        total = (nnf.softplus(heat) - nnf.softplus(other) - sure * (heat - other)).sum()
        for mine, theirs in zip(found[1:], taught[1:], strict=True):
            apart = nnf.smooth_l1_loss(mine, theirs, reduction='none', beta=1 / 9)
            total = total + (apart * seen).sum()
        return total / seen.sum().clamp(min=1.0)

    def validation(self, pool: Pool) -> Any:
        whole = Validation(
            self.training, self.card('', {}), pool.held_out(), surfaces(self._device)
        )
        pair = nn.Module()
        pair.pillars = self._pillars

        def judge(network: nn.Module) -> dict[str, float]:
            pair.dense = network
            found: dict[str, float] = whole(pair)
            return found

        return judge

    def example(self, seed: int) -> Tensor:
        return example_canvas(self.training, seed)

    def write(self, network: nn.Module, path: Path) -> None:
        write_onnx(network, self.example(0), path, self.input_name, self._head.outputs)
        bad = illegal_on_dla(onnx.load(str(path)))
        if bad:
            raise ValueError(f'{path}: not for the DLA: {", ".join(bad)}')

    def card(self, sha256: str, about: dict[str, Any]) -> str:
        return export.dump(_updated(self._card, sha256, about))


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

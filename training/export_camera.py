"""Writes a trained camera network and its card.

    python -m training.export_camera --run output/camera --models models

The network becomes ONNX (opset 17, batch 1, batch norm folded into the convolutions, the listing
of cells on four axes) and is checked against torch and against the rules of the DLA.
`python -m training.evaluate_camera` measures it afterwards and writes what it finds into the card.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from airside_perception.deploy.rewrite import rewrite
from training import sitting
from training.camera_network import STRIDES, Yolox, folded
from training.camera_recipe import CameraTraining, load, parse
from training.evaluate_camera import dump
from training.export import illegal_on_dla, write_onnx

CONFIG = 'training/yolox.yaml'
TOLERANCE = 2e-3
"""Largest difference between ONNX Runtime and torch, of outputs of the order of 1 to 10."""


def export_onnx(network: Yolox, training: CameraTraining, path: Path) -> float:
    """Writes the network and returns its largest difference from torch on random pixels.

    Raises:
        ValueError: the difference is above TOLERANCE, or a layer is none for the DLA.
    """
    images = example(training)
    network.eval()
    with torch.no_grad():
        expected = network(images).numpy()
    write_legal(folded(network), images, path)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    error = float(np.abs(session.run(['output'], {'images': images.numpy()})[0] - expected).max())
    if not error < TOLERANCE:
        raise ValueError(f'{path}: ONNX Runtime differs from torch by {error}')
    return error


def example(training: CameraTraining, seed: int = 0) -> Tensor:
    """Soft random pixels [1, 3, H, W], 0..255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 3, training.height // 16, training.width // 16), generator=generator)
    size = (training.height, training.width)
    return torch.nn.functional.interpolate(coarse, size, mode='bilinear') * 255


def write_legal(network: nn.Module, images: Tensor, path: Path) -> None:
    """Writes a folded network in a form that a DLA core runs from end to end.

    Raises:
        ValueError: a layer is none for the DLA.
    """
    write_onnx(network, images, path, 'images', ['output'])
    done = rewrite(onnx.load(str(path)), only=['head'])
    onnx.save(done.model, str(path))
    bad = illegal_on_dla(done.model)
    if bad:
        raise ValueError(f'{path}: not for the DLA: {", ".join(bad)}')


def card(training: CameraTraining, sha256: str, about: Mapping[str, Any]) -> str:
    """The model card as YAML."""
    published = tuple(dict.fromkeys(training.publish.values()))
    values = {
        'name': training.name,
        'architecture': 'yolox',
        'classes': list(training.classes),
        'publish': dict(training.publish),
        'thresholds': {name: training.thresholds.get(name, 0.3) for name in published},
        'sizes': {name: list(training.sizes[name]) for name in published},
        'sha256': sha256,
        'input': {
            'name': 'images',
            'height': training.height,
            'width': training.width,
            'color': 'bgr',
            'mean': [0.0, 0.0, 0.0],
            'std': [1.0, 1.0, 1.0],
            'pad': 114,
            'centered': False,
        },
        'output': {'name': 'output', 'strides': list(STRIDES), 'activated': False},
        'about': dict(about),
    }
    return dump(values)


def command(config: str, saved: Mapping[str, Any]) -> str:
    """The command that made `saved`, with the keys that differ from the configuration now."""
    now = dataclasses.asdict(load(config))
    then = {key: value for key, value in saved['training'].items() if now.get(key) != value}
    words = [f'python -m training.train_camera --config {config}']
    words += [f'--minutes {saved["minutes"]:g}'] if saved['minutes'] else []
    return ' '.join([*words, *(f'--set {key}={value}' for key, value in then.items())])


def described(
    training: CameraTraining, saved: Mapping[str, Any], network: nn.Module, config: str
) -> dict[str, Any]:
    """What a run says about itself, for `about` of the card.

    Args:
        training: its recipe; saved: its state; network: its weights.
        config: YAML that the recipe is set beside.
    """
    return {
        'source': 'trained by this project from random weights, on pictures of its own simulator',
        'licence': 'Apache-2.0',
        'recipe': command(config, saved),
        'training': (
            f'seed {training.seed}, {saved["made"]} pictures of simulated aprons and streets '
            f'(scene seeds from {training.first_scene}), {saved["step"]} steps of '
            f'{training.batch}, '
            f'{saved["earlier"] + saved["seconds"]:.0f} s on one {saved["device"]}'
        ),
        'parameters': f'{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M',
        'layers': (
            'convolutions, ReLU, additions, concatenations, 5 x 5 max pools, nearest x 2, and the '
            'listing of cells as rows on four axes: engine lint finds nothing that the DLA lacks'
        ),
        'accuracy': 'not measured yet: python -m training.evaluate_camera',
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default=CONFIG)
    parser.add_argument('--run', default='output/camera', help='folder that training wrote')
    parser.add_argument('--models', default='models')
    options = parser.parse_args()
    saved = sitting.chosen(Path(options.run))
    training = parse(saved['training'])
    network = training.network()
    network.load_state_dict(saved['average'])
    models = Path(options.models)
    models.mkdir(parents=True, exist_ok=True)
    path = models / f'{training.name}.onnx'
    error = export_onnx(network, training, path)
    about = described(training, saved, network, options.config)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    text = card(training, sha256, about)
    path.with_suffix('.yaml').write_text(text, encoding='utf-8')
    size = path.stat().st_size / 1e6
    print(f'{path}: {size:.2f} MB, step {saved["step"]}; differs from torch by {error:.1e}')


if __name__ == '__main__':
    main()

"""Writes a trained camera network and its card.

    python -m training.export_camera --run output/camera --models models

The network becomes ONNX (opset 17, batch 1, batch norm folded into the convolutions) and is
checked against torch before it is kept. `python -m training.evaluate_camera` measures it
afterwards and writes what it finds into the card.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from training.camera_network import STRIDES, Yolox, folded
from training.camera_recipe import CameraTraining, load
from training.evaluate_camera import dump

TOLERANCE = 2e-3
"""Largest difference between ONNX Runtime and torch, of outputs of the order of 1 to 10."""


def export_onnx(network: Yolox, training: CameraTraining, path: Path) -> float:
    """Writes the network and returns its largest difference from torch on random pixels.

    Raises:
        ValueError: the difference is above TOLERANCE.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, training.height, training.width)
    coarse = torch.rand((1, 3, training.height // 16, training.width // 16), generator=generator)
    images = torch.nn.functional.interpolate(coarse, shape[2:], mode='bilinear') * 255
    network.eval()
    with torch.no_grad():
        expected = network(images).numpy()
    torch.onnx.export(
        folded(network),
        (images,),
        str(path),
        opset_version=17,
        dynamo=False,
        input_names=['images'],
        output_names=['output'],
    )
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    error = float(np.abs(session.run(['output'], {'images': images.numpy()})[0] - expected).max())
    if not error < TOLERANCE:
        raise ValueError(f'{path}: ONNX Runtime differs from torch by {error}')
    return error


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
    then = {key: value for key, value in saved['training'].items() if now[key] != value}
    words = [f'python -m training.train_camera --config {config}']
    words += [f'--minutes {saved["minutes"]:g}'] if saved['minutes'] else []
    return ' '.join([*words, *(f'--set {key}={value}' for key, value in then.items())])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='training/yolox.yaml')
    parser.add_argument('--run', default='output/camera', help='folder that training wrote')
    parser.add_argument('--models', default='models')
    options = parser.parse_args()
    training = load(options.config)
    saved = torch.load(Path(options.run) / 'model.pt', map_location='cpu', weights_only=True)
    network = training.network()
    network.load_state_dict(saved['average'])
    models = Path(options.models)
    models.mkdir(parents=True, exist_ok=True)
    path = models / f'{training.name}.onnx'
    error = export_onnx(network, training, path)
    about = {
        'source': 'trained by this project from random weights, on pictures of its own simulator',
        'licence': 'Apache-2.0',
        'recipe': command(options.config, saved),
        'training': (
            f'seed {training.seed}, {saved["made"]} pictures of simulated aprons and streets '
            f'(scene seeds from {training.first_scene}), {saved["step"]} steps of '
            f'{training.batch}, '
            f'{saved["seconds"]:.0f} s on one {saved["device"]}'
        ),
        'parameters': f'{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M',
        'layers': (
            'convolutions, ReLU, additions, concatenations, 5 x 5 max pools, nearest x 2; only '
            'the listing of cells as rows at the end is layout'
        ),
        'accuracy': 'not measured yet: python -m training.evaluate_camera',
    }
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    text = card(training, sha256, about)
    path.with_suffix('.yaml').write_text(text, encoding='utf-8')
    size = path.stat().st_size / 1e6
    print(f'{path}: {size:.2f} MB, step {saved["step"]}; differs from torch by {error:.1e}')


if __name__ == '__main__':
    main()

"""Writes a trained network and its card: `python -m training.export --run OUT --models models`.

The network becomes ONNX (opset 17, batch 1, batch norm folded into the convolutions), checked
against torch; the pillar feature net goes into the card, and so do the labels that each anchor
scores: there is one score channel for each of them and no other.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import yaml
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.network import Dense
from training.recipe import Training, load
from training.train import Model

TOLERANCE = 1e-3
"""Largest difference between ONNX Runtime and torch, of outputs of the order of 1 to 10."""


def folded(dense: Dense) -> Dense:
    """A copy without batch norm: every pair of (convolution, batch norm) is one convolution."""
    dense = copy.deepcopy(dense).eval()
    for block in [module for module in dense.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(block) - 1):
            first, second = block[index], block[index + 1]
            if isinstance(second, nn.BatchNorm2d):
                block[index] = fuse_conv_bn_eval(
                    first, second, isinstance(first, nn.ConvTranspose2d)
                )
                block[index + 1] = nn.Identity()
    return dense


def export_onnx(dense: Dense, training: Training, path: Path) -> float:
    """Writes the dense network and returns its largest difference from torch on a random canvas.

    Raises:
        ValueError: the difference is above TOLERANCE.
    """
    rows, columns = training.grid.shape
    generator = torch.Generator().manual_seed(0)
    canvas = torch.rand((1, training.channels, rows, columns), generator=generator)
    canvas = canvas * (torch.rand((1, 1, rows, columns), generator=generator) < 0.05)
    with torch.no_grad():
        expected = dense(canvas)
    names = ['scores', 'boxes', 'directions']
    torch.onnx.export(
        folded(dense),
        (canvas,),
        str(path),
        opset_version=17,
        dynamo=False,
        input_names=['canvas'],
        output_names=names,
    )
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    found = session.run(names, {'canvas': canvas.numpy()})
    error = max(float(np.abs(f - e.numpy()).max()) for f, e in zip(found, expected, strict=True))
    if not error < TOLERANCE:
        raise ValueError(f'{path}: ONNX Runtime differs from torch by {error}')
    return error


def card(
    training: Training,
    model: Model,
    sha256: str,
    about: dict[str, Any],
    thresholds: dict[str, float],
) -> str:
    """The model card as YAML."""
    weight, bias = (values.detach().float().numpy() for values in model.pillars.eval().folded())
    head = {
        'name': training.name,
        'architecture': 'pointpillars',
        'classes': list(training.classes),
        'thresholds': thresholds,
        'sha256': sha256,
        'input': {
            'name': 'canvas',
            'range': list(training.limits),
            'pillar': list(training.pillar),
            'max_points': training.max_points,
            'max_pillars': training.max_pillars,
        },
        'output': {
            'stride': training.stride,
            'direction_offset': training.direction_offset,
            'anchors': [
                {
                    'class': shape.labels[0],
                    'labels': [name for name in training.classes if name in shape.labels],
                    'size': list(shape.size),
                    'z': shape.z,
                    'yaws': list(shape.yaws),
                }
                for shape in training.anchors
            ],
        },
        'about': about,
        'encoder': {
            'features': list(training.features),
            'zero_row': False,
            'bias': [float(f'{value:.7g}') for value in bias],
            'weight': [[float(f'{value:.7g}') for value in row] for row in weight],
        },
    }
    return yaml.safe_dump(
        head, sort_keys=False, width=110, default_flow_style=None, allow_unicode=True
    )


def main() -> None:
    """Writes the files and says how large and how exact they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='training/pointpillars.yaml')
    parser.add_argument('--run', default='output/training', help='folder that training wrote')
    parser.add_argument('--models', default='models')
    parser.add_argument('--about', default='', help='YAML file that becomes `about` of the card')
    options = parser.parse_args()
    training = load(options.config)
    saved = torch.load(Path(options.run) / 'model.pt', map_location='cpu', weights_only=True)
    model = Model(training)
    model.load_state_dict(saved['average'])
    model.eval()
    models = Path(options.models)
    models.mkdir(parents=True, exist_ok=True)
    path = models / f'{training.name}.onnx'
    error = export_onnx(model.dense, training, path)
    text = yaml.safe_load(Path(options.about).read_text(encoding='utf-8')) if options.about else {}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    thresholds = text.pop('thresholds', {})
    path.with_suffix('.yaml').write_text(
        card(training, model, sha256, text, thresholds), encoding='utf-8'
    )
    size = path.stat().st_size / 1e6
    print(
        f'{path}: {size:.2f} MB, step {saved["step"]}, {saved["seconds"]:.0f} s; '
        f'differs from torch by {error:.1e}'
    )


if __name__ == '__main__':
    main()

"""Writes a trained lidar network and its card: `python -m training.export --run OUT`.

The network becomes ONNX (opset 17, batch 1, batch norm folded into the convolutions), checked
against torch and against the rules of the DLA; the pillar feature net goes into the card. The
recipe is the one that the run was made with.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from airside_perception.deploy.lint import lint
from training import sitting
from training.heads import exported, head_of
from training.model import trained
from training.network import PillarNet
from training.recipe import Training

TOLERANCE = 1e-3
"""Largest difference between ONNX Runtime and torch, of outputs of the order of 1 to 10."""
JETPACK = '6.2'


def folded(dense: nn.Module) -> nn.Module:
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


def example(training: Training, seed: int = 0) -> Tensor:
    """A random canvas [1, C, rows, columns] that is as empty as those of scans."""
    rows, columns = training.grid.shape
    generator = torch.Generator().manual_seed(seed)
    canvas = torch.rand((1, training.channels, rows, columns), generator=generator)
    return canvas * (torch.rand((1, 1, rows, columns), generator=generator) < 0.05)


def write_onnx(
    network: nn.Module, given: Tensor, path: Path, inputs: str, outputs: Sequence[str]
) -> None:
    """Writes a network without batch norm."""
    torch.onnx.export(
        network,
        (given,),
        str(path),
        opset_version=17,
        dynamo=False,
        input_names=[inputs],
        output_names=list(outputs),
    )


def illegal_on_dla(model: Any) -> tuple[str, ...]:
    """What no DLA core of JetPack 6.2 runs."""
    return tuple(f'{item.name} ({item.op_type})' for item in lint(model, 'dla', JETPACK).illegal)


def export_onnx(dense: nn.Module, training: Training, path: Path) -> float:
    """Writes the dense network and returns its largest difference from torch on a random canvas.

    Args:
        dense: as trained.
        training: its recipe.
        path: of the ONNX file.

    Raises:
        ValueError: the difference is above TOLERANCE, or a layer is none for the DLA.
    """
    canvas = example(training)
    all_names = head_of(training, canvas.device).outputs
    names = exported(training, all_names)
    dense.eval()
    with torch.no_grad():
        expected = dense(canvas)[: len(names)]
    whole = folded(dense)
    if len(names) < len(all_names):
        whole.vel = None  # type: ignore[assignment]  # the one that may be missing
    write_onnx(whole, canvas, path, 'canvas', names)
    model = onnx.load(str(path))
    bad = illegal_on_dla(model)
    if bad:
        raise ValueError(f'{path}: not for the DLA: {", ".join(bad)}')
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    found = session.run(names, {'canvas': canvas.numpy()})
    error = max(float(np.abs(f - e.numpy()).max()) for f, e in zip(found, expected, strict=True))
    if not error < TOLERANCE:
        raise ValueError(f'{path}: ONNX Runtime differs from torch by {error}')
    return error


def card(
    training: Training,
    pillars: PillarNet,
    sha256: str,
    about: dict[str, Any],
    thresholds: dict[str, float],
) -> str:
    """The model card as YAML."""
    weight, bias = (value.detach().float().cpu().numpy() for value in pillars.eval().folded())
    head = head_of(training, torch.device('cpu')).card()
    values = {
        'name': training.name,
        'architecture': head['architecture'],
        'classes': list(training.classes),
        'thresholds': thresholds,
        'sha256': sha256,
        'input': {
            'name': 'canvas',
            'range': list(training.limits),
            'pillar': list(training.pillar),
            'max_points': training.max_points,
            'max_pillars': training.max_pillars,
            **({'past_sweeps': training.past.sweeps} if training.past.sweeps else {}),
        },
        'output': head['output'],
        'about': about,
        'encoder': {
            'features': list(training.features),
            'zero_row': False,
            'bias': [float(f'{value:.7g}') for value in bias],
            'weight': [[float(f'{value:.7g}') for value in row] for row in weight],
        },
    }
    return dump(values)


def dump(values: dict[str, Any]) -> str:
    """YAML as the cards of lidar networks are written."""
    text: str = yaml.safe_dump(
        values, sort_keys=False, width=110, default_flow_style=None, allow_unicode=True
    )
    return text


def described(training: Training, saved: dict[str, Any], dense: nn.Module) -> dict[str, Any]:
    """What a run says about itself, for `about` of the card."""
    seconds = saved['seconds'] + saved['earlier']
    best, scores = saved['best'], saved['scores']
    about = {
        'source': 'trained by this project from random weights, on scans of its own simulator',
        'licence': 'Apache-2.0',
        'training': (
            f'seed {training.seed}, simulated aprons and streets with seeds from '
            f'{training.first_scene}, {saved["step"]} steps of {training.batch} scans, '
            f'{seconds:.0f} s on one {saved["device"]}'
        ),
        'parameters': f'{sum(p.numel() for p in dense.parameters()) / 1e6:.2f} M',
        'validation': (
            f'{best["score"]:.3f} mean AP by the distance of centres on '
            f'{training.validation.scenes} simulated scenes with seeds from '
            f'{training.validation.first_scene}, half of them in fog or rain, which chose the '
            f'weights (step {best["step"]})'
        ),
    }
    groups = {name: list(own) for name, own in training.labels.items() if list(own) != [name]}
    if groups:
        about['simulated_classes'] = groups  # what of the truth an evaluation asks it for
    if 'velocity' in scores:
        past = training.past.sweeps
        about['velocity'] = (
            f'learnt from the newest sweep and {past} before it'
            if past
            else 'learnt from single sweeps, which do not show motion; not exported'
        ) + (
            f'. On those scenes: mean error of what moves {scores["velocity"]:.2f} m/s, of '
            f'the answer that nothing moves {scores["standing"]:.2f} m/s; what stands still is '
            f'given {scores["parked"]:.2f} m/s'
        )
    return about


def main() -> None:
    """Writes the files and says how large and how exact they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--run', default='output/training', help='folder that training wrote')
    parser.add_argument('--models', default='models')
    parser.add_argument('--about', default='', help='YAML file that is added to `about`')
    options = parser.parse_args()
    saved = sitting.chosen(Path(options.run))
    training, model = trained(saved)
    models = Path(options.models)
    models.mkdir(parents=True, exist_ok=True)
    path = models / f'{training.name}.onnx'
    error = export_onnx(model.dense, training, path)
    more = yaml.safe_load(Path(options.about).read_text(encoding='utf-8')) if options.about else {}
    thresholds = more.pop('thresholds', {})
    about = {**described(training, saved, model.dense), **more}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix('.yaml').write_text(
        card(training, model.pillars, sha256, about, thresholds), encoding='utf-8'
    )
    size = path.stat().st_size / 1e6
    print(
        f'{path}: {size:.2f} MB, step {saved["step"]}, {saved["seconds"]:.0f} s; '
        f'differs from torch by {error:.1e}; every layer is one of the DLA'
    )


if __name__ == '__main__':
    main()

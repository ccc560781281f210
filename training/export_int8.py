"""What `training.qat` has taught, as files: the network, its scales, cards, and Q/DQ nodes."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from airside_perception.deploy.calibrate import write_qdq
from airside_perception.deploy.calibrate.activations import Activations
from airside_perception.deploy.calibrate.collect import collect
from airside_perception.deploy.calibrate.scales import find_scales, same_scales
from airside_perception.engine.typed import read_network
from training.quantize import nodes_of, plain_state, scales, write_scales
from training.subjects import sha256_of

if TYPE_CHECKING:
    from training.qat import Run

TOLERANCE = 1e-3
"""Largest difference of outputs, of the order of 1 to 10, as a share of values that may exceed it:
where sums of floats differ in their last bit, a value may round to its neighbour."""
SHARE = 0.01
NOISE = 1.0
"""In a deep network one value that rounds to its neighbour moves others across theirs, layer by
layer, until two ways of adding differ by what the rounding itself adds. Hence a larger share is
borne where the differences, root mean square, are no more than this share of those to fp32."""


def export(state: Run, out: Path, given: list[Tensor]) -> str:
    """Writes network, scales and cards; returns what there is to say.

    Args:
        state: of the run; its average is written, whichever that is.
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
    whole = nodes_of(model, state.kept)
    count = write_qdq(path, known, rounding, whole, state.options.float_first)
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

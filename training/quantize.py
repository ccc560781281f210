"""INT8 as TensorRT computes it, within torch: for training that knows of the rounding.

Everything is symmetric and within ±127, as in `airside_perception.engine.qdq`. Weights have a
scale for every output channel, their largest value / 127. Tensors that convolutions read have one
each, and whoever else reads them gets the rounded values, too, since a Q/DQ pair in the network
stands behind what makes the tensor. Gradients pass rounding as if it were not there; those of the
scales are of Esser et al., "Learned Step Size Quantization", ICLR 2020.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.fx
import torch.nn.functional as nnf
from torch import Tensor, nn

from airside_perception.engine.graph import weights
from airside_perception.files import write_whole

LARGEST = 127
RATIOS = tuple(2 ** (-step / 8) for step in range(5))
"""Shares of the largest value that calibration tries as the range of INT8. What is large is rare,
and is what objects make: by its error alone ever more of it would be cut off."""
DROPPED = 0.25
"""Share of the tensors that pass a step of training unrounded. QDrop (Wei et al., ICLR 2022) draws
this for every element; for every tensor it costs neither time nor memory."""
LEAST = 1e-8


class Rounded(nn.Module):
    """One tensor as INT8 holds it.

    Attributes:
        log_step: logarithm of its scale: steps of training change it in proportion.
        largest: of |x| while `stage` is 'range'; costs: of each of RATIOS, sum of squared errors
            while `stage` is 'costs'.
        stage: '' at work; 'range' and 'costs' while calibrating, when values pass unchanged.
        dropped: whether values pass unchanged at work, too; see `drop`.
    """

    largest: Tensor
    costs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.zeros(()))
        self.register_buffer('largest', torch.zeros(()))
        self.register_buffer('costs', torch.zeros(len(RATIOS)))
        self.stage = ''
        self.dropped = False

    def forward(self, value: Tensor) -> Tensor:
        if self.stage == 'range':
            self.largest = torch.maximum(self.largest, value.detach().abs().amax())
            return value
        if self.stage == 'costs':
            given = value.detach()
            for number, ratio in enumerate(RATIOS):
                step = (self.largest * ratio / LARGEST).clamp(min=LEAST)
                kept = torch.round(given / step).clamp(-LARGEST, LARGEST) * step
                self.costs[number] += (kept - given).square().mean()
            return value
        return value if self.dropped else rounded(value, self.log_step.exp())

    def settle(self) -> None:
        """Takes the range with the least error of those tried."""
        ratio = RATIOS[int(self.costs.argmin())]
        largest = float(self.largest) * ratio if self.largest > 0 else 1.0
        with torch.no_grad():
            self.log_step.fill_(math.log(max(largest / LARGEST, LEAST)))

    @property
    def scale(self) -> float:
        """As Q/DQ nodes hold it, float32."""
        return float(self.log_step.detach().exp())


class _Round(torch.autograd.Function):
    """value / step rounded to integers within ±127, times step; one tensor is kept for later."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, step: Tensor) -> Tensor:
        units = value / step
        ctx.save_for_backward(units, step)
        return torch.round(units).clamp_(-LARGEST, LARGEST).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        units, step = ctx.saved_tensors
        inside = units.abs() <= LARGEST
        of_step = None
        if ctx.needs_input_grad[1]:
            change = torch.round(units).clamp_(-LARGEST, LARGEST) - units * inside
            of_step = (grads[0] * change).sum().view_as(step)
        return grads[0] * inside, of_step


def rounded(value: Tensor, step: Tensor) -> Tensor:
    """value / step rounded to integers (halves to even) within ±127, times step.

    Args:
        value: float32.
        step: a scalar, or what does not learn and may be broadcast.
    """
    found: Tensor = _Round.apply(value, step)
    return found


class RoundedConv(nn.Conv2d):
    """A convolution whose weights are rounded, one scale an output channel."""

    def forward(self, value: Tensor) -> Tensor:
        largest = self.weight.detach().abs().amax((1, 2, 3), keepdim=True)
        return self._conv_forward(value, rounded(self.weight, _step(largest)), self.bias)


class RoundedUp(nn.ConvTranspose2d):
    """The same of a deconvolution whose kernel is its stride.

    As a 1x1 convolution with one output channel for each place of the kernel, which is what INT8
    makes of it (`engine.deconvolution`), it has a scale for every one of those.
    """

    def forward(self, value: Tensor, output_size: list[int] | None = None) -> Tensor:
        largest = self.weight.detach().abs().amax(0, keepdim=True)
        weight = rounded(self.weight, _step(largest))
        return nnf.conv_transpose2d(value, weight, self.bias, self.stride)  # type: ignore[arg-type]  # pairs


def _step(largest: Tensor) -> Tensor:
    """The scale of weights; 1 where all are 0."""
    return torch.where(largest > 0, largest / LARGEST, 1.0)


def quantized(
    network: nn.Module, first: int = 0, kept: Sequence[str] = ()
) -> torch.fx.GraphModule:
    """A copy of a network without batch norm that rounds as INT8 does, before calibration.

    Names of weights stay, so its state may be loaded into the network. Every `Rounded` is called
    `rounded_N`.

    Args:
        network: of Conv2d and ConvTranspose2d modules; what `torch.fx` can trace.
        first: so many of the first convolutions stay as they are.
        kept: names of convolutions that stay, too, as of `matching`.

    Raises:
        ValueError: a deconvolution whose kernel is not its stride.
    """
    graph = torch.fx.symbolic_trace(network)
    device = next(network.parameters()).device
    modules = dict(graph.named_modules())
    sources: dict[torch.fx.Node, None] = {}
    for node in list(graph.graph.nodes):
        layer = modules.get(str(node.target)) if node.op == 'call_module' else None
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        if first > 0 and isinstance(layer, nn.Conv2d):
            first -= 1
            continue
        if str(node.target) in kept:
            continue
        _round_weights(layer, str(node.target))
        sources[cast(torch.fx.Node, node.args[0])] = None
    for number, source in enumerate(sources):
        name = f'rounded_{number}'
        graph.add_submodule(name, Rounded().to(device))
        with graph.graph.inserting_after(source):
            pair = graph.graph.call_module(name, (source,))
        source.replace_all_uses_with(pair, partial(operator.is_not, pair))
    graph.graph.lint()
    graph.recompile()
    return graph


def matching(network: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the convolutions and deconvolutions that shell patterns match.

    Raises:
        ValueError: a pattern that matches none.
    """
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    names = [name for name, layer in network.named_modules() if isinstance(layer, kinds)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f'{pattern!r} is none of {", ".join(names)}')
    return tuple(name for name in names if any(fnmatchcase(name, p) for p in patterns))


def nodes_of(model: Any, names: Sequence[str]) -> list[str]:
    """The nodes that layers are in an ONNX network, once its deconvolutions are convolutions."""
    mine = {f'{name}.weight' for name in names}
    turned = {'Conv': '', 'ConvTranspose': '_1x1'}  # see `engine.deconvolution`
    return [
        f'{node.name}{turned[node.op_type]}'
        for node in model.graph.node
        if node.op_type in turned and node.input[1] in mine
    ]


def drop(network: nn.Module, rng: np.random.Generator) -> None:
    """Draws which tensors pass the next step unrounded."""
    for item in roundings(network):
        item.dropped = bool(rng.random() < DROPPED)


def _round_weights(layer: nn.Module, name: str) -> None:
    """Makes a layer of this module's kind of it; its weights stay the same tensors."""
    if isinstance(layer, nn.Conv2d):
        layer.__class__ = RoundedConv
    elif isinstance(layer, nn.ConvTranspose2d):
        if tuple(layer.kernel_size) != tuple(layer.stride) or layer.groups != 1:
            raise ValueError(f'{name}: kernel {layer.kernel_size}, stride {layer.stride}')
        layer.__class__ = RoundedUp


def roundings(network: nn.Module) -> Iterator[Rounded]:
    """All `Rounded` of a network, in their order."""
    return (module for module in network.modules() if isinstance(module, Rounded))


@contextmanager
def _calibrating(network: nn.Module, stage: str) -> Iterator[None]:
    for item in roundings(network):
        item.stage = stage
    try:
        yield
    finally:
        for item in roundings(network):
            item.stage = ''


@torch.no_grad()
def calibrate(network: nn.Module, inputs: Callable[[], Iterator[Tensor]]) -> None:
    """Scales of all tensors: the range with the least squared error.

    Args:
        network: of `quantized`.
        inputs: gives the same inputs each time it is called.
    """
    for stage in ('range', 'costs'):
        with _calibrating(network, stage):
            for value in inputs():
                network(value)
    for item in roundings(network):
        item.settle()


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a quantised network as those of the network that it was made of."""
    return {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith('rounded_')
    }


def scales(network: torch.fx.GraphModule, model: Any) -> dict[str, float]:
    """{tensor of the ONNX network: scale}, as `engine calibrate` stores them.

    Args:
        network: of `quantized`.
        model: ONNX of the network that it was made of; a weight has the name that it has there.

    Raises:
        ValueError: a convolution of one is not found in the other.
    """
    steps = {}
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == 'call_module' else None
        if isinstance(layer, (RoundedConv, RoundedUp)):
            source = modules[str(cast(torch.fx.Node, node.args[0]).target)]
            steps[f'{node.target}.weight'] = cast(Rounded, source).scale
    found: dict[str, float] = {}
    stored = weights(model)
    for node in model.graph.node:
        if node.op_type in ('Conv', 'ConvTranspose') and node.input[1] in steps:
            found[node.input[0]] = steps.pop(node.input[1])
    if steps:
        raise ValueError(
            f'{len(steps)} of the quantised convolutions are not in the ONNX network, '
            f'{min(steps)} for one; it has {", ".join(sorted(stored)[:3])}, ...'
        )
    return found


def write_scales(path: Path, values: Mapping[str, float]) -> None:
    """Writes scales as `engine calibrate` reads them."""
    write_whole(path, json.dumps(dict(values), indent=1) + '\n')

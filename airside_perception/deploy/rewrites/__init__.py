"""Exact rewrites that make a network legal for the DLA: functions model -> (model, changes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airside_perception.deploy.rewrites.activations import split_activations
from airside_perception.deploy.rewrites.arithmetic import plain_arithmetic
from airside_perception.deploy.rewrites.batch import set_batch
from airside_perception.deploy.rewrites.batch_norm import fold_batch_norms
from airside_perception.deploy.rewrites.deconvolution import unpad_deconvolutions
from airside_perception.deploy.rewrites.focus import focus_to_conv
from airside_perception.deploy.rewrites.freeze import Shapes, freeze_shapes, store_constants
from airside_perception.deploy.rewrites.head import flat_heads
from airside_perception.deploy.rewrites.leaky import leaky_to_prelu
from airside_perception.deploy.rewrites.linear import linear_to_conv
from airside_perception.deploy.rewrites.max_pool import cascade_max_pools
from airside_perception.deploy.rewrites.mean import means_to_pools
from airside_perception.deploy.rewrites.opset_range import fit_opset
from airside_perception.deploy.rewrites.resize_modes import plain_resizes

Changed = tuple[Any, tuple[str, ...]]


@dataclass(frozen=True)
class Pass:
    """One kind of rewrite.

    Attributes:
        name: for `--only` and reports.
        says: what it does.
        apply: model -> (model, changes); the model that is given stays as it is.
        quantized: whether it may be done on a network with Q/DQ: it moves no scale.
    """

    name: str
    says: str
    apply: Callable[[Any], Changed]
    quantized: bool = False


NAMES = {
    'shapes': 'dynamic dimensions get a size',
    'constants': 'what no longer depends on an input is stored',
    'batch': 'another fixed batch size',
    'activations': 'Swish, HardSwish, HardSigmoid, Mish and Clip by what the DLA has',
    'opset': "into the range of that JetPack's TensorRT",
    'batch-norm': 'folded into the convolution before',
    'focus': 'Focus slices, SpaceToDepth and PixelUnshuffle as one strided convolution',
    'max-pool': 'wide max-pools as cascades',
    'mean': 'means over height and width as pools',
    'resize': 'sizes as scales, and the modes that the DLA has',
    'deconvolution': 'padding of deconvolutions as a Slice after them, DepthToSpace as one',
    'linear': 'Gemm and MatMul as convolutions',
    'leaky': 'LeakyRelu as PRelu',
    'arithmetic': 'Div by constants, Neg and squares as Mul',
    'head': 'Concat and Transpose of flattened maps on four axes',
}
"""{pass: what it does}, in their order."""
QUANTIZED = ('shapes', 'batch', 'opset', 'max-pool')


def passes(jetpack: str, batch: int | None, shapes: Shapes) -> tuple[Pass, ...]:
    """All passes in their order.

    Args:
        jetpack: that the network is for, as for lint.
        batch: of leading dimensions that vary (None: 1), and, where given, of those that do not.
        shapes: {input: shape} of inputs that vary.
    """
    table: dict[str, Callable[[Any], Changed]] = {
        'shapes': lambda model: freeze_shapes(model, batch, shapes),
        'constants': store_constants,
        'batch': lambda model: set_batch(model, batch) if batch else (model, ()),
        'activations': split_activations,
        'opset': lambda model: fit_opset(model, jetpack),
        'batch-norm': fold_batch_norms,
        'focus': focus_to_conv,
        'max-pool': cascade_max_pools,
        'mean': means_to_pools,
        'resize': plain_resizes,
        'deconvolution': unpad_deconvolutions,
        'linear': linear_to_conv,
        'leaky': leaky_to_prelu,
        'arithmetic': plain_arithmetic,
        'head': flat_heads,
    }
    return tuple(Pass(name, NAMES[name], table[name], name in QUANTIZED) for name in NAMES)

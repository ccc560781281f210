"""Resize as the DLA has it: whole scales, nearest from the corner, linear from centres.

Which input an output of a nearest Resize takes follows from coordinates and rounding; several
combinations take the same. The indices are computed in fractions for the sizes at hand, as
ONNX defines them (operator Resize, attribute coordinate_transformation_mode), and compared.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, Shape, attributes, given, label

LARGEST_NEAREST = 32
LARGEST_LINEAR = 4
RESIZE_OPSET = 11
"""Resize has sizes and coordinate modes from this version on."""
DEFAULT_MODE = 'half_pixel'


def plain_resizes(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Gives 2D Resize nodes scales in place of sizes, and the modes that the DLA has.

    Nearest becomes `asymmetric` with `floor`, linear `half_pixel`, where that is the same for
    these sizes. Left as they are: fractional or too large scales, changed batch or channels,
    cubic, anti-aliased, sizes that are not known, modes that differ.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    for node in list(net.nodes):
        if node.op_type == 'Resize' and net.opset >= RESIZE_OPSET:
            _plain(net, node)
    return net.model()


def _plain(net: Network, node: Any) -> None:
    said = attributes(node)
    before, after = net.shape(node.input[0]), net.shape(node.output[0])
    scales = whole_scales(before, after)
    mode = said.get('mode', 'nearest')
    if (
        before is None
        or scales is None
        or said.get('antialias', 0)
        or not _true_scales(net, node, scales)
    ):
        return
    coordinates = said.get('coordinate_transformation_mode', DEFAULT_MODE)
    rounding = said.get('nearest_mode', 'round_prefer_floor')
    if mode == 'nearest':
        wanted = {'coordinate_transformation_mode': 'asymmetric', 'nearest_mode': 'floor'}
        same = max(scales) <= LARGEST_NEAREST and all(
            nearest_indices(size, scale, coordinates, rounding)
            == [index // scale for index in range(size * scale)]
            for size, scale in zip(before[2:], scales, strict=True)
        )
    elif mode == 'linear':
        wanted = {'coordinate_transformation_mode': 'half_pixel'}
        same = max(scales) <= LARGEST_LINEAR and _is_half_pixel(coordinates, before, scales)
    else:
        return
    is_there = coordinates == wanted['coordinate_transformation_mode'] and (
        mode == 'linear' or rounding == 'floor'
    )
    if not same or (is_there and not given(node, 3)):
        return
    values = np.array([1, 1, *scales], np.float32)
    name = net.store(f'{node.output[0]}_scales', values)
    new = net.node(
        'Resize', [node.input[0], '', name], node.output[0], node.name, mode=mode, **wanted
    )
    net.replace(node, [new])
    said_as = f'{coordinates}, {rounding}' if mode == 'nearest' else coordinates
    sizes = ', sizes' if given(node, 3) else ''
    net.changes.append(
        f'{label(node)}: {mode} ({said_as}{sizes}) -> scales {scales[0]}, {scales[1]} '
        f'({", ".join(wanted.values())})'
    )


def whole_scales(before: Shape | None, after: Shape | None) -> tuple[int, int] | None:
    """By which height and width of [N, C, H, W] grow; None where not by whole numbers."""
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2]:
        return None
    if any(large % small for small, large in zip(before[2:], after[2:], strict=True)):
        return None
    return after[2] // before[2], after[3] // before[3]


def nearest_indices(size: int, scale: int, coordinates: str, rounding: str) -> list[int] | None:
    """Which inputs the outputs of a nearest Resize take along one axis; None: unknown mode.

    Args:
        size: of the input.
        scale: whole.
        coordinates: `coordinate_transformation_mode`.
        rounding: `nearest_mode`.
    """
    large = size * scale
    found = []
    for index in range(large):
        if coordinates == 'asymmetric':
            place = Fraction(index, scale)
        elif coordinates in ('half_pixel', 'half_pixel_symmetric') or (
            coordinates == 'pytorch_half_pixel' and large > 1
        ):
            place = Fraction(2 * index + 1, 2 * scale) - Fraction(1, 2)
        elif coordinates == 'tf_half_pixel_for_nn':
            place = Fraction(2 * index + 1, 2 * scale)
        elif coordinates == 'align_corners' and large > 1:
            place = Fraction(index * (size - 1), large - 1)
        else:
            return None
        if rounding not in ROUNDINGS:
            return None
        found.append(min(max(ROUNDINGS[rounding](place), 0), size - 1))
    return found


ROUNDINGS = {
    'floor': floor,
    'ceil': ceil,
    'round_prefer_floor': lambda place: ceil(place - Fraction(1, 2)),
    'round_prefer_ceil': lambda place: floor(place + Fraction(1, 2)),
}


def _true_scales(net: Network, node: Any, scales: tuple[int, int]) -> bool:
    """Whether stored scales are the ratio of the sizes: ONNX computes with the former."""
    stored = net.constant(given(node, 2))
    if given(node, 3):
        # axes and policies of later versions change what the sizes mean
        return not set(attributes(node)) & {'axes', 'keep_aspect_ratio_policy'}
    return stored is not None and stored.tolist() == [1, 1, *scales]


def _is_half_pixel(coordinates: str, before: Shape, scales: tuple[int, int]) -> bool:
    large = [size * scale for size, scale in zip(before[2:], scales, strict=True)]
    return coordinates in ('half_pixel', 'half_pixel_symmetric') or (
        coordinates == 'pytorch_half_pixel' and min(large) > 1
    )

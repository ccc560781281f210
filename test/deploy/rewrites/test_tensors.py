"""Shapes, batch, opset, Resize, heads: what changes tensors, not layers."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from airside_perception.deploy.lint import lint
from airside_perception.deploy.rewrites.batch import batch_of, set_batch
from airside_perception.deploy.rewrites.freeze import freeze_shapes, store_constants
from airside_perception.deploy.rewrites.head import flat_heads
from airside_perception.deploy.rewrites.opset_range import fit_opset, opset_range
from airside_perception.deploy.rewrites.resize_modes import nearest_indices, plain_resizes
from airside_perception.engine.graph import opset
from airside_perception.errors import ConfigError, EngineError


def shape_of(value: Any) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def f32(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# ---------------------------------------------------------------- shapes and constants


def dynamic(network: Any, node: Any) -> Any:
    """x [N, 3, H, W] and z [N, 4]; the shape of a Reshape is computed from x."""
    nodes = [
        node('Shape', ['x'], ['shape']),
        node('Gather', ['shape', 'zero'], ['count']),
        node('Concat', ['count', 'rest'], ['target'], axis=0),
        node('Reshape', ['x', 'target'], ['r']),
        node('Relu', ['r'], ['y']),
        node('Relu', ['z'], ['u']),
    ]
    constants = {'zero': np.array([0]), 'rest': np.array([3, -1])}
    return network(nodes, {'x': ['N', 3, 'H', 'W'], 'z': ['N', 4]},
                   {'y': [None] * 3, 'u': ['N', 4]}, constants, opset=13)  # fmt: skip


def test_dynamic_dimensions_get_sizes(network: Any, node: Any, run: Any, kinds: Any) -> None:
    model = dynamic(network, node)
    data = model.SerializeToString()
    frozen, changes = freeze_shapes(model, 2, {'x': [2, 3, 8, 6]})
    assert model.SerializeToString() == data
    assert [shape_of(value) for value in frozen.graph.input] == [[2, 3, 8, 6], [2, 4]]
    assert changes == ('x: ?x3x?x? -> 2x3x8x6', 'z: ?x4 -> 2x4')
    stored, changes = store_constants(frozen)
    assert kinds(stored) == ['Reshape', 'Relu', 'Relu']
    assert changes == ('3 nodes -> constants',)
    assert [shape_of(value) for value in stored.graph.output] == [[2, 3, 48], [2, 4]]
    feeds = {'x': f32(2, 3, 8, 6), 'z': f32(2, 4)}
    for wanted, found in zip(run(model, **feeds), run(stored, **feeds), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_name_that_repeats_is_one_size(network: Any, node: Any) -> None:
    frozen, _ = freeze_shapes(dynamic(network, node), None, {'x': [5, 3, 8, 6], 'z': [5, 4]})
    assert shape_of(frozen.graph.input[1]) == [5, 4]
    with pytest.raises(ConfigError, match="'N' is both 5 and 2"):
        freeze_shapes(dynamic(network, node), None, {'x': [5, 3, 8, 6], 'z': [2, 4]})


@pytest.mark.parametrize(
    ('shapes', 'said'),
    [
        ({}, r"input 'x' is \?x3x\?x\?: give what varies, as --shape x:1x3x416x416"),
        ({'a': [1, 2]}, "shape of 'a': inputs are x, z"),
        ({'x': [1, 4, 8, 6]}, r"shape 1x4x8x6: input 'x' is \?x3x\?x\?; only \? can be given"),
        ({'x': [1, 3, 8]}, r"shape 1x3x8: input 'x' is"),
    ],
)
def test_shapes_that_do_not_fit(shapes: Any, said: str, network: Any, node: Any) -> None:
    with pytest.raises(ConfigError, match=said):
        freeze_shapes(dynamic(network, node), None, shapes)


def test_static_networks_stay(network: Any, node: Any) -> None:
    model = network([node('Relu', ['x'], ['y'])], {'x': [1, 3, 4, 4]}, {'y': [1, 3, 4, 4]})
    assert freeze_shapes(model, 3, {}) == (model, ())
    assert store_constants(model) == (model, ())


# ---------------------------------------------------------------- batch


def head_of(network: Any, node: Any, first: int, batch: int = 2) -> Any:
    nodes = [
        node('Conv', ['x', 'w'], ['c']),
        node('Reshape', ['c', 'shape'], ['y']),
    ]
    constants = {'w': f32(5, 3, 1, 1), 'shape': np.array([first, 5, -1])}
    return network(nodes, {'x': [batch, 3, 4, 6]}, {'y': [None] * 3}, constants, opset=13)


@pytest.mark.parametrize('first', [2, 0])
def test_another_batch(first: int, network: Any, node: Any, run: Any) -> None:
    model = head_of(network, node, first)
    changed, changes = set_batch(model, 1)
    assert changes == ('batch 2 -> 1',)
    assert batch_of(changed) == 1
    assert shape_of(changed.graph.output[0]) == [1, 5, 24]
    x = f32(2, 3, 4, 6)
    (wanted,) = run(model, x=x)
    found = [run(changed, x=x[index : index + 1])[0] for index in range(2)]
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-6)


def test_batches_that_stay(network: Any, node: Any) -> None:
    model = head_of(network, node, 0)
    assert set_batch(model, 2) == (model, ())
    nodes = [node('Relu', ['x'], ['y']), node('Relu', ['z'], ['u'])]
    two = network(nodes, {'x': [1, 2], 'z': [3, 2]}, {'y': [1, 2], 'u': [3, 2]})
    assert batch_of(two) is None
    assert set_batch(two, 4) == (two, ())


# ---------------------------------------------------------------- opset


def test_ranges_are_those_of_lint() -> None:
    assert opset_range('6.2') == (9, 20)
    assert opset_range('5.1')[1] == 17
    with pytest.raises(ConfigError, match=r'4\.6'):
        opset_range('4.6')


def test_opsets_are_fitted(network: Any, node: Any, run: Any) -> None:
    high = network([node('Relu', ['x'], ['y'])], {'x': [2, 3]}, {'y': [2, 3]}, opset=18)
    lowered, changes = fit_opset(high, '5.1')
    assert (opset(lowered), changes) == (17, ('opset 18 -> 17',))
    assert fit_opset(high, '6.2') == (high, ())
    low = network([node('Add', ['x', 'x'], ['y'])], {'x': [2, 3]}, {'y': [2, 3]}, opset=8)
    raised, changes = fit_opset(low, '6.2')
    assert (opset(raised), changes) == (9, ('opset 8 -> 9',))
    x = f32(2, 3)
    np.testing.assert_array_equal(run(raised, x=x)[0], 2 * x)
    np.testing.assert_array_equal(run(lowered, x=x)[0], run(high, x=x)[0])


def test_upsample_becomes_resize(network: Any, node: Any, equal: Any, kinds: Any) -> None:
    scales = {'s': np.float32([1, 1, 2, 3])}
    old = network([node('Upsample', ['x', 's'], ['y'], mode='nearest')], {'x': [1, 2, 3, 4]},
                  {'y': [1, 2, 6, 12]}, scales, opset=9)  # fmt: skip
    new, changes = fit_opset(old, '6.2')
    assert changes == ('opset 9 -> 11',)
    assert 'Upsample' not in kinds(new)
    equal(old, new, 0)


def test_what_cannot_be_lowered_says_so(network: Any, node: Any) -> None:
    model = network([node('Gelu', ['x'], ['y'])], {'x': [2, 3]}, {'y': [2, 3]}, opset=20)
    with pytest.raises(EngineError, match='opset 20 cannot be lowered to 17, the highest of'):
        fit_opset(model, '5.1')


# ---------------------------------------------------------------- Resize


def resize(
    network: Any, node: Any, out: Any, scales: Any = None, sizes: Any = None, version: int = 13,
    shape: Any = (1, 2, 5, 4), **said: Any,
) -> Any:  # fmt: skip
    constants = {}
    names = ['x', '', '']
    if scales is not None:
        constants['scales'], names[2] = np.float32(scales), 'scales'
    if sizes is not None:
        constants['sizes'] = np.array(sizes)
        names.append('sizes')
    item = node('Resize', names, ['y'], name='up', **said)
    return network([item], {'x': list(shape)}, {'y': list(out)}, constants, version)


COORDINATES = ['half_pixel', 'asymmetric', 'align_corners', 'pytorch_half_pixel',
               'tf_half_pixel_for_nn']  # fmt: skip
ROUNDINGS = ['round_prefer_floor', 'round_prefer_ceil', 'floor', 'ceil']


@pytest.mark.parametrize('scale', [(2, 2), (3, 2), (4, 1), (5, 32)])
def test_nearest_becomes_plain_exactly_where_that_is_the_same(
    scale: Any, network: Any, node: Any, equal: Any, run: Any, attributes: Any
) -> None:
    """All combinations of modes: the rewrite is done if and only if the outputs are equal."""
    out = (1, 2, 5 * scale[0], 4 * scale[1])
    done = 0
    for coordinates, rounding in product(COORDINATES, ROUNDINGS):
        if (coordinates, rounding) == ('asymmetric', 'floor'):
            continue
        model = resize(
            network, node, out, [1, 1, *scale], mode='nearest', nearest_mode=rounding,
            coordinate_transformation_mode=coordinates,
        )  # fmt: skip
        plain, changes = plain_resizes(model)
        x = f32(1, 2, 5, 4)
        wanted = x.repeat(scale[0], 2).repeat(scale[1], 3)
        if changes:
            said = attributes(plain.graph.node[0])
            assert said['coordinate_transformation_mode'] == b'asymmetric'
            assert said['nearest_mode'] == b'floor'
            equal(model, plain, 0)
            np.testing.assert_array_equal(run(plain, x=x)[0], wanted)
            done += 1
        elif coordinates != 'align_corners':  # ONNX Runtime's own rounding errors decide there
            assert not np.array_equal(run(model, x=x)[0], wanted)
    assert done >= 4


@pytest.mark.parametrize('coordinates', COORDINATES[:-1])  # onnx's reference has not the last
@pytest.mark.parametrize('rounding', ROUNDINGS)
def test_indices_are_those_of_onnx(
    coordinates: str, rounding: str, network: Any, node: Any
) -> None:
    """Against ONNX's reference implementation, where that is free of rounding errors."""
    size, scale = 5, 4
    model = resize(
        network, node, (1, 1, 1, size * scale), [1, 1, 1, scale], shape=(1, 1, 1, size),
        mode='nearest', nearest_mode=rounding, coordinate_transformation_mode=coordinates,
    )  # fmt: skip
    x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    (wanted,) = ReferenceEvaluator(model).run(None, {'x': x})
    found = nearest_indices(size, scale, coordinates, rounding)
    if coordinates == 'align_corners':
        places = [Fraction(i * (size - 1), size * scale - 1) for i in range(size * scale)]
        exact = [place.denominator > 2 for place in places]
        assert [f for f, e in zip(found, exact, strict=True) if e] == [
            int(w) for w, e in zip(wanted.ravel(), exact, strict=True) if e
        ]
    else:
        assert found == wanted.ravel().astype(int).tolist()


def test_sizes_become_scales(network: Any, node: Any, equal: Any, attributes: Any) -> None:
    for mode, coordinates in (('nearest', 'asymmetric'), ('linear', 'half_pixel')):
        said = {'nearest_mode': 'floor'} if mode == 'nearest' else {}
        model = resize(
            network, node, (1, 2, 15, 8), sizes=[1, 2, 15, 8], mode=mode,
            coordinate_transformation_mode=coordinates, **said,
        )  # fmt: skip
        plain, changes = plain_resizes(model)
        assert len(changes) == 1
        assert len(plain.graph.node[0].input) == 3
        equal(model, plain, 1e-6)


def test_linear_of_pytorch(network: Any, node: Any, equal: Any, attributes: Any) -> None:
    model = resize(network, node, (1, 2, 10, 8), [1, 1, 2, 2], mode='linear',
                   coordinate_transformation_mode='pytorch_half_pixel')  # fmt: skip
    plain, _ = plain_resizes(model)
    said = attributes(plain.graph.node[0])
    assert said['coordinate_transformation_mode'] == b'half_pixel'
    equal(model, plain, 1e-6)


@pytest.mark.parametrize(
    ('out', 'said'),
    [
        ((1, 2, 10, 8), {'scales': [1, 1, 2, 2], 'mode': 'nearest', 'nearest_mode': 'floor',
                         'coordinate_transformation_mode': 'asymmetric'}),
        ((1, 2, 10, 8), {'scales': [1, 1, 2, 2], 'mode': 'linear',
                         'coordinate_transformation_mode': 'align_corners'}),
        ((1, 2, 10, 8), {'scales': [1, 1, 2, 2], 'mode': 'cubic'}),
        ((1, 2, 7, 6), {'scales': [1, 1, 1.5, 1.5], 'mode': 'nearest'}),
        ((1, 2, 10, 8), {'scales': [1, 1, 2.1, 2.1], 'mode': 'nearest'}),
        ((1, 4, 10, 8), {'scales': [1, 2, 2, 2], 'mode': 'nearest'}),
        ((1, 2, 165, 132), {'scales': [1, 1, 33, 33], 'mode': 'nearest'}),
        ((1, 2, 25, 20), {'sizes': [1, 2, 25, 20], 'mode': 'linear'}),
        ((1, 2, 10, 8), {'sizes': [10, 8], 'mode': 'linear', 'version': 18, 'axes': [2, 3]}),
        ((1, 2, 10, 8), {'scales': [1, 1, 2, 2], 'mode': 'linear', 'version': 18,
                         'antialias': 1}),
    ],
)  # fmt: skip
def test_resizes_that_stay(out: Any, said: Any, network: Any, node: Any) -> None:
    assert plain_resizes(resize(network, node, out, **said))[1] == ()


# ---------------------------------------------------------------- heads


def yolo_head(network: Any, node: Any, transposed: bool = True, more: Any = None) -> Any:
    """Two maps of 5 channels as rows."""
    nodes = [
        node('Reshape', ['a', 'shape'], ['fa']),
        node('Reshape', ['b', 'shape'], ['fb']),
        node('Concat', ['fa', 'fb'], ['rows'], axis=2),
    ]
    if transposed:
        nodes.append(node('Transpose', ['rows'], ['y'], perm=[0, 2, 1]))
    else:
        nodes.append(node('Sigmoid', ['rows'], ['y']))
    nodes += more or []
    shapes = {'a': [1, 5, 4, 6], 'b': [1, 5, 2, 3]}
    return network(nodes, shapes, {'y': [None] * 3}, {'shape': np.array([1, 5, -1])}, opset=11)


def test_rows_become_channels(network: Any, node: Any, equal: Any, kinds: Any) -> None:
    model = yolo_head(network, node)
    flat, changes = flat_heads(model)
    assert kinds(flat) == ['Reshape', 'Transpose', 'Reshape', 'Transpose', 'Concat', 'Reshape']
    assert changes == ('y: 2 flattened maps on four axes until the last Reshape',)
    equal(model, flat, 0)
    assert {item.name for item in lint(model, 'dla', '6.2').illegal} == {'Concat_2', 'Transpose_3'}
    assert lint(flat, 'dla', '6.2').illegal == ()


def test_rows_that_stay_columns(network: Any, node: Any, equal: Any) -> None:
    model = yolo_head(network, node, transposed=False)
    flat, changes = flat_heads(model)
    assert changes
    equal(model, flat, 0)
    assert lint(flat, 'dla', '6.2').illegal == ()


def test_one_map_with_a_transpose(network: Any, node: Any, equal: Any) -> None:
    nodes = [
        node('Reshape', ['x', 'shape'], ['f']),
        node('Sigmoid', ['f'], ['s']),
        node('Transpose', ['s'], ['y'], perm=[0, 2, 1]),
    ]
    model = network(nodes, {'x': [2, 5, 4, 6]}, {'y': [2, 24, 5], 's': [2, 5, 24]},
                    {'shape': np.array([0, 0, -1])})  # fmt: skip
    flat, changes = flat_heads(model)
    assert len(changes) == 2
    equal(model, flat, 0)
    assert lint(flat, 'dla', '6.2', batch=2).illegal == ()


def test_channels_side_by_side(network: Any, node: Any, equal: Any) -> None:
    nodes = [
        node('Reshape', ['a', 'shape'], ['fa']),
        node('Reshape', ['b', 'shape'], ['fb']),
        node('Concat', ['fa', 'fb', 'fa'], ['y'], axis=-2),
    ]
    shapes = {'a': [1, 5, 4, 6], 'b': [1, 3, 4, 6]}
    model = network(nodes, shapes, {'y': [1, 13, 24]}, {'shape': np.array([0, 0, -1])})
    flat, changes = flat_heads(model)
    assert changes
    equal(model, flat, 0)
    assert lint(flat, 'dla', '6.2').illegal == ()


def test_heads_that_stay(network: Any, node: Any, kinds: Any) -> None:
    shape = {'shape': np.array([1, 5, -1])}
    alone = network([node('Reshape', ['x', 'shape'], ['y'])], {'x': [1, 5, 4, 6]},
                    {'y': [1, 5, 24]}, shape)  # fmt: skip
    nodes = [node('Reshape', ['x', 'shape'], ['f']),
             node('Transpose', ['f'], ['y'], perm=[0, 2, 1])]  # fmt: skip
    long = network(nodes, {'x': [1, 5, 64, 129]}, {'y': [1, 8256, 5]}, shape)
    turned = node('Transpose', ['f'], ['y'], perm=[1, 0, 2])
    batch = network([nodes[0], turned], {'x': [1, 5, 4, 6]}, {'y': [5, 1, 24]}, shape)
    grouped = network(nodes, {'x': [1, 10, 4, 6]}, {'y': [1, 48, 5]}, shape)
    for model in (alone, long, batch, grouped):
        same, changes = flat_heads(model)
        assert not changes
        assert kinds(same) == kinds(model)


def test_a_head_before_something_else(network: Any, node: Any, equal: Any, kinds: Any) -> None:
    """What comes after is not done on four axes, and gets the tensor that it had."""
    more = [node('MatMul', ['y', 'w'], ['z'])]
    nodes = [*yolo_head(network, node).graph.node, *more]
    model = network(nodes, {'a': [1, 5, 4, 6], 'b': [1, 5, 2, 3]}, {'z': [1, 30, 2]},
                    {'shape': np.array([1, 5, -1]), 'w': f32(5, 2)}, opset=11)  # fmt: skip
    flat, changes = flat_heads(model)
    assert changes
    assert kinds(flat)[-2:] == ['Reshape', 'MatMul']
    equal(model, flat, 1e-6)

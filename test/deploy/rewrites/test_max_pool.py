"""Wide max-pools as cascades: equal to the pool, legal on the DLA, and left alone where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.deploy.rewrites.cascade import Pool, same, split
from airside_perception.deploy.rewrites.max_pool import cascade_max_pools


def pool_of(make: Any, node: Any, shape: list[int], **attributes: Any) -> Any:
    rank = len(shape)
    pool = node('MaxPool', ['x'], ['y'], name='pool', **attributes)
    return make([pool], {'x': shape}, {'y': [None] * rank}, opset=13)


def windows(model: Any, attributes: Any) -> list[list[int]]:
    return [attributes(item)['kernel_shape'] for item in model.graph.node]


@pytest.mark.parametrize(
    ('said', 'expected'),
    [
        ({'kernel_shape': [9, 9], 'pads': [4, 4, 4, 4]}, [[5, 5], [5, 5]]),
        ({'kernel_shape': [13, 13], 'pads': [6, 6, 6, 6]}, [[7, 7], [7, 7]]),
        ({'kernel_shape': [15, 15], 'pads': [7, 7, 7, 7]}, [[5, 5], [5, 5], [7, 7]]),
        ({'kernel_shape': [10, 10]}, [[5, 5], [6, 6]]),
        ({'kernel_shape': [9, 9], 'strides': [2, 2], 'pads': [4, 4, 4, 4]}, [[5, 5], [5, 5]]),
        ({'kernel_shape': [9, 3], 'pads': [4, 1, 4, 1], 'strides': [1, 2]}, [[5, 1], [5, 3]]),
        ({'kernel_shape': [11, 11], 'pads': [9, 1, 2, 10]}, [[5, 5], [7, 7]]),
        ({'kernel_shape': [9, 9], 'strides': [4, 4], 'ceil_mode': 1}, [[5, 5], [5, 5]]),
        ({'kernel_shape': [9, 9], 'auto_pad': 'SAME_UPPER', 'strides': [2, 2]}, [[5, 5], [5, 5]]),
        ({'kernel_shape': [9, 9], 'auto_pad': 'VALID'}, [[5, 5], [5, 5]]),
    ],
)
def test_wide_pools_are_cut(
    said: Any, expected: Any, network: Any, node: Any, equal: Any, attributes: Any
) -> None:
    model = pool_of(network, node, [2, 3, 26, 31], **said)
    cut, changes = cascade_max_pools(model)
    assert windows(cut, attributes) == expected
    assert len(changes) == 1
    assert changes[0].startswith('pool: MaxPool ')
    assert cut.graph.node[-1].name == 'pool'
    assert all(set(attributes(item)['strides']) == {1} for item in cut.graph.node[:-1])
    equal(model, cut, 0)


def test_the_given_model_stays(network: Any, node: Any) -> None:
    model = pool_of(network, node, [1, 1, 20, 20], kernel_shape=[13, 13])
    data = model.SerializeToString()
    cascade_max_pools(model)
    assert model.SerializeToString() == data


def test_pools_of_one_tensor_build_upon_one_another(
    network: Any, node: Any, equal: Any, attributes: Any
) -> None:
    pools = [
        node('MaxPool', ['x'], [f'y{n}'], kernel_shape=[n, n], pads=[n // 2] * 4)
        for n in (5, 9, 13)
    ]
    concat = node('Concat', ['x', 'y5', 'y9', 'y13'], ['y'], axis=1)
    model = network([*pools, concat], {'x': [1, 2, 13, 13]}, {'y': [1, 8, 13, 13]}, opset=11)
    cut, changes = cascade_max_pools(model)
    assert [list(item.input) for item in cut.graph.node[:3]] == [['x'], ['y5'], ['y9']]
    assert windows(cut, lambda item: {'kernel_shape': [], **attributes(item)})[:3] == [[5, 5]] * 3
    assert len(changes) == 2
    equal(model, cut, 0)


def test_a_pool_does_not_read_what_comes_later(network: Any, node: Any, equal: Any) -> None:
    pools = [
        node('MaxPool', ['x'], [f'y{n}'], kernel_shape=[n, n], pads=[n // 2] * 4) for n in (9, 5)
    ]
    outputs = {f'y{n}': [1, 2, 13, 13] for n in (9, 5)}
    model = network(pools, {'x': [1, 2, 13, 13]}, outputs)
    cut, _ = cascade_max_pools(model)
    assert [list(item.input) for item in cut.graph.node] == [['x'], ['y9_pool1'], ['x']]
    equal(model, cut, 0)


@pytest.mark.parametrize('kind', ['GlobalMaxPool', 'ReduceMax', 'ReduceMax18'])
@pytest.mark.parametrize('size', [(8, 5), (20, 30)])
def test_global_maxima_are_pools(
    kind: str, size: tuple[int, int], network: Any, node: Any, equal: Any, kinds: Any
) -> None:
    opset = 18 if kind == 'ReduceMax18' else 13
    said = {'axes': [-1, 2]} if kind == 'ReduceMax' else {}
    names = ['x', 'axes'] if opset == 18 else ['x']
    model = network(
        [node(kind.rstrip('18'), names, ['y'], **said)], {'x': [1, 4, *size]},
        {'y': [1, 4, 1, 1]}, {'axes': np.array([2, 3])} if opset == 18 else None, opset,
    )  # fmt: skip
    cut, changes = cascade_max_pools(model)
    assert changes
    assert set(kinds(cut)) == {'MaxPool'}
    equal(model, cut, 0)


@pytest.mark.parametrize(
    ('shape', 'said'),
    [
        ([1, 2, 20, 20], {'kernel_shape': [8, 8]}),
        ([1, 2, 40, 40], {'kernel_shape': [9, 9], 'dilations': [2, 2]}),
        ([1, 2, 20, 20, 20], {'kernel_shape': [9, 9, 9]}),
        ([1, 2, 20], {'kernel_shape': [9]}),
        ([1, 2, None, 20], {'kernel_shape': [9, 9]}),
        ([1, 2, 40, 40], {'kernel_shape': [9, 9], 'strides': [17, 17]}),
    ],
    ids=['narrow', 'dilated', '3D', '1D', 'dynamic', 'stride 17'],
)
def test_others_stay(shape: Any, said: Any, network: Any, node: Any, kinds: Any) -> None:
    model = pool_of(network, node, shape, **said)
    cut, changes = cascade_max_pools(model)
    assert not changes
    assert kinds(cut) == ['MaxPool']


def test_other_operators_stay(network: Any, node: Any) -> None:
    nodes = [
        node('AveragePool', ['x'], ['a'], kernel_shape=[9, 9]),
        node('MaxPool', ['x'], ['b', 'indices'], kernel_shape=[9, 9]),
        node('ReduceMax', ['x'], ['c'], axes=[1]),
        node('ReduceMax', ['x'], ['d'], axes=[2, 3], keepdims=0),
    ]
    shapes = {'a': [1, 2, 12, 12], 'b': [1, 2, 12, 12], 'c': [1, 1, 20, 20], 'd': [1, 2]}
    model = network(nodes, {'x': [1, 2, 20, 20]}, {**shapes, 'indices': (7, [1, 2, 12, 12])},
                    opset=13)  # fmt: skip
    assert cascade_max_pools(model)[1] == ()


def maxima(x: np.ndarray, axes: list[Pool]) -> np.ndarray:
    """Max-pool by its definition."""
    pads = [(0, 0), (0, 0), *((axis.begin, axis.end) for axis in axes)]
    x = np.pad(x, pads, constant_values=-np.inf)
    rows, columns = (
        range(0, length - axis.size + 1, axis.stride)
        for length, axis in zip(x.shape[2:], axes, strict=True)
    )
    parts = [
        [x[:, :, r : r + axes[0].size, c : c + axes[1].size].max((2, 3)) for c in columns]
        for r in rows
    ]
    return np.array(parts).transpose(2, 3, 0, 1)


@st.composite
def axis_pools(draw: Any) -> Pool:
    size = draw(st.integers(1, 20))
    pad = st.integers(0, size - 1)
    return Pool(size, draw(st.integers(1, 4)), draw(pad), draw(pad))


@settings(max_examples=60, deadline=None)
@given(
    axes=st.tuples(axis_pools(), axis_pools()),
    sizes=st.tuples(*[st.integers(1, 24)] * 2),
    dilation=st.sampled_from([1, 1, 1, 2]),
    ceil=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_pool(
    axes: Any, sizes: Any, dilation: int, ceil: bool, seed: int, network: Any, node: Any, run: Any,
    attributes: Any,
) -> None:  # fmt: skip
    reach = [dilation * (axis.size - 1) + 1 for axis in axes]
    if any(n + a.begin + a.end < r for n, a, r in zip(sizes, axes, reach, strict=True)):
        return  # no window fits
    model = pool_of(
        network, node, [1, 1, *sizes], kernel_shape=[a.size for a in axes],
        strides=[a.stride for a in axes], dilations=[dilation] * 2, ceil_mode=int(ceil),
        pads=[a.begin for a in axes] + [a.end for a in axes],
    )  # fmt: skip
    cut, changes = cascade_max_pools(model)
    wide = max(axis.size for axis in axes) > 8
    assert bool(changes) <= wide
    if not changes:
        return
    assert dilation == 1
    for item in cut.graph.node:
        said = attributes(item)
        assert max(said['kernel_shape']) <= 8
        assert max(said['pads']) <= 7
    x = np.random.default_rng(seed).normal(size=(1, 1, *sizes)).astype(np.float32) - 3
    (found,) = run(cut, x=x)
    np.testing.assert_array_equal(found, run(model, x=x)[0])
    if not ceil:
        np.testing.assert_array_equal(found, maxima(x, list(axes)))


@settings(max_examples=200, deadline=None)
@given(pool=axis_pools(), length=st.integers(1, 40))
def test_every_wide_window_that_sees_something_is_cut(pool: Pool, length: int) -> None:
    if pool.size < 2 or length + pool.begin + pool.end < pool.size:
        return
    starts = range(0, length + pool.begin + pool.end - pool.size + 1, pool.stride)
    blind = any(not -pool.size < start - pool.begin < length for start in starts)
    parts = split(pool, length)
    assert blind or parts is not None
    if parts is not None:
        assert 1 + sum(part.size - 1 for part in parts) == pool.size


def test_what_padding_hides_is_noticed() -> None:
    """The padded second pool does not see what the first would have had beyond its padding."""
    wide = Pool(9, 1, 6, 0)
    assert same(wide, (Pool(5, 1, 4, 0), Pool(5, 1, 2, 0)), 10)
    assert not same(wide, (Pool(5, 1, 0, 0), Pool(5, 1, 4, 2)), 10)
    assert not same(wide, (Pool(5, 1, 4, 0), Pool(4, 1, 2, 0)), 10)

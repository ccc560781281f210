"""Focus slices and SpaceToDepth as strided convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from airside_perception.deploy.rewrites.focus import focus_to_conv

YOLOV5 = [(0, 0), (1, 0), (0, 1), (1, 1)]
END = 2**31 - 1
CHANNELS = 3


def focus(
    offsets: list[tuple[int, int]] = YOLOV5,
    step: int = 2,
    nested: bool = True,
    starts: Any = None,
    ends: int = END,
) -> tuple[list[Any], dict[str, Any]]:
    """Nodes that take x apart into f, and their constants; one Slice an axis, or one for both."""
    nodes, constants, parts = [], {}, []
    for index, offset in enumerate(offsets):
        source = 'x'
        groups = [[2], [3]] if nested else [[2, 3]]
        for axes in groups:
            name = f's{index}_{"".join(map(str, axes))}'
            values = {
                'starts': [offset[axis - 2] for axis in axes],
                'ends': [ends] * len(axes),
                'axes': [axis - 4 for axis in axes],
                'steps': [step] * len(axes),
            }
            constants |= {f'{name}_{key}': np.array(v, np.int64) for key, v in values.items()}
            nodes.append(
                helper.make_node('Slice', [source, *(f'{name}_{key}' for key in values)], [name])
            )
            source = name
        parts.append(source)
    nodes.append(helper.make_node('Concat', parts, ['f'], axis=1, name='focus'))
    return nodes, constants


def conv(rng: Any, inputs: int, kernel: int = 3, outputs: int = 5, **said: Any) -> Any:
    weight = rng.normal(size=(outputs, inputs // said.get('group', 1), kernel, kernel))
    constants = {'w': np.float32(weight), 'b': np.float32(rng.normal(size=outputs))}
    return helper.make_node('Conv', ['f', 'w', 'b'], ['y'], name='stem', **said), constants


def build(network: Any, nodes: Any, constants: Any, size: Any = (12, 20), out: Any = 'y') -> Any:
    shape = [1, CHANNELS, *size]
    outputs = {name: [None] * 4 for name in out.split()}
    return network(nodes, {'x': shape}, outputs, constants, opset=11)


@pytest.mark.parametrize('nested', [True, False])
def test_focus_and_its_convolution_become_one(
    nested: bool, network: Any, equal: Any, kinds: Any, attributes: Any
) -> None:
    nodes, constants = focus(nested=nested)
    stem, weights = conv(np.random.default_rng(0), 12, pads=[1] * 4)
    model = build(network, [*nodes, stem], constants | weights)
    merged, changes = focus_to_conv(model)
    assert kinds(merged) == ['Conv']
    assert attributes(merged.graph.node[0]) == {
        'kernel_shape': [6, 6], 'strides': [2, 2], 'pads': [2, 2, 2, 2],
    }  # fmt: skip
    assert merged.graph.node[0].name == 'stem'
    assert changes == ('stem: 4 slices + 3x3 convolution -> 6x6 convolution, stride 2',)
    equal(model, merged, 1e-6)


def test_a_convolution_of_its_own_where_others_read_the_focus(
    network: Any, equal: Any, kinds: Any, run: Any
) -> None:
    nodes, constants = focus()
    stem, weights = conv(np.random.default_rng(0), 12)
    relu = helper.make_node('Relu', ['f'], ['z'])
    model = build(network, [*nodes, stem, relu], constants | weights, out='y z')
    split, changes = focus_to_conv(model)
    assert kinds(split) == ['Conv', 'Conv', 'Relu']
    assert changes == ('focus: 4 blocks of channels -> 2x2 convolution, stride 2',)
    equal(model, split, 1e-6)


@pytest.mark.parametrize(
    ('said', 'kernel', 'step'),
    [
        ({'group': 2}, 3, 2),
        ({'dilations': [2, 2]}, 3, 2),
        ({}, 6, 6),  # 36 > 32
        ({'strides': [5, 5]}, 3, 2),  # 10 > 8
    ],
)
def test_a_convolution_that_cannot_be_merged_stays(
    said: Any, kernel: int, step: int, network: Any, equal: Any, kinds: Any
) -> None:
    offsets = [(0, 0), (1, 0), (0, 1), (1, 1)]
    nodes, constants = focus(offsets, step)
    stem, weights = conv(np.random.default_rng(0), 12, kernel, outputs=4, **said)
    model = build(network, [*nodes, stem], constants | weights, size=(36, 48))
    split, _ = focus_to_conv(model)
    assert kinds(split) == ['Conv', 'Conv']
    equal(model, split, 1e-6)


@pytest.mark.parametrize('merge', [True, False])
def test_space_to_depth(merge: bool, network: Any, equal: Any, kinds: Any) -> None:
    deep = helper.make_node('SpaceToDepth', ['x'], ['f'], blocksize=3)
    stem, weights = conv(np.random.default_rng(0), 27, pads=[1, 0, 0, 1])
    nodes, constants = ([deep, stem], weights) if merge else ([deep], {})
    model = build(network, nodes, constants, (12, 18), 'y' if merge else 'f')
    split, _ = focus_to_conv(model)
    assert kinds(split) == ['Conv']
    equal(model, split, 1e-6)


def unshuffle(perm: list[int], out: int, size: int = 2) -> tuple[list[Any], dict[str, Any]]:
    """PixelUnshuffle of [1, 3, 12, 20], as torch.onnx writes it."""
    nodes = [
        helper.make_node('Reshape', ['x', 'six'], ['s']),
        helper.make_node('Transpose', ['s'], ['t'], perm=perm),
        helper.make_node('Reshape', ['t', 'four'], ['f'], name='focus'),
    ]
    six = np.array([1, CHANNELS, 12 // size, size, 20 // size, size])
    return nodes, {'six': six, 'four': np.array([1, out, 12 // size, 20 // size])}


@pytest.mark.parametrize('perm', [[0, 1, 3, 5, 2, 4], [0, 3, 5, 1, 2, 4]])
@pytest.mark.parametrize('size', [2, 4])
def test_pixel_unshuffle(perm: list[int], size: int, network: Any, equal: Any, kinds: Any) -> None:
    nodes, constants = unshuffle(perm, CHANNELS * size * size, size)
    model = build(network, nodes, constants, out='f')
    split, _ = focus_to_conv(model)
    assert kinds(split) == ['Conv']
    equal(model, split, 0)
    stem, weights = conv(np.random.default_rng(0), CHANNELS * size * size, pads=[1] * 4)
    model = build(network, [*nodes, stem], constants | weights)
    merged, _ = focus_to_conv(model)
    assert kinds(merged) == ['Conv']
    equal(model, merged, 1e-6)


def test_other_shuffles_stay(network: Any) -> None:
    for perm in ([0, 1, 5, 3, 2, 4], [0, 1, 3, 5, 4, 2]):
        nodes, constants = unshuffle(perm, 12)
        if perm[4] == 4:
            constants['four'] = np.array([1, 12, 10, 6])
        assert focus_to_conv(build(network, nodes, constants, out='f'))[1] == ()
    nodes, constants = unshuffle([0, 1, 3, 5, 2, 4], 12)
    model = build(network, nodes, constants, out='f')
    model.graph.output.append(helper.make_tensor_value_info('t', 1, [1, 3, 2, 2, 6, 10]))
    assert focus_to_conv(model)[1] == ()


def test_the_focus_itself_may_be_an_output(network: Any, equal: Any, kinds: Any) -> None:
    nodes, constants = focus()
    model = build(network, nodes, constants, out='f')
    split, _ = focus_to_conv(model)
    assert kinds(split) == ['Conv']
    equal(model, split, 0)


def test_two_focuses_of_one_image(network: Any, equal: Any, kinds: Any) -> None:
    nodes, constants = focus()
    more = []
    for item in nodes:
        copy = type(item)()
        copy.CopyFrom(item)
        copy.name = ''
        for names in (copy.input, copy.output):
            names[:] = [
                name if name == 'x' or name in constants else f'{name}_b' for name in names
            ]
        more.append(copy)
    model = build(network, [*nodes, *more], constants, out='f f_b')
    split, changes = focus_to_conv(model)
    assert kinds(split) == ['Conv', 'Conv']
    assert len(changes) == 2
    equal(model, split, 0)


def odd(case: str) -> tuple[list[Any], dict[str, Any], str]:
    """Nodes that are almost a Focus."""
    nodes, constants = focus()
    out = 'f'
    if case == 'slice is an output':
        out = 'f s1_3'
    elif case == 'slice has another reader':
        nodes.append(helper.make_node('Relu', ['s2_2'], ['r']))
        out = 'f r'
    elif case == 'along rows':
        nodes[-1].attribute[0].i = 2
    elif case == 'another source':
        nodes.insert(0, helper.make_node('Relu', ['x'], ['x2']))
        nodes[1].input[0] = 'x2'
    elif case == 'last rows left out':
        nodes, constants = focus(ends=10)
    elif case == 'offset beyond the step':
        nodes, constants = focus([(0, 0), (2, 0)], ends=END)
    elif case == 'channels too':
        nodes.insert(0, helper.make_node('Slice', ['x', 'c0', 'c2', 'c1'], ['x2']))
        nodes[1].input[0] = 'x2'
        constants |= {f'c{n}': np.array([n]) for n in (0, 1, 2)}
    elif case == 'backwards':
        for name, value in (('s0_2_starts', -1), ('s0_2_ends', -END), ('s0_2_steps', -2)):
            constants[name] = np.array([value])
    elif case == 'every row':
        nodes, constants = focus([(0, 0), (0, 0)], step=1)
    elif case == 'step 9':
        nodes, constants = focus([(0, 0), (1, 8)], step=9)
    return nodes, constants, out


@pytest.mark.parametrize(
    'case',
    [
        'slice is an output', 'slice has another reader', 'along rows', 'another source',
        'last rows left out', 'channels too', 'backwards', 'every row', 'step 9',
    ],
)  # fmt: skip
def test_what_is_no_focus_stays(case: str, network: Any, kinds: Any) -> None:
    nodes, constants, out = odd(case)
    model = build(network, nodes, constants, (18, 18), out)
    same, changes = focus_to_conv(model)
    assert not changes
    assert 'Conv' not in kinds(same)
    assert kinds(same) == kinds(model)


def test_integers_stay(network: Any) -> None:
    nodes, constants = focus()
    model = network(nodes, {'x': (6, [1, 3, 8, 8])}, {'f': (6, [1, 12, 4, 4])}, constants)
    assert focus_to_conv(model)[1] == ()


def test_dynamic_sizes_and_computed_limits_stay(network: Any) -> None:
    nodes, constants = focus()
    model = network(nodes, {'x': [1, 3, None, 8]}, {'f': [None] * 4}, constants)
    assert focus_to_conv(model)[1] == ()
    limit = constants.pop('s0_2_starts')
    inputs = {'x': [1, 3, 8, 8], 's0_2_starts': (7, list(limit.shape))}
    model = network(nodes, inputs, {'f': [None] * 4}, constants)
    assert focus_to_conv(model)[1] == ()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_focus(data: Any, network: Any, run: Any) -> None:
    """Any blocks in any order, some twice, before any convolution: also against the definition."""
    draw = data.draw
    step = draw(st.integers(2, 4))
    offset = st.tuples(st.integers(0, step - 1), st.integers(0, step - 1))
    offsets = draw(st.lists(offset, min_size=2, max_size=6))
    kernel = draw(st.integers(1, 4))
    size = [step * draw(st.integers(kernel, 7)) for _ in range(2)]
    said = {
        'strides': [draw(st.integers(1, 2)) for _ in range(2)],
        'pads': [draw(st.integers(0, kernel - 1)) for _ in range(4)],
    }
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    nodes, constants = focus(offsets, step, draw(st.booleans()))
    stem, weights = conv(rng, CHANNELS * len(offsets), kernel, **said)
    model = build(network, [*nodes, stem], constants | weights, size)
    merged, changes = focus_to_conv(model)
    assert len(changes) == 1
    assert [item.op_type for item in merged.graph.node] == ['Conv'], kernel * step
    x = rng.normal(size=(1, CHANNELS, *size)).astype(np.float32)
    blocks = np.concatenate([x[:, :, r::step, c::step] for r, c in offsets], axis=1)
    alone = network([stem], {'f': list(blocks.shape)}, {'y': [None] * 4}, weights)
    (wanted,), (found,) = run(alone, f=blocks), run(merged, x=x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())

"""`engine export`: PyTorch networks as ONNX, by both exporters of torch, and what is refused."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from airside_perception.deploy import __main__ as command
from airside_perception.deploy.export.lower import with_opset
from airside_perception.deploy.outputs import difference, random_feeds
from airside_perception.deploy.shapes import read_axes, read_inputs, read_shapes
from airside_perception.errors import ConfigError, EngineError

NETS = '''
import sys
import torch
from torch import nn


class Head(nn.Module):
    """Convolution, batch norm and SiLU; two outputs, one of them by shape arithmetic."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.SiLU()
        self.out = nn.Conv2d(8, 4, 1)
        self.norm.running_mean += 0.3
        self.norm.running_var *= 2

    def forward(self, images):
        x = self.act(self.norm(self.conv(images)))
        return {'boxes': self.out(x), 'mean': x.view(x.size(0), -1).mean(1)}


def head():
    print('building')  # must not get into --json
    return Head()  # in training mode: batch norm would differ


def head_with_examples():
    return Head(), torch.ones(1, 3, 8, 8)


def head_from(path):
    made = Head()
    made.load_state_dict(torch.load(path)['net'])
    return made


class Branch(nn.Module):
    """What torch.export cannot follow, and tracing can."""

    def forward(self, x):
        return x * 3 + 1 if x.sum() < 1e9 else x


class Counted(nn.Module):
    """Tracing stores the number of rows."""

    def forward(self, x):
        return x / float(torch.tensor(x.shape[0] * 1.0).item())


class Plain(nn.Module):
    def forward(self, a, unused, b):
        return a + b.to(a.dtype)


class Scaled(nn.Module):
    def forward(self, x):
        return torch.ops.tiny_export.scale(torch.relu(x), 3.0)


class Untold(nn.Module):
    def forward(self, x):
        return torch.ops.tiny_export.untold(x)


@torch.library.custom_op('tiny_export::untold', mutates_args=())
def untold(x: torch.Tensor) -> torch.Tensor:
    return x + 1


@torch.library.custom_op('tiny_export::scale', mutates_args=())
def scale(x: torch.Tensor, by: float) -> torch.Tensor:
    return x * by


@scale.register_fake
def _(x, by):
    return torch.empty_like(x)


def for_torchscript(opset):
    from torch.onnx import register_custom_op_symbolic, symbolic_helper

    @symbolic_helper.parse_args('v', 'f')
    def symbolic(g, x, by):
        return g.op('Mul', x, g.op('Constant', value_t=torch.tensor(by)))

    register_custom_op_symbolic('tiny_export::scale', symbolic, opset)


def as_plugin(opset):
    from torch.onnx import register_custom_op_symbolic, symbolic_helper

    @symbolic_helper.parse_args('v', 'f')
    def symbolic(g, x, by):
        return g.op('plugins::Scale', x, by_f=by).setType(x.type())

    register_custom_op_symbolic('tiny_export::scale', symbolic, opset)


def for_dynamo():
    from onnxscript import opset18 as op

    def translated(x, by: float):
        return op.Mul(x, op.Constant(value_float=by))

    return {torch.ops.tiny_export.scale.default: translated}


def wrong_symbolic(opset):
    from torch.onnx import register_custom_op_symbolic

    def symbolic(g, x, by):
        return g.op('Mul', x, g.op('Constant', value_t=torch.tensor(3.01)))

    register_custom_op_symbolic('tiny_export::scale', symbolic, opset)


def raising():
    raise ValueError('no such\\nbackbone')


def leaving():
    sys.exit('goodbye')


def nothing():
    return 3


def needy(width, depth):
    return Head()


number = 3
'''
HEAD = ('--factory', 'export_nets:head', '--input', 'images:1x3x16x24')


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module above, importable from the current folder as for a user."""
    pytest.importorskip('torch')
    folder = tmp_path / 'code'
    folder.mkdir()
    Path(folder, 'export_nets.py').write_text(NETS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'path', [str(folder), *sys.path])
    return importlib.import_module('export_nets')  # once: operators of torch cannot come twice


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / 'net.onnx'


def engine(target: Path, *words: Any) -> int:
    return command.main(['export', '--out', str(target), *map(str, words)])


def table(target: Path, capfd: pytest.CaptureFixture[str], *words: Any, status: int = 0) -> Any:
    assert engine(target, *words, '--json') == status
    return json.loads(capfd.readouterr().out)


def refused(target: Path, capfd: pytest.CaptureFixture[str], *words: Any, status: int = 2) -> str:
    """The line that it ends with, and that it is one."""
    assert engine(target, *words) == status
    out, err = capfd.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    assert not target.exists()
    return err


def shape(value: Any) -> list[Any]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def check_head(target: Path, nets: Any, batches: tuple[int, ...]) -> None:
    """Against torch, by an evaluator that had no part in the export."""
    import torch

    model = onnx.load(str(target))
    onnx.checker.check_model(model, full_check=True)
    module = nets.Head().eval()
    for batch in batches:
        images = np.random.default_rng(batch).normal(size=(batch, 3, 16, 24)).astype(np.float32)
        with torch.no_grad():
            expected = [one.numpy() for one in module(torch.from_numpy(images)).values()]
        found = ReferenceEvaluator(model).run(None, {'images': images})
        for one, other in zip(expected, found, strict=True):
            assert difference(one, other).within(1e-5)


@pytest.mark.parametrize('exporter', ['dynamo', 'torchscript'])
def test_a_batch_that_varies(
    exporter: str, nets: Any, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if exporter == 'dynamo':
        pytest.importorskip('onnxscript')
    words = (*HEAD, '--dynamic', 'images:0=batch', '--output-names', 'boxes,mean')
    found = table(target, capfd, *words, '--exporter', exporter)
    assert found['exporter'] == exporter
    assert found['files'] == [str(target)]
    model = onnx.load(str(target))
    assert {item.domain: item.version for item in model.opset_import} == {'': 17}
    assert list(map(shape, model.graph.input)) == [['batch', 3, 16, 24]]
    assert [value.name for value in model.graph.output] == ['boxes', 'mean']
    assert list(map(shape, model.graph.output)) == [['batch', 4, 16, 24], ['batch']]
    assert found['compared']['tried'][-2:] == ['seed 3, batch=2', 'seed 4, batch=3']
    assert set(found['compared']['outputs']) == {'boxes', 'mean'}
    assert 'Constant' not in {node.op_type for node in model.graph.node}
    check_head(target, nets, (1, 2, 5))


def test_dynamo_comes_first(nets: Any, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('onnxscript')
    axes = 'images:0=batch,images:2=height,images:3=width'
    found = table(target, capfd, *HEAD, '--dynamic', axes, '--opset', '18')
    assert (found['exporter'], found['reasons']) == ('dynamo', {})
    assert found['inputs'] == ['images [batch, 3, height, width]']
    assert 'batch=3, height=32, width=48' in found['compared']['tried'][-1]


def test_tracing_where_dynamo_cannot(
    nets: Any, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ('--factory', 'export_nets:Branch', '--input', 'x:2x3')
    found = table(target, capfd, *words)
    assert found['exporter'] == 'torchscript'
    assert list(found['reasons']) == ['dynamo']
    assert any('Converting a tensor to a Python' in note for note in found['notes'])
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
    model = onnx.load(str(target))
    expected = x * 3 + 1
    name = model.graph.input[0].name
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {name: x})[0], expected)
    target.unlink()
    line = refused(target, capfd, *words, '--exporter', 'dynamo')
    assert 'it cannot be exported: dynamo: ' in line


def test_without_onnxscript_tracing_is_left(
    nets: Any, target: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    found = table(target, capfd, *HEAD)
    assert found['exporter'] == 'torchscript'
    assert 'pip install onnxscript' in found['reasons']['dynamo']
    check_head(target, nets, (1,))


def test_what_tracing_fixed_is_found(
    nets: Any, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The number of rows is a constant in the file: right at the traced size only."""
    words = ('--factory', 'export_nets:Counted', '--input', 'x:2x3', '--dynamic', 'x:0=rows',
             '--exporter', 'torchscript')  # fmt: skip
    target.write_text('what was there')
    found = table(target, capfd, *words, status=1)
    assert found['good'] is False
    assert found['files'] == []
    assert target.read_text() == 'what was there'
    assert next(iter(found['compared']['outputs'].values()))['max_rel'] > 0.1
    assert engine(target, *words) == 1
    assert '--keep writes it all the same' in capfd.readouterr().out
    assert engine(target, *words, '--size', 'rows=2') == 0
    assert engine(target, *words, '--keep') == 1
    assert str(target) in capfd.readouterr().out
    assert onnx.load(str(target)).graph.node


@pytest.mark.parametrize(
    ('hook', 'exporter'), [('for_torchscript', 'torchscript'), ('for_dynamo', 'dynamo')]
)
def test_a_custom_operator_with_a_symbolic(
    hook: str, exporter: str, nets: Any, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if exporter == 'dynamo':
        pytest.importorskip('onnxscript')
    words = ('--factory', 'export_nets:Scaled', '--input', 'x:2x3')
    found = table(target, capfd, *words, '--symbolic', f'export_nets:{hook}')
    assert found['exporter'] == exporter
    x = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], np.float32)
    model = onnx.load(str(target))
    result = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})[0]
    np.testing.assert_allclose(result, np.maximum(x, 0) * 3)


def test_a_custom_operator_that_stays(
    nets: Any, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A plugin of TensorRT: nothing here can run it."""
    words = ('--factory', 'export_nets:Scaled', '--input', 'x:2x3', '--exporter', 'torchscript')
    found = table(target, capfd, *words, '--symbolic', 'export_nets:as_plugin')
    assert found['compared'] is None
    assert 'not compared with torch: operator plugins::Scale' in found['notes'][0]
    assert [node.op_type for node in onnx.load(str(target)).graph.node] == ['Relu', 'Scale']


def test_a_symbolic_that_is_wrong(
    nets: Any, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ('--factory', 'export_nets:Scaled', '--input', 'x:2x3', '--exporter', 'torchscript',
             '--symbolic', 'export_nets:wrong_symbolic')  # fmt: skip
    found = table(target, capfd, *words, status=1)
    assert next(iter(found['compared']['outputs'].values()))['max_rel'] == pytest.approx(
        0.01 / 3, rel=1e-3
    )
    assert not target.exists()
    assert engine(target, *words, '--tolerance', '0.01') == 0


def test_checkpoints(
    nets: Any, target: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    trained = nets.Head()
    with torch.no_grad():
        trained.out.weight.mul_(2)
    saved = tmp_path / 'best.pt'
    words = ('--input', 'images:1x3x16x24', '--exporter', 'torchscript', '--checkpoint', saved)
    weights = trained.state_dict()
    for factory, state in (
        ('head_from', {'net': weights}),
        ('head', weights),
        ('head', {'state_dict': {f'module.{k}': v for k, v in weights.items()}, 'epoch': 3}),
    ):
        torch.save(state, saved)
        assert engine(target, '--factory', f'export_nets:{factory}', *words) == 0
        stored = [onnx.numpy_helper.to_array(w) for w in onnx.load(str(target)).graph.initializer]
        expected = trained.out.weight.detach().numpy()
        assert any(w.shape == expected.shape and np.array_equal(w, expected) for w in stored)
    target.unlink()
    capfd.readouterr()
    torch.save({'other': torch.ones(2)}, saved)
    factory = ('--factory', 'export_nets:Head')
    assert f'{saved}: does not fit Head' in refused(target, capfd, *factory, *words)
    torch.save([1, 2], saved)
    assert 'holds a list, not weights by name' in refused(target, capfd, *factory, *words)
    saved.write_bytes(b'no checkpoint')
    assert 'not a checkpoint of weights alone' in refused(target, capfd, *factory, *words)
    saved.unlink()
    assert f'{saved}: no such checkpoint' in refused(target, capfd, *factory, *words)


def test_given_inputs(
    nets: Any, target: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arrays = tmp_path / 'inputs.npz'
    np.savez(arrays, b=np.array([[1, 2]]), a=np.ones((1, 2), np.float32), unused=np.ones(3))
    words = ('--factory', 'export_nets:Plain', '--exporter', 'torchscript', '--inputs', arrays)
    found = table(target, capfd, *words)
    assert found['compared']['tried'][0] == 'given inputs'
    model = onnx.load(str(target))
    assert [value.name for value in model.graph.input] == ['a', 'b']  # as its arguments are
    assert "input 'unused' is not used" in found['notes'][0]
    result = ReferenceEvaluator(model).run(
        None, {'a': np.array([[0.5, 1.0]], np.float32), 'b': np.array([[3, 4]])}
    )
    np.testing.assert_array_equal(result[0], [[3.5, 5.0]])
    found = table(target, capfd, '--factory', 'export_nets:head_with_examples',
                  '--exporter', 'torchscript')  # fmt: skip
    assert found['inputs'] == ['images [1, 3, 8, 8]']
    assert found['compared']['tried'][0] == 'given inputs'
    target.unlink()
    named = ('--input', 'a:1x2', '--input', 'b:1x2:int64')
    assert '--inputs has b, a, unused, but the inputs are a, b' in refused(
        target, capfd, *words, *named
    )
    assert "'b' is int64 [1, 2], but --input says float32 [1, 2]" in refused(
        target, capfd, *words, '--input', 'a:1x2', '--input', 'unused:3:float64', '--input',
        'b:1x2',
    )  # fmt: skip
    arrays.write_bytes(b'nothing')
    assert 'not a .npz file of arrays' in refused(target, capfd, *words)
    arrays.unlink()
    assert 'no such file of inputs' in refused(target, capfd, *words)


def test_what_cannot_be_exported(
    nets: Any, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = ('--input', 'images:1x3x16x24')

    def line(factory: str, *words: str) -> str:
        return refused(target, capfd, '--factory', factory, *words)

    assert 'raises ValueError: no such backbone' in line('export_nets:raising', *image)
    assert 'raises SystemExit: goodbye' in line('export_nets:leaving', *image)
    assert 'returns int, not an nn.Module' in line('export_nets:nothing', *image)
    assert 'it needs 2 arguments' in line('export_nets:needy', *image)
    assert 'number is no function' in line('export_nets:number', *image)
    assert "export_nets has no 'missing'" in line('export_nets:missing', *image)
    assert 'no_such_nets cannot be imported: ModuleNotFound' in line('no_such_nets:make', *image)
    Path('broken_nets.py').write_text('def make(:')
    assert 'broken_nets cannot be imported: SyntaxError' in line('broken_nets:make', *image)
    assert 'expected MODULE:FUNCTION' in line('export_nets', *image)
    head = 'export_nets:Head'
    assert 'no inputs to trace with: say --input' in line(head)
    assert 'the module fails on images [1, 4, 16, 24]: RuntimeError' in line(
        head, '--input', 'images:1x4x16x24'
    )
    assert 'the module fails on images [1, 3, 16, 24], more [1]: TypeError' in line(
        head, *image, '--input', 'more:1'
    )
    assert "--dynamic 'x': inputs are images" in line(head, *image, '--dynamic', 'x:0=n')
    assert 'it has 4 dimensions' in line(head, *image, '--dynamic', 'images:4=n')
    assert "size of 'n': no such dimension" in line(
        head, *image, '--size', 'n=2', '--exporter', 'torchscript'
    )
    assert 'the network has 2 outputs' in line(
        head, *image, '--output-names', 'boxes', '--exporter', 'torchscript'
    )
    assert 'opset 3: expected 7 or later' in line(head, *image, '--opset', '3')
    assert 'it cannot be exported: ' in line(head, *image, '--opset', '99')
    assert 'no_such:hook' in line(head, *image, '--symbolic', 'no_such:hook')
    assert 'raises ValueError' in line(head, *image, '--symbolic', 'export_nets:raising')
    assert 'returns int, not {operator' in line(head, *image, '--symbolic', 'export_nets:nothing')
    assert 'tiny_export' in line('export_nets:Untold', '--input', 'x:2x3')


def test_without_torch(
    target: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'torch', None)
    line = refused(target, capfd, *HEAD, status=1)
    assert 'export needs PyTorch, which is not installed here: `pip install torch' in line


def test_words_of_the_command_line() -> None:
    specs = read_inputs(['images:1x3x8x8', 'ids:1x20:int64', 'ns:t:2', 'scalar:'])
    assert [(one.name, one.shape, one.dtype.name) for one in specs] == [
        ('images', (1, 3, 8, 8), 'float32'), ('ids', (1, 20), 'int64'), ('ns:t', (2,), 'float32'),
        ('scalar', (), 'float32'),
    ]  # fmt: skip
    for word in ('images', ':1x2', 'a:1x', 'a:0x2', 'a:?x2', 'a:-1', 'a:1x2:floaty'):
        with pytest.raises(ConfigError, match='--input'):
            read_inputs([word])
    with pytest.raises(ConfigError, match='given twice'):
        read_inputs(['a:1', 'a:2'])
    assert read_shapes(['a:?x3', 'b:2']) == {'a': (-1, 3), 'b': (2,)}
    assert read_axes(['a:0=n,a:2=h', 'b:0=n']) == {'a': {0: 'n', 2: 'h'}, 'b': {0: 'n'}}
    for word in ('a', 'a:0', 'a:x=n', 'a:0=', ':0=n', 'a:0=2n', 'a:-1=n', 'a:0=n,'):
        with pytest.raises(ConfigError, match='expected INPUT:AXIS=NAME'):
            read_axes([word])
    with pytest.raises(ConfigError, match="axis 0 of 'a' is given twice"):
        read_axes(['a:0=n', 'a:0=m'])


def reduction(opset: int) -> Any:
    """A mean over an axis: an input from opset 18 on, an attribute before."""
    graph = helper.make_graph(
        [helper.make_node('ReduceMean', ['x', 'axes'], ['y'], keepdims=0, noop_with_empty_axes=0)],
        'tiny',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [2])],
        [helper.make_tensor('axes', TensorProto.INT64, [1], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)


def test_an_older_opset() -> None:
    model = reduction(18)
    older = with_opset(model, 17)
    onnx.checker.check_model(older, full_check=True)
    assert older.opset_import[0].version == 17
    reduce = older.graph.node[-1]
    assert {item.name for item in reduce.attribute} == {'axes', 'keepdims'}
    assert list(reduce.input) == ['x']
    feeds = random_feeds(model)
    expected = feeds['x'].mean(1)
    np.testing.assert_allclose(ReferenceEvaluator(older).run(None, feeds)[0], expected, rtol=1e-6)
    assert with_opset(model, 18) is model
    mish = helper.make_model(
        helper.make_graph(
            [helper.make_node('Mish', ['x'], ['y'])],
            'tiny',
            [helper.make_tensor_value_info('x', TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info('y', TensorProto.FLOAT, [2])],
        ),
        opset_imports=[helper.make_opsetid('', 18)],
        ir_version=8,
    )
    with pytest.raises(EngineError, match='opset 18 cannot become 17'):
        with_opset(mish, 17)

"""Settings of a build beyond precision: what each version is told, reads back and writes down."""

from __future__ import annotations

import importlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from airside_perception.deploy.__main__ import main
from airside_perception.engine import open_engine
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.manifest import Machine, Manifest, manifest_path
from airside_perception.engine.quantize import quantize
from airside_perception.engine.rebuild import rebuild_command
from airside_perception.engine.sizes import read_size, size_text
from airside_perception.engine.sparsity import is_sparse, sparse_weights
from airside_perception.errors import ConfigError, EngineError

# before a test puts a fake importer in the place of the true one
importlib.import_module('airside_perception.deploy.verbs.build')
importlib.import_module('airside_perception.deploy.verbs.inspect')

BUILDERS = ['full_8_5', 'full_8_6', 'full_10_0', 'full_10_3', 'full_10_7', 'full_10_16',
            'full_11_0', 'full_11_4', 'rtx_1_7']  # fmt: skip
LAYERS = [
    {'Name': '{ForeignNode[/conv.../relu]}', 'LayerType': 'DLA'},
    {'Name': '/up', 'LayerType': 'CaskDeconvolutionV2',
     'Outputs': [{'Name': 'y', 'Format/Datatype': 'Row major linear FP32'}],
     'Weights': {'Type': 'Half', 'Count': 32}},
]  # fmt: skip
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def conv(network: Any, tmp_path: Path) -> Path:
    """conv - relu - deconvolution by 2; input x [1, 4, 8, 8], output y."""
    rng = np.random.default_rng(1)
    weights = {
        'w': rng.normal(0, 0.2, (4, 4, 3, 3)).astype(np.float32),
        'v': rng.normal(0, 0.2, (4, 2, 2, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['c'], '/conv', pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c'], ['r'], '/relu'),
        helper.make_node('ConvTranspose', ['r', 'v'], ['y'], '/up', strides=[2, 2]),
    ]
    model = network(nodes, {'x': [1, 4, 8, 8]}, {'y': [1, 2, 16, 16]}, weights)
    onnx.save(model, str(tmp_path / 'net.onnx'))
    return tmp_path / 'net.onnx'


@pytest.fixture
def fake(install: Any, builders: Any, monkeypatch: Any, tmp_path: Path) -> Any:
    """Function: makes a fake TensorRT with a builder the one that is installed."""
    monkeypatch.setenv('AIRSIDE_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    return lambda name: builders.equip(install(name))


def built(network: Path, **settings: Any) -> Manifest:
    return build_engine(network, network.with_suffix('.engine'), BuildSettings(**settings))


# --- sizes ---


def test_sizes_have_one_meaning() -> None:
    for text, count in [
        ('0', 0), ('4096', 4096), ('512K', 1 << 19), ('1M', 1 << 20), ('4g', 4 << 30),
        ('4096MiB', 4 << 30), ('3KiB', 3072),
    ]:  # fmt: skip
        assert read_size(text, 'x') == count
        assert read_size(size_text(count), 'x') == count
    assert [size_text(n) for n in (1 << 20, 3 << 20, 1536, 1000)] == ['1M', '3M', '1536', '1000']
    for wrong in ('4096MB', '4 K', '', '1.5G', '-1', 'K', '1T'):
        with pytest.raises(ConfigError, match=r'--x .*: expected bytes, or a number with K, M or'):
            read_size(wrong, '--x')


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({'dla_sram': 1 << 20}, 'dla_sram is for device dla0 or dla1'),
        ({'device': 'dla0', 'dla_sram': 5 << 20}, 'dla_sram = 5M: .* near are 4M or 8M'),
        ({'device': 'dla0', 'dla_local_dram': 2048}, 'dla_local_dram = 2K: .* at least 4K'),
        ({'device': 'dla1', 'dla_global_dram': -4096}, 'dla_global_dram'),
    ],
)  # fmt: skip
def test_pools_that_no_core_takes(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BuildSettings(**settings)


# --- what TensorRT is told ---


@pytest.mark.parametrize('name', BUILDERS)
def test_dla_pools(fake: Any, conv: Path, name: str) -> None:
    trt = fake(name)
    trt.dla_cores, trt.layers = 2, LAYERS
    pools = {'dla_sram': 1 << 19, 'dla_local_dram': 1 << 28, 'dla_global_dram': 4096}
    manifest = built(conv, device='dla1', **pools)
    assert trt.told['dla_managed_sram'] == 1 << 19
    assert trt.told['dla_local_dram'] == 1 << 28
    assert trt.told['dla_global_dram'] == 4096
    again = ' '.join(manifest.options)
    assert '--dla-sram 512K --dla-local-dram 256M --dla-global-dram 4K' in again
    assert BuildSettings.of_record(json.loads(json.dumps(manifest.settings))).dla_sram == 1 << 19
    engine = conv.with_suffix('.engine')
    assert '--dla-sram 512K' in rebuild_command(engine, manifest, Machine(dla_core=0))
    assert 'dla-sram' not in rebuild_command(engine, manifest, Machine(dla_core=-1))
    trt.deaf['dla_local_dram'] = 'DLA pool is no good'
    with pytest.raises(
        EngineError, match=r'did not take dla_local_dram 1M: it has 64G \(DLA pool'
    ):
        built(conv, device='dla0', dla_local_dram=1 << 20)


def test_dla_strict_is_not_for_the_gpu(fake: Any, conv: Path) -> None:
    trt = fake('full_10_3')
    trt.dla_cores, trt.layers = 2, LAYERS[:1]
    manifest = built(conv, device='dla0', dla_strict=True)
    engine = conv.with_suffix('.engine')
    assert '--dla-strict' in rebuild_command(engine, manifest, Machine(dla_core=1))
    assert '--dla-strict' not in rebuild_command(engine, manifest, Machine(dla_core=-1))


@pytest.mark.parametrize('name', BUILDERS)
def test_weights_and_their_kernels(fake: Any, conv: Path, name: str) -> None:
    trt = fake(name)
    manifest = built(conv, refit=True, sparsity=True)
    assert trt.told.flags() >= {'REFIT', 'SPARSE_WEIGHTS'}
    assert manifest.refittable
    assert not manifest.stripped
    assert set(manifest.weights) == {'w', 'v'}
    assert len(manifest.structure_sha256) == 64
    assert manifest.options[-3:] == ('--sparsity', 'enable', '--refit')
    assert manifest.notes[-1].startswith('sparsity has no effect: none of 2 weights')
    trt = fake(name)
    plain = built(conv)
    assert not trt.told.flags() & {'REFIT', 'REFIT_IDENTICAL', 'SPARSE_WEIGHTS', 'STRIP_PLAN'}
    assert (plain.refittable, plain.weights, plain.structure_sha256) == (False, {}, '')
    assert plain.memory_bytes == 1000
    for flag in ('REFIT', 'SPARSE_WEIGHTS'):
        trt.deaf[flag] = 'ignored'
        with pytest.raises(EngineError, match=f'did not take flag {flag}'):
            built(conv, refit=flag == 'REFIT', sparsity=True)
        del trt.deaf[flag]


@pytest.mark.parametrize('name', BUILDERS)
def test_stripping_is_for_10_and_later(fake: Any, conv: Path, name: str, capsys: Capture) -> None:
    fake(name)
    status = main(['build', str(conv), '--strip', '--refit', '--out', str(conv.parent)])
    out, err = capsys.readouterr()
    if name in ('full_8_5', 'full_8_6'):
        assert status == 1
        assert err.startswith('engine: strip: TensorRT 8.')
        assert err.endswith('does not have it\n')
        assert not list(conv.parent.glob('*.engine*'))
        return
    assert status == 0
    assert 'weights     2 can be changed: engine refit' in out
    engine = conv.parent / 'net.fp16.gpu.engine'
    assert f'refit {engine} {engine.parent}/net.onnx' in out
    with pytest.raises(EngineError, match='its weights were left out'):
        open_engine(engine)
    status = main(['inspect', str(engine)])
    out, err = capsys.readouterr()
    assert status == 0  # it is as it should be
    assert 'weights     left out: engine refit puts them in' in out
    assert 'not opened  its weights were left out' in out


def test_an_engine_that_did_not_become_refittable(fake: Any, conv: Path, fakes: Any) -> None:
    trt = fake('full_8_6')
    trt.ICudaEngine.refittable = False
    with pytest.raises(EngineError, match='built it, and no weights can be put into it'):
        built(conv, refit=True)
    assert not conv.with_suffix('.engine').exists()


# --- sparsity ---


def test_which_weights_are_sparse() -> None:
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(8, 12, 3, 3)).astype(np.float32)
    assert not is_sparse(kernel, 1)
    order = np.argsort(rng.random((8, 3, 4, 3, 3)), axis=2) < 2  # two of every four channels
    half = np.where(order, kernel.reshape(8, 3, 4, 3, 3), 0).reshape(kernel.shape)
    assert is_sparse(half, 1)
    assert not is_sparse(half, 0)
    one = half.copy()
    one[3, :4, 1, 1] = 1.0, 2.0, 3.0, 0.0
    assert not is_sparse(one, 1)
    assert not is_sparse(np.zeros_like(kernel), 1)


def test_sparse_weights_by_operator(network: Any) -> None:
    half = np.tile(np.float32([1, 0, 2, 0]), 2)
    weights = {
        'conv': np.broadcast_to(half[None, :, None, None], (8, 8, 1, 1)).copy(),
        'up': np.broadcast_to(half[:, None, None, None], (8, 8, 1, 1)).copy(),
        'matmul': np.broadcast_to(half[:, None], (8, 8)).copy(),
        'gemm': np.broadcast_to(half[None, :], (8, 8)).copy(),
        'dense': np.ones((8, 8), np.float32),
        'shape': np.array([1, 8]),
    }
    nodes = [
        helper.make_node('Conv', ['x', 'conv'], ['a']),
        helper.make_node('ConvTranspose', ['a', 'up'], ['b']),
        helper.make_node('Reshape', ['b', 'shape'], ['c']),
        helper.make_node('MatMul', ['c', 'matmul'], ['d']),
        helper.make_node('Gemm', ['d', 'gemm'], ['e'], transB=1),
        helper.make_node('MatMul', ['e', 'dense'], ['y']),
    ]
    model = network(nodes, {'x': [1, 8, 1, 1]}, {'y': [1, 8]}, weights)
    assert sparse_weights(model) == (('conv', 'up', 'matmul', 'gemm'), 5)


# --- layer info ---


@pytest.mark.parametrize('name', BUILDERS)
def test_layer_info(fake: Any, conv: Path, name: str, capsys: Capture) -> None:
    trt = fake(name)
    trt.dla_cores, trt.layers = 2, LAYERS
    file = conv.parent / 'deep' / 'layers.json'
    words = ['build', str(conv), '--device', 'dla0', '--out', str(conv.parent)]
    assert main([*words, '--layer-info', str(file)]) == 0
    assert json.loads(file.read_text()) == {'Layers': LAYERS}
    engine = conv.parent / 'net.fp16.dla0.engine'
    assert f'--layer-info {file}' in shlex.join(Manifest.read(engine).options)
    capsys.readouterr()
    engine.unlink()
    assert main(['inspect', f'{engine}.json', '--layers']) == 0
    text = capsys.readouterr().out
    assert f'layers      2: dla 1, gpu 1; unknown 1, fp16 1 (from {file})\n' in text
    assert '    gpu  fp16  CaskDeconvolutionV2  /up\n' in text
    assert '    dla  -     DLA                  {ForeignNode[/conv.../relu]}\n' in text
    assert 'not opened  there is no net.fp16.dla0.engine beside its manifest' in text
    file.write_text('nonsense')
    assert main(['inspect', f'{engine}.json', '--layers']) == 0
    assert f'layers      said by nothing: {file} cannot be read' in capsys.readouterr().out


def test_layer_info_that_cannot_be_written_is_said_first(
    fake: Any, conv: Path, capsys: Capture
) -> None:
    trt = fake('full_8_6')
    (conv.parent / 'file').write_text('')
    words = ['build', str(conv), '--layer-info', str(conv.parent / 'file' / 'layers.json')]
    assert main(words) == 2
    assert 'cannot be written' in capsys.readouterr().err
    assert 'creation' not in trt.told  # nothing was begun


# --- what cannot be built, in one line ---


def one_line(capsys: Capture) -> str:
    err = capsys.readouterr().err
    assert err.startswith('engine: ')
    assert err.count('\n') == 1
    return str(err)


def test_qdq_with_a_calibration(fake: Any, conv: Path, capsys: Capture) -> None:
    fake('full_10_3')
    feeds = [{'x': np.ones((1, 4, 8, 8), np.float32)}]
    with_qdq = conv.with_name('qdq.onnx')
    onnx.save(quantize(onnx.load(str(conv)), feeds, correct=0), str(with_qdq))
    scales = conv.with_name('scales.json')
    scales.write_text('{"x": 0.1}')
    words = ['build', str(with_qdq), '--precision', 'int8', '--calibration', str(scales)]
    assert main(words) == 2
    assert 'has Q/DQ nodes with scales of its own, and calibration' in one_line(capsys)


@pytest.mark.parametrize('device', ['gpu', 'dla0'])
@pytest.mark.parametrize('name', ['full_8_6', 'full_10_3', 'full_11_4'])
def test_calibration_of_another_network(
    fake: Any, conv: Path, name: str, device: str, capsys: Capture
) -> None:
    trt = fake(name)
    trt.dla_cores, trt.layers = 2, LAYERS[:1]
    words = ['build', str(conv), '--precision', 'int8', '--device', device, '--calibration']
    cache = conv.with_name('other.cache')
    # the first is there in every network of cameras; the last is TensorRT's own
    cache.write_text('TRT-8600-EntropyCalibration2\nx: 3ca3d70a\np2: 3ca3d70a\np3: 3ca3d70a\n'
                     '(Unnamed Layer* 4) [Shuffle]_output: 3ca3d70a\n')  # fmt: skip
    assert main([*words, str(cache)]) == 2
    said = one_line(capsys)
    assert f'{cache}: 2 of 3 scales are for tensors that {conv} does not have (p2, p3)' in said
    cache.write_text('TRT-8600-EntropyCalibration2\nx: 3ca3d70a\nr: 3ca3d70a\n'
                     '(Unnamed Layer* 4) [Shuffle]_output: 3ca3d70a\n')  # fmt: skip
    assert main([*words, str(cache)]) == 0


def test_a_custom_operator(fake: Any, tmp_path: Path, capsys: Capture) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node('Relu', ['x'], ['r'], '/relu'),
         helper.make_node('Voxels', ['r'], ['y'], '/odd', domain='mine')],
        'g', [value('x', TensorProto.FLOAT, [2])], [value('y', TensorProto.FLOAT, [2])],
    )  # fmt: skip
    opsets = [helper.make_opsetid('', 17), helper.make_opsetid('mine', 1)]
    path = tmp_path / 'odd.onnx'
    onnx.save(helper.make_model(graph, opset_imports=opsets), str(path))
    for precision in ('fp32', 'fp16'):
        fake('full_8_6').parse_error = 'no importer for Voxels'
        assert main(['build', str(path), '--precision', precision]) == 2
        said = one_line(capsys)
        assert "node '/odd' (Voxels): no importer for Voxels; there is no Voxels here" in said


def test_shapes_that_vary_and_no_profile(
    fake: Any, network: Any, tmp_path: Path, capsys: Capture
) -> None:
    fake('full_10_3')
    path = tmp_path / 'dynamic.onnx'
    onnx.save(network([helper.make_node('Relu', ['x'], ['y'])], {'x': ['n', 3]},
                      {'y': ['n', 3]}), str(path))  # fmt: skip
    assert main(['build', str(path)]) == 2
    assert 'shapes vary (x [-1, 3]), so the engine needs a profile' in one_line(capsys)


def test_a_full_disk_leaves_what_was_there(
    fake: Any, conv: Path, monkeypatch: Any, capsys: Capture
) -> None:
    fake('full_8_6')
    built(conv)
    engine = conv.with_suffix('.engine')
    before = engine.read_bytes(), manifest_path(engine).read_bytes()
    write = Path.write_bytes

    left: list[str] = []

    def full(self: Path, data: bytes) -> int:
        if data and self.name.rpartition('.')[0] in left:
            write(self, data[:50])
            raise OSError(28, 'No space left on device')
        return write(self, data)

    monkeypatch.setattr(Path, 'write_bytes', full)
    for name in ('.net.engine', '.net.engine.json', '.layers.json'):
        left[:] = [name]
        words = ['build', str(conv), '--out', str(engine), '--precision', 'fp32']
        assert main([*words, '--layer-info', str(conv.with_name('layers.json'))]) == 2
        assert not conv.with_name('layers.json').exists()
        assert 'cannot be written: No space left on device' in one_line(capsys)
        assert (engine.read_bytes(), manifest_path(engine).read_bytes()) == before
        assert not [path for path in conv.parent.iterdir() if path.name.startswith('.')]


def test_a_build_that_ends_between_its_two_files(
    fake: Any, conv: Path, fakes: Any, monkeypatch: Any, capsys: Capture
) -> None:
    # the fake network answers in the shape of its input: it is opened and not run
    monkeypatch.setattr(fakes.IExecutionContext, 'execute_async_v3', lambda self, stream: True)
    fake('full_8_6')
    engine = conv.with_suffix('.engine')
    replace, done = Path.replace, []

    def once(self: Path, target: Path) -> Path:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    def interrupted(*words: str) -> None:
        done.clear()
        monkeypatch.setattr(Path, 'replace', once)
        all_words = ['build', str(conv), '--out', str(engine), '--timing-cache', '', *words]
        assert main(all_words) == 130
        monkeypatch.setattr(Path, 'replace', replace)
        assert done == [engine]

    interrupted()  # nothing was there
    with pytest.raises(EngineError, match=r'no manifest .* beside it'):
        open_engine(engine)
    built(conv)
    open_engine(engine).close()
    interrupted('--version-compatible')  # there was one
    with pytest.raises(EngineError, match='its bytes are not those that were built'):
        open_engine(engine)
    capsys.readouterr()
    assert main(['inspect', str(engine)]) == 1
    assert 'PROBLEM     its bytes are not those that were built' in capsys.readouterr().out

"""`engine build`: from the command line to an engine, by TensorRT-RTX where it is installed."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import find_card
from airside_perception.cuda import runtime
from airside_perception.deploy import build as build_api
from airside_perception.deploy import verb
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.verb import Bar
from airside_perception.deploy.verbs import build as build_verb
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.manifest import Manifest, sha256_of
from airside_perception.engine.qdq import scales
from airside_perception.engine.quantize import quantize
from airside_perception.engine.rebuild import rebuild_command
from airside_perception.engine.structure import structure_sha256
from airside_perception.errors import CardError, EngineError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def network(tiny_models: Any, tmp_path: Path) -> Path:
    return Path(tiny_models.tiny_lidar_model(tmp_path))


@pytest.fixture
def _rtx(monkeypatch: Any) -> None:
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    monkeypatch.setenv('AIRSIDE_TENSORRT', 'tensorrt_rtx_bindings')


@pytest.mark.usefixtures('_rtx')
def test_text(network: Path, capsys: Capture) -> None:
    assert main(['build', str(network)]) == 0
    engine = network.with_name('tiny_lidar.fp16.gpu.engine')
    out, err = capsys.readouterr()
    assert out.startswith(f'{engine}: 0.')
    for line in ('precision   fp16', 'input       canvas: float16 [1, 4, 80, 80] hwc8',
                 'output      boxes: float16 [1, 14, 40, 40] hwc8', 'TensorRT rtx '):  # fmt: skip
        assert line in out
    assert err == ''  # no bar where there is no terminal
    assert Manifest.read(engine).engine_sha256 == sha256_of(engine)


@pytest.mark.usefixtures('_rtx')
def test_json_and_places(network: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ['--precision', 'fp32', '--json', '--out']
    assert main(['build', str(network), *words, str(tmp_path / 'engines')]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['engine'] == str(tmp_path / 'engines' / 'tiny_lidar.fp32.gpu.engine')
    assert found['manifest'] == f'{found["engine"]}.json'
    assert found['precision'] == 'fp32'
    assert Path(found['engine']).stat().st_size > 1000
    assert main(['build', str(network), *words, str(tmp_path / 'a.plan')]) == 0
    assert (tmp_path / 'a.plan').is_file()
    assert (tmp_path / 'a.plan.json').is_file()


@pytest.mark.usefixtures('_rtx')
def test_int8_by_scales(network: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(['build', str(network), '--precision', 'int8']) == 2
    assert 'int8 needs scales: --calibration names' in capsys.readouterr().err
    model = quantize(onnx.load(str(network)), [{'canvas': np.ones((1, 4, 80, 80), np.float32)}])
    (tmp_path / 'scales.json').write_text(json.dumps(scales(model)))
    words = ['--precision', 'int8', '--calibration', str(tmp_path / 'scales.json')]
    assert main(['build', str(network), *words]) == 0
    assert network.with_name('tiny_lidar.int8.gpu.engine').is_file()


@pytest.mark.usefixtures('_rtx')
def test_every_option_survives_the_manifest(network: Path, capsys: Capture) -> None:
    """What the manifest gives as the command to build again says the same settings."""
    words = ['--precision', 'fp16', '--io-format', 'canvas:hwc8', '--io-precision', 'fp16',
             '--workspace', '64M', '--opt-level', '1', '--timing-cache', '',
             '--tactic-sources', 'jit_convolutions', '--tf32', '--sparsity']  # fmt: skip
    assert main(['build', str(network), *words]) == 0
    engine = network.with_name('tiny_lidar.fp16.gpu.engine')
    first = Manifest.read(engine)
    again = shlex.split(rebuild_command(engine, first))
    assert main(again[again.index('build') :]) == 0
    assert Manifest.read(engine).settings == first.settings
    assert first.inputs[0]['layout'] == 'hwc8'
    assert (first.settings['workspace_mb'], first.settings['sparsity']) == (64, True)


@pytest.mark.usefixtures('_rtx')
def test_what_cannot_be_built_here_is_status_1(network: Path, capsys: Capture) -> None:
    assert main(['build', str(network), '--device', 'dla0']) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(r'engine: .*device dla0 is asked for.*\n', err)
    assert not network.with_name('tiny_lidar.fp16.dla0.engine').exists()


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['none.onnx'], 'no such network'),
        (['{}', '--io-format', 'canvas'], "--io-format 'canvas': expected TENSOR:LAYOUT"),
        (['{}', '--io-format', 'canvas:nchw'], "io_formats of 'canvas' = 'nchw'"),
        (['{}', '--profile', 'canvas:1'], "profile 'canvas:1'"),
        (['{}', '--precision', 'fp32', '--device', 'dla0'], 'fp16 or int8 only'),
        (['{}', '--calibration', 'a.cache'], 'is for precision int8'),
        (
            ['{}', '--workspace', '4096'],
            '--workspace 4096: expected whole MiB, .*4096M are 4096 MiB',
        ),
        (
            ['{}', '--workspace', '4096MB'],
            "--workspace '4096MB': expected bytes, or a number with K",
        ),
        (['{}', '--dla-sram', '1M'], 'dla_sram is for device dla0 or dla1'),
        (['{}', '--device', 'dla0', '--dla-local-dram', '3M'], 'near are 2M or 4M'),
        (['{}', '--sparsity', 'force'], 'the engine would be fast and wrong'),
        (['{}', '--sparsity', 'some'], "--sparsity 'some': not one of disable, enable"),
        ([], 'name a network to build, or --all'),
        (['{}', '--dry-run'], 'name a network to build, or --all'),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    network: Path, words: list[str], said: str, capsys: Capture
) -> None:
    assert main(['build', *(word.replace('{}', str(network)) for word in words)]) == 2
    err = capsys.readouterr().err
    assert re.search(said, err) or said in err
    assert err.startswith('engine: ')
    assert err.count('\n') == 1


def test_the_examples_are_settings(network: Path) -> None:
    lines = [shlex.split(line)[2:] for line in build_verb.EXAMPLES.splitlines()]
    lines = [words for words in lines if '--all' not in words]
    assert len(lines) > 3
    parser = argparse.ArgumentParser()
    build_verb.add_options(parser)
    for words in lines:
        settings = build_api.settings_of(parser.parse_args(words))
        assert isinstance(settings, BuildSettings)


@pytest.mark.usefixtures('_rtx')
@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--refit'], 'refit: TensorRT rtx .* compiles for other weights on the GPU itself'),
        (['--strip'], 'strip: TensorRT rtx .* on the GPU itself, and there is none here'),
        (['--layer-info', 'layers.json'], r'layer_info layers\.json: the engine itself says'),
        (['--version-compatible'], 'libnvinfer_lean'),
    ],
)
def test_what_takes_a_gpu_is_status_1(
    network: Path, words: list[str], said: str, capsys: Capture
) -> None:
    if not runtime.unavailable():
        pytest.skip('there is a GPU')
    assert main(['build', str(network), *words]) == 1
    assert re.fullmatch(f'engine: .*{said}.*\\n', capsys.readouterr().err)
    assert not list(network.parent.glob('*.engine*'))
    assert not Path('layers.json').exists()


@pytest.mark.usefixtures('_rtx')
def test_refit_without_a_gpu(network: Path, capsys: Capture) -> None:
    """It says what is in the way: how the engine was built, or that there is no GPU."""
    if not runtime.unavailable():
        pytest.skip('there is a GPU')
    assert main(['build', str(network)]) == 0
    engine = network.with_name('tiny_lidar.fp16.gpu.engine')
    capsys.readouterr()
    assert main(['refit', str(engine), str(network)]) == 1
    assert 'its weights are fixed; build it for others: ' in capsys.readouterr().err
    manifest = dataclasses.replace(
        Manifest.read(engine),
        refittable=True,
        structure_sha256=structure_sha256(onnx.load(str(network))),
    )
    manifest.write(engine)
    assert main(['refit', str(engine), str(network)]) == 1
    err = capsys.readouterr().err
    assert 'weights are changed on the GPU that it is for: ' in err
    assert err.count('\n') == 1


@pytest.mark.usefixtures('_rtx')
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ('operator', r"node '/odd' \(Voxels\): .*; there is no Voxels here: replace it"),
        ('opset', r'opset 99 is newer than the \d+ that onnx \S+ knows'),
        ('rank', "input 'x' has no shape, so its rank is not known"),
        ('weights', 'not a readable ONNX file: .*w.bin'),
        ('cut', 'not a readable ONNX file'),
    ],
)
def test_networks_that_no_tensorrt_takes(
    tmp_path: Path, precision: str, change: str, said: str, capfd: Any
) -> None:
    value = helper.make_tensor_value_info
    shape = None if change == 'rank' else [1, 4, 8, 8]
    nodes = [helper.make_node('Add', ['x', 'w'], ['y'], '/add')]
    if change == 'operator':
        nodes[0] = helper.make_node('Voxels', ['x', 'w'], ['y'], '/odd', domain='mine')
    weight = numpy_helper.from_array(np.ones((1, 4, 8, 8), np.float32), 'w')
    graph = helper.make_graph(
        nodes, 'g', [value('x', TensorProto.FLOAT, shape)],
        [value('y', TensorProto.FLOAT, shape)], [weight],
    )  # fmt: skip
    opsets = [
        helper.make_opsetid('', 99 if change == 'opset' else 17), helper.make_opsetid('mine', 1)
    ]  # fmt: skip
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    path = tmp_path / 'net.onnx'
    outside = {'save_as_external_data': True, 'location': 'w.bin', 'size_threshold': 0}
    onnx.save(model, str(path), **(outside if change == 'weights' else {}))
    if change == 'weights':
        (tmp_path / 'w.bin').unlink()
    if change == 'cut':
        path.write_bytes(path.read_bytes()[:-40])
    assert main(['build', str(path), '--precision', precision]) == 2
    assert re.fullmatch(f'engine: .*{said}.*\\n', capfd.readouterr().err)
    assert not list(tmp_path.glob('*.engine*'))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar(monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(verb.time, 'monotonic', lambda: now[0])
    stream = Terminal()
    bar = Bar(stream)
    for at, step, share in ((1, 'building', 0.25), (1.01, 'building', 0.3), (2, 'building', 0.5)):
        now[0] = at
        bar(step, share)
    lines = stream.getvalue().split('\r')[1:]
    assert len(lines) == 2  # no more than one every tenth of a second
    assert re.search(r'building  \[=+ +\] 25 %  1 s ', lines[0])
    assert lines[1].count('=') == 2 * lines[0].count('=')
    for at in (4, 5, 6):  # nothing is known of how far it is: a block wanders
        now[0] = at
        bar('building', 0.5)
    wandering = stream.getvalue().split('\r')[3:]
    places = [line.index('===') for line in wandering]
    assert places == sorted(set(places))
    assert '%' not in wandering[-1]
    assert wandering[-1].endswith('6 s \033[K')
    bar.close()
    bar.close()
    assert stream.getvalue().endswith('\r\033[K')


def test_no_bar_elsewhere() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    bar('building', 0.5)
    bar.close()
    assert stream.getvalue() == ''


@pytest.mark.usefixtures('_rtx')
@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ([], 'canvas: float16 [1, 4, 80, 80] hwc8'),
        (['--io-precision', 'fp32'], 'canvas: float32 [1, 4, 80, 80]\n'),
        (['--io-precision', 'fp16'], 'canvas: float16 [1, 4, 80, 80]\n'),
        (['--io-format', 'boxes:hwc8'], 'canvas: float32 [1, 4, 80, 80]\n'),
        (['--precision', 'fp32'], 'canvas: float32 [1, 4, 80, 80]\n'),
    ],
)
def test_layouts_and_the_command_that_gives_them_again(
    network: Path, capsys: Capture, options: list[str], said: str
) -> None:
    assert main(['build', str(network), *options]) == 0
    assert said in capsys.readouterr().out
    engine = next(network.parent.glob('*.engine'))
    first = Manifest.read(engine)
    again = shlex.split(rebuild_command(engine, first))
    assert main(again[again.index('build') :]) == 0
    assert Manifest.read(engine).inputs == first.inputs


@pytest.mark.usefixtures('_rtx')
def test_a_network_without_a_card_has_linear_tensors(network: Path, capsys: Capture) -> None:
    network.with_suffix('.yaml').write_text('name: 3')
    assert main(['build', str(network)]) == 0
    assert 'canvas: float32 [1, 4, 80, 80]\n' in capsys.readouterr().out


def test_a_calibration_that_is_not_there_is_bad_input(network: Path, capsys: Capture) -> None:
    options = ['--precision', 'int8', '--calibration', 'none.json']
    assert main(['build', str(network), *options]) == 2
    assert 'none.json: no such calibration' in capsys.readouterr().err


def test_inspect_shows_the_card_that_the_detector_finds(network: Path, capsys: Capture) -> None:
    engine = built(network, 'tiny_lidar.fp16.gpu.engine')
    main(['inspect', str(engine)])
    assert f'card        {network.with_suffix(".yaml")}' in capsys.readouterr().out
    network.with_suffix('.yaml').unlink()
    main(['inspect', str(engine)])
    assert 'card        none beside it' in capsys.readouterr().out


def test_a_bar_ends_before_the_error(network: Path, monkeypatch: Any) -> None:
    stream = Terminal()
    monkeypatch.setattr(verb.sys, 'stderr', stream)

    def fails(model: str, target: Path, settings: BuildSettings, progress: Any) -> None:
        progress('building', 1.0)
        raise EngineError('no luck')

    monkeypatch.setattr(build_api, 'build_engine', fails)
    assert main(['build', str(network)]) == 1
    assert stream.getvalue().endswith('\r\033[Kengine: no luck\n')


# --- cards of engines ---


def built(network: Path, name: str, onnx_sha256: str = '') -> Path:
    """A file beside the network that stands for its engine, with a manifest."""
    engine = network.parent / name
    engine.parent.mkdir(exist_ok=True)
    engine.write_bytes(b'engine')
    source = '../tiny_lidar.onnx' if '/' in name else 'tiny_lidar.onnx'
    digest = onnx_sha256 or sha256_of(network)
    Manifest(source, digest, sha256_of(engine), '10.3.0', 'full', '12.6', 'Orin', 'sm_87',
             'fp16').write(engine)  # fmt: skip
    return engine


@pytest.mark.parametrize(
    'name', ['tiny_lidar.fp16.gpu.engine', 'tiny_lidar.plan', 'engines/other.engine']
)
def test_an_engine_has_the_card_of_its_onnx(tiny_models: Any, tmp_path: Path, name: str) -> None:
    network = tiny_models.tiny_lidar_model(tmp_path)
    network = tiny_models.tiny_lidar_model(tmp_path, sha256=sha256_of(network))
    engine = built(network, name)
    assert Path(find_card(engine).path).resolve() == network.with_suffix('.yaml')
    built(network, name, 'f' * 64)
    with pytest.raises(CardError, match=r'was built from an ONNX whose SHA-256 is ffffffffffff'):
        find_card(engine)
    network.unlink()  # a vehicle need not have the ONNX
    built_again = engine.with_name(f'{engine.name}.json')
    built_again.unlink()
    if name.startswith('tiny'):
        assert find_card(engine).name == 'tiny_lidar'
    else:
        with pytest.raises(CardError, match=r'other\.yaml: no model card'):
            find_card(engine)


def test_an_engine_may_have_a_card_of_its_own(network: Path) -> None:
    engine = built(network, 'tiny_lidar.fp16.gpu.engine')
    text = network.with_suffix('.yaml').read_text().replace('name: tiny_lidar', 'name: own')
    engine.with_suffix('.yaml').write_text(text)
    assert find_card(engine).name == 'own'
    assert find_card(engine, str(network.with_suffix('.yaml'))).name == 'tiny_lidar'
    engine.with_name(f'{engine.name}.json').write_text('{"onnx": 3')
    assert find_card(engine).name == 'own'

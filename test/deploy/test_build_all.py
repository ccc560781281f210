"""`engine build --all`: which engines a matrix lists, which are current, and what fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from airside_perception.deploy import build as build_module
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.interrupt import interruptible
from airside_perception.deploy.matrix import read_matrix
from airside_perception.engine.manifest import Manifest, manifest_path
from airside_perception.errors import ConfigError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tiny_models: Any, tmp_path: Path) -> Path:
    """tiny_lidar.onnx and tiny_camera.onnx with their cards."""
    tiny_models.tiny_lidar_model(tmp_path)
    tiny_models.tiny_camera_model(tmp_path)
    return tmp_path


@pytest.fixture
def _rtx(monkeypatch: Any) -> None:
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    monkeypatch.setenv('AIRSIDE_TENSORRT', 'tensorrt_rtx_bindings')


@pytest.fixture
def write(folder: Path) -> Any:
    """Function: writes a matrix; its path."""

    def make(**text: Any) -> Path:
        path = folder / 'engines.yaml'
        path.write_text(
            yaml.safe_dump({'models': ['tiny_lidar.onnx', 'tiny_camera.onnx'], **text})
        )
        return path

    return make


def states(path: Path, capsys: Capture, *words: str, status: int = 0) -> list[tuple[str, str]]:
    """(engine, state) of every engine, in order."""
    capsys.readouterr()
    assert main(['build', '--all', str(path), '--json', *words]) == status
    table = json.loads(capsys.readouterr().out)
    return [(Path(item['engine']).name, item['state']) for item in table['engines']]


# --- the file ---


def test_the_shipped_example(repository: Path) -> None:
    path = repository / 'config' / 'engines.yaml'
    entries = read_matrix(path)
    assert {entry.model.stem for entry in entries} == {'apron_centerpoint', 'apron_yolox'}
    for entry in entries:
        assert entry.model.is_file()
        assert entry.target.parent == entry.model.parent
        assert entry.target.name == entry.settings.file_name(entry.model)
    lidar = next(e for e in entries if e.name == 'apron_centerpoint fp16 gpu')
    assert lidar.settings.io_formats['canvas'] == 'hwc8'  # as the build command has it


def test_the_comments_of_the_example_are_settings(repository: Path, tmp_path: Path) -> None:
    """Everything that it shows can be switched on."""
    text = (repository / 'config' / 'engines.yaml').read_text()
    lines = []
    for line in text.splitlines():
        plain = line.lstrip()
        code = plain.removeprefix('# ')
        shown = code.lstrip().startswith(
            ('out:', 'workspace:', 'devices:', 'precisions:', 'settings:', 'overrides:',
             '- where:', 'skip:')
        )  # fmt: skip
        indent = line[: len(line) - len(plain)]
        lines.append(indent + code if plain.startswith('# ') and shown else line)
    path = tmp_path / 'config' / 'engines.yaml'
    path.parent.mkdir()
    path.write_text('\n'.join(lines))
    entries = read_matrix(path)
    names = [entry.name for entry in entries]
    assert names == [
        *(f'apron_centerpoint {name}' for name in ('fp32 gpu', 'fp16 gpu', 'fp16 dla0')),
        *(f'apron_yolox {p} {d}' for p in ('fp16', 'int8') for d in ('gpu', 'dla0', 'dla1')),
    ]  # fmt: skip
    by_name = dict(zip(names, entries, strict=True))
    core = by_name['apron_yolox int8 dla0'].settings
    assert (core.dla_strict, core.dla_sram, core.workspace_mb) == (True, 1 << 19, 2048)
    assert core.calibration == str(path.parent / 'apron_yolox.scales.json')
    assert by_name['apron_yolox fp16 dla0'].settings.calibration == ''
    assert by_name['apron_yolox fp16 gpu'].target.parent == tmp_path / 'engines'


def test_the_product_and_what_differs(write: Any, folder: Path) -> None:
    path = write(
        out='all',
        precisions=['fp16', 'int8'],
        devices=['gpu', 'dla0'],
        settings={'opt_level': 3, 'workspace': '1G', 'tactic_sources': ['jit_convolutions']},
        models=[
            {'model': 'tiny_lidar.onnx', 'settings': {'calibration': 'a.json', 'opt_level': 2}},
            {'model': 'tiny_camera.onnx', 'precisions': ['fp32'], 'devices': ['gpu'], 'out': 'own',
             'settings': {'profiles': ['images:1x3x64x96:1x3x64x96:1x3x64x96']}},
        ],
        overrides=[
            {'where': {'device': 'dla0'}, 'settings': {'dla_global_dram': '64M', 'opt_level': 1}},
            {'where': {'model': 'tiny_lidar.onnx', 'precision': 'int8', 'device': 'dla0'},
             'settings': {'opt_level': 5}, 'out': 'deep/er'},
            {'where': {'precision': 'fp16', 'device': 'gpu'}, 'skip': True},
        ],
    )  # fmt: skip
    entries = {entry.name: entry for entry in read_matrix(path)}
    assert list(entries) == [
        'tiny_lidar fp16 dla0', 'tiny_lidar int8 gpu', 'tiny_lidar int8 dla0',
        'tiny_camera fp32 gpu',
    ]  # fmt: skip
    levels = [entry.settings.opt_level for entry in entries.values()]
    assert levels == [1, 2, 5, 3]
    core = entries['tiny_lidar int8 dla0']
    assert core.target == folder / 'deep' / 'er' / 'tiny_lidar.int8.dla0.engine'
    assert core.settings.dla_global_dram == 64 << 20
    assert core.settings.calibration == str(folder / 'a.json')
    assert entries['tiny_lidar fp16 dla0'].settings.calibration == ''
    camera = entries['tiny_camera fp32 gpu']
    assert camera.target == folder / 'own' / 'tiny_camera.fp32.gpu.engine'
    assert camera.settings.workspace_mb == 1024
    assert camera.settings.profiles[0]['images'][0] == (1, 3, 64, 96)
    assert camera.settings.tactic_sources == ('jit_convolutions',)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ({'models': []}, r'models is \[\]: expected a list of networks'),
        ({'models': [3]}, r'models: 3: expected keys with values'),
        ({'models': [{'out': 'x'}]}, 'names no model'),
        ({'model': []}, "'model' is not one of out, precisions"),
        ({'precisions': 'fp16'}, "precisions is 'fp16': expected a list"),
        ({'precisions': ['fp8']}, "precisions: 'fp8' is not one of fp32, fp16, int8"),
        ({'devices': []}, 'devices is empty'),
        ({'settings': {'precision': 'fp16'}}, "settings: 'precision' is not one of profiles"),
        ({'settings': {'refit': 'yes'}}, "refit is 'yes', not like False"),
        ({'settings': {'opt_level': 9}}, 'tiny_lidar fp16 gpu: opt_level = 9'),
        ({'settings': {'sparsity': 'force'}}, 'fast and wrong'),
        ({'settings': {'profiles': ['x:1']}}, "profile 'x:1': expected INPUT"),
        ({'settings': {'workspace': '1K'}}, 'workspace 1K: expected whole MiB'),
        ({'settings': {'dla_sram': '1M'}}, 'dla_sram is for device dla0 or dla1'),
        ({'precisions': ['fp32'], 'devices': ['dla0']}, 'tiny_lidar fp32 dla0: a DLA core comput'),
        ({'overrides': [{'settings': {}}]}, 'where: None: expected keys'),
        ({'overrides': [{'where': {'device': 'dla1'}}]}, 'no engine of the list is meant'),
        ({'overrides': [{'where': {}, 'skip': True}]}, 'it lists no engine that is not skipped'),
        ({'models': ['tiny_lidar.onnx', 'tiny_lidar.onnx']}, 'is the engine of both tiny_lidar'),
    ],
)
def test_files_that_make_no_sense_are_status_2(
    write: Any, text: Any, said: str, capsys: Capture
) -> None:
    path = write(**text)
    with pytest.raises(ConfigError, match=said):
        read_matrix(path)
    assert main(['build', '--all', str(path)]) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_files_that_are_no_matrix(tmp_path: Path, write: Any, capsys: Capture) -> None:
    for content, said in [(b'a: [', 'no YAML'), (b'\xff\xfe\x00', 'no '), (b'3', 'expected keys')]:
        (tmp_path / 'x.yaml').write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            read_matrix(tmp_path / 'x.yaml')
    with pytest.raises(ConfigError, match='cannot be read: No such file'):
        read_matrix(tmp_path / 'none.yaml')
    assert main(['build', '--all', str(write()), '--refit']) == 2
    assert '--all with refit: settings stand in ' in capsys.readouterr().err
    assert main(['build', 'net.onnx', '--all', str(write())]) == 2
    assert '--all with model' in capsys.readouterr().err


# --- what is built ---


@pytest.mark.usefixtures('_rtx')
def test_only_what_is_not_current_is_built(write: Any, folder: Path, capsys: Capture) -> None:
    path = write(precisions=['fp32', 'fp16'], out='engines')
    names = [f'tiny_{n}.{p}.gpu.engine' for n in ('lidar', 'camera') for p in ('fp32', 'fp16')]
    assert states(path, capsys, '--dry-run') == [(name, 'to build') for name in names]
    assert not (folder / 'engines').exists()
    assert states(path, capsys) == [(name, 'built') for name in names]
    whole = {file: file.read_bytes() for file in (folder / 'engines').iterdir()}
    assert len(whole) == 8
    assert states(path, capsys) == [(name, 'current') for name in names]
    assert {file: file.read_bytes() for file in (folder / 'engines').iterdir()} == whole

    def changed(*expected: str) -> None:
        """These are to be built, say the dry run and the build; then all are current again."""
        wanted = [(name, 'to build' if name in expected else 'current') for name in names]
        assert states(path, capsys, '--dry-run') == wanted
        built = [(name, 'built' if name in expected else 'current') for name in names]
        assert states(path, capsys) == built
        assert {state for _, state in states(path, capsys)} == {'current'}

    engines = folder / 'engines'
    model = onnx.load(str(folder / 'tiny_camera.onnx'))
    model.producer_name = 'another'
    onnx.save(model, str(folder / 'tiny_camera.onnx'))
    changed(*names[2:])
    path = write(precisions=['fp32', 'fp16'], out='engines', settings={'opt_level': 1})
    changed(*names)
    path = write(
        precisions=['fp32', 'fp16'], out='engines', settings={'opt_level': 1, 'timing_cache': ''}
    )
    changed()  # where timings are kept makes no other engine
    (engines / names[0]).write_bytes(b'cut')
    manifest_path(engines / names[1]).unlink()
    (engines / names[2]).unlink()
    changed(*names[:3])
    manifest = Manifest.read(engines / names[3])
    told = json.loads(manifest_path(engines / names[3]).read_text())
    manifest_path(engines / names[3]).write_text(json.dumps({**told, 'tensorrt': '1.6.0'}))
    changed(names[3])
    assert Manifest.read(engines / names[3]).tensorrt == manifest.tensorrt


@pytest.mark.usefixtures('_rtx')
def test_scales_that_change(write: Any, folder: Path, capsys: Capture) -> None:
    settings = {'calibration': 'scales.json'}
    path = write(models=['tiny_camera.onnx'], precisions=['int8'], settings=settings)
    (folder / 'scales.json').write_text('{"mean": 0.1}')
    assert states(path, capsys) == [('tiny_camera.int8.gpu.engine', 'built')]
    (folder / 'copy.json').write_text('{"mean": 0.1}')
    path = write(models=['tiny_camera.onnx'], precisions=['int8'],
                 settings={'calibration': 'copy.json'})  # fmt: skip
    assert states(path, capsys) == [('tiny_camera.int8.gpu.engine', 'current')]
    (folder / 'copy.json').write_text('{"mean": 0.2}')
    capsys.readouterr()
    assert main(['build', '--all', str(path), '--dry-run']) == 0
    assert 'to build  tiny_camera int8 gpu  the calibration is another' in capsys.readouterr().out


@pytest.mark.usefixtures('_rtx')
def test_a_failure_keeps_no_other_engine_away(write: Any, folder: Path, capsys: Capture) -> None:
    shutil.copy(folder / 'tiny_camera.onnx', folder / 'broken.onnx')
    (folder / 'broken.onnx').write_bytes((folder / 'broken.onnx').read_bytes()[:-30])
    path = write(
        models=['broken.onnx', 'none.onnx', 'tiny_camera.onnx', 'tiny_lidar.onnx'],
        devices=['gpu', 'dla0'],
        overrides=[{'where': {'model': m, 'device': 'dla0'}, 'skip': True}
                   for m in ('broken', 'none', 'tiny_lidar')],
    )  # fmt: skip
    assert main(['build', '--all', str(path)]) == 1
    text = capsys.readouterr().out
    assert text.startswith(f'{path}: 5 engines: 2 built, 3 failed\n')
    rows = [line.split(None, 4) for line in text.splitlines()[1:]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ('failed', 'broken', 'gpu'), ('failed', 'none', 'gpu'), ('built', 'tiny_camera', 'gpu'),
        ('failed', 'tiny_camera', 'dla0'), ('built', 'tiny_lidar', 'gpu'),
    ]  # fmt: skip
    assert 'not a readable ONNX file' in rows[0][4]
    assert 'none.onnx: no such network' in rows[1][4]
    assert 'finds no DLA core on this machine' in rows[3][4]
    assert rows[2][4].endswith('s: not built yet')
    assert not list(folder.glob('broken.*.engine*'))
    path = write(models=['none.onnx'])
    assert states(path, capsys, '--dry-run', status=1) == [('none.fp16.gpu.engine', 'failed')]


# --- interrupts ---


def test_an_interrupt_ends_at_the_next_step() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with interruptible(lambda step, share: told.append(step)) as step:
        step('one', 0.1)
        os.kill(os.getpid(), signal.SIGINT)
        assert step.asked.wait(20)  # nothing was raised here
        step('written', 1.0)  # what is done is done
        with pytest.raises(KeyboardInterrupt):
            step('two', 0.2)
    assert told == ['one', 'written']
    assert signal.getsignal(signal.SIGINT) == before
    assert threading.active_count() < 10
    with pytest.raises(KeyboardInterrupt):  # Python's own way again
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_ends_at_once() -> None:
    code = (
        'import os, signal, time\n'
        'from airside_perception.deploy.interrupt import interruptible\n'
        'with interruptible(print) as step:\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    step.asked.wait(20)\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    time.sleep(20)\n'
        'print("never")\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, '')
    assert 'interrupted: it ends at the next step' in done.stderr


@pytest.mark.usefixtures('_rtx')
def test_an_interrupt_while_tensorrt_builds(
    write: Any, folder: Path, monkeypatch: Any, capsys: Capture
) -> None:
    """It ends all, whatever of TensorRT runs just then, and leaves no half of anything."""
    path = write(models=['tiny_camera.onnx', 'tiny_lidar.onnx'])
    build_engine = build_module.build_engine
    seen: list[str] = []

    def interrupted(model: Any, target: Path, settings: Any, progress: Any) -> Any:
        def step(name: str, share: float) -> None:
            if (
                Path(model).stem == 'tiny_lidar'
                and name == 'building'
                and share > 0.2
                and not seen
            ):
                seen.append(name)
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(2000):  # another thread hears of it
                    progress(name, share)
                    time.sleep(0.01)
            progress(name, share)

        return build_engine(model, target, settings, step)

    monkeypatch.setattr(build_module, 'build_engine', interrupted)
    status = main(['build', '--all', str(path)])
    assert status == 130
    assert 'interrupted' in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir() if 'engine' in p.name) == [
        'engines.yaml', 'tiny_camera.fp16.gpu.engine', 'tiny_camera.fp16.gpu.engine.json',
    ]  # fmt: skip
    monkeypatch.undo()
    monkeypatch.setenv('AIRSIDE_TENSORRT', 'tensorrt_rtx_bindings')
    assert states(path, capsys) == [
        ('tiny_camera.fp16.gpu.engine', 'current'), ('tiny_lidar.fp16.gpu.engine', 'built'),
    ]  # fmt: skip

"""`engine doctor LOG`: every failure of the table is recognised, and a healthy log is not."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from airside_perception.deploy import __main__ as command
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.doctor.facts import facts_of
from airside_perception.deploy.doctor.failures import Failure, known_failures, read_failure
from airside_perception.deploy.doctor.log import describe_diagnosis, diagnose, recognise
from airside_perception.deploy.verbs import VERBS
from airside_perception.engine import open_engine
from airside_perception.engine.calibration_cache import read_scales
from airside_perception.engine.manifest import Machine, Manifest
from airside_perception.errors import ConfigError, PerceptionError

Capture = pytest.CaptureFixture[str]
FAILURES = known_failures()
RTX_BUILD = """
import sys
import tensorrt_rtx_bindings as trt

class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.lines = []
    def log(self, severity, message):
        self.lines.append(f'[01/02/2026-10:11:12] [TRT] [{severity.name[0]}] {message}')

log = Log()
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
parser.parse_from_file(sys.argv[1])
plan = builder.build_serialized_network(network, builder.create_builder_config())
log.lines.append(f'plan of {plan.nbytes} bytes' if plan is not None else 'no plan')
open(sys.argv[2], 'w').write('\\n'.join(log.lines) + '\\n')
"""


def names(text: str) -> list[str]:
    return [item.failure.name for item in recognise(text, facts=()).findings]


@pytest.mark.parametrize('failure', FAILURES, ids=lambda item: item.name)
def test_example_is_recognised_as_this_and_nothing_else(failure: Failure) -> None:
    found = recognise(failure.example, facts=())
    assert [item.failure.name for item in found.findings] == [failure.name]
    assert found.unknown == ()
    assert found.good == (failure.severity == 'warning')


@pytest.mark.parametrize('failure', FAILURES, ids=lambda item: item.name)
def test_entry_is_complete(failure: Failure) -> None:
    assert failure.cause.endswith(('.', '…'))
    assert failure.source
    for facts in (facts_of(None, jetson=False), facts_of(None, jetson=True)):
        assert failure.steps(facts)


def rtx_log(model: Path, folder: Path) -> Path:
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    log = folder / 'build.log'
    subprocess.run([sys.executable, '-c', RTX_BUILD, str(model), str(log)], check=True)
    return log


def test_healthy_build_gives_nothing(repository: Path, tmp_path: Path, capsys: Capture) -> None:
    log = rtx_log(repository / 'models' / 'apron_yolox.onnx', tmp_path)
    lines = log.read_text().rstrip('\n').split('\n')
    assert len(lines) > 1000
    assert 'plan of' in lines[-1]
    assert main(['doctor', str(log)]) == 0
    assert capsys.readouterr().out == f'{log}: {len(lines)} lines, no failure that is known here\n'


def test_real_failure_of_a_builder(network_with_custom_operator: Path, tmp_path: Path) -> None:
    log = rtx_log(network_with_custom_operator, tmp_path)
    found = diagnose(log)
    assert found.findings[0].failure.name == 'missing-plugin'
    assert found.findings[0].text in log.read_text()
    assert not found.good


@pytest.fixture
def network_with_custom_operator(tmp_path: Path) -> Path:
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    ports = [info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in ('x', 'y')]
    graph = onnx.helper.make_graph(
        [make('Wiggle', ['x'], ['y'], domain='ours')], 'g', ports[:1], ports[1:]
    )
    opsets = [onnx.helper.make_opsetid('', 17), onnx.helper.make_opsetid('ours', 1)]
    path = tmp_path / 'custom.onnx'
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_causes_come_before_consequences_and_errors_before_warnings() -> None:
    log = """\
[W] [TRT] Tensor 7 is uniformly zero.
[E] Failed to parse onnx file
[E] Engine could not be created from network
[E] Error[10]: Could not find any implementation for node a.
[W] [TRT] Tensor 8 is uniformly zero.
"""
    found = recognise(log, facts=())
    assert [(item.failure.name, item.line, item.count) for item in found.findings] == [
        ('no-implementation', 4, 1),
        ('uniformly-zero', 1, 2),
        ('parse-failed', 2, 1),
        ('build-failed', 3, 1),
    ]
    assert '(2 times)' in describe_diagnosis(found)


def test_errors_that_nobody_knows_are_shown() -> None:
    found = recognise('fine\n\x1b[31m[E] the flux is inverted\x1b[0m\n', facts=())
    assert found.findings == ()
    assert found.unknown == ((2, '[E] the flux is inverted'),)
    assert not found.good
    assert 'line 2      [E] the flux is inverted' in describe_diagnosis(found)


def test_fix_depends_on_what_is_here() -> None:
    text = '[TRT] [E] out of memory'
    here = describe_diagnosis(recognise(text, facts={'jetson'}))
    there = describe_diagnosis(recognise(text, facts=()))
    assert 'swapon' in here
    assert 'swapon' not in there


def errors_of_this_package(folder: Path, tiny: Any) -> dict[str, Any]:
    """{failure: call that raises what it is to be recognised by}."""
    network = tiny.tiny_camera_model(folder)
    engine = folder / 'a.engine'
    engine.write_bytes(b'plan')
    cut = folder / 'cut.onnx'
    cut.write_bytes(network.read_bytes()[:50])
    foreign = Manifest('', '', 'x', '10.3.0', 'full', '12.6', 'Orin', 'sm_87', 'fp16', 0)
    machine = Machine('H200', 'sm_90', '10.7.0', 'full', 1, 'fp16')

    def feed() -> None:
        with open_engine(network) as opened:
            opened.infer({'images': np.zeros((1, 3, 64, 96))})

    def differ(**parts: Any) -> Any:
        return lambda: foreign.require(engine, Machine(**parts), 'x')

    return {
        'engine-missing': lambda: open_engine(folder / 'none.onnx'),
        'truncated-onnx': lambda: open_engine(cut),
        'no-manifest': lambda: Manifest.read(engine),
        'feeds': feed,
        'other-gpu': differ(gpu=machine.gpu, sm=machine.sm),
        'other-tensorrt': differ(tensorrt=machine.tensorrt, flavor=machine.flavor),
        'dla-core-differs': differ(dla_core=1),
        'not-a-plan': lambda: foreign.require(engine, Machine(), 'y'),
        'no-gpu': lambda: open_engine(engine, check_manifest=False),
        'no-tensorrt': no_tensorrt,
    }


def no_tensorrt() -> None:
    from airside_perception.engine.capabilities import choose

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    choose('', '', True, missing)


OWN = ('engine-missing', 'truncated-onnx', 'no-manifest', 'feeds', 'other-gpu', 'other-tensorrt',
       'dla-core-differs', 'not-a-plan', 'no-gpu', 'no-tensorrt')  # fmt: skip


@pytest.mark.parametrize('name', OWN)
def test_errors_of_this_package_are_recognised(
    name: str, tiny_models: Any, tmp_path: Path
) -> None:
    if name == 'no-gpu':
        from airside_perception.cuda import runtime

        if not runtime.unavailable():
            pytest.skip('there is a GPU here')
        pytest.importorskip('tensorrt_rtx_bindings', reason='looked for before the GPU')
    with pytest.raises(PerceptionError) as raised:
        errors_of_this_package(tmp_path, tiny_models)[name]()
    assert names(f'engine: {raised.value}')[:1] == [name]


def test_damaged_calibration_is_an_error_that_is_shown(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError) as raised:
        read_scales(tmp_path / 'none.cache')
    found = recognise(f'engine: {raised.value}', facts=())
    assert not found.good


def commands() -> list[tuple[str, str]]:
    """(failure, command of this tool) of all fixes."""
    return [
        (failure.name, text)
        for failure in FAILURES
        for step in failure.fix
        for text in re.findall('`engine ([^`]+)`', step.do)
    ]


@pytest.mark.parametrize(('failure', 'text'), commands())
def test_commands_of_fixes_exist(failure: str, text: str) -> None:
    words = shlex.split(text)
    if words[0] not in VERBS:
        pytest.skip(f'{words[0]} is no verb yet')
    assert command._parser(words).parse_args(words).run


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 50
    for failure in FAILURES:
        for step in failure.fix:
            assert step.do.count('`') % 2 == 0


def test_json_and_standard_input(monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.setattr(sys, 'stdin', io.StringIO('ok\nNvMapMemHandleAlloc: error 0\n'))
    assert main(['doctor', '-', '--json']) == 1
    found = json.loads(capsys.readouterr().out)
    assert found['log'] == '-'
    assert found['lines'] == 2
    (finding,) = found['findings']
    assert (finding['name'], finding['line']) == ('nvmap', 2)
    assert finding['fix']
    assert finding['source'].startswith('github.com/')


def test_text_of_an_exception(capsys: Capture) -> None:
    assert main(['doctor', '--text', 'RuntimeError: CUDA error: out of memory']) == 1
    assert capsys.readouterr().out.startswith('error: not enough memory\n')


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (None, 'cannot be read: No such file'),
        (b'', 'it is empty'),
        (b'ab\0cd', 'not a text'),
    ],
)
def test_bad_input(data: bytes | None, says: str, tmp_path: Path, capsys: Capture) -> None:
    log = tmp_path / 'log'
    if data is not None:
        log.write_bytes(data)
    assert main(['doctor', str(log)]) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith(f'engine: {log}: ')
    assert says in err
    assert err.count('\n') == 1


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'cause': ''}, 'has no cause'),
        ({'severity': 'grave'}, 'severity'),
        ({'pattern': '('}, 'pattern'),
    ],
)
def test_damaged_table(change: dict[str, str], says: str) -> None:
    entry = {
        'name': 'a', 'what': 'b', 'pattern': 'c', 'severity': 'error', 'cause': 'd.',
        'fix': ['e'], 'source': 'f', 'example': 'c', **change,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=says):
        read_failure(entry)


def test_a_line_without_an_end_is_cut() -> None:
    found = recognise('[E] ' + 'x' * 5_000_000 + ' out of memory', facts=())
    assert found.findings == ()
    assert len(found.unknown[0][1]) == 2000

"""`engine checklist`: nothing passes without evidence, and each failure is found by its item."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import yaml

from airside_perception.deploy.__main__ import _parser, main
from airside_perception.deploy.checklist import evidence
from airside_perception.deploy.checklist.deployment import Deployment, read_deployment
from airside_perception.deploy.checklist.items import ITEMS, Checklist, run_checklist
from airside_perception.deploy.checklist.outcome import (
    FAILED,
    PASSED,
    UNKNOWN,
    Outcome,
    passed,
    together,
    unknown,
)
from airside_perception.deploy.checklist.report import as_markdown, as_text
from airside_perception.deploy.checklist.validation import reopen
from airside_perception.deploy.doctor.host import Host
from airside_perception.deploy.triton.repository import Request, make_repository
from airside_perception.engine.manifest import Manifest, sha256_of
from airside_perception.errors import ConfigError

Capture = pytest.CaptureFixture[str]
MODES = 'NVPM VERB: POWER_MODEL: ID=0 NAME=MAXN\nNVPM VERB: POWER_MODEL: ID=1 NAME=MODE_30W\n'
ABOUT = {'training': {'data': 'two months on the apron'}, 'accuracy': {'ap50': 0.7}}


class Vehicle:
    """A deployment that is complete: every item but the first passes."""

    def __init__(self, folder: Path, tiny: Any) -> None:
        self.folder = folder
        self.networks = {
            'camera': self.network(tiny.tiny_camera_model(folder)),
            'lidar': self.network(tiny.tiny_lidar_model(folder)),
        }
        self.scales = folder / 'scales.json'
        self.scales.write_text('{"images": 0.1}')
        self.write('scales.meta.json', method='entropy', frames=640, scales_sha256='x')
        self.cache = folder / 'cache' / 'timing' / 'tensorrt_10_3_0_orin.cache'
        self.cache.parent.mkdir(parents=True)
        self.cache.write_bytes(b'timings')
        profile = ({'images': [[1, 3, 64, 96], [1, 3, 64, 96], [4, 3, 64, 96]]},)
        self.engine('camera', 'fp16', -1, profiles=profile)
        self.engine('camera', 'fp16', 0)
        self.engine('camera', 'fp16', 1)
        self.engine('camera', 'int8', -1, settings={'calibration': str(self.scales)})
        self.engine('lidar', 'fp16', -1)
        for mode, seconds in (('MAXN', 700.0), ('MODE_30W', 60.0)):
            self.bench(f'{mode}.json', mode, seconds)
        self.parameters(front=0, rear=1)
        self.triton = folder / 'repo'
        make_repository(
            Request(self.triton, self.networks['lidar'], self.networks['camera'],
                    cameras=('front',))
        )  # fmt: skip
        self.no_gpu = ''
        self.reopened: list[str] = []
        self.problems: dict[str, str] = {}
        self.modes = MODES

    def network(self, path: Any) -> Path:
        model = onnx.load(str(path))
        model.opset_import[0].version = 17
        onnx.save(model, str(path))
        file = Path(path).with_suffix('.yaml')
        card = yaml.safe_load(file.read_text())
        card['classes'] = [{'car': 'aircraft'}.get(label, label) for label in card['classes']]
        card['thresholds'] = dict.fromkeys(card['classes'], 0.3)
        if 'sizes' in card:
            card['sizes'] = {label: [4.0, 2.0, 1.5] for label in card['classes']}
        for anchor in card['output'].get('anchors', ()):
            anchor['class'] = {'car': 'aircraft'}.get(anchor['class'], anchor['class'])
        file.write_text(yaml.safe_dump({**card, 'about': ABOUT}))
        return Path(path)

    def write(self, name: str, **content: Any) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path

    def engine(self, network: str, precision: str, core: int, **changes: Any) -> Path:
        source = self.networks[network]
        device = 'gpu' if core < 0 else f'dla{core}'
        path = self.folder / f'{source.stem}.{precision}.{device}.engine'
        path.write_bytes(path.name.encode())
        manifest = Manifest(
            onnx=source.name,
            onnx_sha256=sha256_of(source),
            engine_sha256=sha256_of(path),
            tensorrt='10.3.0',
            flavor='full',
            cuda='12.6',
            gpu='Orin',
            sm='sm_87',
            precision=precision,
            dla_core=core,
            dla_layer_pct=None if core < 0 else 100.0,
            options=('--precision', precision, '--device', device),
            built='2026-11-01T10:00:00+00:00',
        )
        replace(manifest, **changes).write(path)
        self.measured(path)
        return path

    def measured(self, path: Path) -> None:
        """Profile and comparison of an engine, as the verbs print them."""
        layers = [{'name': 'a', 'ms': 1.0}]
        self.write(
            f'{path.name}.profile.json', path=path.name, layers=layers, categories=[], sum_ms=1.0,
            reformat_share=0.1, transfer_share=0.05,
        )  # fmt: skip
        gates = [{'good': True, 'drop': 0.004, 'max_drop': 0.02, 'frames': 200}]
        self.write(
            f'{path.name}.compare.json', a='tiny.onnx (fp32)', b=f'{path.name} (fp16)', good=True,
            source='apron', frames=200, gates=gates, outputs=[{'output': 'o', 'cosine': 0.9999}],
        )  # fmt: skip

    def bench(self, name: str, mode: str, seconds: float, **changes: Any) -> Path:
        engines = sorted(self.folder.glob('*.engine'))
        timings = [
            {
                'path': path.name,
                'cuda_graph': '.gpu.' in path.name,
                'runs': 1000,
                'seconds': seconds / len(engines),
                'latency': {'p50': 4.0, 'p99': 6.0},
            }
            for path in engines
        ]
        sensors = {
            'source': 'tegrastats',
            'values': {'power_w': {'mean': 31.0}, 'temperature_gpu_c': {'max': 71.0}},
            'slowed': {},
            'power_mode': mode,
            **changes,
        }
        return self.write(name, timings=timings, settings={'cuda_graph': True}, sensors=sensors)

    def parameters(self, **cores: int) -> None:
        nodes: dict[str, Any] = {'bev_fusion': {'cameras': list(cores)}}
        camera, lidar = self.networks['camera'].stem, self.networks['lidar'].stem
        for name, core in cores.items():
            device = 'gpu' if core < 0 else f'dla{core}'
            path = self.folder / f'{camera}.fp16.{device}.engine'
            nodes[f'camera_{name}'] = {'engine_path': str(path), 'dla_core': core}
        nodes['lidar_detector'] = {'engine_path': str(self.folder / f'{lidar}.fp16.gpu.engine')}
        self.params = self.folder / 'params.yaml'
        self.params.write_text(json.dumps({k: {'ros__parameters': v} for k, v in nodes.items()}))

    def change(self, engine: str, **changes: Any) -> None:
        """Changes the manifest of an engine whose name has this in it."""
        for path in self.folder.glob(f'*{engine}*.engine'):
            replace(Manifest.read(path), **changes).write(path)

    def rewrite(self, pattern: str, edit: Callable[[Any], None]) -> None:
        """Changes measurements."""
        for path in self.folder.glob(pattern):
            content = json.loads(path.read_text())
            edit(content)
            path.write_text(json.dumps(content))

    def remove(self, pattern: str) -> None:
        for path in self.folder.glob(pattern):
            path.unlink()

    def read(self) -> Deployment:
        def run(words: Any) -> str:
            if not self.modes:
                raise OSError('missing')
            return self.modes

        def open_again(path: Path) -> str:
            self.reopened.append(path.name)
            return self.problems.get(path.name, '')

        host = Host(
            run=run, no_gpu=lambda: self.no_gpu, cache=str(self.folder / 'cache' / 'kernels')
        )
        return read_deployment(
            self.folder, params=self.params, budget_ms=10.0, triton=self.triton, host=host,
            reopen=open_again,
        )  # fmt: skip

    def check(self) -> dict[str, Outcome]:
        return {item.name: outcome for item, outcome in run_checklist(self.read()).outcomes}

    def one(self, name: str) -> Outcome:
        (item,) = [item for item in ITEMS if item.name == name]
        return item.check(self.read())


@pytest.fixture
def vehicle(tiny_models: Any, tmp_path: Path) -> Vehicle:
    return Vehicle(tmp_path, tiny_models)


def test_a_complete_deployment(vehicle: Vehicle) -> None:
    pytest.importorskip('tritonclient', reason="Triton's protobuf is not installed")
    found = vehicle.check()
    left = {name: outcome for name, outcome in found.items() if outcome.status != PASSED}
    # what the data are like is for people to judge
    assert set(left) == {'training-data'}, left
    assert left['training-data'].status == UNKNOWN
    assert 'two months on the apron' in ' '.join(left['training-data'].evidence)
    assert all(outcome.evidence for outcome in found.values())
    names = [path.name for path in sorted(vehicle.folder.glob('*.engine'))]
    assert vehicle.reopened == [name for name in names for _ in range(2)]
    assert any('640 frames' in line for line in found['calibration'].evidence)
    assert any('p99 6.00 ms' in line for line in found['latency'].evidence)


def card(vehicle: Vehicle, **changes: Any) -> None:
    file = vehicle.networks['camera'].with_suffix('.yaml')
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))


def network(vehicle: Vehicle, edit: Callable[[Any], None]) -> None:
    path = vehicle.networks['lidar']
    model = onnx.load(str(path))
    edit(model)
    onnx.save(model, str(path))


def set_opset(model: Any) -> None:
    model.opset_import[0].version = 13


def set_batch(model: Any) -> None:
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 3


def vary_batch(model: Any) -> None:
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = 'n'


def add_dead_weight(model: Any) -> None:
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(onnx.numpy_helper.np.ones(3, 'float32'), 'nobody')
    )


def old(vehicle: Vehicle, pattern: str) -> None:
    """Makes measurements older than the engines."""
    for path in vehicle.folder.glob(pattern):
        os.utime(path, (1000, 1000))


Change = Callable[[Vehicle], Any]
FAILURES: list[tuple[str, Change, str]] = [
    ('training-data', lambda v: card(v, about={}), 'does not say: training, accuracy'),
    ('training-data', lambda v: v.networks['lidar'].with_suffix('.yaml').unlink(),
     'no model card'),
    ('qat', lambda v: v.rewrite('*int8*compare*', lambda c: c['gates'][0].update(good=False)),
     'INT8 loses too much'),
    ('opset', lambda v: network(v, set_opset), 'opset 13, expected 17'),
    ('batch', lambda v: network(v, set_batch), 'neither 1 nor declared to vary'),
    ('sound-onnx', lambda v: network(v, add_dead_weight), '1 weights are unused'),
    ('sound-onnx', lambda v: v.networks['lidar'].write_bytes(b'x'), 'not a readable network'),
    ('current', lambda v: network(v, set_opset), 'has changed since it was built'),
    ('current', lambda v: (v.folder / 'x.engine').write_bytes(b'x'), 'no manifest'),
    ('target', lambda v: v.change('lidar', sm='sm_90', gpu='H200'), 'built for sm_90'),
    ('target', lambda v: v.change('lidar', sm=''), 'built for no GPU in particular'),
    ('calibration', lambda v: v.write('scales.meta.json', method='e', frames=40,
                                      scales_sha256='x'), '40 frames, expected 500'),
    ('fp16', lambda v: v.change('lidar', precision='fp32'), 'tiny_lidar.onnx: no fp16 engine'),
    ('int8', lambda v: v.rewrite('*int8*compare*', lambda c: c['gates'][0].update(good=False)),
     'INT8 loses too much'),
    ('dla', lambda v: v.change('dla1', dla_layer_pct=40.0), 'only 40.0 %'),
    ('timing-cache', lambda v: v.change('lidar', settings={'timing_cache': ''}),
     'without a timing cache'),
    ('layer-times', lambda v: v.rewrite('*lidar*profile*', lambda c: c.update(
        transfer_share=0.5)), '60 % of the time only moves data'),
    ('assignment', lambda v: v.parameters(front=0, rear=0), 'share DLA core 0'),
    ('assignment', lambda v: v.parameters(front=0, rear=-1), 'camera_rear'),
    ('triton', lambda v: (v.triton / 'lidar' / '1' / 'model.onnx').unlink(), 'is missing'),
    ('triton', lambda v: (v.triton / 'lidar' / 'config.pbtxt').write_text('nme: 1'), 'lidar: '),
    ('cuda-graphs', lambda v: [v.rewrite(name, lambda c: [t.update(cuda_graph=False)
                               for t in c['timings']]) for name in ('MAXN.json', 'MODE*.json')],
     'ran without'),
    ('golden', lambda v: v.rewrite('*lidar*compare*', lambda c: c.update(good=False)),
     'differs from its network'),
    ('heat', lambda v: v.bench('MAXN.json', 'MAXN', 700.0,
                               values={'temperature_cpu_c': {'max': 88.0}}), '88 °C'),
    ('heat', lambda v: v.bench('MAXN.json', 'MAXN', 700.0, slowed={'power cap': 0.2}),
     'power cap'),
    ('latency', lambda v: v.rewrite('M*.json', lambda c: c['timings'][0]['latency'].update(
        p99=12.0)), '12.00 ms, allowed 10 ms'),
    ('reopening', lambda v: v.problems.update({'tiny_lidar.fp16.gpu.engine': 'magic tag'}),
     'opening 1 of 2: magic tag'),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'change', 'says'), FAILURES)
def test_what_is_wrong_fails_its_item(
    name: str, change: Change, says: str, vehicle: Vehicle
) -> None:
    if name == 'triton':
        pytest.importorskip('tritonclient', reason="Triton's protobuf is not installed")
    change(vehicle)
    outcome = vehicle.one(name)
    assert outcome.status == FAILED
    assert says in outcome.reason
    assert outcome.command


UNKNOWNS: list[tuple[str, Change, str]] = [
    ('qat', lambda v: v.remove('*int8*.engine'), 'there is no INT8 engine'),
    ('qat', lambda v: v.rewrite('*compare*', lambda c: c.update(gates=[])), 'no accuracy gate'),
    ('calibration', lambda v: v.remove('scales.meta.json'), 'does not say from how many frames'),
    ('calibration', lambda v: v.change('int8', settings={}), 'which do not say'),
    ('timing-cache', lambda v: v.cache.unlink(), 'not on this machine'),
    ('timing-cache', lambda v: v.change('lidar', flavor='rtx'), 'measures nothing'),
    ('layer-times', lambda v: v.remove('*lidar*profile*'), 'no profile'),
    ('layer-times', lambda v: old(v, '*lidar*profile*'), 'no profile that is newer than it'),
    ('cuda-graphs', lambda v: v.remove('M*.json'), 'not measured with --cuda-graph'),
    ('dynamic-batching', lambda v: v.change('gpu', profiles=()), 'every input has one size'),
    ('golden', lambda v: old(v, '*lidar*compare*'), 'no comparison that is newer'),
    ('heat', lambda v: v.bench('MAXN.json', 'MAXN', 100.0), 'no measurement of 600 s'),
    ('power', lambda v: v.remove('MODE_30W.json'), 'not measured in MODE_30W'),
    ('power', lambda v: setattr(v, 'modes', ''), 'no power modes'),
    ('latency', lambda v: old(v, 'M*.json'), 'not measured since it was built'),
    ('reopening', lambda v: setattr(v, 'no_gpu', 'no CUDA GPU'), 'engines open on a GPU only'),
    ('dla', lambda v: v.remove('*dla*.engine'), 'no engine is for a DLA core'),
    ('assignment', lambda v: v.params.write_text(json.dumps({'bev_fusion': {'ros__parameters': {
        'cameras': ['']}}, 'lidar_detector': {'ros__parameters': {
            'engine_path': str(v.networks['lidar'])}}})), 'name no engines'),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'change', 'says'), UNKNOWNS)
def test_without_evidence_nothing_passes(
    name: str, change: Change, says: str, vehicle: Vehicle
) -> None:
    change(vehicle)
    outcome = vehicle.one(name)
    assert outcome.status == UNKNOWN
    assert says in outcome.reason
    assert outcome.command


def test_a_batch_that_varies_passes(vehicle: Vehicle) -> None:
    network(vehicle, vary_batch)
    outcome = vehicle.one('batch')
    assert outcome.status == PASSED
    assert 'tiny_lidar.onnx: the batch of canvas varies' in outcome.evidence


def test_an_outcome_needs_its_reasons() -> None:
    with pytest.raises(ConfigError, match='by evidence only'):
        Outcome(PASSED)
    with pytest.raises(ConfigError, match='for a reason only'):
        Outcome(FAILED, ('seen',))
    nothing = unknown('no files', 'do')
    assert together([], nothing) is nothing
    both = together([passed('a'), unknown('why', 'do', 'b'), passed('c')], nothing)
    assert both == unknown('why', 'do', 'a', 'b', 'c')


def commands(outcomes: list[Outcome]) -> list[list[str]]:
    """Command lines of this tool in what is to be done."""
    found = []
    for outcome in outcomes:
        for part in re.split(r'; |: |, ', outcome.command):
            words = shlex.split(part.split(' > ')[0])
            names = ('engine', 'airside_perception.deploy')
            start = next((n for n, word in enumerate(words) if word in names), None)
            if start is not None and len(words) > start + 1:
                found.append([word for word in words[start + 1 :] if word != 'engine'])
    return found


def test_commands_can_be_parsed(vehicle: Vehicle) -> None:
    outcomes = []
    for name, change, _ in (*FAILURES[5:6], *FAILURES[7:12], *UNKNOWNS[::3]):
        change(vehicle)
        outcomes.append(vehicle.one(name))
    vehicle.remove('*.engine')
    outcomes += list(vehicle.check().values())
    lines = commands(outcomes)
    assert {words[0] for words in lines} >= {'build', 'calibrate', 'compare', 'bench', 'profile'}
    for words in lines:
        assert _parser(words).parse_args(words).run, words


def test_measurements_of_the_verbs_are_known(
    tiny_models: Any, tmp_path: Path, capsys: Capture
) -> None:
    """What bench, profile and compare really print."""
    path = str(tiny_models.tiny_camera_model(tmp_path))
    made = {
        evidence.BENCH: ['bench', path, '--duration', '0.05', '--warm-up', '1'],
        evidence.PROFILE: ['profile', path, '--iterations', '2'],
        evidence.COMPARE: ['compare', path, path],
    }
    for kind, words in made.items():
        main([*words, '--json'])
        (tmp_path / f'{kind}.json').write_text(capsys.readouterr().out)
    found = {item.kind: item for item in evidence.find_evidence(tmp_path)}
    assert set(found) == set(made)
    items = tuple(found.values())
    network = Path(path)
    ((_, timing),) = list(evidence.timings_of(items, network))
    assert {'cuda_graph', 'runs', 'seconds'} <= set(timing)
    assert {'p50', 'p99'} <= set(timing['latency'])
    assert {'source', 'values', 'slowed', 'power_mode'} <= set(
        found[evidence.BENCH].content['sensors']
    )
    (profile,) = list(evidence.profiles_of(items, network))
    assert {'reformat_share', 'transfer_share', 'sum_ms'} <= set(profile.content)
    (comparison,) = list(evidence.comparisons_of(items, network))
    assert {'source', 'good', 'gates'} <= set(comparison.content)
    assert 'cosine' in comparison.content['outputs'][0]


def test_other_json_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'a.json').write_text('{"a": 1}')
    (tmp_path / 'b.json').write_text('no json')
    (tmp_path / 'c.json').write_text('[1, 2]')
    assert evidence.find_evidence(tmp_path) == ()


def test_shipped_networks_on_this_machine(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / 'release.md'
    status = main(['checklist', '--out', str(out), '--json'])
    found = json.loads(capsys.readouterr().out)
    states = {item['name']: item['status'] for item in found['items']}
    assert len(states) == len(ITEMS) == 22
    assert {states[name] for name in ('opset', 'batch', 'sound-onnx')} == {PASSED}
    assert states['training-data'] == UNKNOWN
    assert status == (0 if FAILED not in states.values() else 1)
    for item in found['items']:
        assert item['evidence'] or item['status'] != PASSED
        assert (item['reason'] and item['command']) or item['status'] == PASSED
    text = out.read_text()
    assert text.startswith('# Deployment checklist\n')
    assert text.count('- [x] ') == found['counts'][PASSED]
    assert text.count('- [ ] ') == found['counts'][FAILED] + found['counts'][UNKNOWN]


def test_markdown_and_text() -> None:
    item = ITEMS[0]
    outcomes = (
        (item, passed('a_b and _c_ *d* <e>')),
        (ITEMS[5], Outcome(FAILED, (), 'the | bytes', 'engine build x')),
    )
    found = Checklist(outcomes)
    assert not found.good
    markdown = as_markdown(found)
    assert '  - a_b and \\_c\\_ \\*d\\* \\<e\\>\n' in markdown
    assert f'- [ ] **{ITEMS[5].title}**: *failed*: the \\| bytes\n' in markdown
    assert '  - to do: `engine build x`\n' in markdown
    text = as_text(found)
    assert f'  FAILED  {ITEMS[5].title}\n            the | bytes\n' in text
    assert text.endswith('1 of 2 passed, 1 failed, 0 cannot be checked here.')


@pytest.mark.parametrize(
    ('done', 'says'),
    [
        (SimpleNamespace(returncode=0, stdout='{"not_opened": ""}', stderr=''), ''),
        (SimpleNamespace(returncode=1, stdout='{"not_opened": "magic"}', stderr=''), 'magic'),
        (SimpleNamespace(returncode=2, stdout='', stderr='engine: gone\n'), 'engine: gone'),
        (SimpleNamespace(returncode=-11, stdout='', stderr=''), 'exit status -11'),
        (SimpleNamespace(returncode=0, stdout='oops', stderr=''), 'JSONDecodeError'),
        (subprocess.TimeoutExpired('inspect', 300), 'TimeoutExpired'),
    ],
)
def test_opening_in_another_process(done: Any, says: str, tmp_path: Path) -> None:
    def run(words: Any, **options: Any) -> Any:
        assert words[-3:] == ['inspect', str(tmp_path / 'a.engine'), '--json']
        if isinstance(done, BaseException):
            raise done
        return done

    assert reopen(tmp_path / 'a.engine', run).startswith(says)
    assert bool(says) == bool(reopen(tmp_path / 'a.engine', run))


def test_opening_really_starts_a_process(vehicle: Vehicle) -> None:
    engine = next(vehicle.folder.glob('*lidar*.engine'))
    assert reopen(engine) != ''  # its bytes are nobody's plan, or there is no GPU


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--models', 'nowhere'], 'nowhere: no such folder'),
        (['--models', '.', '--engines', 'nowhere'], 'nowhere: no such folder'),
        (['--models', '.'], 'no network (.onnx) in this folder'),
    ],
)
def test_bad_input(
    words: list[str], says: str, tmp_path: Path, monkeypatch: Any, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['checklist', *words]) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert says in err
    assert err.count('\n') == 1

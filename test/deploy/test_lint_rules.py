"""The tables of `engine lint`, rule by rule: one network that keeps it, one that breaks it."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from airside_perception import deploy
from airside_perception.deploy.lint import Lint, generations, lint, load_table
from airside_perception.deploy.lint import table as tables
from airside_perception.deploy.lint.checks import COMPARISONS
from airside_perception.deploy.lint.facts import FACTS
from airside_perception.errors import ConfigError, RefusalError


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


PAIRS = _load('lint_networks').PAIRS
RULES = [
    (jetpack, rule)
    for jetpack in generations()
    for rule in load_table(jetpack).rules
    if load_table(jetpack).dla or rule.targets != ('dla',)
]
IDS = [f'{jetpack}-{rule.name}' for jetpack, rule in RULES]


def broken(found: Lint) -> dict[str, Any]:
    """{rule: finding} of a whole network."""
    return {f.rule: f for v in (*found.network, *found.verdicts) for f in v.findings}


@pytest.mark.parametrize(('jetpack', 'rule'), RULES, ids=IDS)
def test_a_rule_holds_and_breaks(jetpack: str, rule: Any) -> None:
    pair = PAIRS[rule.name]
    target = next(t for t in rule.targets if t == 'gpu' or load_table(jetpack).dla)
    kept = lint(pair.legal, target, jetpack, precision=pair.precisions[0])
    assert rule.name not in broken(kept)
    found = broken(lint(pair.illegal, target, jetpack, precision=pair.precisions[1]))
    assert rule.name in found
    finding = found[rule.name]
    assert finding.verdict == rule.verdict != 'runs'
    assert finding.value == pair.value
    assert finding.fix
    assert finding.source
    assert finding.limit


def test_every_pair_is_of_a_rule() -> None:
    assert set(PAIRS) == {rule.name for _, rule in RULES}


def test_the_tables_are_those_of_the_issue() -> None:
    versions = {jetpack: load_table(jetpack).tensorrt for jetpack in generations()}
    assert versions == {
        '5.1': '8.5.2', '6.0': '8.6.2', '6.2': '10.3.0', '7.2': '10.16.2', '7.2.2': '11.4.1',
    }  # fmt: skip
    assert [load_table(jetpack).dla for jetpack in generations()] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert load_table('6.2.1').tensorrt == '10.3.0'
    assert load_table('7.2.1').tensorrt == '10.16.2'


def test_a_jetpack_without_dla_says_so() -> None:
    for jetpack in ('7.2', '7.2.1'):
        with pytest.raises(RefusalError, match=rf'JetPack {jetpack} .*has no DLA: .*6\.2 has it'):
            lint(PAIRS['operators'].legal, 'dla', jetpack)
        assert lint(PAIRS['operators'].legal, 'gpu', jetpack).good


def test_unknown_settings() -> None:
    relu = PAIRS['operators'].legal
    with pytest.raises(ConfigError, match=r"jetpack '4\.6': there are rules for 5\.1, 6\.0, 6\.2"):
        lint(relu, 'dla', '4.6')
    with pytest.raises(ConfigError, match="target 'npu': expected dla or gpu"):
        lint(relu, 'npu', '6.2')
    with pytest.raises(ConfigError, match="precision 'fp8': expected fp32, fp16, int8"):
        lint(relu, 'dla', '6.2', precision='fp8')


def test_generations_say_only_what_differs() -> None:
    base = yaml.safe_load(files(tables.PACKAGE).joinpath('5.1.yaml').read_text(encoding='utf-8'))
    for jetpack in generations()[1:]:
        text = files(tables.PACKAGE).joinpath(f'{jetpack}.yaml').read_text(encoding='utf-8')
        own = yaml.safe_load(text)
        same = [
            f'{name}.{key}'
            for name, rule in own['rules'].items()
            for key, value in (rule or {}).items()
            if value == base['rules'].get(name, {}).get(key)
        ]
        assert same == []


def test_every_fact_and_comparison_is_used() -> None:
    conditions = [
        condition
        for jetpack in generations()
        for rule in load_table(jetpack).rules
        for condition in (rule.condition, *rule.when)
    ]
    bounds = {c.limits for c in conditions if c.comparison == 'below'}
    assert {condition.fact for condition in conditions} | bounds == set(FACTS)
    assert {condition.comparison for condition in conditions} == set(COMPARISONS)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'fact': 'kernel'}, "rule conv: 'target' is missing"),
        ({'colour': 'red'}, "rule conv: unknown key 'colour'"),
        ({'target': 'dla', 'fact': 'kernel'}, r'rule conv: one comparison is needed, found \[\]'),
        (
            {'target': 'dla', 'fact': 'kernel', 'at_most': 3, 'verdict': 'maybe', 'fix': 'x'},
            "rule conv: verdict 'maybe': expected runs",
        ),
        ({'target': 'dla', 'at_most': 3}, "rule conv: 'fact' is missing"),
    ],
)
def test_a_broken_rule_is_named(change: dict[str, Any], message: str) -> None:
    text = {'ops': ['Conv'], **change}
    if change.get('fact') == 'kernel' and 'target' not in change:
        text.update(at_most=3)
    with pytest.raises(ConfigError, match=message):
        tables._rule('conv', text, {})


def test_buffer_banks_by_the_guide() -> None:
    """The formula in floating point, as the guide writes it."""
    for channels, width, kernel, size in ((512, 160, 3, 2), (512, 161, 3, 2), (3, 640, 7, 1)):
        weight = math.ceil(math.ceil(channels * kernel * kernel * size / 128) * 128 / 32768.0)
        entries = math.ceil(math.ceil(channels * size / 32.0) * width / 4.0)
        banks = weight + math.ceil(entries * kernel / 256.0)
        model = _load('lint_networks').conv((kernel, kernel), channels, 8, width)
        from airside_perception.deploy.lint.facts import Subject
        from airside_perception.deploy.lint.network import Network

        network = Network(model)
        precision = {1: 'int8', 2: 'fp16'}[size]
        assert FACTS['buffer_banks'](Subject(network, precision, network.nodes[0])) == banks


def test_tables_are_read_from_a_zip(tmp_path: Path) -> None:
    root = Path(deploy.__file__).parents[1]
    archive = tmp_path / 'package.zip'
    with zipfile.ZipFile(archive, 'w') as packed:
        for path in root.rglob('*'):
            if path.suffix in ('.py', '.yaml'):
                packed.write(path, Path(root.name) / path.relative_to(root))
    code = (
        f'import sys; sys.path.insert(0, {str(archive)!r});'
        'from airside_perception.deploy.lint import table;'
        'print(".zip" in table.__file__, table.generations(), len(table.load_table("6.2").rules))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    rules = len(load_table('6.2').rules)
    assert done.stdout.strip() == f'True {generations()} {rules}'

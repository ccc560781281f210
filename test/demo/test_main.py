"""The demo's command line; that it shows what it should was seen by eye, and in the live tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import yaml

from airside_perception.config.fusion import FusionConfig
from airside_perception.demo import __main__ as demo
from airside_perception.demo import gallery as shown
from airside_perception.demo.__main__ import main
from airside_perception.live import LiveRun
from airside_perception.parameter import from_values
from airside_perception.results import Result, line


@pytest.mark.parametrize('option', [['--seconds', '-1'], ['--rate', '0'], ['--seconds', 'long']])
def test_numbers_that_make_no_drive_are_refused(option, capsys):
    with pytest.raises(SystemExit) as refused:
        main(option)
    assert refused.value.code == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.open3d
def test_without_ros_the_drive_is_made_and_one_line_says_what_is_missing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('PATH', str(tmp_path))
    arguments = ['--out', str(tmp_path / 'out'), '--seconds', '0.2']
    assert main(arguments) == 1
    assert (tmp_path / 'out' / 'apron_11142_0.2s' / 'metadata.yaml').is_file()
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith('demo: ')
    assert 'ros2' in said[-1]


@pytest.fixture
def ran(results: list[Result], bag: Path, tmp_path: Path, monkeypatch) -> list[str]:
    """Arguments of a demo whose drive and live run are those of conftest."""
    out = tmp_path / 'out'
    out.mkdir()
    path = out / 'results.jsonl'
    path.write_text(''.join(map(line, results)), encoding='utf-8')
    monkeypatch.setattr(demo, '_drive', lambda *_: bag)
    monkeypatch.setattr(demo, 'run_live', lambda *_: LiveRun(path, path, 0, 0.5, {}))
    return ['--out', str(out)]


def test_a_run_leaves_pictures_and_says_which(ran: list[str], tmp_path: Path, capsys) -> None:
    assert main([*ran, '--pictures', str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f'{tmp_path}/out/bev.png\n' in said
    assert f'{tmp_path}/cameras.jpg\n' in said
    assert (f'{tmp_path}/demo.gif\n' in said) == shown.can_write()
    assert 'too late' not in said


def test_an_opencv_without_animations_is_one_line(ran: list[str], monkeypatch, capsys) -> None:
    for module in (demo, shown):
        monkeypatch.setattr(module, 'can_write', lambda: False)
    assert main(ran) == 0
    said = [text for text in capsys.readouterr().out.splitlines() if 'gif' in text]
    assert said == [
        f'no demo.gif: OpenCV {cv2.__version__} writes no animations (4.12 and later do)'
    ]


def test_an_interrupt_is_one_line(ran: list[str], monkeypatch, capsys) -> None:
    def interrupted(*_: object) -> LiveRun:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, 'run_live', interrupted)
    assert main(ran) == 130
    assert capsys.readouterr().err == 'demo: interrupted\n'


def test_scans_that_came_too_late_are_counted(
    ran: list[str], results: list[Result], tmp_path: Path, capsys
) -> None:
    content = json.loads(line(results[2]))
    for item in content['detections']:
        item['sources'] = ['front']
    text = line(results[0]) + json.dumps(content) + '\n'
    (tmp_path / 'out' / 'results.jsonl').write_text(text, encoding='utf-8')
    assert main(ran) == 0
    assert '1 of 2 scans came too late' in capsys.readouterr().out


def test_a_folder_for_pictures_that_is_missing_is_refused_at_once(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        main(['--pictures', str(tmp_path / 'missing')])
    assert refused.value.code == 2
    assert 'missing is no folder' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('rate', 'deadline_ms', 'silence_ms'),
    [(0.25, 200.0, 4000.0), (2.0, 50.0, 1000.0), (0.005, 5000.0, 60000.0)],
)
def test_the_fusion_waits_in_the_time_of_the_drive(
    tmp_path: Path, rate: float, deadline_ms: float, silence_ms: float
) -> None:
    path = demo._settings(tmp_path, rate)
    values = yaml.safe_load(path.read_text(encoding='utf-8'))['bev_fusion']['ros__parameters']
    assert values['deadline_ms'] == deadline_ms
    assert values['silence_ms'] == silence_ms
    assert values['cameras'] == ['front', 'left', 'right', 'rear']
    from_values(FusionConfig, values)  # within the ranges

"""The command line: files in and out, exit status, and one line where something is wrong."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airside_perception.replay import report
from airside_perception.replay.__main__ import main
from airside_perception.results import meta_path, read_results

Parameters = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def run(bag: Path, params: Path, out: Path, *more: str) -> int:
    return main(['run', '--bag', str(bag), '--params', str(params), '--out', str(out), *more])


def test_run_writes_results_and_where_they_come_from(
    street: Any, parameters: Parameters, tmp_path: Path, capsys: Capture
) -> None:
    bag, params, out = street.write(), parameters(), tmp_path / 'a.jsonl'
    assert run(bag, params, out) == 0
    assert len(read_results(out)) == 16
    meta = json.loads(meta_path(out).read_text())
    assert meta['parameters']['sha256'] == hashlib.sha256(params.read_bytes()).hexdigest()
    assert meta['parameters']['values']['camera_front']['nms_iou'] == 0.45
    paths = {Path(engine['path']).name for engine in meta['engines']}
    assert paths == {'tiny_camera.onnx', 'tiny_lidar.onnx'}
    network = (tmp_path / 'networks' / 'tiny_lidar.onnx').read_bytes()
    assert hashlib.sha256(network).hexdigest() in {item['sha256'] for item in meta['engines']}
    assert {Path(card['path']).name for card in meta['cards']} == {
        'tiny_camera.yaml', 'tiny_lidar.yaml',
    }  # fmt: skip
    assert meta['thresholds']['/perception/lidar/detections'] == {'car': 0.3, 'person': 0.3}
    assert {'numpy', 'onnxruntime', 'opencv', 'python'} <= set(meta['versions'])
    text = capsys.readouterr().out
    assert '/perception/objects' in text
    assert 'camera front.engine' in text
    assert 'dropped: 0, of these 0 for transforms' in text


def test_two_runs_give_equal_files(street: Any, parameters: Parameters, tmp_path: Path) -> None:
    bag, params = street.write(), parameters()
    for name in ('a', 'b'):
        assert run(bag, params, tmp_path / f'{name}.jsonl') == 0
    assert (tmp_path / 'a.jsonl').read_bytes() == (tmp_path / 'b.jsonl').read_bytes()
    first, second = (meta_path(tmp_path / f'{name}.jsonl').read_bytes() for name in 'ab')
    assert first == second


def test_results_and_folders_may_lie_in_the_bag(
    street: Any, parameters: Parameters, tmp_path: Path
) -> None:
    bag, params = street.write(), parameters()
    (bag / 'pictures').mkdir()
    for name in ('a', 'b'):
        assert run(bag, params, bag / f'{name}.jsonl') == 0
    first, second = (meta_path(bag / f'{name}.jsonl').read_bytes() for name in 'ab')
    assert first == second


@pytest.mark.parametrize('move', [0.0, 0.1])
def test_the_hash_of_the_calibration_is_that_of_places_not_of_stamps(
    street: Any, parameters: Parameters, tmp_path: Path, move: float
) -> None:
    params, mounts, hashes = parameters(), street._mounts, []

    def later() -> Any:
        message = mounts()
        for item in message.transforms:
            item.header.stamp.sec += 7
            item.header.stamp.nanosec += 7
            item.transform.translation.x += move
        return message

    for name in ('a', 'b'):
        out = tmp_path / f'{name}.jsonl'
        assert run(street.write(), params, out) == 0
        hashes.append(json.loads(meta_path(out).read_text())['calibration'])
        street._mounts = later
    assert (hashes[0] == hashes[1]) == (move == 0.0)


def test_two_processes_give_equal_files(
    street: Any, parameters: Parameters, tmp_path: Path, repository: Path
) -> None:
    bag, params = street.write(), parameters()
    for name, seed in (('a', '1'), ('b', '2')):
        command = [sys.executable, '-m', 'airside_perception.replay', 'run', '--bag', str(bag)]
        command += ['--params', str(params), '--out', str(tmp_path / f'{name}.jsonl')]
        subprocess.run(
            command, check=True, cwd=repository, capture_output=True,
            env={'PYTHONHASHSEED': seed, 'PATH': '/usr/bin:/bin'},
        )  # fmt: skip
    assert (tmp_path / 'a.jsonl').read_bytes() == (tmp_path / 'b.jsonl').read_bytes()


def test_summary_as_json(
    street: Any, parameters: Parameters, tmp_path: Path, capsys: Capture
) -> None:
    street.static = False
    street.cameras = ('front', 'left')
    params = parameters(bev_fusion={'cameras': ['front']})
    assert run(street.write(), params, tmp_path / 'a.jsonl', '--json') == 0
    found = json.loads(capsys.readouterr().out)
    assert found['tf_failures'] == 8
    assert found['drops'][0]['error'] == 'TransformError'
    assert found['messages'] == {'/perception/camera/front/detections_2d': 4}
    assert 'left' in found['left_out']


def test_drops_are_listed(
    street: Any, parameters: Parameters, tmp_path: Path, capsys: Capture
) -> None:
    street.static, street.lidar = False, False
    assert run(street.write(), parameters(), tmp_path / 'a.jsonl') == 0
    text = capsys.readouterr().out
    assert '4 x /sensing/camera/front/image: TransformError: no transform' in text
    assert 'not used: lidar: not in the bag' in text


def test_compare_says_same_or_different(
    street: Any, parameters: Parameters, tmp_path: Path, capsys: Capture
) -> None:
    bag, (a, b) = street.write(), (tmp_path / 'a.jsonl', tmp_path / 'b.jsonl')
    run(bag, parameters(), a)
    run(bag, parameters(), b)
    assert main(['compare', str(a), str(b)]) == 0
    assert 'the same within tolerance' in capsys.readouterr().out
    b.write_text(b.read_text().replace('"x": 7.5,', '"x": 7.6,'))
    assert main(['compare', str(a), str(b)]) == 1
    text = capsys.readouterr().out
    assert '/perception/lidar/detections: moved: car' in text
    assert 'position by 0.1' in text
    assert main(['compare', str(a), str(b), '--position', '0.11']) == 0
    capsys.readouterr()
    assert main(['compare', str(a), str(b), '--json']) == 1
    assert json.loads(capsys.readouterr().out)['same'] is False


def test_compare_lists_no_more_than_a_page(tmp_path: Path, capsys: Capture) -> None:
    line = '{{"stamp_ns": {}, "topic": "/a", "frame_id": "b", "detections": []}}\n'
    (tmp_path / 'a.jsonl').write_text(''.join(line.format(n) for n in range(50)))
    (tmp_path / 'b.jsonl').write_text(line.format(0))
    assert main(['compare', str(tmp_path / 'a.jsonl'), str(tmp_path / 'b.jsonl')]) == 1
    assert '... and 29 more' in capsys.readouterr().out


def test_compare_forgives_near_the_thresholds_of_the_run(
    street: Any, parameters: Parameters, tmp_path: Path, capsys: Capture
) -> None:
    """The lidar's car scores 0.88: lost with a threshold of 0.88, forgiven by a margin of 0.02."""
    street.cameras = ()
    bag, (a, b) = street.write(), (tmp_path / 'a.jsonl', tmp_path / 'b.jsonl')
    run(bag, parameters(lidar_detector={'score_threshold': 0.87}), a)
    run(bag, parameters(lidar_detector={'score_threshold': 0.89}), b)
    fused = '/perception/objects'
    for path in (a, b):  # what the fusion made of it has no threshold
        lines = [line for line in path.read_text().splitlines() if fused not in line]
        path.write_text('\n'.join(lines) + '\n')
    assert main(['compare', str(a), str(b)]) == 0
    assert main(['compare', str(a), str(b), '--margin', '0']) == 1
    meta_path(a).write_text('{"thresholds"')
    assert main(['compare', str(a), str(b)]) == 2
    assert 'not readable as the provenance' in capsys.readouterr().err
    meta_path(a).unlink()
    assert main(['compare', str(a), str(b)]) == 1


def test_import(object_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / 'bag')
    assert main(['import-kitti', str(object_folder), '--out', out]) == 0
    assert '2  /sensing/lidar/points' in capsys.readouterr().out
    assert main(['import-kitti', str(object_folder), '--out', out]) == 2
    assert 'exists already' in capsys.readouterr().err
    assert main(['import-kitti', str(object_folder), '--out', out, '--force']) == 0


@pytest.mark.parametrize(
    ('arguments', 'problem'),
    [
        (['run', '--bag', 'none', '--out', 'a.jsonl'], 'no such bag'),
        (['compare', 'none', 'none'], 'not readable as results'),
        (['import-kitti', 'none', '--out', 'bag'], 'neither the KITTI object layout'),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], problem: str, capsys: Capture
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.startswith('replay: ')
    assert error.count('\n') == 1


@pytest.mark.parametrize('folder', ['', 'nets/', '/nowhere/'])
def test_a_missing_engine_is_named_as_it_was_asked_for(
    street: Any, parameters: Parameters, tmp_path: Path, capsys: Capture, folder: str
) -> None:
    params = parameters(lidar_detector={'engine_path': f'{folder}x.engine'})
    assert run(street.write(), params, tmp_path / 'a.jsonl') == 2
    error = capsys.readouterr().err
    assert f'lidar_detector: {folder}x.engine: no such engine' in error
    assert 'x.onnx' in error
    assert error.count('\n') == 1


def test_a_run_without_any_result_leaves_no_file(
    street: Any, parameters: Parameters, tmp_path: Path, capsys: Capture
) -> None:
    street.cameras, street.static = (), False
    out = tmp_path / 'a.jsonl'
    assert run(street.write(), parameters(), out) == 2
    assert 'no message gave a result: no transform' in capsys.readouterr().err
    assert not out.exists()
    assert not meta_path(out).exists()


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['dance'],
        ['run', '--bag', 'a', '--out', 'b', '--threads', '0'],
        ['run', '--bag', 'a', '--out', 'b', '--threads', 'two'],
        ['compare', 'a', 'b', '--score', 'much'],
        ['compare', 'a', 'b', '--score', 'nan'],
        ['compare', 'a', 'b', '--position', '-1'],
        ['play', '--bag', 'a', '--rate', '0'],
    ],
)
def test_misuse_shows_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert 'usage: replay' in error
    assert '_positive' not in error


def test_help_has_examples(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ('import-kitti', 'run', 'compare', 'play', 'examples:', 'exit status'):
        assert word in text


def test_play_without_ros_says_what_is_missing(
    street: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, 'airside_perception.nodes.player', None)
    assert main(['play', '--bag', str(street.write())]) == 2
    assert 'play needs ROS 2 in this shell' in capsys.readouterr().err


def test_interruption_has_its_own_status(
    street: Any, parameters: Parameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report.Progress, '__call__', interrupt)
    assert run(street.write(), parameters(), tmp_path / 'a.jsonl') == 130
    assert not list(tmp_path.glob('*a.jsonl*'))

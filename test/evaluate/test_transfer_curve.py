"""Curves of networks on real frames; see `python -m benchmarks.transfer_curve`."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

curve = pytest.importorskip('benchmarks.transfer_curve', reason='run from the source tree')
from benchmarks import transfer_plot, transfer_report  # noqa: E402  (after the check for the source tree)

ROOT = Path(__file__).parents[2]


def figures(car: float, person: float, se: float = 0.1) -> dict[str, dict[str, float]]:
    """What a network scores; there are no trucks."""
    return {
        'car': {'objects': 6, 'ap': car, 'se': se},
        'truck': {'objects': 0, 'ap': float('nan'), 'se': float('nan')},
        'person': {'objects': 2, 'ap': person, 'se': float('nan')},
    }


PANEL = transfer_plot.Panel(
    'street', [figures(0.2, 0.1), figures(0.8, 0.4)], {'another': figures(1.0, float('nan'))}
)
STAGES = ['a plain', 'b varied']


def places(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Pixels (x, y) of a colour that lie in the middle of a filled circle."""
    mask = (image == colour).all(axis=2).astype(np.uint8)
    filled = cv2.erode(mask, np.ones((5, 5), np.uint8))
    return np.argwhere(filled)[:, ::-1]


def test_points_lie_where_the_figures_say() -> None:
    image = transfer_plot.panel(PANEL, ['a', 'b'])
    cars = places(image, transfer_plot.COLOURS['car'])
    first, second = cars[cars[:, 0] < 280], cars[cars[:, 0] > 280]
    floor, top = transfer_plot.HEIGHT - transfer_plot.BOTTOM, transfer_plot.TOP
    for found, ap in ((first, 0.2), (second, 0.8)):
        assert found[:, 1].mean() == pytest.approx(floor - ap * (floor - top), abs=1.5)
    assert not len(places(image, transfer_plot.COLOURS['truck']))  # there are none


def test_a_standard_error_is_drawn_and_a_missing_one_is_not() -> None:
    def height(se: float) -> int:
        one = transfer_plot.Panel('street', [figures(0.5, 0.0, se)], {})
        image = transfer_plot.panel(one, ['a']).astype(int)
        blue = np.abs(image - transfer_plot.COLOURS['car']).sum(axis=2) < 120
        rows = np.flatnonzero(blue.any(axis=1))
        return int(rows.max() - rows.min())

    span = transfer_plot.HEIGHT - transfer_plot.BOTTOM - transfer_plot.TOP
    assert height(0.2) == pytest.approx(0.4 * span, abs=3)
    assert height(float('nan')) < 12


def test_one_or_two_objects_make_no_line() -> None:
    image = transfer_plot.panel(PANEL, ['a', 'b'])
    blue, red = (
        (image[:, 150:400] == transfer_plot.COLOURS[name]).all(axis=2).any(axis=0)
        for name in ('car', 'person')
    )
    assert blue[40:200].all()  # from the first stage to the second
    assert not red[60:180].any()
    assert not len(places(image, transfer_plot.COLOURS['person']))  # hollow


def test_the_text_has_counts_errors_and_references() -> None:
    lines = transfer_report.report([PANEL], STAGES).splitlines()
    assert lines[0] == 'street: 6 car, 0 truck, 2 person'
    assert 'a plain' in lines[1]
    assert 'car 0.20 +- 0.10' in lines[1]
    assert 'truck -' in lines[1]
    assert '+-' not in lines[1].split('person')[1]  # two are too few for one
    assert 'another' in lines[3]
    assert 'car 1.00' in lines[3]


def test_files_are_whole_json_and_a_picture(tmp_path: Path) -> None:
    transfer_report.written(tmp_path / 'new', 'curve', [PANEL, PANEL, PANEL], STAGES, ['a note'])
    values = json.loads((tmp_path / 'new' / 'curve.json').read_text(encoding='utf-8'))
    assert list(values['street']) == [*STAGES, 'another']
    assert values['street']['b varied']['car']['ap'] == 0.8
    assert values['street']['b varied']['truck']['ap'] is None
    image = cv2.imread(str(tmp_path / 'new' / 'curve.png'))
    assert image.shape[1] == 2 * transfer_plot.WIDTH
    assert image.shape[0] > 2 * transfer_plot.HEIGHT  # two rows of panels and the legend


def test_networks_of_an_earlier_run_stand_first(tmp_path: Path) -> None:
    transfer_report.written(tmp_path, 'curve', [PANEL], STAGES, [])
    now = transfer_plot.Panel('street', [figures(0.9, 0.5)], PANEL.references)
    panels, names = transfer_report.after(tmp_path / 'curve.json', [now], ['c newest'])
    assert names == [*STAGES, 'c newest']
    assert [table['car']['ap'] for table in panels[0].stages] == [0.2, 0.8, 0.9]
    assert math.isnan(panels[0].stages[0]['truck']['ap'])  # null in the file
    assert list(panels[0].references) == ['another']
    again, names = transfer_report.after(tmp_path / 'curve.json', [now], [STAGES[1]])
    assert names == STAGES
    assert [table['car']['ap'] for table in again[0].stages] == [0.2, 0.9]


@pytest.mark.parametrize('text', ['{', '{}', '[]', '{"street": {"a": {}}}'])
def test_an_earlier_run_of_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / 'curve.json').write_text(text)
    with pytest.raises(ValueError, match='has no figures of these frames'):
        transfer_report.after(tmp_path / 'curve.json', [PANEL], STAGES)
    with pytest.raises(ValueError, match='has no figures of these frames'):
        transfer_report.after(tmp_path / 'nothing.json', [PANEL], STAGES)


def test_an_earlier_run_of_other_frames(tmp_path: Path) -> None:
    transfer_report.written(tmp_path, 'curve', [PANEL], STAGES, [])
    fewer = figures(0.9, 0.5)
    fewer['car']['objects'] = 5
    now = transfer_plot.Panel('street', [fewer], PANEL.references)
    with pytest.raises(ValueError, match='made of other frames: street'):
        transfer_report.after(tmp_path / 'curve.json', [now], ['c newest'])


@pytest.mark.parametrize('items', [['models/a.onnx'], ['=a.onnx'], ['a='], ['a=b', 'a=c']])
def test_arguments_that_name_no_network(items: list[str]) -> None:
    with pytest.raises(ValueError, match=r'LABEL=PATH|twice'):
        transfer_report.named(items)


def test_networks_keep_their_order() -> None:
    assert list(transfer_report.named(['b=1', 'a=2', 'c=x=y'])) == ['b', 'a', 'c']
    assert transfer_report.named(['c=x=y'])['c'] == Path('x=y')


@pytest.mark.slow
def test_the_command_on_real_scans(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    network = ROOT / 'models' / 'apron_pointpillars.onnx'
    line = ['curve', '--network', f'now={network}', '--data', str(shared_data), '--out',
            str(tmp_path)]  # fmt: skip
    monkeypatch.setattr(sys, 'argv', line)
    assert curve.main() == 0
    values = json.loads((tmp_path / 'transfer_curve.json').read_text(encoding='utf-8'))
    recorded = values['KITTI, six frames']['NVIDIA PointPillars, trained on KITTI']
    assert recorded['car']['objects'] == 6
    assert recorded['car']['ap'] > 0.95
    counts = [sum(values[place]['now'][name]['objects'] for place in list(values)[:3])
              for name in ('car', 'person')]  # fmt: skip
    assert counts == [values[curve.ALL]['now'][name]['objects'] for name in ('car', 'person')]
    assert 'all frames' in capsys.readouterr().out
    # what is switched off suppresses nothing, so no car is lost, and nothing more is asked for
    roads = values[curve.ALL + curve.ROAD_ONLY]['now']['car']
    assert roads['objects'] == values[curve.ALL]['now']['car']['objects']
    assert roads['recall'] >= values[curve.ALL]['now']['car']['recall']


def test_a_camera_network_is_no_lidar_network(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ROOT / 'models' / 'apron_yolox.onnx'
    line = ['curve', '--network', f'now={network}', '--data', str(shared_data)]
    monkeypatch.setattr(sys, 'argv', line)
    with pytest.raises(SystemExit) as ended:
        curve.main()
    assert ended.value.code == 2
    assert 'no lidar network' in capsys.readouterr().err

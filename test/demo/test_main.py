"""The demo's command line; that it shows what it should was seen by eye, and in the live tests."""

from __future__ import annotations

import pytest

from airside_perception.demo.__main__ import main


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
    assert (tmp_path / 'out' / 'apron_46_0.2s' / 'metadata.yaml').is_file()
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith('demo: ')
    assert 'ros2' in said[-1]

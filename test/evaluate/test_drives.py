"""Which drive a seed is, what benchmarks keep of it, and options that make no sense."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import drives
from benchmarks.precision_frames import CONDITIONS, condition_of


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    drives.add_options(parser)
    return parser.parse_args(words)


def test_options_as_they_are_without_words():
    given = parsed()
    assert given.seeds == range(6000, 6060)
    assert given.conditions == ('clear', 'fog', 'rain', 'night')
    assert parsed('--seeds', '3:5', '--conditions', 'rain,fog').conditions == ('rain', 'fog')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--seeds', '7'), 'FIRST:END'),
        (('--seeds', '9:3'), 'FIRST:END'),
        (('--seeds', 'a:b'), 'FIRST:END'),
        (('--conditions', 'clear,snow'), "'snow' is not one of clear, fog, rain, night"),
        (('--family', 'mine'), 'invalid choice'),
    ],
)
def test_what_cannot_be_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(*words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_fingerprint_changes_with_a_byte_and_with_the_order(tmp_path):
    one, two = tmp_path / 'a', tmp_path / 'b'
    one.write_bytes(b'network')
    two.write_bytes(b'card')
    before = drives.fingerprint([one, two])
    assert drives.fingerprint([one, two]) == before
    assert drives.fingerprint([two, one]) != before
    two.write_bytes(b'cart')
    assert drives.fingerprint([one, two]) != before


def test_a_bag_of_another_length_is_another_bag(tmp_path):
    for frames in (1, 2):
        folder = tmp_path / f'train_clear_4_{frames}'
        folder.mkdir()
        (folder / 'metadata.yaml').touch()
    assert drives.make(tmp_path, 4, 'clear', 'train', 1).name == 'train_clear_4_1'
    assert drives.make(tmp_path, 4, 'clear', 'train', 2).name == 'train_clear_4_2'


def test_precisions_are_compared_in_the_same_weather():
    assert [condition_of(seed) for seed in range(4)] == list(CONDITIONS)
    assert {name: sky for name, *sky in CONDITIONS} == {
        name: list(sky) for name, sky in drives.CONDITIONS.items()
    }

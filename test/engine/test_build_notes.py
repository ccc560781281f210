"""What is kept of TensorRT's messages."""

from __future__ import annotations

from airside_perception.engine.build_notes import SUBNORMAL, notes_of
from airside_perception.engine.trt_log import Messages

WEIGHTS = [
    'TensorRT encountered issues when converting weights between types and that could affect '
    'accuracy.',
    'If this is not the desired behavior, please modify the weights or retrain with '
    'regularization to adjust the magnitude of the weights.',
    'Check verbose logs for the list of affected weights.',
    '- 58 weights are affected by this issue: Detected subnormal FP16 values.',
]
MYELIN = 'Error Code 1: Myelin (Myelin error from unknown graph)'
UNUSED = 'The timing cache will not be used!'


def test_small_weights_are_one_note() -> None:
    assert notes_of(Messages([], [*WEIGHTS, 'slow'])) == (SUBNORMAL, 'slow')


def test_timings_of_another_network_are_no_news() -> None:
    assert notes_of(Messages([MYELIN, 'no tactic 7'], [UNUSED])) == ('no tactic 7',)


def test_an_error_that_does_not_come_with_the_timings_is_told() -> None:
    assert notes_of(Messages([MYELIN], ['slow', 'slow'])) == (MYELIN, 'slow')
    assert notes_of(Messages()) == ()

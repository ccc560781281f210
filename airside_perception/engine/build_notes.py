"""What a person needs to know of all that TensorRT logs while it builds."""

from __future__ import annotations

import re

from airside_perception.engine.trt_log import Messages

SUBNORMAL = 'some weights are too small for fp16 and were rounded: compare the results with fp32'
SHORTER = (
    (
        re.compile(
            'converting weights between types|weights are affected by this issue'
            '|modify the weights or retrain|logs for the list of affected weights'
        ),
        SUBNORMAL,
    ),
    # indices, all of them small
    (re.compile('INT64 weights.*does not natively support INT64'), ''),
)
"""Patterns in TensorRT's messages and what is said instead; empty: nothing."""

UNUSED = 'timing cache will not be used'
UNREADABLE = 'Myelin error from unknown graph'


def notes_of(said: Messages) -> tuple[str, ...]:
    """Errors and warnings of a build that ended well, each in short and once.

    Errors come first: they are about kernels that were tried and not taken.
    """
    messages = [*said.errors, *said.warnings]
    if any(UNUSED in text for text in messages):
        # kept timings of another network, on which TensorRT makes no use of them and says so twice
        messages = [text for text in messages if UNUSED not in text and UNREADABLE not in text]
    short = (next((s for p, s in SHORTER if p.search(text)), text) for text in messages)
    return tuple(dict.fromkeys(filter(None, short)))

"""What TensorRT says: much of what goes wrong in it is only logged, so its errors are collected.

A process has one logger for each TensorRT: the library keeps the first that it is given for
everything made later. Whoever does something collects what is said in his thread meanwhile.
TensorRT builds with threads of its own, too: what it says there goes to those who build, and to
nobody else, as another engine may be in service meanwhile.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from airside_perception.engine.capabilities import TensorRT

MOST_MESSAGES = 200

HINTS = (
    (
        r'magicTag|magic tag|serialization version',
        'not a plan of this TensorRT, or of another version of it',
    ),
    (r'header\.size|blobSize|[Ss]ize.*specified.*mismatch|truncat', 'the file is cut short'),
    (r'[Vv]ersion tag|version mismatch|different version', 'built by another TensorRT'),
    (
        r'compute capabilit|incompatible device|[Ss]m version|different.*devices?\b|target.*GPU',
        'built for another GPU',
    ),
    (
        r'host code|engine_host_code_allowed|kENGINE_HOST_CODE',
        'the plan carries host code: allow it with allow_host_code, if you trust its origin',
    ),
    (r'[Oo]ut\s?[Oo]f\s?[Mm]emory|cudaError 2\b|cudaErrorMemoryAllocation', 'out of GPU memory'),
    (r'driver version is insufficient|no CUDA-capable', 'no NVIDIA driver that serves it'),
    (r'DLA', 'see the DLA settings: its core, its memory pools, GPU fallback'),
)
"""Patterns in TensorRT's errors, and what they come to."""

PREFIX = re.compile(r'^(\s*\d+: )?(\[[^\]]*\] ?)*')
GENERIC = ('Engine deserialization failed', 'catchCudaError', 'Unexpected exception _Map')


@dataclass
class Messages:
    """What was said while somebody listened, each message without TensorRT's source places."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def reason(self) -> str:
        """The first error that says something, and what it comes to; empty if there is none."""
        if not self.errors:
            return ''
        telling = [text for text in self.errors if not any(word in text for word in GENERIC)]
        first = (telling or self.errors)[0]
        hint = next((said for pattern, said in HINTS if re.search(pattern, first)), '')
        return f'{first} ({hint})' if hint else first


class _Listeners:
    """Gives a message to who collects in its thread; from other threads, to who wants these."""

    def __init__(self) -> None:
        self._all: list[tuple[int, bool, Messages]] = []

    def say(self, error: bool, text: str) -> None:
        listening = list(self._all)
        own = [item for thread, _, item in listening if thread == threading.get_ident()]
        lines = [line.strip() for line in PREFIX.sub('', text).splitlines() if line.strip()]
        for item in own or [item for _, others, item in listening if others]:
            kept = item.errors if error else item.warnings
            if lines and lines[0] not in kept and len(kept) < MOST_MESSAGES:
                kept.append(lines[0])

    @contextmanager
    def collect(self, others: bool = False) -> Iterator[Messages]:
        messages = Messages()
        entry = (threading.get_ident(), others, messages)
        self._all.append(entry)
        try:
            yield messages
        finally:
            self._all = [item for item in self._all if item is not entry]


_listeners = _Listeners()
collect = _listeners.collect
"""Context manager: a `Messages` that holds what is said in this thread until it ends; with
`others` also what is said in threads where nobody collects."""


def logger(tensorrt: TensorRT) -> Any:
    """The logger of this TensorRT, to be given to its builder, runtime and parser."""
    return _logger_of(tensorrt.module)


@functools.cache
def _logger_of(module: Any) -> Any:
    grave = (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR)

    base: Any = module.ILogger

    class Log(base):  # type: ignore[misc]  # a class of a module that is found at run time
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in grave:
                _listeners.say(True, message)
            elif severity == module.ILogger.WARNING:
                _listeners.say(False, message)

    return Log()

"""Sizes of memory as text: 512K, 64M, 4G, always of 1024."""

from __future__ import annotations

import re

from airside_perception.errors import ConfigError

SIZE = re.compile(r'(\d+)(?:([KMG])(?:iB)?)?', re.IGNORECASE)
SHIFTS = {'': 0, 'K': 10, 'M': 20, 'G': 30}
SMALLEST_POOL = 4 << 10


def read_size(text: str, what: str) -> int:
    """Bytes of a size such as `65536`, `512K`, `64M`, `4G` or `4GiB`.

    `trtexec` takes the last letter alone for the unit, so its 4096MiB are 4096 bytes. Here they
    are 4 GiB; MB is refused, as it may be either.

    Args:
        what: an option, for the message.

    Raises:
        ConfigError: another form.
    """
    found = SIZE.fullmatch(str(text).strip())
    if not found:
        raise ConfigError(
            f'{what} {text!r}: expected bytes, or a number with K, M or G (1024, as in KiB), '
            'e.g. 512K or 4G'
        )
    return int(found.group(1)) << SHIFTS[(found.group(2) or '').upper()]


def size_text(count: int) -> str:
    """The shortest text that `read_size` reads as so many bytes."""
    for unit in ('G', 'M', 'K'):
        if count and count % (1 << SHIFTS[unit]) == 0:
            return f'{count >> SHIFTS[unit]}{unit}'
    return str(count)


def check_pool(name: str, count: int) -> None:
    """Checks the size of a memory pool of a DLA core; 0 is its own choice.

    Raises:
        ConfigError: not a power of 2, or less than 4 KiB, which TensorRT does not take.
    """
    if count and (count < SMALLEST_POOL or count & (count - 1)):
        lower = max(SMALLEST_POOL, 1 << (count.bit_length() - 1))
        higher = max(SMALLEST_POOL, 1 << count.bit_length())
        near = ' or '.join(dict.fromkeys(map(size_text, (lower, higher))))
        raise ConfigError(
            f'{name} = {size_text(count)}: expected a power of 2, at least 4K; near are {near}'
        )

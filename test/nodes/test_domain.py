"""Tests that run beside others share no ROS domain with them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest


def test_the_domain_belongs_to_this_process() -> None:
    """Of several that share the tests, none has what another one or the one above them took."""
    lock = Path(tempfile.gettempdir(), f'ros-domain-{os.environ["ROS_DOMAIN_ID"]}.lock')
    inode = lock.stat().st_ino if lock.exists() else None
    held = [line.split() for line in Path('/proc/locks').read_text().splitlines()]
    owners = [int(words[4]) for words in held if int(words[5].rpartition(':')[2]) == inode]
    if not owners:
        pytest.skip('ROS_DOMAIN_ID was given')
    assert owners == [os.getpid()]

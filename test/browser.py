"""Opens a report in headless Chromium: what its console says, and a picture of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
OTHERS = re.compile(r'(?:src|href)="(?!data:|#)[^"]+"|url\((?!data:)|@import|\bimport\(')


def open_page(path: Path, picture: Path, size: tuple[int, int] = (1280, 900)) -> list[str]:
    """What the console says of the page; the picture is written.

    The page must be whole in itself: anything that it would fetch fails the test.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip('no Chromium on the PATH: apt-get install chromium')
    text = path.read_text(encoding='utf-8')
    assert not OTHERS.findall(text), f'{path.name} fetches {OTHERS.findall(text)[:3]}'
    done = subprocess.run(
        [
            browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
            '--disable-dev-shm-usage', '--enable-logging=stderr', '--log-level=0',
            f'--user-data-dir={picture.parent / "profile"}', '--virtual-time-budget=2000',
            f'--window-size={size[0]},{size[1]}', f'--screenshot={picture}', path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert picture.is_file(), done.stderr[-2000:]
    return [line for line in done.stderr.splitlines() if ':CONSOLE' in line]

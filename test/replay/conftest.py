"""Small recordings for the tests of replay."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

P2 = '700 0 40 42 0 700 20 0.2 0 0 1 0.003'
LABELS = """Car 0.00 0 1.0 10 5 30 15 1.5 1.6 4.0 2.0 1.6 20.0 -1.57
Pedestrian 0.00 0 0.0 40 5 45 15 1.8 0.6 0.8 -3.0 1.6 10.0 0.0
DontCare -1 -1 -10 50 5 60 15 -1 -1 -1 -1000 -1000 -1000 -10
"""


def calibration(shift: float = 0.0) -> str:
    """The lidar 0.3 m behind and 0.08 m above the camera, axes exactly aligned."""
    return (
        f'P0: 1\nP2: {P2}\nR0_rect: 1 0 0 0 1 0 0 0 1\n'
        f'Tr_velo_to_cam: 0 -1 0 {shift} 0 0 -1 -0.08 1 0 0 -0.3\n\n'
    )


def write_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((40, 80, 3), value, np.uint8))


def write_scan(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rng.random((50, 4), dtype=np.float32).tofile(path)


@pytest.fixture
def object_folder(tmp_path: Path) -> Path:
    """Two frames in KITTI's object layout."""
    folder = tmp_path / 'object'
    for index, name in enumerate(('000003', '000007')):
        write_image(folder / 'image_2' / f'{name}.png', 50 + index)
        write_scan(folder / 'velodyne' / f'{name}.bin', index)
        for kind, text in (('calib', calibration()), ('label_2', LABELS)):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f'{name}.txt').write_text(text)
    return folder


@pytest.fixture
def drive_folder(tmp_path: Path) -> Path:
    """Three frames of a drive."""
    folder = tmp_path / 'drive'
    for index in range(3):
        write_image(folder / 'image_02' / f'{index:010d}.png', 50 + index)
        write_scan(folder / 'velodyne' / f'{index:010d}.bin', index)
    (folder / 'calibration.yaml').write_text(
        'image_size: [80, 40]\n'
        'K: [[700, 0, 40], [0, 700, 20], [0, 0, 1]]\n'
        'rect_rotation: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\n'
        'lidar2camera: [[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.3], [0, 0, 0, 1]]\n'
        'lidar_height: 1.5\n'
    )
    return folder

"""What the GPU benchmark feeds its detectors: real scans, several of them as one, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.lidar.sweeps import Sweeps
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Image, PointCloud

PICTURE = (720, 1280)
PERIOD_NS = 100_000_000


def read_scans(folder: Path) -> list[NDArray[np.float32]]:
    """All scans of a folder, float32 [N, 4]."""
    files = sorted(folder.glob('*.bin'))
    if not files:
        raise SystemExit(f'{folder}: no .bin scans')
    return [np.fromfile(path, np.float32).reshape(-1, 4) for path in files]


def joined(clouds: Sequence[PointCloud], card: LidarCard, config: LidarConfig) -> list[PointCloud]:
    """Clouds with those before them, as from a vehicle that stands; not the first ones."""
    if len(clouds) <= card.past_sweeps:
        raise SystemExit(
            f'{len(clouds)} scans are too few: {card.name} sees {card.past_sweeps + 1}'
        )
    transforms, sweeps = TransformBuffer(), Sweeps(card)
    transforms.set_static(config.fixed_frame, clouds[0].frame_id, np.eye(4))
    whole = [sweeps.join(cloud, config, transforms) for cloud in clouds]
    return whole[card.past_sweeps :]


def read_pictures(folder: Path | None) -> list[Image]:
    """Eight pictures of a folder, or drawn ones, as a camera of 1280 x 720 pixels gives them."""
    pictures = []
    files = sorted(folder.glob('*.png'))[:8] if folder else []
    rng = np.random.default_rng(0)
    for index in range(8):
        source = rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
        if files:
            source = np.asarray(cv2.imread(str(files[index % len(files)])), dtype=np.uint8)
        pixels = np.asarray(cv2.resize(source, PICTURE[::-1]), dtype=np.uint8)
        pictures.append(Image(index, 'camera', pixels))
    return pictures

"""A real drive and a trained network: found in every frame, and the same every time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from airside_perception.deploy.resize import resize_network
from airside_perception.replay.__main__ import main
from airside_perception.results import Result, read_results

FRAMES = 30
LARGE = ('truck', 'bus')


@pytest.fixture(scope='module')
def replayed(
    shared_data: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The drive through the camera network of 384 x 1248, from bags of both storages."""
    folder = tmp_path_factory.mktemp('drive')
    card = repository / 'config' / 'cards' / 'yolox_nano_coco.yaml'
    network = shared_data / 'yolox_nano' / 'yolox_nano.onnx'
    resize_network(network, folder / 'wide.onnx', 384, 1248, str(card))
    sections = {
        'camera_detector': {'engine_path': str(folder / 'wide.onnx')},
        'bev_fusion': {'lidar': False},
    }
    content = {node: {'ros__parameters': values} for node, values in sections.items()}
    params = folder / 'parameters.yaml'
    params.write_text(yaml.safe_dump(content))
    found = []
    for storage in ('mcap', 'sqlite3'):
        bag, out = folder / storage, folder / f'{storage}.jsonl'
        arguments = ['--out', str(bag), '--storage', storage]
        assert main(['import-kitti', str(shared_data / 'drive'), *arguments]) == 0
        arguments = ['--bag', str(bag), '--params', str(params), '--out', str(out)]
        assert main(['run', *arguments]) == 0
        found.append(out)
    return found[0], found[1]


def of(results: list[Result], topic: str) -> list[Result]:
    return [result for result in results if result.topic == topic]


def test_equal_bytes_from_run_to_run(replayed: tuple[Path, Path]) -> None:
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in replayed}
    assert len(digests) == 1
    assert main(['compare', *map(str, replayed)]) == 0


def test_cars_and_the_red_truck_in_every_frame(replayed: tuple[Path, Path]) -> None:
    """The truck stands at the right, from about x = 750 to the border of the image."""
    images = of(read_results(replayed[0]), '/perception/camera/front/detections_2d')
    assert len(images) == FRAMES
    for image in images:
        cars = [item for item in image.detections if item['class'] == 'car']
        assert sum(item['score'] > 0.5 for item in cars) >= 3, image.stamp_ns
        right = [item for item in image.detections if item['x1'] > 650 and item['x2'] > 1150]
        assert any(item['class'] in LARGE for item in right), image.stamp_ns


def test_fused_objects_carry_the_camera(replayed: tuple[Path, Path]) -> None:
    results = read_results(replayed[0])
    objects = of(results, '/perception/objects')
    assert len(objects) == FRAMES

    def near(items: Any) -> list[Any]:
        return [item for item in items if item['class'] == 'car' and 5 < item['x'] < 60]

    for result in objects:
        assert result.frame_id == 'base_link'
        assert all(item['sources'] == ['front'] for item in result.detections)
        assert len(near(result.detections)) >= 3, result.stamp_ns

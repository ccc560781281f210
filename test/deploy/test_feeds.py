"""Real inputs: as the detectors' own preprocessing gives them, from every kind of source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import find_card
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.deploy.feeds import Feeds, input_specs, open_feeds
from airside_perception.engine import open_engine
from airside_perception.errors import BagError, ConfigError, EngineError, PerceptionError
from airside_perception.geometry import apply, from_quaternion, transform
from airside_perception.lidar.detector import LidarDetector
from airside_perception.messages import (
    image_message,
    point_cloud_message,
    transform_message,
)
from airside_perception.replay.bag import BagWriter
from airside_perception.types import Image, PointCloud

HEIGHT = 1.73


class Listening:
    """An engine that keeps what it is fed."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.fed = engine, []
        self.inputs, self.outputs, self.info = engine.inputs, engine.outputs, engine.info

    def infer(self, feeds: Any) -> Any:
        self.fed.append({name: value.copy() for name, value in feeds.items()})
        return self.engine.infer(feeds)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images of several sizes, and something else."""
    folder = tmp_path / 'images'
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(5):
        shape = (40 + 30 * index, 100 + 7 * index, 3)
        path = folder / f'{index}.{"png" if index % 2 else "jpg"}'
        assert cv2.imwrite(str(path), rng.integers(0, 256, shape, np.uint8))
    (folder / 'notes.md').write_text('taken in the rain')
    return folder


def points(seed: int, count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low, high = (0.0, -20.0, -2.5, 0.0), (40.0, 20.0, 1.0, 1.0)
    return rng.uniform(low, high, (count, 4)).astype(np.float32)


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    folder = tmp_path / 'clouds'
    folder.mkdir()
    for index in range(4):
        points(index).tofile(folder / f'{index:04}.bin')
    return folder


def what_the_detector_feeds(feeds: Feeds, model: Path, kind: Any, config: Any) -> list[Any]:
    with open_engine(model) as engine:
        listening = Listening(engine)
        detector = kind(listening, find_card(model), config)
        for index in range(len(feeds)):
            detector.detect(feeds.raw(index))
        return listening.fed


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize(
    'look',
    [{}, {'color': 'rgb', 'centered': True, 'mean': [100, 90, 80], 'std': [50, 60, 70]}],
)
def test_images_as_the_camera_node_sees_them(
    images: Path, tmp_path: Path, tiny_models: Any, half: bool, look: Any
) -> None:
    size = {'height': 64, 'width': 96}
    model = tiny_models.tiny_camera_model(tmp_path, half, input={**size, **look})
    feeds = open_feeds(images, model, find_card(model))
    assert [Path(feeds.name(i)).name for i in range(len(feeds))] == [
        '0.jpg', '1.png', '2.jpg', '3.png', '4.jpg',
    ]  # fmt: skip
    expected = what_the_detector_feeds(feeds, model, CameraDetector, CameraConfig())
    for _ in range(2):  # as many times as wanted
        for found, wanted in zip(feeds, expected, strict=True):
            assert_array_equal(found['images'], wanted['images'])
            assert found['images'].dtype == (np.float16 if half else np.float32)
    assert not np.shares_memory(feeds[0]['images'], feeds[1]['images'])


@pytest.mark.parametrize('half', [False, True])
def test_clouds_as_the_lidar_node_sees_them(
    clouds: Path, tmp_path: Path, tiny_models: Any, half: bool
) -> None:
    model = tiny_models.tiny_lidar_model(tmp_path, half=half)
    card = find_card(model)
    feeds = open_feeds(clouds, model, card, height=HEIGHT, intensity_scale=0.5)
    config = LidarConfig(intensity_scale=0.5)
    expected = what_the_detector_feeds(feeds, model, LidarDetector, config)
    for found, wanted in zip(feeds, expected, strict=True):
        assert_array_equal(found['canvas'], wanted['canvas'])
        assert found['canvas'].any()
    raw = feeds.raw(2)
    assert isinstance(raw, PointCloud)
    lifted = points(2)
    lifted[:, 2] += np.float32(HEIGHT)
    assert_array_equal(raw.points, lifted)
    assert raw.frame_id == 'base_link'


def test_clouds_of_a_network_that_sees_several_sweeps_are_one(
    clouds: Path, tmp_path: Path, tiny_models: Any
) -> None:
    model = tiny_models.tiny_velocity_model(tmp_path)
    feeds = open_feeds(clouds, model, find_card(model), height=HEIGHT)
    expected = what_the_detector_feeds(feeds, model, LidarDetector, LidarConfig())
    for found, wanted in zip(feeds, expected, strict=True):
        assert_array_equal(found['spatial_features'], wanted['spatial_features'])
        occupied, age = found['spatial_features'][0, :2]
        assert occupied.any()
        assert not age.any()
    assert 'one sweep, without the past ones that the network sees (up to 1)' in feeds.note
    one = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=0)
    assert open_feeds(clouds, one, find_card(one), height=HEIGHT).note == ''


def test_evenly_spaced(clouds: Path, tmp_path: Path, tiny_models: Any) -> None:
    model = tiny_models.tiny_lidar_model(tmp_path)
    card = find_card(model)

    def names(most: int) -> str:
        feeds = open_feeds(clouds, model, card, most)
        assert (feeds.total, len(feeds)) == (4, most or 4)
        return ' '.join(Path(feeds.name(i)).stem for i in range(len(feeds)))

    assert names(2) == '0000 0002'
    assert names(3) == '0000 0001 0002'
    assert names(1) == '0000'
    assert names(0) == '0000 0001 0002 0003'
    assert len(open_feeds(clouds, model, card, 100)) == 4
    with pytest.raises(ConfigError, match='-1 frames'):
        open_feeds(clouds, model, card, -1)


def pcd(values: np.ndarray, form: str) -> bytes:
    """With a padding field and the intensity behind it."""
    head = (
        '# .PCD v0.7\nVERSION 0.7\nFIELDS x y z _ intensity\nSIZE 4 4 4 1 4\nTYPE F F F U F\n'
        f'COUNT 1 1 1 4 1\nWIDTH {len(values)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n'
        f'POINTS {len(values)}\nDATA {form}\n'
    )
    if form == 'ascii':
        rows = [f'{x:.9g} {y:.9g} {z:.9g} 0 0 0 0 {i:.9g}\n' for x, y, z, i in values]
        return (head + ''.join(rows)).encode()
    table = np.zeros(len(values), [('p', '<f4', 3), ('_', 'u1', 4), ('i', '<f4')])
    table['p'], table['i'] = values[:, :3], values[:, 3]
    return head.encode() + table.tobytes()


def test_clouds_of_other_formats(tmp_path: Path, tiny_models: Any) -> None:
    model = tiny_models.tiny_lidar_model(tmp_path)
    card, values, folder = find_card(model), points(7), tmp_path / 'mixed'
    folder.mkdir()
    np.save(folder / 'a.npy', values.astype(np.float64))
    (folder / 'b.pcd').write_bytes(pcd(values, 'ascii'))
    (folder / 'c.pcd').write_bytes(pcd(values, 'binary'))
    ring = np.column_stack([values, np.arange(len(values))]).astype(np.float32)
    ring.tofile(folder / 'd.pcd.bin')
    holes = np.vstack([values[:5], np.full((1, 4), np.nan, np.float32), values[5:]])
    holes.tofile(folder / 'e.bin')
    feeds = open_feeds(folder, model, card)
    assert len(feeds) == 5
    for index in range(5):
        found = feeds.raw(index)
        assert isinstance(found, PointCloud)
        assert_array_equal(found.points, values)
    (folder / 'f.pcd').write_bytes(pcd(values, 'binary_compressed'))
    with pytest.raises(ConfigError, match=r'f\.pcd: not a point cloud: DATA binary_compressed'):
        open_feeds(folder, model, card).raw(5)


def recording(path: Path, *, mount: bool = True, cameras: tuple[str, ...] = ('front',)) -> Path:
    """Three clouds of a turned lidar on a mast, and images."""
    turn = from_quaternion(0.0, 0.0, np.sin(0.2), np.cos(0.2))
    with BagWriter(path) as writer:
        if mount:
            item = transform_message(
                'base_link', 'lidar', 90, transform(turn, np.array([1.0, 0.5, HEIGHT])),
                writer.types,
            )  # fmt: skip
            tf = writer.types('tf2_msgs/msg/TFMessage')(transforms=[item])
            writer.write('/tf_static', tf, 90)
        for index in range(3):
            stamp = 100 + index
            cloud = PointCloud(stamp, 'lidar', points(index))
            writer.write('/points', point_cloud_message(cloud, writer.types), stamp)
            for name in cameras:
                pixels = np.full((64, 96, 3), 40 * index, np.uint8)
                image = image_message(Image(stamp, name, pixels), writer.types)
                writer.write(f'/{name}/image', image, stamp)
    return path


def test_recording(tmp_path: Path, tiny_models: Any) -> None:
    bag = recording(tmp_path / 'bag')
    lidar = tiny_models.tiny_lidar_model(tmp_path)
    with open_feeds(bag, lidar, find_card(lidar)) as feeds:
        assert len(feeds) == 3
        for index in (2, 0, 1, 1):  # back and forth
            raw = feeds.raw(index)
            assert isinstance(raw, PointCloud)
            turn = from_quaternion(0.0, 0.0, np.sin(0.2), np.cos(0.2))
            lidar2base = transform(turn, np.array([1.0, 0.5, HEIGHT]))
            expected = apply(lidar2base, points(index)[:, :3])
            np.testing.assert_allclose(raw.points[:, :3], expected, atol=1e-4)
            assert raw.stamp_ns == 100 + index
            assert feeds.name(index) == f'{bag} /points {100 + index} ns'
        fed = what_the_detector_feeds(feeds, lidar, LidarDetector, LidarConfig())
        for found, wanted in zip(feeds, fed, strict=True):
            assert_array_equal(found['canvas'], wanted['canvas'])
    camera = tiny_models.tiny_camera_model(tmp_path)
    with open_feeds(bag, camera, find_card(camera)) as seen:
        assert [int(feed['images'].max()) for feed in seen] == [0, 40, 80]
    with open_feeds(next(bag.glob('*.mcap')), camera, find_card(camera), most=1) as seen:
        assert len(seen) == 1
    with (
        open_feeds(bag, lidar, find_card(lidar), height=1.0) as feeds,
        pytest.raises(PerceptionError, match='leave the height out'),
    ):
        feeds.raw(0)


def test_recording_without_transforms(tmp_path: Path, tiny_models: Any) -> None:
    bag = recording(tmp_path / 'bag', mount=False)
    lidar = tiny_models.tiny_lidar_model(tmp_path)
    with open_feeds(bag, lidar, find_card(lidar), height=HEIGHT) as feeds:
        raw = feeds.raw(1)
    assert isinstance(raw, PointCloud)
    np.testing.assert_allclose(raw.points[:, 2], points(1)[:, 2] + HEIGHT, atol=1e-6)


def test_which_topic(tmp_path: Path, tiny_models: Any) -> None:
    bag = recording(tmp_path / 'bag', cameras=('front', 'left'))
    camera = tiny_models.tiny_camera_model(tmp_path)
    card = find_card(camera)
    with pytest.raises(ConfigError, match='several topics of images: /front/image, /left/image'):
        open_feeds(bag, camera, card)
    assert len(open_feeds(bag, camera, card, topic='/left/image')) == 3
    with pytest.raises(ConfigError, match="'/points' is sensor_msgs/msg/PointCloud2"):
        open_feeds(bag, camera, card, topic='/points')
    with pytest.raises(ConfigError, match="'/right/image' is not there"):
        open_feeds(bag, camera, card, topic='/right/image')
    with pytest.raises(ConfigError, match='needs a model card'):
        open_feeds(bag, camera, None)


def two_inputs(folder: Path) -> Path:
    kinds = {'a': (TensorProto.FLOAT, ['n', 3]), 'b': (TensorProto.INT64, [2])}
    graph = helper.make_graph(
        [
            helper.make_node('Cast', ['b'], ['c'], to=TensorProto.FLOAT),
            helper.make_node('Identity', ['a'], ['d']),
        ],
        'g',
        [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()],
        [
            helper.make_tensor_value_info('c', TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info('d', TensorProto.FLOAT, ['n', 3]),
        ],
    )
    path = folder / 'two.onnx'
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_arrays(tmp_path: Path) -> None:
    model = two_inputs(tmp_path)
    assert list(map(str, input_specs(model))) == ['a: float32 [?, 3]', 'b: int64 [2]']
    folder = tmp_path / 'arrays'
    folder.mkdir()
    for index in range(3):
        a = np.full((index + 1, 3), index, np.float32)
        np.savez(folder / f'{index}.npz', a=a, b=np.array([index, 1]))
    feeds = open_feeds(folder, model, None)
    assert [feed['a'].shape for feed in feeds] == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ConfigError, match='no image or cloud'):
        feeds.raw(0)
    names = tmp_path / 'some.txt'
    names.write_text('arrays/2.npz\n\narrays/0.npz\n')
    assert [len(feed['a']) for feed in open_feeds(names, model, None)] == [3, 1]
    one = open_feeds(folder / '1.npz', model, None)
    assert len(one) == 1
    np.savez(folder / '1.npz', a=np.zeros((2, 4), np.float32), b=np.array([0, 1]))
    with pytest.raises(EngineError, match=r"1\.npz: input 'a' is float32 \[2, 4\], expected a"):
        list(feeds)
    np.savez(folder / '1.npz', a=np.zeros((2, 3), np.float32))
    with pytest.raises(EngineError, match=r"1\.npz: input 'b' is missing"):
        list(feeds)
    (folder / '1.npz').write_bytes(b'PK nothing')
    with pytest.raises(ConfigError, match=r'1\.npz: not readable as \.npz'):
        list(feeds)
    names.write_text('arrays/9.npz\n')
    with pytest.raises(ConfigError, match=r'names .*9\.npz, which is no file'):
        open_feeds(names, model, None)


def test_fingerprint(images: Path, tmp_path: Path, tiny_models: Any) -> None:
    model = tiny_models.tiny_camera_model(tmp_path)
    card = find_card(model)

    def mark(most: int = 0, **changes: Any) -> str:
        return open_feeds(images, model, replace(card, **changes), most).fingerprint()

    plain = mark()
    assert plain == mark()
    assert len({plain, mark(4), mark(pad=0), mark(color='rgb')}) == 4
    assert mark(thresholds={}) == plain
    pixels = cv2.imread(str(images / '3.png'))
    pixels[0, 0] ^= 1
    assert cv2.imwrite(str(images / '3.png'), pixels)
    assert mark() != plain


def test_inputs_of_one_sweep_keep_their_fingerprints(
    clouds: Path, tmp_path: Path, tiny_models: Any
) -> None:
    """What was calibrated before networks saw several sweeps is taken up again."""
    model = tiny_models.tiny_lidar_model(tmp_path)
    feeds = open_feeds(clouds, model, find_card(model), 3, height=HEIGHT, intensity_scale=0.5)
    assert feeds.fingerprint() == (
        '233a06c13a1cf52e7f24a0e04a66174c8efccda76e982893a897f96e7399c820'
    )


def test_wrong_sources(images: Path, clouds: Path, tmp_path: Path, tiny_models: Any) -> None:
    camera = tiny_models.tiny_camera_model(tmp_path)
    lidar = tiny_models.tiny_lidar_model(tmp_path)
    camera_card, lidar_card = find_card(camera), find_card(lidar)
    empty = tmp_path / 'empty'
    (empty / 'image_2').mkdir(parents=True)
    (tmp_path / 'cut.mcap').write_bytes(b'\x89MCAP0\r\n')
    (images / '9.png').write_bytes(b'\x89PNG\r\n')
    (clouds / '9.bin').write_bytes(b'123')
    cases: list[tuple[Any, Any, Any, type[PerceptionError], str]] = [
        (tmp_path / 'nowhere', camera, camera_card, ConfigError, 'nowhere: no such file'),
        (empty, camera, camera_card, ConfigError, r'no images \(.*npz\); folders in it: image_2'),
        (clouds, camera, camera_card, ConfigError, 'holds clouds, and the network takes images'),
        (images, camera, None, ConfigError, 'holds images, which need a model card'),
        (images / 'notes.md', camera, camera_card, ConfigError, 'notes.md: expected images'),
        (tmp_path / 'cut.mcap', camera, camera_card, BagError, 'cut.mcap: not readable as a bag'),
        (images, lidar, camera_card, EngineError, "its card describes 'images' only"),
        (images, tmp_path / 'no.onnx', camera_card, EngineError, 'no.onnx: no such network'),
        (images, tmp_path / 'no.engine', camera_card, EngineError, 'no.engine: no such network'),
        (images, camera, camera_card, ConfigError, '9.png: not readable as an image'),
        (clouds, lidar, lidar_card, ConfigError, '9.bin: not a point cloud: 3 bytes'),
    ]  # fmt: skip
    for source, model, card, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            list(open_feeds(source, model, card))
        assert '\n' not in str(caught.value)
    with pytest.raises(ConfigError, match="topic '/a' was named, and this is no recording"):
        open_feeds(images, camera, camera_card, topic='/a')


def test_clouds_without_intensity(tmp_path: Path, tiny_models: Any) -> None:
    model = tiny_models.tiny_lidar_model(tmp_path)
    np.save(tmp_path / 'bare.npy', points(0)[:, :3])
    with pytest.raises(PerceptionError, match=r'bare\.npy: the cloud has the fields x, y, z, but'):
        list(open_feeds(tmp_path / 'bare.npy', model, find_card(model)))


def test_real_drive(shared_data: Path, repository: Path) -> None:
    model = repository / 'models' / 'apron_pointpillars.onnx'
    card = find_card(model)
    folder = shared_data / 'drive' / 'velodyne'
    feeds = open_feeds(folder, model, card, 2, height=HEIGHT)
    assert (feeds.total, len(feeds)) == (30, 2)
    fed = what_the_detector_feeds(feeds, model, LidarDetector, LidarConfig())
    for found, wanted in zip(feeds, fed, strict=True):
        assert_array_equal(found['canvas'], wanted['canvas'])

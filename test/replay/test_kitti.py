"""KITTI folders become bags whose geometry is that of the files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airside_perception import messages
from airside_perception.deploy.compare import labels
from airside_perception.errors import BagError
from airside_perception.geometry import corners, invert
from airside_perception.replay import kitti
from airside_perception.replay.bag import BagReader
from airside_perception.replay.importer import import_kitti
from airside_perception.replay.truth import read_image_truth, read_labelled, read_truth
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Boxes2D, Boxes3D, Float64


def read(bag: Path) -> tuple[dict[str, list[Any]], TransformBuffer]:
    """Messages by topic, and the transforms among them."""
    found: dict[str, list[Any]] = {}
    buffer = TransformBuffer()
    with BagReader(bag) as reader:
        for record in reader.records():
            message = reader.message(record)
            found.setdefault(record.topic, []).append(message)
            for item in getattr(message, 'transforms', ()):
                parent, child, stamp_ns, matrix = messages.rigid_transform(item)
                if record.topic == '/tf_static':
                    buffer.set_static(parent, child, matrix)
                else:
                    buffer.add(parent, child, stamp_ns, matrix)
    return found, buffer


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_object_layout(object_folder: Path, tmp_path: Path, storage: str) -> None:
    seen: list[tuple[int, int]] = []
    counts = import_kitti(
        object_folder, tmp_path / 'bag', storage, progress=lambda *step: seen.append(step)
    )
    found, buffer = read(tmp_path / 'bag')
    assert counts == {topic: len(items) for topic, items in found.items()}
    assert seen == [(1, 2), (2, 2)]
    assert set(found) == {
        '/tf_static', '/sensing/camera/front/image', '/sensing/camera/front/camera_info',
        '/sensing/lidar/points', '/ground_truth/objects', '/ground_truth/camera/front/objects',
        '/ground_truth/details',
    }  # fmt: skip
    images = [messages.image(message) for message in found['/sensing/camera/front/image']]
    assert [image.stamp_ns for image in images] == [kitti.START_NS, kitti.START_NS + 10**9]
    assert [int(image.data.mean()) for image in images] == [50, 51]
    assert images[0].frame_id == 'camera_front_optical'
    cloud = messages.point_cloud(found['/sensing/lidar/points'][1])
    raw = np.fromfile(object_folder / 'velodyne' / '000007.bin', '<f4').reshape(-1, 4)
    np.testing.assert_array_equal(cloud.points, raw)
    camera = messages.camera_model(found['/sensing/camera/front/camera_info'][0])
    assert (camera.width, camera.height, camera.frame_id) == (80, 40, 'camera_front_optical')
    lidar = buffer.lookup('base_link', 'lidar', 0)
    np.testing.assert_allclose(lidar[:3, 3], [0.0, 0.0, 1.73])
    camera2base = buffer.lookup('base_link', 'camera_front', 0)
    offset = (42 - 40 * 0.003) / 700, (0.2 - 20 * 0.003) / 700, 0.003
    expected = [0.3 - offset[2], offset[0], 1.73 - 0.08 + offset[1]]
    np.testing.assert_allclose(camera2base[:3, 3], expected, atol=1e-9)


def test_labels_in_base_link(object_folder: Path, tmp_path: Path) -> None:
    import_kitti(object_folder, tmp_path / 'bag')
    found, _ = read(tmp_path / 'bag')
    boxes = messages.boxes3d(found['/ground_truth/objects'][0])
    assert boxes.frame_id == 'base_link'
    assert boxes.classes == ('car', 'person')
    expected = [
        [20.3, -2.0, 1.73 - 0.08 - 1.6 + 0.75, 4.0, 1.6, 1.5, 1.57 - np.pi / 2],
        [10.3, 3.0, 1.73 - 0.08 - 1.6 + 0.9, 0.8, 0.6, 1.8, -np.pi / 2],
    ]
    np.testing.assert_allclose(boxes.boxes, expected, atol=1e-9)
    flat = messages.boxes2d(found['/ground_truth/camera/front/objects'][0])
    assert flat.classes == ('car', 'person')
    np.testing.assert_allclose(flat.xyxy[0], [10, 5, 30, 15])


def test_what_a_detection_may_call_an_object_need_not_be_found(
    object_folder: Path, tmp_path: Path
) -> None:
    file = object_folder / 'label_2' / '000003.txt'
    text = file.read_text()
    kinds = ('Van', 'Person_sitting', 'Tram', 'Misc', 'Hovercraft')
    lines = [f'{kind} {" ".join(text.split()[1:15])}\n' for kind in kinds]
    file.write_text(''.join(lines))
    (object_folder / 'label_2' / '000007.txt').write_text(text.splitlines()[2])
    import_kitti(object_folder, tmp_path / 'bag')
    expected = [
        ('car', True), ('truck', False), ('person', True), ('bus', True), ('truck', False),
        ('misc', True), ('hovercraft', True),
    ]  # fmt: skip
    with BagReader(tmp_path / 'bag') as reader:
        moments, seen = read_truth(reader), read_image_truth(reader, 'front')
    for moment, count in zip(moments, (len(expected), 0), strict=True):
        flat = seen[moment.stamp_ns]
        assert len(moment.truth) == len(flat) == count
        called = zip(moment.truth.classes, np.asarray(moment.truth.asked), strict=True)
        assert list(called) == expected[:count]
        assert sorted(zip(flat.classes, flat.scores > 0, strict=True)) == sorted(expected[:count])
    found, _ = read(tmp_path / 'bag')
    solid = messages.boxes3d(found['/ground_truth/objects'][0])
    assert solid.classes == tuple(name for name, asked in expected if asked)


def test_names_are_those_of_the_accuracy_gate() -> None:
    known = {kind.lower(): names or (kind.lower(),) for kind, names in labels.NAMES.items()}
    assert known == kitti.NAMES


def test_the_bag_says_where_labels_are(object_folder: Path, tmp_path: Path) -> None:
    import_kitti(object_folder, tmp_path / 'bag')
    with BagReader(tmp_path / 'bag') as reader:
        moments, labelled = read_truth(reader), read_labelled(reader, 'front')
        assert read_labelled(reader, 'left') == {}
    assert list(labelled) == [moment.stamp_ns for moment in moments]
    for moment in moments:
        assert moment.labelled is not None
        assert moment.labelled.camera == 'front'
        for item in (moment.labelled, labelled[moment.stamp_ns]):
            np.testing.assert_array_equal(item.ignored, [[50, 5, 60, 15]])


def test_the_camera_moves_where_the_calibration_changes(
    object_folder: Path, tmp_path: Path
) -> None:
    file = object_folder / 'calib' / '000007.txt'
    file.write_text(file.read_text().replace('0 -1 0 0.0', '0 -1 0 0.2'))
    import_kitti(object_folder, tmp_path / 'bag')
    found, buffer = read(tmp_path / 'bag')
    assert len(found['/tf']) == 2
    first, second = (
        buffer.lookup('lidar', 'camera_front_optical', kitti.START_NS + step)
        for step in (0, 10**9)
    )
    np.testing.assert_allclose(second[:3, 3] - first[:3, 3], [0.0, 0.2, 0.0], atol=1e-9)


def test_drive(drive_folder: Path, tmp_path: Path) -> None:
    import_kitti(drive_folder, tmp_path / 'bag')
    found, buffer = read(tmp_path / 'bag')
    assert '/ground_truth/objects' not in found
    clouds = [messages.point_cloud(message) for message in found['/sensing/lidar/points']]
    assert [cloud.stamp_ns - kitti.START_NS for cloud in clouds] == [0, 10**8, 2 * 10**8]
    np.testing.assert_allclose(buffer.lookup('base_link', 'lidar', 0)[2, 3], 1.5)
    camera2base = buffer.lookup('base_link', 'camera_front', 0)
    np.testing.assert_allclose(camera2base[:3, 3], [0.3, 0.0, 1.42], atol=1e-9)


def test_a_drive_may_say_where_its_camera_is(drive_folder: Path) -> None:
    file = drive_folder / 'calibration.yaml'
    file.write_text(file.read_text() + 'P2: [[700, 0, 40, 42], [0, 700, 20, 0], [0, 0, 1, 0]]\n')
    calibration = kitti.read_folder(drive_folder)[0].calibration
    np.testing.assert_allclose(calibration.offset, [0.06, 0.0, 0.0], atol=1e-12)


def test_importing_twice_gives_equal_bytes(object_folder: Path, tmp_path: Path) -> None:
    digests = []
    for name in ('one', 'two'):
        import_kitti(object_folder, tmp_path / name / 'bag')
        data = (tmp_path / name / 'bag' / 'bag.mcap').read_bytes()
        digests.append(hashlib.sha256(data).hexdigest())
    assert digests[0] == digests[1]


def damage(folder: Path, name: str, text: bytes | None) -> None:
    path = next(folder.glob(name))
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text)


@pytest.mark.parametrize(
    ('name', 'content', 'problem'),
    [
        ('image_2/000007.png', b'no image', 'not readable as an image'),
        ('velodyne/000007.bin', b'17 bytes are odd!', 'no whole number of 16-byte points'),
        ('velodyne/000007.bin', None, 'its scan .* is missing'),
        ('calib/000007.txt', None, 'not readable as a KITTI calibration'),
        ('calib/000007.txt', b'P2: 1 2 3', 'not readable as a KITTI calibration'),
        ('label_2/000007.txt', b'Car 1 2 three', 'not readable as KITTI labels'),
        ('label_2/000007.txt', b'Car 1 2 3 4 5 6 7\n' * 2, 'a line of 8 words, expected 15'),
    ],
)
def test_a_broken_file_is_named_and_no_bag_is_left(
    object_folder: Path, tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    damage(object_folder, name, content)
    with pytest.raises(BagError, match=problem) as error:
        import_kitti(object_folder, tmp_path / 'bag')
    assert name in str(error.value)
    assert not (tmp_path / 'bag').exists()


def test_a_broken_drive_is_named(drive_folder: Path, tmp_path: Path) -> None:
    damage(drive_folder, 'calibration.yaml', b'K: 5')
    with pytest.raises(BagError, match='not readable as the calibration of a drive'):
        import_kitti(drive_folder, tmp_path / 'bag')


def test_other_folders_are_refused(tmp_path: Path, object_folder: Path) -> None:
    with pytest.raises(BagError, match='neither the KITTI object layout'):
        kitti.read_folder(tmp_path)
    for image in (object_folder / 'image_2').iterdir():
        image.unlink()
    with pytest.raises(BagError, match=r'no \.png images'):
        kitti.read_folder(object_folder)


def test_frames_without_labels(object_folder: Path, tmp_path: Path) -> None:
    damage(object_folder, 'label_2/000003.txt', None)
    counts = import_kitti(object_folder, tmp_path / 'bag')
    assert counts['/ground_truth/objects'] == 1
    with pytest.raises(BagError, match='frame 000003 has no labels'):
        kitti.read_labels(kitti.read_folder(object_folder)[0])


def project(frame: kitti.Frame, points: Float64) -> Float64:
    """Pixels of lidar points with the matrices of the file, as KITTI's own tools do it."""
    lines = (line.partition(':') for line in calib_file(frame).read_text().splitlines())
    values = {key: np.array(text.split(), np.float64) for key, colon, text in lines if colon}
    lidar2camera = np.vstack([values['Tr_velo_to_cam'].reshape(3, 4), [0, 0, 0, 1]])
    rectify = np.eye(4)
    rectify[:3, :3] = values['R0_rect'].reshape(3, 3)
    homogeneous = np.column_stack([points, np.ones(len(points))])
    pixels = values['P2'].reshape(3, 4) @ rectify @ lidar2camera @ homogeneous.T
    return (pixels[:2] / pixels[2]).T


def calib_file(frame: kitti.Frame) -> Path:
    return frame.image.parents[1] / 'calib' / f'{frame.name}.txt'


def test_projection_through_the_bag_is_that_of_the_files(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / 'labelled'
    import_kitti(folder, tmp_path / 'bag')
    found, buffer = read(tmp_path / 'bag')
    for frame, info in zip(
        kitti.read_folder(folder), found['/sensing/camera/front/camera_info'], strict=True
    ):
        points = frame.read_cloud().points[:, :3].astype(np.float64)
        points = points[points[:, 0] > 5.0]
        camera = messages.camera_model(info)
        lidar2optical = buffer.lookup(camera.frame_id, 'lidar', frame.stamp_ns)
        pixels, valid = camera.project(points @ lidar2optical[:3, :3].T + lidar2optical[:3, 3])
        assert valid.all()
        assert np.abs(pixels - project(frame, points)).max() < 0.01


def test_labels_in_space_are_where_the_labels_in_the_image_are(
    shared_data: Path, tmp_path: Path
) -> None:
    """The corners of a box in space span its box in the image, as the labels were made."""
    import_kitti(shared_data / 'labelled', tmp_path / 'bag')
    found, buffer = read(tmp_path / 'bag')
    camera = [messages.camera_model(item) for item in found['/sensing/camera/front/camera_info']]
    compared = 0
    for index, message in enumerate(found['/ground_truth/objects']):
        solid: Boxes3D = messages.boxes3d(message)
        flat: Boxes2D = messages.boxes2d(found['/ground_truth/camera/front/objects'][index])
        base2optical = invert(buffer.lookup('base_link', 'camera_front_optical', solid.stamp_ns))
        for row in range(len(solid)):
            points = corners(solid.boxes[[row]])[0] @ base2optical[:3, :3].T + base2optical[:3, 3]
            pixels, valid = camera[index].project(points)
            left, top, right, bottom = *pixels.min(axis=0), *pixels.max(axis=0)
            inside = valid.all() and left > 0 and right < camera[index].width
            if not inside or bottom > camera[index].height:
                continue  # cut off by the border of the image
            difference = np.abs(flat.xyxy[row] - [left, top, right, bottom])
            assert difference.max() < 0.1 * (bottom - top) + 0.1 * (right - left) + 2
            compared += 1
    assert compared >= 15

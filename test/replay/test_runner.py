"""A replay finds what the tiny networks see, drops what is broken, and repeats itself exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from airside_perception.errors import BagError, EngineError, TransformError
from airside_perception.replay.bag import BagReader, BagWriter
from airside_perception.replay.order import by_stamp
from airside_perception.replay.runner import Runner, Summary, read_transforms
from airside_perception.replay.settings import load_settings
from airside_perception.results import Result, line

Parameters = Callable[..., Path]
START_NS, STEP_NS, FRAMES = 50_000_000_000, 100_000_000, 4

OBJECTS = '/perception/objects'
LIDAR = '/perception/lidar/detections'
FRONT = '/perception/camera/front/detections'
FRONT_2D = '/perception/camera/front/detections_2d'
IMAGE, INFO, POINTS = (
    '/sensing/camera/front/image', '/sensing/camera/front/camera_info', '/sensing/lidar/points'
)  # fmt: skip


def run(bag: Path, params: Path) -> tuple[list[Result], Summary]:
    found: list[Result] = []
    with BagReader(bag) as reader:
        settings = load_settings(reader.topics, params)
        with Runner(reader, settings, found.append) as runner:
            return found, runner.run()


def of(found: list[Result], topic: str) -> list[Result]:
    return [result for result in found if result.topic == topic]


def test_every_message_gives_its_results(street: Any, parameters: Parameters) -> None:
    found, summary = run(street.write(), parameters())
    stamps = [START_NS + index * STEP_NS for index in range(FRAMES)]
    for topic in (OBJECTS, LIDAR, FRONT, FRONT_2D):
        assert [result.stamp_ns for result in of(found, topic)] == stamps, topic
    assert summary.messages == dict.fromkeys((OBJECTS, LIDAR, FRONT, FRONT_2D), FRAMES)
    assert not summary.drops
    assert summary.sets['complete'] == FRAMES
    assert [result.topic for result in found[:4]] == [FRONT_2D, FRONT, LIDAR, OBJECTS]


def test_the_car_is_found_by_all(street: Any, parameters: Parameters) -> None:
    found, summary = run(street.write(), parameters())
    (flat,) = of(found, FRONT_2D)[0].detections
    assert (flat['class'], flat['x1'], flat['x2'], flat['y2']) == ('car', 32.0, 64.0, 32.0)
    assert of(found, FRONT_2D)[0].frame_id == 'camera_front_optical'
    (lidar,) = of(found, LIDAR)[0].detections
    assert (lidar['class'], lidar['x'], lidar['y'], lidar['l']) == ('car', 7.5, 0.5, 4.0)
    assert lidar['z'] == pytest.approx(0.75)
    (camera,) = of(found, FRONT)[0].detections
    assert camera['x'] == pytest.approx(1.5 * 60 / 16 + 2.0, abs=0.2)
    assert of(found, FRONT)[0].frame_id == 'base_link'
    (fused,) = of(found, OBJECTS)[0].detections
    assert fused['sources'] == ['lidar', 'front']
    assert fused['score'] > max(lidar['score'], camera['score'])
    assert summary.fused['matched'] == FRAMES


def test_stages_are_timed(street: Any, parameters: Parameters) -> None:
    _, summary = run(street.write(), parameters())
    assert {'camera front', 'camera front.engine', 'lidar', 'lidar.pillars', 'fusion'} <= set(
        summary.times
    )
    for values in summary.times.values():
        assert len(values) == FRAMES
        assert min(values) >= 0.0
    steps = [name for name in summary.times if name.startswith('lidar.')]
    total = sum(summary.times[name][0] for name in steps)
    assert total <= summary.times['lidar'][0]


def test_it_repeats_itself_byte_for_byte(street: Any, parameters: Parameters) -> None:
    street.cameras = ('front', 'left')
    digests = set()
    for storage in ('mcap', 'sqlite3', 'mcap'):
        street.storage = storage
        found, _ = run(street.write(), parameters())
        digests.add(hashlib.sha256(''.join(map(line, found)).encode()).hexdigest())
    assert len(digests) == 1


def test_a_missing_camera_is_not_waited_for(street: Any, parameters: Parameters) -> None:
    street.skip = {(IMAGE, 1), (IMAGE, 2)}
    found, summary = run(street.write(), parameters())
    sources = [result.detections[0]['sources'] for result in of(found, OBJECTS)]
    assert sources == [['lidar', 'front'], ['lidar'], ['lidar'], ['lidar', 'front']]
    assert (summary.sets['missing.front'], summary.sets['incomplete']) == (2, 2)


def test_a_missing_lidar_is_not_waited_for(street: Any, parameters: Parameters) -> None:
    street.skip = {(POINTS, 1), (POINTS, 2), (POINTS, 3)}
    found, _ = run(street.write(), parameters())
    sources = [result.detections[0]['sources'] for result in of(found, OBJECTS)]
    assert sources[0] == ['lidar', 'front']
    assert sources[-1] == ['front']


def test_without_calibration_there_are_boxes_in_the_image_only(
    street: Any, parameters: Parameters
) -> None:
    street.skip = {(INFO, index) for index in range(2)}
    found, summary = run(street.write(), parameters())
    assert len(of(found, FRONT_2D)) == FRAMES
    assert [result.stamp_ns for result in of(found, FRONT)] == [
        START_NS + 2 * STEP_NS, START_NS + 3 * STEP_NS,
    ]  # fmt: skip
    assert summary.drops == {(IMAGE, 'MessageError'): 2}
    assert 'no calibration yet' in summary.causes[IMAGE, 'MessageError']


def test_a_calibration_that_is_none_is_not_replaced_by_the_last_good_one(
    street: Any, parameters: Parameters
) -> None:
    def zero(topic: str, index: int, message: Any) -> Any:
        if topic == INFO and index == 2:
            message.k = np.zeros(9)
        return message

    street.change = zero
    found, summary = run(street.write(), parameters())
    assert len(of(found, FRONT)) == FRAMES - 1
    assert summary.drops == {(INFO, 'MessageError'): 1, (IMAGE, 'MessageError'): 1}
    assert 'not calibrated' in summary.causes[INFO, 'MessageError']


def test_rectified_images_have_the_rectified_camera(street: Any, parameters: Parameters) -> None:
    def narrow(topic: str, index: int, message: Any) -> Any:
        if topic == INFO:
            message.p = np.array([120.0, 0, 48, 0, 0, 120.0, 16, 0, 0, 0, 1, 0])
        return message

    street.change = narrow
    path = street.write()
    places = {}
    for rectified in (False, True):
        found, _ = run(path, parameters(camera_front={'rectified': rectified}))
        places[rectified] = of(found, FRONT)[0].detections[0]['x']
        fused = of(found, OBJECTS)[0].detections[0]
        assert fused['sources'] == (['lidar', 'front'] if not rectified else ['lidar'])
    assert places[True] - 2.0 == pytest.approx(2 * (places[False] - 2.0), abs=0.01)  # less 2 m


def test_a_calibration_of_another_camera_is_refused(street: Any, parameters: Parameters) -> None:
    def other(topic: str, index: int, message: Any) -> Any:
        if topic == INFO and index == 0:
            message.width = 97
        if topic == INFO and index == 1:
            message.header.frame_id = 'elsewhere'
        return message

    street.change = other
    _, summary = run(street.write(), parameters())
    assert summary.drops == {(IMAGE, 'MessageError'): 2}
    assert 'camera_info is for 97 x 64' in summary.causes[IMAGE, 'MessageError']


def test_broken_messages_are_dropped_and_named(street: Any, parameters: Parameters) -> None:
    def damage(topic: str, index: int, message: Any) -> Any:
        if topic == IMAGE and index == 0:
            message.encoding = 'bayer_rggb16'
        if topic == POINTS and index == 1:
            message.fields[2].name = 'height'
        return message

    street.change = damage
    found, summary = run(street.write(), parameters())
    assert summary.drops == {(IMAGE, 'MessageError'): 1, (POINTS, 'MessageError'): 1}
    assert 'bayer_rggb16' in summary.causes[IMAGE, 'MessageError']
    assert "no field 'z'" in summary.causes[POINTS, 'MessageError']
    sources = [result.detections[0]['sources'] for result in of(found, OBJECTS)]
    assert sources == [['lidar'], ['lidar', 'front'], ['lidar', 'front']]


def test_missing_transforms_are_no_empty_answers(street: Any, parameters: Parameters) -> None:
    street.static = False
    found, summary = run(street.write(), parameters())
    assert {result.topic for result in found} == {FRONT_2D}
    assert summary.drops == {(IMAGE, 'TransformError'): FRAMES, (POINTS, 'TransformError'): FRAMES}
    assert summary.tf_failures == 2 * FRAMES


def test_one_source_out_of_reach_of_the_fusion_frame(street: Any, parameters: Parameters) -> None:
    """The lidar detects in its own frame; the fusion's frame is connected to nothing."""
    params = parameters(bev_fusion={'fusion_frame': 'map'})
    found, summary = run(street.write(), params)
    assert of(found, OBJECTS) == []
    assert summary.drops[OBJECTS, 'TransformError'] == FRAMES
    assert 'nothing to fuse' in summary.causes[OBJECTS, 'TransformError']


def test_boxes_at_different_stamps_need_odometry(street: Any, parameters: Parameters) -> None:
    def later(topic: str, index: int, message: Any) -> Any:
        if topic != POINTS:
            message.header.stamp.nanosec += 10_000_000
        return message

    street.change = later
    found, summary = run(street.write(), parameters())
    assert [item.detections[0]['sources'] for item in of(found, OBJECTS)] == [['lidar']] * FRAMES
    assert not summary.drops
    assert summary.partial == {(f'{OBJECTS} (front)', 'TransformError'): FRAMES}
    assert (summary.tf_drops, summary.tf_failures) == (0, FRAMES)
    params = parameters(bev_fusion={'fixed_frame': 'base_link'})
    found, summary = run(street.write(), params)
    assert not summary.drops
    assert not summary.partial
    assert of(found, OBJECTS)[0].detections[0]['sources'] == ['lidar', 'front']


def test_compressed_images(street: Any, parameters: Parameters, tmp_path: Path) -> None:
    path = tmp_path / 'compressed'
    with BagReader(street.write()) as reader, BagWriter(path) as writer:
        for record in reader.records():
            if record.topic != IMAGE:
                writer.write_raw(record.topic, record.type, record.data, record.log_ns)
                continue
            message = reader.message(record)
            pixels = message.data.reshape(64, 96, 3)
            data = np.asarray(cv2.imencode('.png', pixels)[1]).reshape(-1)
            kind = writer.types('sensor_msgs/msg/CompressedImage')
            plain = writer.types('std_msgs/msg/Header')
            stamp = writer.types('builtin_interfaces/msg/Time')(
                sec=message.header.stamp.sec, nanosec=message.header.stamp.nanosec
            )
            header = plain(stamp=stamp, frame_id=message.header.frame_id)
            small = kind(header=header, format='png', data=data)
            writer.write(f'{IMAGE}/compressed', small, record.log_ns)
    before, _ = run(street.write(), parameters())
    after, _ = run(path, parameters())
    assert list(map(line, of(after, FRONT_2D))) == list(map(line, of(before, FRONT_2D)))


def test_stamps_that_jump_back_start_anew(street: Any, parameters: Parameters) -> None:
    """A bag recorded over a loop: the second round is as good as the first."""

    def loop(topic: str, index: int, message: Any) -> Any:
        stamp_ns = START_NS + (index % 20) * STEP_NS
        message.header.stamp.sec = stamp_ns // 10**9
        message.header.stamp.nanosec = stamp_ns % 10**9
        return message

    street.frames, street.change = 40, loop
    found, summary = run(street.write(), parameters())
    stamps = [result.stamp_ns for result in of(found, OBJECTS)]
    assert stamps == [START_NS + index * STEP_NS for index in range(20)] * 2
    assert summary.sets['resets'] == 1


def test_late_messages_are_put_in_order(street: Any, parameters: Parameters) -> None:
    """Clouds recorded 250 ms after their stamp fuse with the images of their time."""
    path = street.folder / 'late'
    with BagReader(street.write()) as reader, BagWriter(path) as writer:
        for record in reader.records():
            delay = 250_000_000 if record.topic == POINTS else 0
            writer.write_raw(record.topic, record.type, record.data, record.log_ns + delay)
    before, _ = run(street.write(), parameters())
    after, _ = run(path, parameters())
    assert list(map(line, after)) == list(map(line, before))


def test_cameras_with_one_network_share_it(street: Any, parameters: Parameters) -> None:
    street.cameras = ('front', 'left')
    with BagReader(street.write()) as reader:
        settings = load_settings(reader.topics, parameters())
        with Runner(reader, settings, lambda result: None) as runner:
            assert len(runner.engines) == 2
            runner.run()
        first = runner.engines[0]
        with pytest.raises(EngineError, match='closed'):
            first.infer({first.inputs[0].name: np.zeros((1, 3, 64, 96), np.float32)})


def test_progress_is_told(street: Any, parameters: Parameters) -> None:
    seen: list[tuple[int, int]] = []
    with BagReader(street.write()) as reader:
        settings = load_settings(reader.topics, parameters())
        with Runner(reader, settings, lambda result: None) as runner:
            runner.run(lambda *step: seen.append(step))
    assert seen == [(done, 3 * FRAMES) for done in range(1, 3 * FRAMES + 1)]


def test_a_network_that_is_not_that_of_its_card_is_refused(
    street: Any, parameters: Parameters, tmp_path: Path
) -> None:
    card = tmp_path / 'networks' / 'tiny_lidar.yaml'
    card.write_text(card.read_text().replace('stride: 2', 'stride: 4'))
    with BagReader(street.write()) as reader:
        settings = load_settings(reader.topics, parameters())
        with pytest.raises(EngineError, match='contradicts its model card'):
            Runner(reader, settings, lambda result: None)


@pytest.mark.parametrize('broken', ['quaternion', 'translation'])
def test_a_broken_transform_is_dropped_and_counted(
    street: Any, parameters: Parameters, broken: str
) -> None:
    mounts = street._mounts

    def with_one_more() -> Any:
        message, more = mounts(), mounts().transforms[0]
        if broken == 'quaternion':
            more.transform.rotation.w = 0.0
        else:
            more.transform.translation.x = float('nan')
        message.transforms.append(more)
        return message

    street._mounts = with_one_more
    _, summary = run(street.write(), parameters())
    assert summary.drops == {('/tf_static', 'TransformError'): 1}
    (cause,) = summary.causes.values()
    assert cause.startswith(f"'lidar' -> 'base_link': {broken}")
    assert summary.sets['complete'] == FRAMES


def test_after_a_gap_the_sensors_of_one_stamp_are_one_set(
    street: Any, parameters: Parameters
) -> None:
    params = parameters(bev_fusion={'silence_ms': 150.0})
    street.skip = {(topic, 1) for topic in (IMAGE, INFO, POINTS)}
    street.skip |= {(topic, 2) for topic in (IMAGE, INFO, POINTS)}
    found, summary = run(street.write(), params)
    assert [result.stamp_ns for result in of(found, OBJECTS)] == [START_NS, START_NS + 3 * STEP_NS]
    assert +summary.sets == {'complete': 2}


def test_transforms_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    from airside_perception.messages import transform_message

    with BagWriter(tmp_path / 'bag') as writer:
        for parent in ('base_link', 'odom'):
            item = transform_message(parent, 'lidar', 0, np.eye(4), writer.types)
            message = writer.types('tf2_msgs/msg/TFMessage')(transforms=[item])
            writer.write('/tf', message, 0)
    with BagReader(tmp_path / 'bag') as reader, pytest.raises(TransformError, match='two parents'):
        read_transforms(reader)


def test_a_damaged_message_of_known_type_is_an_error_of_the_bag(
    street: Any, parameters: Parameters
) -> None:
    path = street.folder / 'damaged'
    with BagReader(street.write()) as reader, BagWriter(path) as writer:
        for number, record in enumerate(reader.records()):
            data = record.data[:40] if number == 6 else record.data
            writer.write_raw(record.topic, record.type, data, record.log_ns)
    _, summary = run(path, parameters())
    assert sum(summary.drops.values()) == 1
    assert next(iter(summary.drops))[1] == BagError.__name__


def test_order_by_stamp(street: Any) -> None:
    with BagReader(street.write()) as reader:
        records = [record for record in reader.records() if record.topic == IMAGE]
    ms = 1_000_000

    def shuffled(stamps: list[int]) -> list[int]:
        items = [replace(records[0], stamp_ns=stamp * ms) for stamp in stamps]
        return [record.stamp_ns // ms for record in by_stamp(items, 500 * ms)]

    assert shuffled([]) == []
    assert shuffled([100, 0, 300, 200]) == [0, 100, 200, 300]
    assert shuffled([0, 400, 100, 700, 250]) == [0, 100, 250, 400, 700]
    assert shuffled([5000, 5100, 0, 100]) == [5000, 5100, 0, 100]

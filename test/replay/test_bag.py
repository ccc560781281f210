"""Bags: round trips in both storages, a fixed order, and errors that say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)

from airside_perception.errors import BagError
from airside_perception.replay.bag import BagReader, BagWriter
from airside_perception.replay.definitions import VISION_MSGS, make_typestore

SECOND = 1_000_000_000


def header(types: Any, stamp_ns: int, frame_id: str = 'lidar') -> Any:
    time = types('builtin_interfaces/msg/Time')(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return types('std_msgs/msg/Header')(stamp=time, frame_id=frame_id)


def detections(types: Any, stamp_ns: int, frame_id: str = 'lidar') -> Any:
    array = types('vision_msgs/msg/Detection3DArray')
    return array(header=header(types, stamp_ns, frame_id), detections=[])


def folder_with_metadata(path: Path, content: str) -> None:
    path.mkdir()
    (path / 'metadata.yaml').write_text(content)


def text(types: Any, value: str) -> Any:
    return types('std_msgs/msg/String')(data=value)


@pytest.fixture(params=['mcap', 'sqlite3'])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bag(tmp_path: Path, storage: str) -> Path:
    path = tmp_path / 'bag'
    with BagWriter(path, storage) as writer:
        for step in range(3):
            stamp = 10 * SECOND + step
            writer.write('/objects', detections(writer.types, stamp), stamp)
            writer.write('/note', text(writer.types, f'step {step}'), stamp)
    return path


def test_messages_come_back_with_their_stamps_and_types(bag: Path) -> None:
    with BagReader(bag) as reader:
        records = list(reader.records())
        messages = [reader.message(record) for record in records]
        assert {name: (topic.type, topic.count) for name, topic in reader.topics.items()} == {
            '/objects': ('vision_msgs/msg/Detection3DArray', 3),
            '/note': ('std_msgs/msg/String', 3),
        }
        assert reader.span_ns == (10 * SECOND, 10 * SECOND + 2)
    assert [record.topic for record in records] == ['/note', '/objects'] * 3
    assert [record.stamp_ns for record in records] == [10 * SECOND + n for n in (0, 0, 1, 1, 2, 2)]
    assert messages[4].data == 'step 2'
    assert messages[1].header.frame_id == 'lidar'


def test_one_storage_file_without_its_folder_is_a_bag_too(bag: Path, storage: str) -> None:
    file = next(path for path in bag.iterdir() if path.suffix in ('.mcap', '.db3'))
    assert file.stem == 'bag'
    with BagReader(file) as reader:
        assert len(list(reader.records(['/note']))) == 3


def test_order_is_log_time_then_header_stamp_then_topic(tmp_path: Path, storage: str) -> None:
    path = tmp_path / 'bag'
    written = [('/b', 5, 9), ('/z', 4, 9), ('/a', 5, 9), ('/a', 8, 2), ('/a', 1, 9)]
    with BagWriter(path, storage) as writer:
        for topic, stamp, log in written:
            writer.write(topic, detections(writer.types, stamp), log)
    with BagReader(path) as reader:
        found = [(record.log_ns, record.stamp_ns, record.topic) for record in reader.records()]
    assert found == [(2, 8, '/a'), (9, 1, '/a'), (9, 4, '/z'), (9, 5, '/a'), (9, 5, '/b')]


def test_a_bag_of_equal_content_has_equal_bytes(tmp_path: Path, storage: str) -> None:
    contents = []
    for folder in ('one', 'two'):
        with BagWriter(tmp_path / folder / 'bag', storage) as writer:
            writer.write('/note', text(writer.types, 'same'), 7)
        files = (tmp_path / folder / 'bag').iterdir()
        contents.append({path.name: path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_latched_topics_are_marked(tmp_path: Path, storage: str) -> None:
    with BagWriter(tmp_path / 'bag', storage) as writer:
        types = writer.types
        writer.write('/tf_static', types('tf2_msgs/msg/TFMessage')(transforms=[]), 1)
        writer.write('/tf', types('tf2_msgs/msg/TFMessage')(transforms=[]), 1)
    with BagReader(tmp_path / 'bag') as reader:
        latched = {name: topic.latched for name, topic in reader.topics.items()}
        stamps = [record.stamp_ns for record in reader.records()]
    assert latched == {'/tf_static': True, '/tf': False}
    assert stamps == [1, 1], 'no header: the log time stands in'


def test_nothing_is_left_when_writing_fails(tmp_path: Path, storage: str) -> None:
    def write_half() -> None:
        with BagWriter(tmp_path / 'bag', storage) as writer:
            writer.write('/note', text(writer.types, 'half'), 1)
            assert not (tmp_path / 'bag').exists(), 'not visible before it is whole'
            raise RuntimeError('in the middle')

    with pytest.raises(RuntimeError, match='in the middle'):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_bag_is_overwritten_only_when_asked(bag: Path) -> None:
    with pytest.raises(BagError, match='exists already'):
        BagWriter(bag)
    with BagWriter(bag, overwrite=True) as writer:
        writer.write('/note', text(writer.types, 'new'), 1)
    with BagReader(bag) as reader:
        assert list(reader.topics) == ['/note']
    assert [path.name for path in bag.parent.iterdir()] == ['bag']


def test_what_is_no_bag_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / 'papers').mkdir()
    with pytest.raises(BagError, match='exists already'):
        BagWriter(tmp_path / 'papers', overwrite=True)


@pytest.mark.parametrize(
    ('make', 'problem'),
    [
        (lambda path: None, 'no such bag'),
        (lambda path: path.mkdir(), 'no metadata.yaml'),
        (lambda path: path.write_text('hello'), 'is no bag'),
        (lambda path: folder_with_metadata(path, '{'), 'not readable as a bag'),
        (lambda path: folder_with_metadata(path, 'a: 1'), 'not readable as a bag'),
    ],
)
def test_what_is_no_bag_is_named(tmp_path: Path, make: Any, problem: str) -> None:
    path = tmp_path / 'thing'
    make(path)
    with pytest.raises(BagError, match=problem) as error:
        BagReader(path)
    assert str(path) in str(error.value)


def test_an_empty_bag_is_an_error(tmp_path: Path, storage: str) -> None:
    BagWriter(tmp_path / 'bag', storage).close()
    with pytest.raises(BagError, match='holds no messages'):
        BagReader(tmp_path / 'bag')


@pytest.mark.parametrize('keep', [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_off_file_is_an_error_not_half_a_bag(bag: Path, keep: float) -> None:
    file = next(path for path in bag.iterdir() if path.suffix in ('.mcap', '.db3'))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])

    def read_all() -> None:
        with BagReader(bag) as reader:
            for record in reader.records():
                reader.message(record)

    with pytest.raises(BagError, match='not readable as a bag'):
        read_all()


def test_damaged_data_name_the_topic(tmp_path: Path, storage: str) -> None:
    with BagWriter(tmp_path / 'bag', storage) as writer:
        damaged = b'\0\1\0\0' + b'\xff' * 30
        writer.write_raw('/objects', 'vision_msgs/msg/Detection3DArray', damaged, 5)
    with BagReader(tmp_path / 'bag') as reader:
        record = next(reader.records())
        with pytest.raises(BagError, match='/objects at 5 ns is no vision_msgs'):
            reader.message(record)


def test_foreign_topics_do_not_hinder_the_others(bag: Path, storage: str) -> None:
    metadata = bag / 'metadata.yaml'
    file = next(path for path in bag.iterdir() if path.suffix in ('.mcap', '.db3'))
    for path in (metadata, file):  # same length, so that no index moves
        path.write_bytes(path.read_bytes().replace(b'std_msgs/msg/String', b'odd_msgs/msg/Strung'))
    with BagReader(bag) as reader:
        records = list(reader.records())
        assert reader.message(records[1]).header.frame_id == 'lidar'
        if storage == 'sqlite3':  # its definition was renamed with it: the bag itself defines it
            assert reader.message(records[0]).data == 'step 0'


def test_an_unknown_type_is_named(bag: Path) -> None:
    with (
        BagReader(bag) as reader,
        pytest.raises(BagError, match="'some_msgs/msg/Thing' is unknown"),
    ):
        reader.types('some_msgs/msg/Thing')


def test_writing_checks_what_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="storage 'tape'"):
        BagWriter(tmp_path / 'bag', 'tape')
    (tmp_path / 'file').write_text('')
    with pytest.raises(BagError, match='cannot be written'):
        BagWriter(tmp_path / 'file' / 'bag')
    writer = BagWriter(tmp_path / 'bag')
    with pytest.raises(BagError, match='dict is no class'):
        writer.write('/note', {'data': 'text'}, 1)
    with pytest.raises(BagError, match='/note: cannot be written as std_msgs/msg/String'):
        writer.write('/note', text(writer.types, 5), 1)  # type: ignore[arg-type]  # wrong on purpose
    writer.write('/note', text(writer.types, 'good'), 1)
    with pytest.raises(BagError, match='holds std_msgs/msg/String, not'):
        writer.write('/note', detections(writer.types, 1), 1)
    writer.close()
    writer.close()
    with pytest.raises(BagError, match='closed'):
        writer.write('/note', text(writer.types, 'late'), 1)


def definition(name: str, text: str, kind: str) -> Any:
    """A rosbags connection that defines one type."""
    found = MessageDefinition(MessageDefinitionFormat[kind], text)
    return Connection(1, '/odd', name, found, '', 0, ConnectionExtRosbag2('cdr', []), None)


def test_a_definition_in_the_bag_wins_over_the_distribution() -> None:
    name = 'std_msgs/msg/String'
    store = make_typestore([definition(name, 'float64 data\nfloat64 more', 'MSG')])
    assert [field for field, _ in make_typestore().fielddefs[name][1]] == ['data']
    assert [field for field, _ in store.fielddefs[name][1]] == ['data', 'more']
    assert 'vision_msgs/msg/Detection3DArray' in store.types


def test_vision_msgs_are_those_of_ros() -> None:
    """Type hashes are what ROS 2 matches topics by."""
    share = 'share/vision_msgs/msg/Point2D.json'
    wheel = Path(np.__file__).parents[1] / 'isaacsim/exts/isaacsim.ros2.core'
    trees = [path.parent for root in (wheel, Path('/opt/ros')) for path in root.glob(f'*/{share}')]
    if not trees:
        pytest.skip('no ROS 2 with vision_msgs and type descriptions here')
    store = make_typestore()
    for name in VISION_MSGS:
        description = json.loads((trees[0] / f'{name}.json').read_text())
        expected = {item['type_name']: item['hash_string'] for item in description['type_hashes']}
        full = f'vision_msgs/msg/{name}'
        assert store.hash_rihs01(full) == expected[full]


IDL = """module odd_msgs {
  module msg {
    struct Thing {
      double value;
      string name;
    };
  };
};
"""


@pytest.mark.parametrize('separated', [True, False])
def test_definitions_as_idl(separated: bool) -> None:
    text = f'{"=" * 80}\nIDL: odd_msgs/msg/Thing\n{IDL}' if separated else IDL
    store = make_typestore([definition('odd_msgs/msg/Thing', text, 'IDL')])
    thing = store.types['odd_msgs/msg/Thing'](value=1.5, name='x')
    data = store.serialize_cdr(thing, 'odd_msgs/msg/Thing')
    assert store.deserialize_cdr(data, 'odd_msgs/msg/Thing').value == 1.5


def test_a_definition_that_cannot_be_parsed_leaves_the_others() -> None:
    store = make_typestore([definition('odd_msgs/msg/Thing', 'float64[ x', 'MSG')])
    assert 'odd_msgs/msg/Thing' not in store.types
    assert 'sensor_msgs/msg/Image' in store.types

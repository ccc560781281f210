"""Message types without ROS: the distribution's own, and `vision_msgs`, which they lack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)

from airside_perception.errors import BagError

VISION_MSGS = {
    'Point2D': 'float64 x\nfloat64 y',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y',
    'BoundingBox3D': 'geometry_msgs/Pose center\ngeometry_msgs/Vector3 size',
    'ObjectHypothesis': 'string class_id\nfloat64 score',
    'ObjectHypothesisWithPose': (
        'ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose'
    ),
    'Detection2D': (
        'std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id'
    ),
    'Detection2DArray': 'std_msgs/Header header\nDetection2D[] detections',
    'Detection3D': (
        'std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id'
    ),
    'Detection3DArray': 'std_msgs/Header header\nDetection3D[] detections',
}  # fmt: skip
"""Fields of vision_msgs 4, as Humble and Jazzy have them."""

IDL_SEPARATOR = '=' * 80 + '\n'

Typestore = Any
"""rosbags' Typestore; the library's own annotations are not used here."""


def make_typestore(connections: Iterable[Connection] = ()) -> Typestore:
    """The types of ROS 2 Jazzy and vision_msgs, and those that a bag defines itself.

    Where a bag's definition differs from the distribution's, the bag's is used: its data were
    written with that. A definition that cannot be parsed leaves its type unknown, so that a bag
    with foreign topics is still readable.
    """
    store = _base()
    own: dict[str, Any] = {}
    for connection in connections:
        try:
            own.update(_parse(connection))
        except TypesysError:
            continue
    try:
        store.register(own)
    except TypesysError:  # one of them differs from the distribution's
        known = _base().fielddefs
        store = get_typestore(Stores.EMPTY)
        store.register({**known, **own})
    return store


def message_class(store: Typestore, name: str) -> Any:
    """Class of a message type such as `sensor_msgs/msg/Image`; its constructor needs every field.

    Raises:
        BagError: unknown type.
    """
    if name not in store.types:
        raise BagError(
            f'message type {name!r} is unknown: neither the bag nor ROS 2 Jazzy defines it'
        )
    return store.types[name]


def _base() -> Typestore:
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, text in VISION_MSGS.items():
        types.update(get_types_from_msg(text, f'vision_msgs/msg/{name}'))
    store.register(types)
    return store


def _parse(connection: Connection) -> dict[str, Any]:
    text = connection.msgdef.data
    if connection.msgdef.format == MessageDefinitionFormat.MSG:
        return dict(get_types_from_msg(text, connection.msgtype))
    types: dict[str, Any] = {}
    if connection.msgdef.format == MessageDefinitionFormat.IDL:
        for part in filter(str.strip, text.split(IDL_SEPARATOR)):
            body = part.split('\n', 1)[-1] if part.startswith('IDL: ') else part
            types.update(get_types_from_idl(body))
    return types

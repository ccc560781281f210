"""ROS messages to the core's types and back.

Duck-typed: nothing here imports ROS. Incoming messages are read by their fields, so rclpy's and
rosbags' classes both work; outgoing ones are made by `types`, a callable from a type name such as
`vision_msgs/msg/Detection3DArray` to the class of whoever is asking.

A message whose content cannot be trusted is a `MessageError` that names the field and its value.
"""

from airside_perception.messages.clouds import point_cloud, velocities
from airside_perception.messages.fields import header_stamp_ns, stamp_ns
from airside_perception.messages.incoming import (
    boxes2d,
    boxes3d,
    camera_model,
    compressed_image,
    image,
    named_rectified,
    rigid_transform,
)
from airside_perception.messages.outgoing import (
    MessageTypes,
    camera_info_message,
    detections2d,
    detections3d,
    header,
    image_message,
    point_cloud_message,
    time_message,
    transform_message,
    velocities_message,
)

__all__ = [
    'MessageTypes',
    'boxes2d',
    'boxes3d',
    'camera_info_message',
    'camera_model',
    'compressed_image',
    'detections2d',
    'detections3d',
    'header',
    'header_stamp_ns',
    'image',
    'image_message',
    'named_rectified',
    'point_cloud',
    'point_cloud_message',
    'rigid_transform',
    'stamp_ns',
    'time_message',
    'transform_message',
    'velocities',
    'velocities_message',
]

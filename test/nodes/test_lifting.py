"""When a camera whose boxes are all in the sky is a finding."""

from __future__ import annotations

import math

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from airside_perception.nodes.diagnostics import WARN, Report
from airside_perception.nodes.lifting import LIMIT_S, Lifting


class Watch:
    """A `Lifting` on a clock that stands still."""

    def __init__(self):
        self.now = 100.0
        self.lifting = Lifting(lambda: self.now)

    def see(self, boxes, in_sky, after=1.0, tilt=1.5):
        self.now += after
        self.lifting.saw(boxes, in_sky, 'camera_link', tilt)

    def message(self):
        report = Report()
        self.lifting.find(report)
        assert 'not_lifted_s' in report.values
        assert report.level in (WARN, b'\x00')
        return report.message


def test_boxes_in_the_sky_for_longer_than_the_limit_are_a_finding():
    watch = Watch()
    for _ in range(6):
        watch.see(2, 2)
        assert watch.message() == 'running'
    watch.see(2, 2)
    assert watch.message() == (
        'not_lifted_s 6.0, limit 5: all 14 boxes lie in the sky and have no place on the ground; '
        'are camera_info and the transform right?'
    )


def test_a_vertical_axis_is_no_optical_one():
    watch = Watch()
    for _ in range(8):
        watch.see(1, 1, tilt=math.radians(29.0))
    assert "is frame_id 'camera_link' an optical frame (z forward)?" in watch.message()
    assert '29 degrees from the vertical' in watch.message()
    watch.see(1, 1, tilt=math.radians(31.0))
    assert 'optical frame' not in watch.message()


def test_one_box_that_is_not_in_the_sky_begins_anew():
    watch = Watch()
    for _ in range(8):
        watch.see(3, 3)
    watch.see(3, 2)  # beyond max_range, for one: not lifted, but not in the sky
    assert watch.message() == 'running'
    for _ in range(6):
        watch.see(3, 3)
    assert watch.message() == 'running'


def test_images_without_boxes_say_nothing_and_a_long_gap_ends_it():
    watch = Watch()
    for _ in range(7):
        watch.see(1, 1)
        watch.see(0, 0, after=0.0)
    assert 'all 7 boxes' in watch.message()
    watch.now += LIMIT_S + 0.1
    assert watch.message() == 'running'
    watch.see(1, 1, after=0.0)
    assert watch.message() == 'running'

"""INT8 beside fp32 for the network of several sweeps: what it is calibrated on, boxes of both."""

from __future__ import annotations

import numpy as np
import pytest

int8_velocity = pytest.importorskip('benchmarks.int8_velocity', reason='run from the source tree')

from airside_perception.errors import ConfigError  # noqa: E402
from airside_perception.evaluate.frames import Found, Frame, Truth  # noqa: E402
from airside_perception.geometry import transform  # noqa: E402
from airside_perception.messages import point_cloud_message, transform_message  # noqa: E402
from airside_perception.replay.bag import BagWriter  # noqa: E402
from airside_perception.types import PointCloud  # noqa: E402

STEP_NS = 100_000_000
LOWEST = {'car': 0.5, 'person': 0.3}


def recorded(path, count):
    """Clouds of one point at 20.2 m, from a vehicle that comes nearer by 1 m a cloud."""
    with BagWriter(path) as writer:
        for step in range(count):
            stamp = STEP_NS * (step + 1)
            pose = transform(np.eye(3), np.array([float(step), 0.0, 0.0]))
            item = transform_message('odom', 'base_link', stamp, pose, writer.types)
            tf = writer.types('tf2_msgs/msg/TFMessage')(transforms=[item])
            writer.write('/tf', tf, stamp)
            cloud = PointCloud(stamp, 'base_link', np.array([[20.2, 1.0, 0.5, 0.9]], np.float32))
            writer.write('/points', point_cloud_message(cloud, writer.types), stamp)
    return path


def test_canvases_are_of_last_frames_with_their_past(tmp_path, tiny_models):
    model = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=2)
    bags = [recorded(tmp_path / name, 3) for name in ('one', 'two')]
    int8_velocity.write_canvases(bags, model, tmp_path / 'canvases')
    paths = sorted((tmp_path / 'canvases').iterdir())
    assert [path.name for path in paths] == ['one.npz', 'two.npz']
    with np.load(paths[0]) as stored:
        occupied, age = stored['spatial_features'][0, :2]
    rows, columns = np.nonzero(occupied)
    assert columns.tolist() == [36, 38, 40]  # 18.2, 19.2 and 20.2 m in pillars of 0.5 m
    np.testing.assert_allclose(age[rows, columns], [0.2, 0.1, 0.0], atol=1e-6)
    short = recorded(tmp_path / 'short', 2)
    with pytest.raises(ConfigError, match='short: 1 of 1 frames have fewer past sweeps'):
        int8_velocity.write_canvases([short], model, tmp_path / 'canvases')


def found(*rows):
    """Class, x, score and vx of 4 m x 2 m boxes."""
    boxes = np.array([[x, 0.0, 1.0, 4.0, 2.0, 2.0, 0.0] for _, x, _, _ in rows]).reshape(-1, 7)
    names = tuple(name for name, _, _, _ in rows)
    scores = np.array([score for _, _, score, _ in rows])
    speeds = np.array([[vx, 0.0] for _, _, _, vx in rows]).reshape(-1, 2)
    return Frame(
        Truth((), np.empty((0, 7))), Found(names, boxes, scores, velocities=speeds)
    ), LOWEST


def test_boxes_that_stay_go_and_come():
    reference = found(
        ('car', 0.0, 0.9, 1.0),
        ('car', 20.0, 0.8, 0.0),
        ('car', 40.0, 0.45, 0.0),  # below the threshold
        ('person', 60.0, 0.4, 1.0),
    )
    other = found(
        ('car', 0.5, 0.85, 1.5),
        ('car', 22.0, 0.8, 0.0),  # a third of the two is in both
        ('person', 0.0, 0.7, 0.0),  # another class
        ('person', 60.0, 0.35, 4.0),
        ('car', 1.0, 0.6, 9.0),  # the place is taken
    )
    values = int8_velocity.compared([reference, found()], [other, found()])
    assert (values['boxes'], values['kept'], values['added']) == (3, 2, 3)
    assert values['score differs']['median'] == pytest.approx(0.05)
    assert values['velocity differs'] == pytest.approx({'median': 1.75, '95 %': 2.875})
    none = int8_velocity.compared([found()], [other])
    assert (none['boxes'], none['kept'], none['added']) == (0, 0, 5)
    assert np.isnan(none['score differs']['median'])

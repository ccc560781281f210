"""Requests that a node refuses, and lives on: transitions and parameters that there are not."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.lifecycle import TransitionCallbackReturn

from airside_perception.nodes.bev_fusion import BevFusionNode
from airside_perception.nodes.lidar_detector import LidarDetectorNode

UNKNOWN_TYPE = 42


@pytest.fixture(params=['lidar', 'fusion'])
def node(request, harness, networks):
    if request.param == 'fusion':
        return harness.add(BevFusionNode, fixed_frame='base_link')
    return harness.add(LidarDetectorNode, engine_path=str(networks / 'tiny_lidar.onnx'))


def change(harness, node, **transition):
    """The answer to a request by number, as rclcpp's managers send it, or by label."""
    name = f'{node.get_fully_qualified_name()}/change_state'
    return harness.call(ChangeState, name, transition=Transition(**transition)).success


def warnings(capfd):
    return [
        line for line in capfd.readouterr().err.splitlines() if 'WARN' in line or 'ERROR' in line
    ]


def test_a_transition_that_the_state_does_not_have_is_refused_in_one_line(harness, node, capfd):
    capfd.readouterr()
    assert not change(harness, node, id=Transition.TRANSITION_ACTIVATE)
    lines = warnings(capfd)
    assert len(lines) == 1
    number = Transition.TRANSITION_ACTIVATE
    assert f'transition {number} refused: the node is unconfigured, which has ' in lines[0]
    assert lines[0].endswith('which has configure, shutdown')
    harness.activate(node)
    capfd.readouterr()
    for wanted in ({'id': number}, {'label': 'activate'}, {'id': 99}, {'label': 'fly'}, {}):
        assert not change(harness, node, **wanted)
        assert len(warnings(capfd)) == 1
        assert harness.state(node) == 'active'
    assert node.active
    assert change(harness, node, id=Transition.TRANSITION_DEACTIVATE)
    assert change(harness, node, id=Transition.TRANSITION_INACTIVE_SHUTDOWN)
    assert not change(harness, node, id=Transition.TRANSITION_CONFIGURE)
    assert harness.state(node) == 'finalized'


def test_the_label_counts_where_both_are_given_as_in_rcl(harness, node):
    assert change(harness, node, id=99, label='configure')
    assert harness.state(node) == 'inactive'
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize('together', [False, True])
def test_a_parameter_of_a_type_that_there_is_not_is_refused_with_the_reason(
    harness, node, together
):
    name = f'{node.get_fully_qualified_name()}/set_parameters'
    strange = Parameter(name='score_threshold', value=ParameterValue(type=UNKNOWN_TYPE))
    before = node.config.score_threshold
    good = Parameter(name='score_threshold', value=ParameterValue(type=3, double_value=0.5))
    if together:
        request = SetParametersAtomically, f'{name}_atomically'
        results = [harness.call(*request, parameters=[good, strange]).result]
        assert node.config.score_threshold == before
    else:
        results = harness.call(SetParameters, name, parameters=[strange, good]).results
        assert results[1].successful
        assert node.config.score_threshold == 0.5
    assert not results[0].successful
    assert results[0].reason == 'score_threshold: parameters have no type 42'
    nowhere = Parameter(name='nowhere', value=ParameterValue(type=3, double_value=0.5))
    [result] = harness.call(SetParameters, name, parameters=[nowhere]).results
    assert not result.successful
    assert result.reason == "unknown parameter 'nowhere'"
    assert harness.state(node) == 'unconfigured'

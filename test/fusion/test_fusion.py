from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.config import FusionConfig
from airside_perception.errors import MessageError, TransformError
from airside_perception.fusion import CameraView, Fusion
from airside_perception.fusion.fuse import logit, sigmoid
from airside_perception.types import Boxes3D

STAMP, FRAME = 5_000_000_000, 'base_link'
CONFIG = FusionConfig(cameras=('front', 'left'))


def fuse(lidar, cameras=None, config=CONFIG):
    return Fusion(config).fuse(lidar, cameras or {}, STAMP, FRAME)


def same_but_sources(a: Boxes3D, b: Boxes3D) -> bool:
    """Whether every number and name is the same, bit by bit."""
    return (
        a.boxes.tobytes() == b.boxes.tobytes()
        and a.scores.tobytes() == b.scores.tobytes()
        and a.covariances.tobytes() == b.covariances.tobytes()
        and (a.classes, a.ids, a.frame_id, a.stamp_ns)
        == (b.classes, b.ids, b.frame_id, b.stamp_ns)
    )


def test_one_object_seen_by_both(rig) -> None:
    lidar = rig.boxes(('car', 12, 2, 0.3, 0.6), ids=('7',), sigma=0.6)
    view = rig.seen_by(lidar, rig.camera2base(), jitter=0.5, score=0.7)
    result = fuse(lidar, {'front': view})
    assert (result.matched, result.lidar_only, result.camera_only) == (1, 0, 0)
    box, fused = result.boxes.boxes[0], result.boxes
    assert fused.sources == (('lidar', 'front'),)
    assert (fused.classes, fused.ids) == (('car',), ('7',))
    assert box[2:].tolist() == lidar.boxes[0, 2:].tolist()  # z, sizes and yaw of the lidar
    assert np.hypot(*(box[:2] - lidar.boxes[0, :2])) < 0.6
    evidence = logit(np.array([0.7])) - logit(np.array([0.1]))
    odds = logit(np.array([0.6])) + CONFIG.match_evidence + CONFIG.camera_weight * evidence
    assert fused.scores[0] == pytest.approx(sigmoid(odds)[0])
    # the camera knows the direction better than the lidar does: y improves
    before, after = lidar.covariances[0], fused.covariances[0]
    assert np.linalg.det(after[:2, :2]) < np.linalg.det(before[:2, :2])


def test_a_second_camera_counts_less_and_the_stronger_one_first(rig) -> None:
    lidar = rig.boxes(('car', 14, 5, 0.0, 0.5))
    poses = rig.camera2base(0.0), rig.camera2base(0.6)
    for first, second in ((0.4, 0.8), (0.8, 0.4)):
        views = {
            'front': rig.seen_by(lidar, poses[0], score=first),
            'left': rig.seen_by(lidar, poses[1], score=second),
        }
        config = replace(CONFIG, camera_weight=0.9, match_evidence=0.3, repeat_weight=0.25)
        result = fuse(lidar, views, config)
        gain = 0.3 + 0.9 * (logit(np.array([0.8, 0.4])) - logit(np.array([0.1])))
        expected = sigmoid(0.0 + gain[0] + 0.25 * gain[1])
        assert result.boxes.scores[0] == pytest.approx(expected)
        assert result.boxes.sources == (('lidar', 'front', 'left'),)


def test_the_prior_of_a_class_decides_what_a_score_is_worth(rig) -> None:
    lidar = rig.boxes(('person', 9, 0, 0.0, 0.5))
    view = {'front': rig.seen_by(lidar, rig.camera2base(), score=0.3)}
    config = replace(CONFIG, match_evidence=0.0)
    assert fuse(lidar, view, config).boxes.scores[0] > 0.5
    assert fuse(lidar, view, replace(config, prior=0.3)).boxes.scores[0] == pytest.approx(0.5)
    stern = replace(config, priors={'Person': 0.6})
    assert fuse(lidar, view, stern).boxes.scores[0] < 0.5


def test_a_camera_that_names_another_class_adds_its_part_only(rig) -> None:
    lidar = rig.boxes(('truck', 14, 0, 0.0, 0.6))
    view = {'front': rig.seen_by(replace(lidar, classes=('car',)), rig.camera2base(), score=0.7)}
    config = replace(CONFIG, gate_cost=9.0, gate_chi2=100.0)
    for part in (0.0, 0.5, 1.0):
        result = fuse(lidar, view, replace(config, class_weight=part))
        assert result.matched == 1
        assert result.boxes.classes == ('truck',)
        gain = config.match_evidence + config.camera_weight * (logit(0.7) - logit(0.1))
        assert result.boxes.scores[0] == pytest.approx(sigmoid(logit(0.6) + part * gain))


@pytest.mark.parametrize('score', [0.0, 1.0])
def test_scores_stay_within_their_limits(rig, score) -> None:
    lidar = rig.boxes(('car', 9, 0, 0.0, score))
    view = rig.seen_by(lidar, rig.camera2base(), score=score)
    fused = fuse(lidar, {'front': view}).boxes.scores[0]
    assert fused == (CONFIG.score_limit if score == 0 else 1 - CONFIG.score_limit)


@pytest.mark.parametrize(('camera_score', 'name'), [(0.9, 'truck'), (0.3, 'Car'), (0.6, 'Car')])
def test_the_surer_sensor_names_the_class_within_a_group(rig, camera_score, name) -> None:
    lidar = rig.boxes(('Car', 12, 0, 0.0, 0.6))
    view = rig.seen_by(rig.boxes(('truck', 12, 0)), rig.camera2base(), score=camera_score)
    config = replace(CONFIG, gate_cost=9.0, camera_weight=1.0, match_evidence=0.0)
    config = replace(config, gate_giou=-1.0)
    result = fuse(lidar, {'front': view}, config)
    assert result.matched == 1
    assert result.boxes.classes == (name,)


@pytest.mark.parametrize(('lidar_score', 'name'), [(0.6, 'Car'), (0.3, 'truck')])
def test_a_camera_renames_only_what_the_lidar_doubts(rig, lidar_score, name) -> None:
    """By default 0.5 + 0.22 (logit 0.9 - logit 0.1) = 1.5, against 2.6 and 1.4 of the lidar."""
    lidar = rig.boxes(('Car', 12, 0, 0.0, lidar_score))
    view = rig.seen_by(rig.boxes(('truck', 12, 0)), rig.camera2base(), score=0.9)
    result = fuse(lidar, {'front': view}, replace(CONFIG, gate_giou=-1.0, gate_cost=9.0))
    assert result.matched == 1
    assert result.boxes.classes == (name,)
    assert result.boxes.scores[0] == pytest.approx(lidar_score)


def test_two_groups_are_never_one_object(rig) -> None:
    lidar = rig.boxes(('car', 12, 0))
    view = rig.seen_by(rig.boxes(('person', 12, 0)), rig.camera2base())
    result = fuse(lidar, {'front': view})
    assert (result.matched, result.lidar_only, result.camera_only) == (0, 1, 1)


def test_without_a_lens_the_place_alone_decides(rig) -> None:
    lidar = rig.boxes(('car', 12, 2), ('car', -12, 2))
    seen = rig.seen_by(lidar.select([0]), rig.camera2base())
    result = fuse(lidar, {'front': CameraView(seen.boxes)})
    assert (result.matched, result.lidar_only, result.penalised) == (1, 1, 0)


def test_a_camera_alone_keeps_its_box_and_its_covariance(rig) -> None:
    view = rig.seen_by(rig.boxes(('car', 45, 3)), rig.camera2base())
    result = fuse(None, {'front': view})
    assert same_but_sources(result.boxes, view.boxes)
    silent = fuse(Boxes3D.empty(STAMP, FRAME), {'front': view})  # all but the score
    assert same_but_sources(replace(silent.boxes, scores=view.boxes.scores), view.boxes)
    for each in (result, silent):
        assert each.boxes.sources == (('front',),)
        assert each.camera_only == 1
    along = result.boxes.boxes[0, :2] - [1.5, 0]
    along /= np.linalg.norm(along)
    sigma = np.sqrt(along @ result.boxes.covariances[0, :2, :2] @ along)
    assert sigma > 2.5  # a bearing rather than a place


class TestLidarSilence:
    """What a camera sees where a lidar that answers sees nothing."""

    def score(self, rig, row, config, lidar=True) -> float:
        view = rig.seen_by(rig.boxes(row), rig.camera2base(), score=0.8)
        nothing = Boxes3D.empty(STAMP, FRAME) if lidar else None
        return float(fuse(nothing, {'front': view}, config).boxes.scores[0])

    def test_counts_against_it_within_the_range_of_the_lidar(self, rig) -> None:
        config = replace(CONFIG, place_tolerance=0.0, lidar_silence=1.5, lidar_range=40.0)
        expected = sigmoid(logit(0.8) - 1.5)
        assert self.score(rig, ('person', 20, 1), config) == pytest.approx(expected)
        assert self.score(rig, ('person', 45, 1), config) == pytest.approx(0.8)

    def test_says_nothing_nearer_than_the_lidar_sees(self, rig) -> None:
        config = replace(CONFIG, place_tolerance=0.0)
        near, far = ('person', 5.8, 0.5), ('person', 6.4, 0.5)
        assert self.score(rig, near, config) == pytest.approx(sigmoid(logit(0.8) - 2.0))
        config = replace(config, lidar_min_range=6.0)
        assert self.score(rig, near, config) == pytest.approx(0.8)
        assert self.score(rig, far, config) == pytest.approx(sigmoid(logit(0.8) - 2.0))

    @pytest.mark.parametrize(
        ('row', 'in_shadow'),
        [
            (('person', 14, 0.5), True),
            (('person', 14, 4.0), False),  # beside it
            (('person', 4.5, 0.5), False),  # before it
            (('person', 7, 2.0), False),  # at its side
            (('person', 11, 2.1), True),  # at its side, behind the near corner
        ],
    )
    def test_says_nothing_in_the_shadow_of_what_the_lidar_sees(self, rig, row, in_shadow) -> None:
        config = replace(CONFIG, place_tolerance=0.0)
        truck = rig.boxes(('truck', 9, 0))
        person = rig.seen_by(rig.boxes(row), rig.camera2base(), score=0.8)
        scores = {}
        for on in (True, False):
            found = fuse(truck, {'front': person}, replace(config, lidar_shadow=on)).boxes
            (scores[on],) = found.scores[[name == 'person' for name in found.classes]]
        assert scores[False] == pytest.approx(sigmoid(logit(0.8) - 2.0))
        assert scores[True] == pytest.approx(0.8 if in_shadow else scores[False])

    def test_shadows_fall_from_the_lidar(self, rig) -> None:
        config = replace(CONFIG, place_tolerance=0.0)
        truck = rig.boxes(('truck', 9, 0))
        view = {'front': rig.seen_by(rig.boxes(('person', 16, 4.0)), rig.camera2base(), score=0.8)}

        def score(origin) -> float:
            found = Fusion(config).fuse(truck, view, STAMP, FRAME, origin).boxes
            return float(found.scores[found.classes.index('person')])

        assert score(np.array([0.0, -3.0])) == pytest.approx(0.8)
        assert score(np.zeros(2)) < 0.4
        assert score(None) < 0.4

    def test_says_nothing_where_there_is_no_lidar(self, rig) -> None:
        assert self.score(rig, ('person', 20, 1), CONFIG, lidar=False) == 0.8

    def test_an_uncertain_place_is_doubted_more(self, rig) -> None:
        near, far = (self.score(rig, ('person', x, 0), CONFIG) for x in (8, 45))
        assert far < 0.4 * near < 0.4 * 0.8

    def test_none_of_zero(self, rig) -> None:
        config = replace(CONFIG, place_tolerance=0.0, lidar_silence=0.0)
        assert self.score(rig, ('person', 20, 1), config) == pytest.approx(0.8, abs=1e-12)

    def test_leaves_what_the_lidar_sees_too(self, rig) -> None:
        lidar = rig.boxes(('car', 12, 2, 0.3, 0.6))
        view = {'front': rig.seen_by(lidar, rig.camera2base())}
        stern = fuse(lidar, view, replace(CONFIG, lidar_silence=10.0))
        assert stern.boxes.scores[0] == fuse(lidar, view).boxes.scores[0] > 0.6


def test_the_ground_is_flat_for_cameras(rig) -> None:
    """What stands above it is put farther away, and is then not the object of the lidar."""
    person = rig.boxes(('person', 11.5, 0), sigma=0.1)
    # 1 m up, 10 m from a camera 2 m high
    loader = replace(person, boxes=person.boxes + np.eye(7)[2])
    view = rig.seen_by(loader, rig.camera2base())
    x, y, _, length, _, height, _ = view.boxes.boxes[0]
    near_face = x - length / 2 - 1.5
    assert near_face == pytest.approx(2 * (10 - 0.3), rel=0.02)
    assert (y, height) == (pytest.approx(0.0, abs=1e-6), pytest.approx(2 * 1.75, rel=0.02))
    result = fuse(loader, {'front': view})
    assert (result.matched, result.penalised) == (0, 1)


def test_only_scores_from_the_threshold_up_leave(rig) -> None:
    lidar = rig.boxes(('car', -15, 0, 0.1, 0.3), ('person', -9, 4, 0.2, 0.8))
    result = fuse(lidar, {}, replace(CONFIG, score_threshold=0.3))
    assert result.boxes.scores.tolist() == [0.8, 0.3]
    result = fuse(lidar, {}, replace(CONFIG, score_threshold=0.31))
    assert result.boxes.scores.tolist() == [0.8]
    assert result.lidar_only == 2


def test_what_two_cameras_see_alone_is_one_object(rig) -> None:
    objects = rig.boxes(('car', 14, 5))
    front = rig.seen_by(objects, rig.camera2base(0.0), jitter=0.7, score=0.5)
    left = rig.seen_by(objects, rig.camera2base(0.6, at=(1.0, 0.8, 2.2)), score=0.6)
    results = [
        fuse(None, views).boxes
        for views in ({'front': front, 'left': left}, {'left': left, 'front': front})
    ]
    assert same_but_sources(*results)
    (merged,) = results[:1]
    assert merged.sources == (('front', 'left'),)
    evidence = logit(np.array([0.6, 0.5])) - logit(np.array([0.1]))
    expected = sigmoid(logit(np.array([0.1])) + evidence[0] + 0.5 * evidence[1])
    assert merged.scores[0] == pytest.approx(expected[0])
    smaller = min(np.linalg.det(v.boxes.covariances[0, :2, :2]) for v in (front, left))
    assert np.linalg.det(merged.covariances[0, :2, :2]) <= smaller
    sharper = min((front, left), key=lambda v: np.linalg.det(v.boxes.covariances[0, :2, :2]))
    np.testing.assert_array_equal(merged.boxes[0, 3:6], sharper.boxes.boxes[0, 3:6])


def test_one_camera_never_merges_its_own_boxes(rig) -> None:
    view = rig.seen_by(rig.boxes(('car', 14, 0), ('car', 14, 0.4)), rig.camera2base())
    assert fuse(None, {'front': view}).camera_only == 2


def test_a_covariance_of_zeros_is_not_certainty(rig) -> None:
    lidar = rig.boxes(('car', 12, 2), ('car', -12, 2))
    blank = replace(lidar, covariances=np.zeros((2, 4, 4)))
    seen = rig.seen_by(rig.boxes(('car', 12.3, 2)), rig.camera2base())
    result = fuse(blank, {'front': seen})
    assert result.matched == 1
    matched = [len(s) for s in result.boxes.sources].index(2)
    assert (np.linalg.eigvalsh(result.boxes.covariances[matched]) > 0).all()
    assert not result.boxes.covariances[1 - matched].any()


class TestPenalty:
    """A lidar box that a camera should see and does not."""

    def penalised(self, rig, rows, config=CONFIG) -> list[bool]:
        """For each box, whether its score sank; never more than it may, and nothing is lost."""
        lidar = rig.boxes(*rows)
        nothing = rig.nothing_seen(rig.camera2base())
        result = fuse(lidar, {'front': nothing}, config)
        assert len(result.boxes) == result.lidar_only == len(rows)
        order = [result.boxes.boxes[:, :3].tolist().index(b) for b in lidar.boxes[:, :3].tolist()]
        scores = result.boxes.scores[order]
        sank = scores < lidar.scores
        assert result.penalised == sank.sum()
        in_order = replace(result.boxes.select(order), scores=lidar.scores, ids=lidar.ids)
        assert same_but_sources(in_order, lidar)
        expected = sigmoid(logit(lidar.scores) - config.penalty)
        np.testing.assert_allclose(scores[sank], expected[sank])
        return sank.tolist()

    def test_in_full_view(self, rig) -> None:
        assert self.penalised(rig, [('car', 15, 0)]) == [True]

    @pytest.mark.parametrize(
        ('row', 'why'),
        [
            (('car', -15, 0), 'behind the camera'),
            (('car', 4.5, 2.6), 'cut off at the border'),
            (('car', 60, 0), 'beyond the range of the camera'),
            (('belt_loader', 45, 3), 'beyond the range of the camera'),
            (('traffic_cone', 15, 0), 'not among the groups of the camera'),
            (('aircraft', 30, 0), 'not among the groups of the camera'),
        ],
    )
    def test_not_where_the_camera_can_say_nothing(self, rig, row, why) -> None:
        assert self.penalised(rig, [row]) == [False], why

    def test_not_where_it_is_small_in_the_image(self, rig) -> None:
        rows = [('person', 38, 0)]  # 1.75 m at 36.5 m and f = 700: 34 pixels
        assert self.penalised(rig, rows) == [True]
        assert self.penalised(rig, rows, replace(CONFIG, penalty_height=40.0)) == [False]

    def test_not_where_a_nearer_box_hides_it(self, rig) -> None:
        rows = [('truck', 10, 0), ('car', 25, 0), ('car', 20, 9)]
        assert self.penalised(rig, rows) == [True, False, True]
        assert self.penalised(rig, rows, replace(CONFIG, penalty_occlusion=1.0)) == [True] * 3

    def test_not_by_a_camera_without_a_lens(self, rig) -> None:
        lidar = rig.boxes(('car', 15, 0))
        blind = CameraView(Boxes3D.empty(STAMP, FRAME))
        assert fuse(lidar, {'front': blind}).penalised == 0

    def test_not_if_another_camera_sees_it(self, rig) -> None:
        lidar = rig.boxes(('car', 14, 3))
        views = {
            'front': rig.nothing_seen(rig.camera2base()),
            'left': rig.seen_by(lidar, rig.camera2base(0.3)),
        }
        result = fuse(lidar, views)
        assert (result.matched, result.penalised) == (1, 0)
        assert result.boxes.scores[0] > 0.6

    def test_once_however_many_cameras_miss_it(self, rig) -> None:
        lidar = rig.boxes(('car', 14, 3))
        poses = rig.camera2base(), rig.camera2base(0.3)
        views = {n: rig.nothing_seen(p) for n, p in zip(('front', 'left'), poses, strict=True)}
        once = sigmoid(logit(lidar.scores) - CONFIG.penalty)
        np.testing.assert_allclose(fuse(lidar, views).boxes.scores, once)

    @pytest.mark.parametrize(('score', 'after'), [(0.6, 0.3), (0.3, 0.3), (0.2, 0.2)])
    def test_not_below_the_floor(self, rig, score, after) -> None:
        lidar = rig.boxes(('car', 15, 0, 0.0, score))
        config = replace(CONFIG, penalty=8.0, penalty_floor=0.3)
        view = {'front': rig.nothing_seen(rig.camera2base())}
        assert fuse(lidar, view, config).boxes.scores[0] == after

    def test_none_of_zero(self, rig) -> None:
        lidar = rig.boxes(('car', 15, 0, 0.0, 0.1234567))
        view = {'front': rig.nothing_seen(rig.camera2base())}
        result = fuse(lidar, view, replace(CONFIG, penalty=0.0))
        assert result.boxes.scores[0] == 0.1234567


def test_what_nothing_matches_passes_bit_by_bit_and_sorted(rig) -> None:
    lidar = rig.boxes(
        ('car', -15, 0, 0.1, 0.3), ('person', -9, 4, 0.2, 0.8), ('car', -20, 3, 0.3, 0.3),
        ids=('a', 'b', 'c'),
    )  # fmt: skip
    result = fuse(lidar, {'front': rig.nothing_seen(rig.camera2base())})
    assert same_but_sources(result.boxes, lidar.select([1, 0, 2]))  # equal scores keep their order
    assert set(result.boxes.sources) == {('lidar',)}


def recorded(folder, reader, names):
    from airside_perception.replay import recorded as module

    return [getattr(module, reader)(folder / name, STAMP, FRAME) for name in names]


@pytest.mark.parametrize('known', [True, False])
@pytest.mark.parametrize('origin', ['nvidia', 'zhulf'])
def test_recorded_detections_pass_unchanged(rig, shared_data, origin, known) -> None:
    if origin == 'nvidia':
        folder = shared_data / 'reference' / 'nvidia_pointpillars' / 'pred_velo'
        sets = recorded(folder, 'read_nvidia', sorted(p.name for p in folder.glob('*.txt')))
    else:
        folder = shared_data / 'reference' / 'zhulf_000134'
        names = ('pytorch.txt', 'onnx.txt', 'trt.txt', 'trt-fp16.txt')
        sets = recorded(folder, 'read_zhulf', names)
    assert sum(map(len, sets)) > 20
    spread = np.diag([0.04, 0.05, 0.01, 0.1])
    rear = rig.camera2base(np.pi)  # KITTI's boxes lie ahead: this camera sees none of them
    stranger = rig.seen_by(rig.boxes(('car', -12, 1)), rear)
    for boxes in sets:
        if known:
            boxes = replace(boxes, covariances=np.tile(spread, (len(boxes), 1, 1)))
        ordered = boxes.select(np.argsort(-boxes.scores, kind='stable'))
        for cameras in ({}, {'rear': rig.nothing_seen(rear)}):
            assert same_but_sources(fuse(boxes, cameras).boxes, ordered)
        result = fuse(boxes, {'rear': stranger})
        assert (result.matched, result.camera_only) == (0, 1)
        lidar = [k for k, s in enumerate(result.boxes.sources) if s == ('lidar',)]
        assert same_but_sources(result.boxes.select(lidar), ordered)


def test_boxes_of_another_frame_or_stamp_are_refused(rig) -> None:
    good = rig.boxes(('car', 12, 0))
    for bad in (replace(good, frame_id='lidar'), replace(good, stamp_ns=STAMP + 1)):
        with pytest.raises(TransformError, match='lidar boxes are in'):
            fuse(bad)
        with pytest.raises(TransformError, match='front boxes are in'):
            fuse(good, {'front': CameraView(bad)})


def test_boxes_that_cannot_be_weighed_are_refused_by_name(rig) -> None:
    good = rig.boxes(('car', 12, 0))
    bad = replace(good, covariances=-good.covariances)
    with pytest.raises(MessageError, match=r'front car at \(12.0, 0.0\)'):
        fuse(good, {'front': CameraView(bad)})


def test_nothing_at_all() -> None:
    result = fuse(None)
    assert len(result.boxes) == 0
    assert (result.matched, result.lidar_only, result.camera_only, result.penalised) == (0,) * 4


def test_settings_change_between_sets_and_times_are_told(rig) -> None:
    lidar = rig.boxes(('car', 12, 2, 0.3, 0.6))
    view = {'front': rig.seen_by(lidar, rig.camera2base(), jitter=3.0)}
    fusion = Fusion(CONFIG)
    assert fusion.fuse(lidar, view, STAMP, FRAME).matched == 1
    steps = ['prepare', 'project', 'associate', 'state', 'merge', 'finish']
    assert list(fusion.timings) == steps
    fusion.config = replace(CONFIG, gate_giou=0.999)
    assert fusion.fuse(lidar, view, STAMP, FRAME).matched == 0
    fusion.config = CONFIG
    shifted = rig.lens(width=1300)  # a new calibration is taken over
    other = {'front': replace(view['front'], camera=shifted)}
    assert fusion.fuse(lidar, other, STAMP, FRAME).matched == 1
    assert fusion._viewports['front'].size == (1300, 720)


CLASSES = ('car', 'truck', 'person', 'cone')
box = st.tuples(
    st.sampled_from(CLASSES),
    st.floats(-40, 40), st.floats(-40, 40), st.floats(-3.1, 3.1),
    st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0]),
)  # fmt: skip
spread = st.tuples(st.floats(0.05, 8), st.floats(0.05, 8), st.floats(-0.95, 0.95))


def scene(rig, rows, spreads) -> Boxes3D:
    boxes = rig.boxes(*rows)
    covariances = boxes.covariances.copy()
    for k, (a, b, rho) in enumerate(spreads[: len(rows)]):
        covariances[k, :2, :2] = [[a * a, rho * a * b], [rho * a * b, b * b]]
    return replace(boxes, covariances=covariances, ids=tuple(f'{k}' for k in range(len(rows))))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(box, max_size=6), st.lists(box, max_size=5), st.lists(box, max_size=5),
    st.lists(spread, min_size=6, max_size=6), st.booleans(), st.randoms(),
)  # fmt: skip
def test_any_scene(rig, lidar_rows, front_rows, left_rows, spreads, lens, random) -> None:
    lidar = scene(rig, lidar_rows, spreads)
    parts = {
        'front': scene(rig, front_rows, spreads),
        'left': scene(rig, left_rows, spreads[::-1]),
    }
    poses = {'front': rig.camera2base(0.0), 'left': rig.camera2base(0.8)}

    def views(parts, names):
        if not lens:
            return {name: CameraView(parts[name]) for name in names}
        blank = {name: rig.nothing_seen(poses[name]) for name in names}
        return {name: replace(blank[name], boxes=parts[name]) for name in names}

    result = fuse(lidar, views(parts, ('front', 'left')))
    fused = result.boxes
    for array in (fused.boxes, fused.scores, fused.covariances):
        assert np.isfinite(array).all()
    np.testing.assert_allclose(fused.covariances, fused.covariances.transpose(0, 2, 1), rtol=1e-7)
    assert (np.linalg.eigvalsh(fused.covariances) > 0).all()
    assert (np.diff(fused.scores) <= 0).all()
    # nothing is lost, nothing used twice: every box is evidence of exactly one object
    counted = {name: sum(name in s for s in fused.sources) for name in ('lidar', 'front', 'left')}
    assert counted == {'lidar': len(lidar), 'front': len(front_rows), 'left': len(left_rows)}
    assert all(len(set(s)) == len(s) for s in fused.sources)
    assert result.matched + result.lidar_only + result.camera_only == len(fused)
    assert result.matched + result.lidar_only == len(lidar)
    groups = {'car': 'v', 'truck': 'v', 'person': 'p', 'cone': 'c'}
    for kind in 'vpc':  # what is a cone stays a cone
        before = sum(groups[r[0]] == kind for r in lidar_rows)
        assert before == sum(
            groups[c] == kind and 'lidar' in s
            for c, s in zip(fused.classes, fused.sources, strict=True)
        )
    # who joined nobody, and is blamed for nothing, is as it was
    for k, sources in enumerate(fused.sources):
        if len(sources) == 1 and not result.penalised:
            part = {'lidar': lidar, **parts}[sources[0]]
            rows = zip(part.boxes.tolist(), part.covariances.tolist(), part.scores, strict=True)
            own = fused.boxes[k].tolist(), fused.covariances[k].tolist()
            before = [score for *rest, score in rows if tuple(rest) == own]
            if sources == ('lidar',):
                assert fused.scores[k] in before
            else:  # the lidar answers and does not see it
                assert fused.scores[k] <= max(before)

    # the order of boxes and cameras changes nothing
    def shuffled(boxes):
        order = list(range(len(boxes)))
        random.shuffle(order)
        return boxes.select(order)

    other = fuse(
        shuffled(lidar), views({n: shuffled(p) for n, p in parts.items()}, ('left', 'front'))
    )
    assert (other.matched, other.penalised) == (result.matched, result.penalised)

    def listed(boxes):
        numbers = np.concatenate([boxes.boxes, boxes.covariances.reshape(-1, 16)], axis=1)
        rows = zip(numbers.tolist(), boxes.scores, boxes.classes, boxes.sources, strict=True)
        return sorted(rows)

    assert listed(other.boxes) == listed(fused)

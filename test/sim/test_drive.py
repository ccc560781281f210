from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose

from airside_perception.errors import BagError, ConfigError, PerceptionError
from airside_perception.geometry import apply, invert
from airside_perception.messages import boxes2d, boxes3d, camera_model, image, point_cloud
from airside_perception.replay.bag import BagReader
from airside_perception.sim import __main__ as command
from airside_perception.sim import processes
from airside_perception.sim.apron import apron
from airside_perception.sim.conditions import conditions
from airside_perception.sim.drive import RATE, START_NS, drive, write_drive
from airside_perception.sim.lidar import even
from airside_perception.sim.rig import BASE, load_rig
from airside_perception.sim.truth import read_truth

ENDLESS = """
import multiprocessing
from airside_perception.resources import resource
from airside_perception.sim import processes
from airside_perception.sim.apron import apron
from airside_perception.sim.rig import load_rig

if __name__ == '__main__':
    made = processes.drive(apron(1), load_rig(resource('config', 'rig.yaml')), 1e6, 1, None, 2)
    next(made)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    list(made)
"""
INTERRUPTED = """
import os
import signal
from airside_perception.resources import resource
from airside_perception.sim import processes
from airside_perception.sim.apron import apron
from airside_perception.sim.frames import ONE_THREAD
from airside_perception.sim.rig import load_rig

def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    return ONE_THREAD

class Opened:
    def __reduce__(self):
        return interrupted, ()

if __name__ == '__main__':
    rig = load_rig(resource('config', 'rig.yaml'))
    print(len(list(processes.drive(apron(1), rig, 0.1, 1, None, 2, Opened()))))
"""
"""SIGINT while a process reads what it is to do: it has not begun yet."""
MOVING = next(seed for seed in range(20) if apron(seed).ego.speed > 1)


def alive(pid: int) -> bool:
    """Whether the process runs: one that nobody has waited for yet (Z) does not."""
    try:
        status = Path(f'/proc/{pid}/stat').read_text(encoding='ascii')
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(')')[2].split()[0] not in 'ZX'


@pytest.fixture(scope='module')
def rig(repository):
    """The shipped rig with small pictures and few beams."""
    rig = load_rig(repository / 'config' / 'rig.yaml')
    lenses = {}
    for name in ('front', 'left'):
        model = rig.lenses[name].model
        matrix = np.diag([0.1, 0.1, 1.0]) @ model.matrix
        small = replace(model, width=64, height=38, matrix=matrix)
        lenses[name] = replace(rig.lenses[name], model=small)
    spec = replace(rig.spec, elevations=even(16, -20, 10), azimuths=256)
    return replace(rig, spec=spec, lenses=lenses)


def test_the_shipped_rig_has_four_cameras_and_a_roof_lidar(repository):
    rig = load_rig(repository / 'config' / 'rig.yaml')
    assert list(rig.lenses) == ['front', 'left', 'right', 'rear']
    assert len(rig.spec.elevations) == 64
    assert 1.9 <= rig.lidar2base[2, 3] <= 2.0
    edges = rig.static_transforms()
    assert [child for _, child, _ in edges][:3] == [
        'lidar',
        'camera_front',
        'camera_front_optical',
    ]
    # The cameras look where their names say: the optical axis in base_link.
    axes = {name: lens.camera2base[:3, 2] for name, lens in rig.lenses.items()}
    assert axes['front'][0] > 0.99
    assert axes['left'][1] > 0.99
    assert axes['right'][1] < -0.99
    assert axes['rear'][0] < -0.99
    assert all(axis[2] < 0 for axis in axes.values())  # a little down
    for name, lens in rig.lenses.items():
        chain = {child: pose for _, child, pose in edges}
        whole = chain[f'camera_{name}'] @ chain[f'camera_{name}_optical']
        assert_allclose(whole, lens.camera2base, atol=1e-12)


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda tree: tree.pop('lidar'), "missing keys \\['lidar'\\]"),
        (lambda tree: tree['lidar'].update(preset='vlp1'), "'vlp1' is not one of"),
        (lambda tree: tree['lidar'].update(position=[1.0, 2.0]), 'three metres'),
        (lambda tree: tree['cameras']['front'].update(zoom=2), "unknown keys \\['zoom'\\]"),
        (lambda tree: tree['cameras']['front'].update(focal=-3.0), 'not calibrated'),
        (lambda tree: tree['cameras']['front'].update(width='wide'), 'wide'),
        (lambda tree: tree.update(cameras=[1]), 'cameras'),
        (lambda tree: tree['lidar'].update(deskewed='no'), "deskewed is 'no'"),
        (lambda tree: tree['lidar'].update(spin=1), "unknown keys \\['spin'\\]"),
    ],
)
def test_a_wrong_rig_is_refused_with_its_reason(repository, tmp_path, change, word):
    tree = yaml.safe_load((repository / 'config' / 'rig.yaml').read_text(encoding='utf-8'))
    change(tree)
    path = tmp_path / 'rig.yaml'
    path.write_text(yaml.safe_dump(tree), encoding='utf-8')
    with pytest.raises(ConfigError, match=word) as error:
        load_rig(path)
    assert str(path) in str(error.value)


def test_a_missing_or_broken_rig_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'none\.yaml'):
        load_rig(tmp_path / 'none.yaml')
    (tmp_path / 'bad.yaml').write_text('a: [', encoding='utf-8')
    with pytest.raises(ConfigError, match=r'bad\.yaml'):
        load_rig(tmp_path / 'bad.yaml')


@pytest.mark.open3d
class TestDrive:
    @pytest.fixture(autouse=True)
    def _open3d(self):
        pytest.importorskip('open3d')

    def test_frames_carry_one_stamp_and_the_truth(self, rig):
        frames = list(drive(apron(MOVING), rig, 0.3, seed=1))
        assert [frame.stamp_ns - START_NS for frame in frames] == [0, 100_000_000, 200_000_000]
        for frame in frames:
            assert set(frame.images) == {'front', 'left'}
            assert frame.cloud.stamp_ns == frame.images['left'].stamp_ns == frame.stamp_ns
            assert frame.objects.frame_id == BASE
            count = len(frame.objects)
            assert frame.points.shape == frame.pixels.shape == (count,)
            assert frame.velocities.shape == (count, 2)
            assert 0 < len(frame.seen) < count
        step = np.linalg.norm(frames[1].base2odom[:3, 3] - frames[0].base2odom[:3, 3])
        assert_allclose(step, 0.1 * apron(MOVING).ego.speed, rtol=0.01)

    def test_opencv_gets_its_threads_back(self, rig):
        before = cv2.getNumThreads()
        cv2.setNumThreads(2)
        try:
            frames = drive(apron(MOVING), rig, 0.2, seed=1)
            next(frames)
            assert cv2.getNumThreads() == 1
            frames.close()
            assert cv2.getNumThreads() == 2
        finally:
            cv2.setNumThreads(before)

    def test_points_lie_on_the_objects_in_base_link(self, rig):
        frame = next(drive(apron(MOVING), rig, 0.1, seed=1))
        points = apply(rig.lidar2base, frame.cloud.points[:, :3])
        for cuboid, wanted, name in zip(
            frame.objects.boxes, frame.points, frame.objects.classes, strict=True
        ):
            local = points - cuboid[:3]
            c, s = np.cos(cuboid[6]), np.sin(cuboid[6])
            along = local[:, 0] * c + local[:, 1] * s
            across = local[:, 1] * c - local[:, 0] * s
            inside = (np.abs(along) < cuboid[3] / 2 + 0.1) & (
                np.abs(across) < cuboid[4] / 2 + 0.25
            )
            inside &= np.abs(local[:, 2]) < cuboid[5] / 2 + 0.5
            assert inside.sum() >= wanted, name

    def test_a_bag_holds_all_topics_and_reads_back(self, rig, tmp_path):
        done = []
        counts = write_drive(
            apron(MOVING), rig, 0.2, 1, tmp_path / 'bag', progress=lambda *a: done.append(a)
        )
        assert done == [(1, 2), (2, 2)]
        assert counts['/sensing/lidar/points'] == counts['/ground_truth/objects'] == 2
        assert (
            counts['/sensing/camera/left/image'] == counts['/sensing/camera/left/camera_info'] == 2
        )
        assert counts['/tf_static'] == 1
        assert counts['/tf'] == 10
        frames = list(drive(apron(MOVING), rig, 0.2, seed=1))
        with BagReader(tmp_path / 'bag') as bag:
            assert {topic: found.count for topic, found in bag.topics.items()} == counts
            seen = {}
            for record in bag.records():
                seen.setdefault(record.topic, []).append(bag.message(record))
        cloud = point_cloud(seen['/sensing/lidar/points'][1])
        assert cloud.stamp_ns == frames[1].stamp_ns
        assert cloud.points.tobytes() == frames[1].cloud.points[:, :4].tobytes()
        picture = image(seen['/sensing/camera/front/image'][0])
        assert picture.data.tobytes() == frames[0].images['front'].data.tobytes()
        model = camera_model(seen['/sensing/camera/front/camera_info'][0])
        assert_allclose(model.matrix, rig.lenses['front'].model.matrix)
        assert model.distortion == rig.lenses['front'].model.distortion
        truth = boxes3d(seen['/ground_truth/objects'][0])
        assert truth.classes == frames[0].seen.classes
        assert_allclose(truth.boxes, frames[0].seen.boxes, atol=1e-9)
        flat = boxes2d(seen['/ground_truth/camera/left/objects'][0])
        want = frames[0].objects2d['left']
        want = want.select(np.argsort(-want.scores, kind='stable'))
        assert_allclose(flat.xyxy, want.xyxy)
        assert_allclose(flat.scores, want.scores)

    def test_what_barely_shows_need_not_be_found(self, rig):
        """Boxes of 6 to 19 pixels have score 0, those of more have 1."""
        frames = drive(apron(MOVING), rig, 0.2, seed=1)
        scores = [boxes.scores for frame in frames for boxes in frame.objects2d.values()]
        assert set(np.concatenate(scores)) == {0.0, 1.0}

    def test_ground_truth_in_space_falls_on_that_in_the_pictures(self, rig):
        """The centre of an object that is wholly in view lies in its box in the picture."""
        frame = next(drive(apron(MOVING), rig, 0.1, seed=1))
        checked = 0
        for name, lens in rig.lenses.items():
            centres = apply(invert(lens.camera2base), frame.objects.boxes[:, :3])
            pixels, valid = lens.model.project(centres)
            for left, top, right, bottom in frame.objects2d[name].xyxy:
                if left > 1 and right < lens.model.width - 1 and bottom < lens.model.height - 1:
                    near = valid & (pixels[:, 0] > left - 4) & (pixels[:, 0] < right + 4)
                    near &= (pixels[:, 1] > top - 4) & (pixels[:, 1] < bottom + 4)
                    assert near.any()
                    checked += 1
        assert checked > 0

    def test_the_same_seed_gives_the_same_file(self, rig, tmp_path):
        digests = []
        for name in ('one', 'two'):
            folder = tmp_path / name / 'bag'
            write_drive(apron(MOVING), rig, 0.2, 5, folder)
            digests.append(hashlib.sha256(next(folder.glob('*.mcap')).read_bytes()).hexdigest())
        assert digests[0] == digests[1]

    def test_frames_are_the_same_however_many_threads_make_them(self, rig):
        night = conditions(2, 'night', 'rain')
        one, four = (
            list(drive(apron(MOVING), rig, 0.2, seed=1, conditions=night, workers=workers))
            for workers in (1, 4)
        )
        for a, b in zip(one, four, strict=True):
            assert a.cloud.points.tobytes() == b.cloud.points.tobytes()
            assert a.details == b.details
            for name, one_image in a.images.items():
                assert one_image.data.tobytes() == b.images[name].data.tobytes()

    def test_processes_make_the_same_frames_and_end_with_the_drive(self, rig):
        rain = conditions(2, 'night', 'rain')
        made = processes.drive(apron(MOVING), rig, 5.0, 1, rain, processes=2)
        for want in drive(apron(MOVING), rig, 0.3, 1, rain):
            frame = next(made)
            assert frame.stamp_ns == want.stamp_ns
            assert frame.cloud.points.tobytes() == want.cloud.points.tobytes()
            assert frame.details == want.details
            for name, picture in want.images.items():
                assert frame.images[name].data.tobytes() == picture.data.tobytes()
        assert len(multiprocessing.active_children()) == 2
        made.close()
        assert not multiprocessing.active_children()

    def test_a_process_that_dies_is_an_error_of_one_line(self, rig):
        made = processes.drive(apron(MOVING), rig, 5.0, 1, processes=2)
        next(made)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(PerceptionError, match='a process of the simulator ended before') as it:
            list(made)
        assert '\n' not in str(it.value)

    def test_short_drives_start_no_process(self, rig, monkeypatch):
        monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(64)))
        monkeypatch.setattr(processes, 'ProcessPoolExecutor', None)
        made = processes.drive(apron(MOVING), rig, (2 * processes.WORTHWHILE - 1) / RATE, 1)
        assert next(made).stamp_ns == START_NS
        made.close()
        with pytest.raises(TypeError):  # no pool to be had
            next(processes.drive(apron(MOVING), rig, 2 * processes.WORTHWHILE / RATE, 1))

    def test_processes_end_with_one_that_was_killed(self, tmp_path):
        script = tmp_path / 'script.py'
        script.write_text(ENDLESS, encoding='utf-8')
        with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            children = [int(pid) for pid in run.stdout.readline().split()]
            run.kill()
        assert len(children) == 2
        gone = time.monotonic() + 60.0
        while any(alive(pid) for pid in children):
            assert time.monotonic() < gone
            time.sleep(0.02)

    def test_a_process_that_starts_leaves_sigint_to_the_one_that_started_it(self, tmp_path):
        script = tmp_path / 'script.py'
        script.write_text(INTERRUPTED, encoding='utf-8')
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode, done.stdout) == (0, '1\n'), done.stderr

    def test_processes_end_with_a_bag_that_cannot_be_written(self, rig, tmp_path):
        def fail(done, of):
            raise OSError('no space left')

        with pytest.raises(OSError, match='no space left') as caught:
            write_drive(apron(0), rig, 5.0, 5, tmp_path / 'bag', progress=fail, processes=2)
        assert caught.tb is not None  # who holds the frames of the error holds the drive
        assert not multiprocessing.active_children()
        assert list(tmp_path.iterdir()) == []

    def test_points_carry_the_time_at_which_they_were_measured(self, rig):
        cloud = next(drive(apron(MOVING), rig, 0.1, seed=1)).cloud
        assert cloud.fields == ('x', 'y', 'z', 'intensity', 't')
        time = cloud.points[:, 4].astype(float)
        assert -0.1 < time.min() < -0.09
        assert -0.01 < time.max() <= 0.0
        # The sensor turns clockwise from the rear, so time tells the bearing.
        bearing = np.arctan2(cloud.points[:, 1], cloud.points[:, 0]).astype(float)
        want = np.pi - 2 * np.pi * (time / 0.1 + 1 - 1 / 256)
        assert np.median(np.abs(np.angle(np.exp(1j * (bearing - want))))) < 0.02

    def test_leaving_a_drive_early_ends_its_threads(self, rig):
        frames = drive(apron(MOVING), rig, 5.0, seed=1)
        next(frames)
        frames.close()
        with pytest.raises(StopIteration):
            next(frames)

    def test_an_existing_bag_is_not_replaced_unasked(self, rig, tmp_path):
        write_drive(apron(0), rig, 0.1, 5, tmp_path / 'bag')
        with pytest.raises(BagError, match='exists already'):
            write_drive(apron(0), rig, 0.1, 5, tmp_path / 'bag')
        assert write_drive(apron(0), rig, 0.1, 6, tmp_path / 'bag', overwrite=True)['/tf'] == 5

    def test_the_command_writes_a_bag_and_prints_its_topics(
        self, repository, tmp_path, monkeypatch, capsys
    ):
        tree = yaml.safe_load((repository / 'config' / 'rig.yaml').read_text(encoding='utf-8'))
        tree['lidar']['preset'] = 'roof32'
        tree['cameras'] = None
        (tmp_path / 'rig.yaml').write_text(yaml.safe_dump(tree), encoding='utf-8')
        arguments = [
            'sim',
            '--world',
            'street',
            '--seconds',
            '0.1',
            '--out',
            str(tmp_path / 'bag'),
        ]
        monkeypatch.setattr('sys.argv', [*arguments, '--rig', str(tmp_path / 'rig.yaml')])
        assert command.main() == 0
        assert '1  /sensing/lidar/points' in capsys.readouterr().out
        assert command.main() == 2
        assert 'exists already' in capsys.readouterr().err

    def test_an_interrupt_is_one_line(self, tmp_path, monkeypatch, capsys):
        def interrupted(*given, **more):
            raise KeyboardInterrupt

        monkeypatch.setattr('sys.argv', ['sim', '--out', str(tmp_path / 'bag')])
        monkeypatch.setattr(command, 'write_drive', interrupted)
        assert command.main() == 130
        assert capsys.readouterr().err == 'interrupted; nothing was written\n'

    @pytest.mark.parametrize(
        ('flags', 'want'),
        [
            ([], ('day', 'clear')),
            (['--light', 'night'], ('night', 'clear')),
            (['--weather', 'fog', '--family', 'held_out'], ('day', 'fog')),
            (['--draw'], (conditions(6).light, conditions(6).weather)),
        ],
    )
    def test_the_command_sets_light_weather_and_layout(
        self, repository, tmp_path, monkeypatch, flags, want
    ):
        tree = yaml.safe_load((repository / 'config' / 'rig.yaml').read_text(encoding='utf-8'))
        tree['lidar']['preset'] = 'roof32'
        tree['cameras'] = None
        (tmp_path / 'rig.yaml').write_text(yaml.safe_dump(tree), encoding='utf-8')
        given = ['--seed', '6', '--seconds', '0.1', '--rig', str(tmp_path / 'rig.yaml')]
        monkeypatch.setattr('sys.argv', ['sim', *given, '--out', str(tmp_path / 'bag'), *flags])
        assert command.main() == 0
        frame = next(read_truth(tmp_path / 'bag'))
        assert tuple(frame.labels.values()) == want

"""`python -m benchmarks.error_analysis`: where the lost mAP goes, of every network by itself.

Simulated drives of held-out seeds and layouts, the bags of `benchmarks.fusion_gain`; a `--cache`
may be shared with it. Every network answers down to a probability of 0.05, so that its curves are
whole; what the thresholds of its card cut off after that is a line of its own. Then, in mAP
points: what comes back when one kind of mistake is taken away (`alone`), and what each adds when
they go one after the other (`in turn`: these sum to all that is lost); see `benchmarks.oracle`.
Lidar: mAP by the distance of centres, 0.5 to 4 m, of all that some sensor sees within 80 m.
Camera: AP50 of the four images together. Further: misses by range, points and visibility, false
alarms by what stands there, confused classes, people to 30 m, and how far off large things are;
standard errors over seeds, and aprons and streets by themselves (`benchmarks.error_spread`).
Streets have no layouts of their own for testing: they are of other seeds than those of training.

Runs of a network are kept by the bytes of its model and card: a new model runs anew.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception import messages
from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.errors import PerceptionError
from airside_perception.evaluate.frames import Frame
from airside_perception.network import Network, find_network
from airside_perception.params import CAMERA_NODE
from airside_perception.replay.bag import BagReader
from airside_perception.replay.evaluate import every_network, run_detectors, with_floor
from airside_perception.replay.judge import aliases_of, judge, judge_images
from airside_perception.replay.report import thresholds
from airside_perception.replay.runner import CAMERA_2D_TOPIC, LIDAR_TOPIC, read_transforms
from airside_perception.replay.settings import (
    LIDAR_NODE,
    POINTS_TOPIC,
    Settings,
    load_settings,
)
from airside_perception.replay.truth import Moment, read_image_truth, read_truth
from airside_perception.resources import model_file
from airside_perception.sim.frames import START_NS
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Float64
from benchmarks.drives import add_options, fingerprint, make, world, write_figures
from benchmarks.error_causes import Surroundings
from benchmarks.error_figures import analysed
from benchmarks.error_spread import error, spread
from benchmarks.error_text import text
from benchmarks.fusion_gain import FLOOR, WITHIN
from benchmarks.oracle import centre_inside

LIDARS = ('apron_centerpoint.onnx', 'apron_pointpillars.onnx')
CAMERA = 'apron_yolox.onnx'


@dataclass(frozen=True)
class Sample:
    """What a network made of one bag.

    Attributes:
        frames: detections down to FLOOR beside the truth.
        causes: of every frame, {row of a detection: what stands there}; none where an object is.
        lowest: {class: threshold}, as published.
    """

    frames: tuple[Frame, ...]
    causes: tuple[Mapping[int, str], ...]
    lowest: Mapping[str, float]


def with_model(settings: Settings, model: str) -> Settings:
    """The settings with one network alone, for the lidar or for every camera.

    Raises:
        ConfigError: there is no such network, or it does not fit its parameters.
    """
    path = {'engine_path': str(model_file(model, here_first=True))}
    if model == CAMERA:
        cameras = []
        for camera in settings.cameras:
            values = settings.parameters.for_node(CAMERA_NODE.format(camera.name))
            network = find_network(CameraConfig, CameraCard, {**values, **path})
            cameras.append(replace(camera, network=network))
        fusion = replace(settings.fusion, lidar=False)
        return replace(settings, cameras=tuple(cameras), lidar=None, fusion=fusion)
    values = settings.parameters.for_node(LIDAR_NODE)
    lidar: Network[LidarConfig, LidarCard] = find_network(
        LidarConfig, LidarCard, {**values, **path}
    )
    fusion = replace(settings.fusion, cameras=())
    return replace(settings, cameras=(), lidar=lidar, fusion=fusion)


def run(bag: Path, model: str, seed: int, family: str) -> Sample:
    """Runs one network over a simulated bag."""
    with BagReader(bag) as reader:
        plain = with_model(load_settings(reader.topics, None, 1), model)
        own = thresholds(plain)
        if plain.lidar is None:
            settings = every_network(plain, lambda network: with_floor(network, FLOOR))
            results, _ = run_detectors(reader, settings)
            frames: list[Frame] = []
            aliases = aliases_of([camera.network.card for camera in settings.cameras])
            for camera in settings.cameras:
                topic = CAMERA_2D_TOPIC.format(camera.name)
                mine = [result for result in results if result.topic == topic]
                visible = read_image_truth(reader, camera.name)
                frames += judge_images(visible, mine, aliases, bag.name).frames
            nothing: Mapping[int, str] = {}
            lowest = own[CAMERA_2D_TOPIC.format(settings.cameras[0].name)]
            return Sample(tuple(frames), (nothing,) * len(frames), lowest)
        moments, transforms = read_truth(reader), read_transforms(reader)
        frames = lidar_frames(reader, plain, moments, transforms)
        scenario = world(seed, family)
        clouds = {}
        for record in reader.records([POINTS_TOPIC]):
            cloud = messages.point_cloud(reader.message(record))
            lidar2base = transforms.lookup('base_link', cloud.frame_id, cloud.stamp_ns)
            turned = cloud.points[:, :3] @ lidar2base[:3, :3].T + lidar2base[:3, 3]
            clouds[cloud.stamp_ns] = turned.astype(np.float32)
        causes = []
        for frame, moment in zip(frames, moments, strict=True):
            known = frame.truth.boxes[np.isin(frame.truth.classes, tuple(own[LIDAR_TOPIC]))]
            within = centre_inside(frame.found.boxes, known).any(axis=1)
            scene = Surroundings(scenario, (moment.stamp_ns - START_NS) * 1e-9)
            rows = np.flatnonzero(~within).tolist()
            causes.append(scene.causes(frame.found.boxes, clouds[moment.stamp_ns], rows))
        return Sample(tuple(frames), tuple(causes), own[LIDAR_TOPIC])


def lidar_frames(
    reader: BagReader,
    plain: Settings,
    moments: Sequence[Moment],
    transforms: TransformBuffer,
) -> list[Frame]:
    """What the lidar network finds in a bag down to FLOOR and within WITHIN, beside the truth.

    Args:
        plain: with that network alone, as `with_model` gives it.
        moments: the truth; transforms: of the bag.
    """
    settings = every_network(plain, lambda network: with_floor(network, FLOOR))
    results, _ = run_detectors(reader, settings)
    aliases = aliases_of([plain.lidar.card] if plain.lidar else [])
    judged = judge(moments, results, transforms, aliases, {}, reader.path.name)
    return [frame.in_range(0.0, WITHIN) for frame in judged[LIDAR_TOPIC].frames]


def samples(folder: Path, model: str, given: argparse.Namespace) -> Iterator[tuple[int, Sample]]:
    """Every seed and what a network makes of its drives, from the folder where it is kept."""
    path = model_file(model, here_first=True)
    network = fingerprint([path, path.with_suffix('.yaml')])
    for seed in given.seeds:
        for condition in given.conditions:
            bag = make(folder, seed, condition, given.family, given.frames)
            kept = bag.with_name(f'{bag.name}_judged_{network}.pickle')
            if kept.is_file():
                yield seed, Sample(*pickle.loads(kept.read_bytes()))
                continue
            found = run(bag, model, seed, given.family)
            kept.write_bytes(pickle.dumps((found.frames, found.causes, found.lowest)))
            yield seed, found


def main() -> int:
    """Makes and runs what is not there yet, then prints the analysis."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.error_analysis',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument(
        '--models', help='comma-separated files of models/; default: lidar networks and camera'
    )
    given = parser.parse_args()
    answer: dict[str, Any] = {}
    jackknifed: dict[str, Mapping[str, Float64]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.cache or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for model in _models(given.models):
                known = list(samples(folder, model, given))
                frames = [frame for _, item in known for frame in item.frames]
                causes = [cause for _, item in known for cause in item.causes]
                seeds = [seed for seed, item in known for _ in item.frames]
                lowest, flat = known[0][1].lowest, model == CAMERA
                figures = analysed(frames, causes, lowest, flat)
                more, jackknifed[model] = spread(frames, seeds, lowest, flat)
                answer[model] = {'frames': len(frames), **figures, **more}
                print(text(model, answer[model]), flush=True)
        except PerceptionError as problem:
            print(f'error: {problem}', file=sys.stderr)
            return 2
    pair = [model for model in LIDARS if model in answer]
    differences = {}
    if len(pair) == len(LIDARS):
        for key in ('map', 'at the thresholds'):
            values = jackknifed[pair[0]][key] - jackknifed[pair[1]][key]
            found = {'difference': answer[pair[0]][key] - answer[pair[1]][key],
                     'error': error(values)}  # fmt: skip
            differences[key] = found
            print(
                f'{pair[0]} less {pair[1]}, {key}: {100 * found["difference"]:+.1f} '
                f'+- {100 * found["error"]:.1f} points'
            )
    less = {'centerpoint less pointpillars': differences}
    write_figures(given, {'floor': FLOOR, 'models': answer, **less})
    return 0


def _models(given: str | None) -> Sequence[str]:
    """Those that are asked for, or all that there are."""
    if given:
        return given.split(',')
    folder = model_file(CAMERA).parent
    return [name for name in (*LIDARS, CAMERA) if (folder / name).is_file()]


if __name__ == '__main__':
    sys.exit(main())

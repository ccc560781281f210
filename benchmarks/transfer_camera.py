"""`python -m benchmarks.transfer_camera`: camera networks on real images, beside YOLOX-nano.

Cars, trucks and people within 30 m of KITTI's labelled images and of the six of a nuScenes sample.
Every detection from a low score up is looked at: AP50 is COCO's at an overlap of 0.5, with the
standard error of `benchmarks.spread`. Asked for is what KITTI calls in full view or partly
occluded, no more than half cut off, and in nuScenes, whose boxes tell of no occlusion, what has 5
lidar points; the rest may be found and need not. Cyclists may be called people.

Each network sees an image twice: whole, as a node feeds it, and in tiles of its own aspect and the
image's height, for which a wide image is not reduced; what is left of all tiles is suppressed
together.

Those sets are tiny. The frames of a drive that nobody labelled stand beside them with YOLOX-nano's
own answers for truth, from a score of 0.5 (from 0.15 they may be found): that is agreement, not
accuracy, and the same few vehicles again and again, so its standard error is too small.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, find_card
from airside_perception.config import CameraConfig
from airside_perception.deploy.compare.labels import UNLABELLED, read_objects
from airside_perception.deploy.resize import resize_network
from airside_perception.engine import open_engine
from airside_perception.evaluate import frames as judged
from airside_perception.evaluate.images import flat, in_images
from airside_perception.evaluate.precision import coco_ap, recall_at_alarms
from airside_perception.geometry import apply
from airside_perception.overlap import nms_2d
from airside_perception.resources import resource
from airside_perception.types import Float64, Image
from benchmarks.camera_recall import frames_in
from benchmarks.lidar_recall import LEAST_POINTS
from benchmarks.spread import standard_error
from benchmarks.transfer import CLASSES, NAMES
from benchmarks.transfer_plot import Panel
from benchmarks.transfer_report import checked, options, report, with_earlier, written

WITHIN = 30.0
FLOOR, NMS_IOU = 0.02, 0.45
EDGE = 3.0
"""Pixels from the edge of a tile at which a box is taken as cut off."""
KITTI: Mapping[str, tuple[str, ...]] = {
    'Car': ('car',), 'Van': ('car', 'truck'), 'Truck': ('truck',), 'Tram': ('truck',),
    'Pedestrian': ('person',), 'Person_sitting': ('person',),
}  # fmt: skip
NUSCENES: Mapping[str, tuple[str, ...]] = {
    'car': ('car',), 'truck': ('truck',), 'bus': ('truck',), 'pedestrian': ('person',),
}  # fmt: skip
RIDERS = ('Cyclist', 'bicycle', 'motorcycle')
REFERENCE = 'YOLOX-nano, trained on COCO, 384 x 1248'
REFERENCE_SIZE = (384, 1248)
SURE, POSSIBLE = 0.5, 0.15
AGREEMENT = 'agreement with YOLOX-nano, a drive'
EVERY = 3
"""Of the frames of the drive."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sight:
    """A real image and its truth.

    Attributes:
        pixels: uint8 [H, W, 3], BGR.
        names: of every object, those that it may be called; the first is asked for.
        boxes: float64 [N, 4], x1, y1, x2, y2, pixels.
        asked: bool [N], whether it has to be found.
        unlabelled: float64 [K, 4], regions in which nothing counts.
    """

    pixels: Pixels
    names: tuple[tuple[str, ...], ...]
    boxes: Float64
    asked: NDArray[np.bool_]
    unlabelled: Float64


@dataclass(frozen=True)
class Seen:
    """Detections in an image: classes, scores [N], boxes [N, 4] in pixels."""

    classes: tuple[str, ...]
    scores: Float64
    boxes: Float64


def kitti(image: Path, label: Path) -> Sight:
    """An image of the KITTI object layout."""
    names, boxes, asked, unlabelled = [], [], [], []
    for kind, values in read_objects(label):
        box = values[3:7]
        if kind == UNLABELLED:
            unlabelled.append(box)
            continue
        near = np.hypot(values[10], values[12]) < WITHIN
        called = ('person',) if kind in RIDERS else KITTI.get(kind, NAMES)
        names.append(called)
        boxes.append(box)
        clear = values[1] in (0, 1) and values[0] <= 0.5
        asked.append(bool(near and clear and kind in KITTI))
    return _sight(image, names, boxes, asked, unlabelled)


def nuscenes(folder: Path) -> list[Sight]:
    """The images of the sample in a folder that holds one info file."""
    content = pickle.loads(next(folder.glob('*.pkl')).read_bytes())  # the user's own file
    sample = content['data_list'][0]
    kinds = {index: name for name, index in content['metainfo']['categories'].items()}
    sights = []
    for camera, image in sample['images'].items():
        lidar2camera = np.array(image['lidar2cam'], np.float64)
        centres = np.array([item['bbox_3d'][:3] for item in sample['instances']], np.float64)
        places = apply(lidar2camera, centres)
        names, boxes, asked = [], [], []
        for item in sample['cam_instances'][camera]:
            kind = kinds.get(item['bbox_label_3d'], 'other')
            apart = np.abs(places[:, [0, 2]] - np.array(item['bbox_3d'])[[0, 2]]).sum(axis=1)
            object_ = sample['instances'][int(apart.argmin())]
            near = np.hypot(item['bbox_3d'][0], item['bbox_3d'][2]) < WITHIN
            names.append(('person',) if kind in RIDERS else NUSCENES.get(kind, NAMES))
            boxes.append(item['bbox'])
            seen = int(object_['num_lidar_pts']) >= LEAST_POINTS
            asked.append(bool(near and seen and kind in NUSCENES))
        sights.append(_sight(folder / image['img_path'], names, boxes, asked, []))
    return sights


def agreed(network: CameraDetector, image: Path) -> Sight:
    """An image with a network's own answers for truth."""
    pixels = _read(image)
    seen = whole(network, pixels)
    rows = [
        i for i, name in enumerate(seen.classes) if name in CLASSES and seen.scores[i] >= POSSIBLE
    ]
    return Sight(
        pixels,
        tuple((CLASSES[seen.classes[i]],) for i in rows),
        seen.boxes[rows],
        seen.scores[rows] >= SURE,
        np.empty((0, 4)),
    )


def _read(image: Path) -> Pixels:
    pixels = cv2.imread(str(image))
    if pixels is None:
        raise FileNotFoundError(f'{image}: no image')
    return np.asarray(pixels, np.uint8)


def _sight(
    image: Path,
    names: Sequence[tuple[str, ...]],
    boxes: Sequence[Any],
    asked: Sequence[bool],
    unlabelled: Sequence[Float64],
) -> Sight:
    return Sight(
        _read(image),
        tuple(names),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(asked, bool),
        np.array(unlabelled, np.float64).reshape(-1, 4),
    )


def frame(sight: Sight, seen: Seen) -> judged.Frame:
    """An image and detections as an evaluation takes them, boxes lying flat."""
    rows = [
        (name, row, place == 0 and bool(sight.asked[row]))
        for row, names in enumerate(sight.names)
        for place, name in enumerate(names)
    ]
    keep = [
        i
        for i, name in enumerate(seen.classes)
        if name in CLASSES and not _outside(seen.boxes[i], sight.unlabelled)
    ]
    return judged.Frame(
        judged.Truth(
            tuple(name for name, _, _ in rows),
            flat(sight.boxes[[row for _, row, _ in rows]]),
            asked=np.array([asked for _, _, asked in rows], bool),
        ),
        judged.Found(
            tuple(CLASSES[seen.classes[i]] for i in keep), flat(seen.boxes[keep]),
            seen.scores[keep],
        ),
    )  # fmt: skip


def _outside(box: Float64, regions: Float64) -> bool:
    """Whether half of a box lies in a region that nobody labelled."""
    low = np.maximum(box[:2], regions[:, :2])
    shared = np.maximum(np.minimum(box[2:], regions[:, 2:]) - low, 0.0).prod(axis=1)
    return bool((shared > 0.5 * np.prod(box[2:] - box[:2])).any())


def figures(frames: Sequence[judged.Frame]) -> dict[str, dict[str, float]]:
    """{class: objects, AP50, its standard error, recall at one false alarm an image}."""
    table = {}
    for name in NAMES:
        found = in_images(frames, name)
        table[name] = {
            'objects': found.asked,
            'ap': coco_ap(found),
            'se': standard_error(frames, name, [found], coco_ap),
            'recall': recall_at_alarms(found, len(frames), 1.0)[0],
        }
    return table


def whole(network: CameraDetector, pixels: Pixels) -> Seen:
    """Detections in an image as a node finds them."""
    found = network.detect(Image(0, 'camera', pixels))
    return Seen(found.classes, found.scores, found.xyxy)


def tiled(network: CameraDetector, pixels: Pixels) -> Seen:
    """Detections in tiles of the network's aspect and the image's height, overlapping by half."""
    height, width = pixels.shape[:2]
    across = min(width, round(height * network.card.width / network.card.height))
    count = int(np.ceil(2 * (width - across) / across)) + 1
    parts = []
    for left in np.linspace(0, width - across, count).round().astype(int).tolist():
        part = whole(network, np.ascontiguousarray(pixels[:, left : left + across]))
        boxes = part.boxes + np.array([left, 0, left, 0])
        cut = (boxes[:, 0] < left + EDGE) & (left > 0)
        cut |= (boxes[:, 2] > left + across - EDGE) & (left + across < width)
        # what is narrower than half a tile is whole in the next one
        rows = np.flatnonzero(~cut | (boxes[:, 2] - boxes[:, 0] > across / 2))
        classes = tuple(part.classes[row] for row in rows)
        parts.append(Seen(classes, part.scores[rows], boxes[rows]))
    classes = tuple(name for part in parts for name in part.classes)
    scores = np.concatenate([part.scores for part in parts])
    boxes = np.concatenate([part.boxes for part in parts])
    _, labels = np.unique(np.array(classes, str), return_inverse=True)
    kept = nms_2d(boxes, scores, NMS_IOU, labels)
    return Seen(tuple(classes[i] for i in kept), scores[kept], boxes[kept])


def opened(path: Path) -> CameraDetector:
    """A camera network that answers with everything from `FLOOR` up.

    Raises:
        TypeError: it is none.
    """
    card = find_card(path)
    if not isinstance(card, CameraCard):
        raise TypeError(f'{path} is no camera network')
    config = CameraConfig(score_threshold=FLOOR, nms_iou=NMS_IOU)
    return CameraDetector(open_engine(path), replace(card, thresholds={}), config)


def reference(data: Path) -> CameraDetector:
    """YOLOX-nano at the size at which it does best on KITTI."""
    card = resource('config', 'cards', 'yolox_nano_coco.yaml')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'network.onnx')
        resize_network(data / 'yolox_nano' / 'yolox_nano.onnx', path, *REFERENCE_SIZE, str(card))
        return opened(path)


def panels_of(data: Path, networks: Mapping[str, Path]) -> list[Panel]:
    """Two panels for every set of images: whole ones, and tiles."""
    known, ours = reference(data), [opened(path) for path in networks.values()]
    drive = sorted((data / 'drive' / 'image_02').glob('*.*'))[::EVERY]
    sets = {
        'KITTI, seven images': [kitti(image, label) for image, label, _ in frames_in(data)],
        'nuScenes, six images': nuscenes(data / 'nuscenes'),
        AGREEMENT: [agreed(known, image) for image in drive],
    }
    panels = []
    for place, sights in sets.items():
        others = {}
        if place != AGREEMENT:
            answers = [frame(sight, whole(known, sight.pixels)) for sight in sights]
            others = {REFERENCE: figures(answers)}
        for how, look in (('whole', whole), ('in tiles', tiled)):
            stages = [
                figures([frame(sight, look(network, sight.pixels)) for sight in sights])
                for network in ours
            ]
            panels.append(Panel(f'{place}, {how}', stages, others))
    return panels


def main() -> int:
    """Prints the figures and leaves them in --out."""
    parser = options('python -m benchmarks.transfer_camera', __doc__, 'a=models/apron_yolox.onnx')
    given, networks = checked(
        parser, lambda path: isinstance(find_card(path), CameraCard), 'camera'
    )
    cv2.setNumThreads(1)
    made = panels_of(given.data, networks)
    panels, names = with_earlier(parser, given.after, made, list(networks))
    print(report(panels, names))
    if given.out:
        note = f'AP50: at an overlap of 0.5; objects within {WITHIN:.0f} m.'
        notes = [note, f'reference: {REFERENCE}, whole images']
        written(given.out, 'transfer_camera', panels, names, notes)
    return 0


if __name__ == '__main__':
    sys.exit(main())

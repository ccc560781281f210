"""Metrics of nuScenes' development kit, for test_devkit.py: run by the Python that has it.

Reads {'frames': [{'truth': [box], 'found': [box]}], 'classes': [...]} from standard input, a box
as {'class', 'box': 7 numbers, 'velocity': 2 numbers, 'score'}; writes what the kit computes.
"""

import json
import sys

from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.utils import center_distance
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.data_classes import DetectionBox
from pyquaternion import Quaternion

METRICS = ('trans_err', 'scale_err', 'orient_err', 'vel_err')


def boxes(frames, key):
    found = EvalBoxes()
    for number, frame in enumerate(frames):
        found.add_boxes(str(number), [
            DetectionBox(
                sample_token=str(number),
                translation=tuple(item['box'][:3]),
                size=(item['box'][4], item['box'][3], item['box'][5]),  # width, length, height
                rotation=tuple(Quaternion(axis=[0, 0, 1], angle=item['box'][6]).elements),
                velocity=tuple(item['velocity']),
                detection_name=item['class'],
                detection_score=item.get('score', -1.0),
                attribute_name='',
            )
            for item in frame[key]
        ])  # fmt: skip
    return found


def main():
    data = json.load(sys.stdin)
    truth, found = boxes(data['frames'], 'truth'), boxes(data['frames'], 'found')
    answer = {}
    for name in data['classes']:
        table = {}
        for reach in (0.5, 1.0, 2.0, 4.0):
            curve = accumulate(truth, found, name, center_distance, reach)
            table[str(reach)] = float(calc_ap(curve, 0.1, 0.1))
            if reach == 2.0:
                table.update({m: float(calc_tp(curve, 0.1, m)) for m in METRICS})
        answer[name] = table
    json.dump(answer, sys.stdout)


if __name__ == '__main__':
    main()

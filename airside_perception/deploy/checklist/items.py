"""The items of the checklist, in order, and running them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airside_perception.deploy.checklist import before, building, integration, validation
from airside_perception.deploy.checklist.deployment import Deployment
from airside_perception.deploy.checklist.outcome import FAILED, PASSED, UNKNOWN, Outcome

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        name: short, for JSON.
        group: what it is part of.
        title: what is to be so.
        check: looks whether it is.
    """

    name: str
    group: str
    title: str
    check: Callable[[Deployment], Outcome]


BEFORE, BUILDING = 'Before deployment', 'Engines'
INTEGRATION, VALIDATION = 'Integration', 'Validation'
ITEMS = (
    Item('training-data', BEFORE, 'Trained on data like the apron', before.training),
    Item('qat', BEFORE, 'Trained with quantisation where INT8 needs it',
         before.quantisation_aware),
    Item('opset', BEFORE, 'ONNX opset 17 or later', before.opset),
    Item('batch', BEFORE, 'Batch varies, or is the 1 that nodes and DLA cores run', before.batch),
    Item('sound-onnx', BEFORE, 'ONNX is valid, and nothing is left to fold', before.sound),
    Item('current', BUILDING, 'Engines are of these networks, byte for byte', building.current),
    Item('target', BUILDING, "Built on the vehicle's GPU", building.target),
    Item('calibration', BUILDING, 'Calibrated on 500 frames or more', building.calibration),
    Item('fp16', BUILDING, 'An fp16 engine of every network', building.baseline),
    Item('int8', BUILDING, 'INT8 engines pass an accuracy gate', building.int8),
    Item('dla', BUILDING, 'Camera engine on the DLA, and really there', building.dla),
    Item('timing-cache', BUILDING, 'Timing caches are kept', building.timing_cache),
    Item('layer-times', INTEGRATION, 'Times of all layers are known', integration.layer_times),
    Item('assignment', INTEGRATION, 'Cameras on both DLA cores, lidar on the GPU',
         integration.assignment),
    Item('triton', INTEGRATION, 'Triton repository with an ensemble, or engines in the nodes',
         integration.triton),
    Item('cuda-graphs', INTEGRATION, 'GPU engines run as CUDA graphs', integration.cuda_graphs),
    Item('dynamic-batching', INTEGRATION, 'Engines for a varying number of inputs',
         integration.dynamic_batching),
    Item('golden', VALIDATION, 'Engines give what the networks give', validation.golden),
    Item('heat', VALIDATION, 'No slowing down in a long run', validation.heat),
    Item('power', VALIDATION, 'Power measured in all power modes', validation.power),
    Item('latency', VALIDATION, 'Latency within what safety allows', validation.latency),
    Item('reopening', VALIDATION, 'Engines open again after a restart', validation.reopening),
)  # fmt: skip
"""Section by section as the deployment guide has them."""


@dataclass(frozen=True)
class Checklist:
    """All items with their outcomes."""

    outcomes: tuple[tuple[Item, Outcome], ...]

    @property
    def good(self) -> bool:
        """Whether none failed."""
        return all(outcome.status != FAILED for _, outcome in self.outcomes)

    @property
    def counts(self) -> dict[str, int]:
        """{status: items}."""
        found = dict.fromkeys((PASSED, FAILED, UNKNOWN), 0)
        for _, outcome in self.outcomes:
            found[outcome.status] += 1
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            'good': self.good,
            'counts': self.counts,
            'items': [
                {'name': item.name, 'group': item.group, 'title': item.title, **outcome.as_dict()}
                for item, outcome in self.outcomes
            ],
        }


def run_checklist(found: Deployment, progress: Progress = lambda step, share: None) -> Checklist:
    """Checks every item.

    Args:
        found: what is to go on the vehicle.
        progress: is told the item, and the share that is done.
    """
    outcomes = []
    for place, item in enumerate(ITEMS):
        progress('checking', place / len(ITEMS))
        outcomes.append((item, item.check(found)))
    return Checklist(tuple(outcomes))

"""A lidar network as it is trained: the pillar feature net and the dense network."""

from __future__ import annotations

from typing import Any

import torch

from training.heads import head_of
from training.network import PillarNet
from training.recipe import Training, parse


class Model(torch.nn.Module):
    """Both networks, from decorated points to the maps of the head."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.pillars: PillarNet = training.pillar_net()
        self.dense = head_of(training, torch.device('cpu')).network()


def trained(saved: dict[str, Any]) -> tuple[Training, Model]:
    """The recipe and the averaged network of a saved run, in evaluation mode."""
    training = parse(saved['training'])
    model = Model(training)
    model.load_state_dict(saved['average'])
    return training, model.eval()

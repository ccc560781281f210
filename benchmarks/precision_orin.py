"""What a network would take on a Jetson AGX Orin, by bytes and operations: a prediction.

Nothing here has run on an Orin. Every layer takes its operations divided by a rate, then its bytes
divided by a bandwidth; a tensor is INT8 where all that read it are (`deploy.search.costs`). Two
answers: at the peak figures of NVIDIA's data sheet for the AGX Orin 64 GB (DS-10662-001), which no
network reaches, and at rates fitted to three layers that were published (arXiv:2601.12638).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from airside_perception.deploy.search.costs import ORIN, CostModel, Machine
from airside_perception.deploy.search.evaluate import candidates
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import copied, name_nodes, weights
from airside_perception.engine.typed import read_network

PEAK = Machine('Jetson AGX Orin, data sheet', 42.5e12, 85e12, 204.8e9)
"""Dense: 170 TOPS of INT8 with sparsity are 85 without, fp16 on Tensor Cores is half of that."""
PEAK_FP32 = Machine('the same, fp32', 5.3e12, 5.3e12, 204.8e9 / 2)
"""CUDA cores. Half of the bandwidth, since `CostModel` counts 2 bytes where fp32 has 4."""
FITTED_FP32 = Machine(f'{ORIN.name}, fp32', ORIN.fp16 / 2, ORIN.fp16 / 2, ORIN.bandwidth / 2)
"""fp32 is taken as twice fp16; the three layers took 2.1 to 2.5 times as long."""


@dataclass(frozen=True)
class Prediction:
    """Of one precision.

    Attributes:
        peak_ms: at the data sheet's figures: less is not possible.
        fitted_ms: at the rates of published layers.
        int8_share: operations in INT8, of all in convolutions and matrix products.
        weight_mb: of the weights as they are stored.
    """

    peak_ms: float
    fitted_ms: float
    int8_share: float
    weight_mb: float


def predict(source: Path, precision: str, int8: Collection[str] = ()) -> Prediction:
    """A prediction.

    Args:
        source: fp32 network.
        precision: fp32, fp16 or int8.
        int8: names of the nodes in INT8, of the network whose deconvolutions are split.
    """
    model = copied(read_network(source))
    name_nodes(model.graph)
    if precision == 'int8':
        model = split_deconvolutions(model)
    stored = weights(model)
    tensors = {name: 1.0 for node in model.graph.node for name in node.input if name not in stored}
    nodes = candidates(model, tensors)
    single = precision == 'fp32'
    peak, fitted = (PEAK_FP32, FITTED_FP32) if single else (PEAK, ORIN)
    least = CostModel(model, nodes, peak).cost(int8)
    likely = CostModel(model, nodes, fitted).cost(int8)
    size = least.weight_bytes * (2 if single else 1)
    return Prediction(least.milliseconds, likely.milliseconds, least.share, size / 1e6)

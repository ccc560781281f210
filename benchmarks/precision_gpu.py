"""The rows as TensorRT engines: built where they are not there yet, and timed in turns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from airside_perception.deploy.bench.run import bench
from airside_perception.deploy.bench.settings import BenchSettings
from airside_perception.engine.manifest import Manifest, manifest_path, sha256_of
from benchmarks.precision_networks import Network

TACTICS = 'EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS'
"""TensorRT's own kernels: cuBLAS and cuDNN need not be there."""


@dataclass(frozen=True)
class Plan:
    """One engine that is wanted.

    Attributes:
        network: ONNX file; target: of the engine.
        precision: fp32, fp16 or int8 with the rest in fp16.
    """

    network: Path
    target: Path
    precision: str


def plan_of(network: Network, folder: Path) -> Plan:
    """The engine of a row; a training's networks may have the names of others."""
    row = network.row.replace(' ', '_').lower()
    target = folder / f'{network.path.stem}.{row}.engine'
    return Plan(network.path, target, network.precision)


def build_all(plans: Sequence[Plan], opt_level: int, jobs: int) -> dict[Path, str]:
    """Builds what is not there, several at a time by `engine build` in processes of their own.

    One that crashes leaves the others alone.

    Returns:
        {engine that could not be built: why}.
    """
    wanted = [plan for plan in plans if not current(plan)]
    failed: dict[Path, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for plan, why in pool.map(partial(_build, opt_level), wanted):
            print(f'{plan.target.name}: {why or "built"}', flush=True)
            if why:
                failed[plan.target] = why
    return failed


def current(plan: Plan) -> bool:
    """Whether the engine is there and was built from this network."""
    if not plan.target.is_file() or not manifest_path(plan.target).is_file():
        return False
    known = Manifest.read(plan.target)
    return known.onnx_sha256 == sha256_of(plan.network) and known.precision == plan.precision


def _build(opt_level: int, plan: Plan) -> tuple[Plan, str]:
    plan.target.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, '-m', 'airside_perception.deploy', 'build', str(plan.network),
        '--precision', plan.precision,
        '--io-precision', 'fp32',  # the detectors of the CPU take and give linear fp32
        '--out', str(plan.target),
        '--opt-level', str(opt_level),
        '--timing-cache', str(plan.target.with_name('timing.cache')),
        '--tactic-sources', TACTICS,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return plan, ''
    said = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
    return plan, said[-1] if said else f'status {done.returncode}'


def times(engines: Mapping[str, Path], seconds: float = 2.0) -> dict[str, float]:
    """{row: median time of the network on the GPU, as a CUDA graph, ms}.

    Copies to the GPU and back are not in it.
    """
    settings = BenchSettings(cuda_graph=True, transfers=False, duration_s=seconds)
    found = bench(list(engines.values()), settings)
    return {
        row: timing.compute.p50
        for row, timing in zip(engines, found.timings, strict=True)
        if timing.compute is not None
    }

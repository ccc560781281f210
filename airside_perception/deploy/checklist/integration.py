"""Integration: who runs where, layer times, CUDA graphs, Triton."""

from __future__ import annotations

from pathlib import Path

from airside_perception.deploy.checklist.deployment import Deployment
from airside_perception.deploy.checklist.evidence import profiles_of, timings_of
from airside_perception.deploy.checklist.outcome import (
    Outcome,
    failed,
    passed,
    together,
    unknown,
)
from airside_perception.deploy.doctor.needs import LIDAR_NODE
from airside_perception.deploy.triton.check import (
    CONFIG,
    FILES,
    model_config_module,
    parse,
)
from airside_perception.engine.manifest import Manifest
from airside_perception.errors import ConfigError

LARGEST_SHARE = 0.3
"""Share of the time in layers that only move data, above which something is to be mended."""


def layer_times(found: Deployment) -> Outcome:
    """A profile of every engine, and not too much of it for moving data."""

    def look(path: Path, manifest: Manifest) -> Outcome:
        command = f'engine profile {path} --json > {path}.profile.json'
        for item in profiles_of(found.evidence, path):
            said = item.content
            moving = float(said.get('reformat_share', 0.0)) + float(
                said.get('transfer_share', 0.0)
            )
            line = (
                f'{path.name}: {len(said["layers"])} layers, {said["sum_ms"]:.3f} ms, '
                f'{100 * moving:.0f} % of it moves data ({item.path.name})'
            )
            if moving > LARGEST_SHARE:
                return failed(f'{path.name}: {100 * moving:.0f} % of the time only moves data',
                              f'engine lint {manifest.onnx} --target dla', line)  # fmt: skip
            return passed(line)
        return unknown(f'{path.name}: no profile that is newer than it', command)

    return together(
        (look(path, manifest) for path, manifest in found.manifests()),
        unknown(found.no_engines or 'no engine has a manifest',
                'engine profile ENGINE --json > ENGINE.profile.json'),
    )  # fmt: skip


def assignment(found: Deployment) -> Outcome:
    """The parameters put cameras on both DLA cores and the lidar on the GPU."""
    uses = {use.node: use for use in found.needs.uses}
    cameras = [use for name, use in uses.items() if name != LIDAR_NODE]
    lines = [
        f'{use.node}: {Path(use.path).name or "nothing"} on '
        + (
            f'DLA {use.dla_core}'
            if use.dla_core >= 0
            else 'the GPU'
            if use.tensorrt
            else 'the CPU'
        )
        for use in uses.values()
    ]
    command = f'in {found.needs.path}: engine_path: NAME.fp16.dla0.engine, dla_core: 0 (and 1)'
    if not any(use.tensorrt for use in uses.values()):
        return unknown(
            'the parameters name no engines, only networks for the CPU', command, *lines
        )
    wrong = [use.node for use in cameras if use.dla_core < 0]
    lidar = uses.get(LIDAR_NODE)
    if lidar is not None and (lidar.dla_core >= 0 or not lidar.tensorrt):
        wrong.append(LIDAR_NODE)
    cores = {use.dla_core for use in cameras if use.dla_core >= 0}
    if wrong:
        return failed(f'not where they belong: {", ".join(wrong)}', command, *lines)
    if len(cameras) > 1 and cores != {0, 1}:
        return failed(f'the cameras share DLA core {", ".join(map(str, sorted(cores)))}', command,
                      *lines)  # fmt: skip
    return passed(*lines)


def triton(found: Deployment) -> Outcome:
    """A model repository that Triton can take, where one is to be used."""
    command = (
        'engine triton --camera CAMERA --lidar LIDAR --out REPO; engine checklist --triton REPO'
    )
    if found.triton is None:
        return unknown(
            'no repository was named (--triton); the nodes run engines in their own process, '
            'which has the lower latency', command,
        )  # fmt: skip
    if model_config_module() is None:
        return unknown("Triton's protobuf is not here", 'pip install tritonclient protobuf')
    lines, wrong = [], []
    for file in sorted(found.triton.glob(f'*/{CONFIG}')):
        try:
            config = parse(file.read_text(encoding='utf-8'))
        except (ConfigError, OSError) as error:
            wrong.append(f'{file.parent.name}: {error}')
            continue
        kind = config.platform or config.backend
        model = file.parent / '1' / FILES.get(kind, '')
        if not model.exists():
            wrong.append(f'{file.parent.name}: {model} is missing')
        lines.append(f'{file.parent.name}: {kind}')
    if wrong or not lines:
        return failed(
            '; '.join(wrong) or f'{found.triton}: there is no model in it', command, *lines
        )
    if not any(line.endswith(': ensemble') for line in lines):
        return failed(f'{found.triton}: there is no ensemble in it', command, *lines)
    return passed(*lines)


def cuda_graphs(found: Deployment) -> Outcome:
    """Every engine on the GPU was seen to run as a CUDA graph."""

    def look(path: Path) -> Outcome:
        command = f'engine bench {path} --cuda-graph --json > {path}.bench.json'
        seen = list(timings_of(found.evidence, path))
        for item, timing in seen:
            if timing['cuda_graph']:
                return passed(f'{path.name}: ran as a CUDA graph, median '
                              f'{timing["latency"]["p50"]:.3f} ms ({item.path.name})')  # fmt: skip
        if any(item.content['settings'].get('cuda_graph') for item, _ in seen):
            return failed(f'{path.name}: a graph was asked for and it ran without', command)
        return unknown(f'{path.name}: not measured with --cuda-graph', command)

    parts = [look(path) for path, item in found.manifests() if item.dla_core < 0]
    return together(
        parts,
        unknown(found.no_engines or 'all engines are for DLA cores, whose work is not recorded',
                'engine bench ENGINE --cuda-graph --json > ENGINE.bench.json'),
    )  # fmt: skip


def dynamic_batching(found: Deployment) -> Outcome:
    """Where the number of inputs varies: engines with profiles for it."""
    varying = [
        f'{path.name}: {name} from {low} to {high}'
        for path, manifest in found.manifests()
        for profile in manifest.profiles
        for name, (low, _, high) in profile.items()
        if list(low) != list(high)
    ]
    if varying:
        return passed(*varying)
    return unknown(
        found.no_engines or 'every input has one size: a node runs one image or cloud a call',
        'engine build NETWORK.onnx --profile images:1x3x384x640:2x3x384x640:4x3x384x640',
    )

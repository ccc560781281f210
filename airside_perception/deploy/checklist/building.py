"""Building: which engines there are, for which machine, and how they came about."""

from __future__ import annotations

import json
from pathlib import Path

from airside_perception.deploy.calibrate.scales import ENOUGH, meta_path
from airside_perception.deploy.checklist.before import accuracy_of
from airside_perception.deploy.checklist.deployment import Deployment, Network
from airside_perception.deploy.checklist.evidence import CALIBRATION
from airside_perception.deploy.checklist.outcome import (
    Outcome,
    failed,
    passed,
    together,
    unknown,
)
from airside_perception.engine.manifest import Machine, Manifest
from airside_perception.engine.rebuild import rebuild_command

LEAST_DLA_PCT = 90.0
"""Share of the layers on the DLA below which copies between the devices eat the gain."""


def _nothing(found: Deployment, command: str) -> Outcome:
    return unknown(found.no_engines or 'no engine has a manifest', command)


def current(found: Deployment) -> Outcome:
    """Every engine is, byte for byte, what was built from the networks as they are."""

    def look(path: Path, manifest: Manifest) -> Outcome:
        differences = manifest.check(path, Machine())
        if differences:
            return failed(f'{path.name}: {"; ".join(differences)}',
                          rebuild_command(path, manifest))  # fmt: skip
        return passed(
            f'{path.name}: SHA-256 {manifest.engine_sha256[:12]}..., from {manifest.onnx} '
            f'({manifest.onnx_sha256[:12]}...), {manifest.built or "undated"}'
        )

    parts = [failed(e.problem, rebuild_command(e.path)) for e in found.engines if not e.manifest]
    parts += [look(path, manifest) for path, manifest in found.manifests()]
    return together(parts, _nothing(found, 'engine build NETWORK.onnx'))


def target(found: Deployment) -> Outcome:
    """Built on the vehicle's GPU."""

    def look(path: Path, manifest: Manifest) -> Outcome:
        where = f'{manifest.gpu or "no GPU"} ({manifest.sm or "any"})'
        line = f'{path.name}: built on {where} by TensorRT {manifest.flavor} {manifest.tensorrt}'
        if manifest.sm != found.sm:
            return failed(
                f'{path.name}: built for {manifest.sm or "no GPU in particular"}, the vehicle has '
                f'{found.sm}', f'on the vehicle: {rebuild_command(path, manifest)}', line,
            )  # fmt: skip
        return passed(line)

    return together(
        (look(path, manifest) for path, manifest in found.manifests()),
        _nothing(found, 'on the vehicle: engine build NETWORK.onnx'),
    )


def calibration(found: Deployment) -> Outcome:
    """Scales from enough frames, as those who made them wrote down."""
    command = 'engine calibrate NETWORK.onnx --data APRON.bag --out SCALES.json'
    parts = []
    for path, manifest in found.manifests():
        if manifest.precision == 'int8':
            parts.append(_calibrated(found, path, manifest, command))
    if not parts:
        for item in found.evidence:
            if item.kind == CALIBRATION:
                parts.append(_frames(item.path.name, item.content.get('frames'), command))
    return together(parts, unknown('there is neither an INT8 engine nor a calibration', command))


def _calibrated(found: Deployment, path: Path, manifest: Manifest, command: str) -> Outcome:
    named = str(manifest.settings.get('calibration', ''))
    if not named:
        for item in found.evidence:
            of = item.content.get('network_sha256')
            if item.kind == CALIBRATION and of and of == manifest.onnx_sha256:
                return _frames(item.path.name, item.content.get('frames'), command)
        return unknown(
            f'{path.name}: its scales are Q/DQ nodes, which do not say from how many frames',
            f'{command} --emit-qdq QDQ.onnx keeps that beside the scales',
        )
    for place in (Path(named), path.parent / Path(named).name):
        meta = meta_path(place)
        if meta.is_file():
            try:
                frames = json.loads(meta.read_text(encoding='utf-8')).get('frames')
            except (OSError, ValueError):
                frames = None
            return _frames(f'{path.name}: {meta.name}', frames, command)
    return unknown(f'{path.name}: {named} does not say from how many frames it is', command)


def _frames(name: str, frames: object, command: str) -> Outcome:
    if not isinstance(frames, int):
        return unknown(f'{name}: does not say from how many frames it is', command)
    line = f'{name}: {frames} frames'
    if frames < ENOUGH:
        return failed(f'{line}, expected {ENOUGH} or more', command, line)
    return passed(line)


def baseline(found: Deployment) -> Outcome:
    """An fp16 engine of every network."""

    def look(network: Network) -> Outcome:
        built = [(p, m) for p, m in found.of(network) if m.precision == 'fp16']
        if built:
            return passed(*(f'{p.name}: fp16, {m.build_seconds:g} s to build' for p, m in built))
        return failed(f'{network.path.name}: no fp16 engine',
                      f'engine build {network.path} --precision fp16')  # fmt: skip

    if found.no_engines:
        return _nothing(found, 'engine build NETWORK.onnx --precision fp16')
    return together(map(look, found.networks), _nothing(found, 'engine build NETWORK.onnx'))


def int8(found: Deployment) -> Outcome:
    """INT8 engines, each proven on labelled or fp32 boxes."""
    parts = [accuracy_of(found, p) for p, m in found.manifests() if m.precision == 'int8']
    command = 'engine build NETWORK.onnx --precision int8 --calibration SCALES.json'
    return together(parts, unknown(found.no_engines or 'there is no INT8 engine', command))


def dla(found: Deployment) -> Outcome:
    """A camera engine on a DLA core, and really on it."""

    def look(path: Path, manifest: Manifest) -> Outcome:
        share = manifest.dla_layer_pct or 0.0
        rest = ', '.join(manifest.not_on_dla[:5]) or 'none'
        line = (
            f'{path.name}: DLA core {manifest.dla_core}, {share:.1f} % of the layers on it; on '
            f'the GPU: {rest}'
        )
        if share < LEAST_DLA_PCT:
            return failed(
                f'{path.name}: only {share:.1f} % of its layers are on the DLA',
                f'engine rewrite {manifest.onnx_path(path)} --target dla --out NEW.onnx', line,
            )  # fmt: skip
        return passed(line)

    parts = [look(path, item) for path, item in found.manifests() if item.dla_core >= 0]
    command = 'on the vehicle: engine build CAMERA.onnx --device dla0'
    return together(parts, unknown(found.no_engines or 'no engine is for a DLA core', command))


def timing_cache(found: Deployment) -> Outcome:
    """The timings of the builds were kept."""
    kept = sorted(Path(found.host.cache).with_name('timing').glob('*.cache'))

    def look(path: Path, manifest: Manifest) -> Outcome:
        named = str(manifest.settings.get('timing_cache', 'auto'))
        again = rebuild_command(path, manifest)
        if manifest.flavor == 'rtx':
            return unknown(f'{path.name}: TensorRT-RTX measures nothing and keeps nothing', again)
        if not named:
            return failed(f'{path.name}: built without a timing cache', again)
        files = kept if named == 'auto' else [f for f in [Path(named)] if f.is_file()]
        if named == 'auto' and manifest.gpu:
            word = manifest.gpu.lower().split()[-1]
            files = [file for file in files if word in file.name]
        if not files:
            return unknown(f'{path.name}: its timing cache ({named}) is not on this machine',
                           f'on the machine that built it: {again}')  # fmt: skip
        return passed(f'{path.name}: {files[0]}, {files[0].stat().st_size:,} bytes')

    return together(
        (look(path, manifest) for path, manifest in found.manifests()),
        _nothing(found, 'engine build NETWORK.onnx --timing-cache auto'),
    )

"""What holds on this machine, as names: which cures of a failure are of use here."""

from __future__ import annotations

import functools
from dataclasses import fields
from pathlib import Path

from airside_perception.engine.capabilities import TensorRT, load_tensorrt
from airside_perception.errors import EngineError

RELEASE = '/etc/nv_tegra_release'


@functools.cache
def machine_facts() -> frozenset[str]:
    """Names of what holds here.

    `jetson`; `tensorrt` where there is one; and of that: `rtx`, `weakly_typed` where precisions
    can be flags, and each switch of `Capabilities` that is on. Where there is no TensorRT,
    everything is possible on the machine that the log is from: the switches count as on.
    """
    try:
        found: TensorRT | None = load_tensorrt()
    except EngineError:
        found = None
    return facts_of(found, Path(RELEASE).is_file())


def facts_of(tensorrt: TensorRT | None, jetson: bool) -> frozenset[str]:
    """As `machine_facts`, of any TensorRT."""
    facts = {'jetson'} if jetson else set()
    if tensorrt is None:
        return frozenset({*facts, 'layer_precision', 'version_compatible', 'hardware_compatible'})
    switches = {item.name for item in fields(tensorrt.can) if item.type in ('bool', bool)}
    facts |= {name for name in switches if getattr(tensorrt.can, name)}
    facts |= {'tensorrt'} | ({'rtx'} if tensorrt.flavor == 'rtx' else set())
    if tensorrt.can.precision_flags:
        facts.add('weakly_typed')
    return frozenset(facts)

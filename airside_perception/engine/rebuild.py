"""The command that builds an engine again, as it was or for what is asked of it now."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from airside_perception.card.find import BUILT, onnx_beside

if TYPE_CHECKING:
    from airside_perception.engine.manifest import Machine, Manifest

UNKNOWN = 'unknown'
"""The precision of an engine that was built elsewhere."""
FORMATS = ('--io-format', '--io-precision')
"""Options of a build, with a value each, that are for its precision and kind of device only."""
POOLS = ('--dla-sram', '--dla-local-dram', '--dla-global-dram')
SWITCHES = ('--dla-strict',)
"""Options that are for a DLA core only, with a value each and without."""


def command() -> str:
    """How the engine tool is called here: through ROS 2 where it is sourced."""
    if os.environ.get('AMENT_PREFIX_PATH'):
        return 'ros2 run airside_perception engine'
    return 'python -m airside_perception.deploy'


def rebuild_command(
    engine: str | Path, manifest: Manifest | None = None, machine: Machine | None = None
) -> str:
    """The command that builds an engine again as it was, for the device and precision asked for.

    Where these are not those in its name (`NAME.fp16.gpu.engine`), it is given another name.

    Args:
        manifest: of the engine as it is; None: unknown, its name says what it can.
        machine: what is asked for.
    """
    options = list(manifest.options if manifest else ())
    if not options:
        named = BUILT.search(Path(engine).stem)
        precision, device = named.groups() if named else ('', '')
        if manifest:
            precision = precision if manifest.precision == UNKNOWN else manifest.precision
            device = 'gpu' if manifest.dla_core < 0 else f'dla{manifest.dla_core}'
        options += ['--precision', precision] if precision else []
        options += ['--device', device] if device else []
    core = machine.dla_core if machine else None
    if machine and machine.precision != 'auto':
        options = _with(options, '--precision', machine.precision, (*FORMATS, '--calibration'))
    if core is not None:
        device = 'gpu' if core < 0 else f'dla{core}'
        same_kind = device[:3] == _value(options, '--device')[:3]
        options = _with(options, '--device', device, () if same_kind else (*FORMATS, *POOLS))
        if core < 0:
            options = [word for word in options if word not in SWITCHES]
    source = manifest.onnx_path(engine) if manifest else onnx_beside(engine)
    words = ['build', str(source), *options, '--out', str(_named(Path(engine), options))]
    return f'{command()} {shlex.join(words)}'


def _with(options: list[str], name: str, value: str, chosen: tuple[str, ...]) -> list[str]:
    """The options with this one; without those that were `chosen` for another value of it."""
    before = _value(options, name)
    if before == value:
        return options
    if not before:
        return [*options, name, value]
    kept = list(options)
    for place in reversed(range(len(kept))):
        if kept[place] in chosen:
            del kept[place : place + 2]
    kept[kept.index(name) + 1] = value
    return kept


def _named(engine: Path, options: list[str]) -> Path:
    """The name of an engine, with the precision and device of the options if it has any."""
    found = BUILT.search(engine.stem)
    if found is None:
        return engine
    precision = _value(options, '--precision') or found.group(1)
    device = _value(options, '--device') or found.group(2)
    return engine.with_name(f'{engine.stem[: found.start()]}.{precision}.{device}{engine.suffix}')


def _value(options: list[str], name: str) -> str:
    return options[options.index(name) + 1] if name in options[:-1] else ''

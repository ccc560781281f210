"""A list of engines to be built: networks x precisions x devices, from a YAML file."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from airside_perception.deploy.build import sparse, target_of, usual_formats, whole_mib
from airside_perception.engine.build_settings import (
    DEVICES,
    POOLS,
    PRECISIONS,
    BuildSettings,
    read_profile,
)
from airside_perception.engine.sizes import read_size
from airside_perception.errors import ConfigError
from airside_perception.resources import model_file

OWN = ('precision', 'device')
"""Settings that come from the matrix itself."""
FILE_KEYS = ('out', 'precisions', 'devices', 'settings', 'models', 'overrides')
MODEL_KEYS = ('model', 'out', 'precisions', 'devices', 'settings')
OVERRIDE_KEYS = ('where', 'settings', 'out', 'skip')
WHERE_KEYS = ('model', *OWN)


@dataclass(frozen=True)
class Entry:
    """One engine to be built.

    Attributes:
        model: the network's file, which may be missing.
        target: the engine's file.
    """

    model: Path
    settings: BuildSettings
    target: Path

    @property
    def name(self) -> str:
        """For people: network, precision and device."""
        return f'{self.model.stem} {self.settings.precision} {self.settings.device}'


def read_matrix(path: str | Path) -> tuple[Entry, ...]:
    """The engines that a file lists, in its order.

    ```yaml
    out: engines              # folder; without it, each beside its network
    precisions: [fp16, int8]  # of every network that has none of its own
    devices: [gpu]
    settings: {opt_level: 3}  # of every engine, by the names of BuildSettings
    models:
      - apron_yolox.onnx      # beside the file, or in models/
      - model: net.onnx
        devices: [gpu, dla0]
        settings: {calibration: net.json, profiles: ['x:1x3x8:1x3x8:4x3x8']}
    overrides:                # the later ones win
      - where: {model: net, device: dla0}
        settings: {dla_strict: true, dla_sram: 512K}
      - where: {precision: fp32, device: dla0}
        skip: true
    ```

    Paths are relative to the file. `calibration` counts where the precision is int8. Sizes may
    have K, M or G, and `workspace` is `workspace_mb` with such a unit.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, settings that contradict one
            another, or two engines of one name.
    """
    path = Path(path)
    text = _table(_read(path), FILE_KEYS, str(path))
    models = text.get('models')
    if not isinstance(models, list) or not models:
        raise ConfigError(f'{path}: models is {models!r}: expected a list of networks')
    overrides = _overrides(path, text.get('overrides', []))
    entries: list[Entry] = []
    for item in models:
        model = {'model': item} if isinstance(item, str) else item
        model = _table(model, MODEL_KEYS, f'{path}: models')
        if not isinstance(model.get('model'), str):
            raise ConfigError(f'{path}: models: {item!r} names no model')
        entries += _entries(path, text, model, overrides)
    if not entries:
        raise ConfigError(f'{path}: it lists no engine that is not skipped')
    _check_unique(path, entries)
    unused = [said['where'] for said, used in overrides if not used]
    if unused:
        raise ConfigError(f'{path}: overrides where {unused[0]}: no engine of the list is meant')
    return tuple(entries)


Override = tuple[Mapping[str, Any], list[str]]
"""What it says, and the engines that it was used for."""


def _entries(
    path: Path, text: Mapping[str, Any], model: Mapping[str, Any], overrides: list[Override]
) -> list[Entry]:
    file = _network(path, model['model'])
    axes = [
        _choices(path, key, model.get(key, text.get(key, [usual])), known)
        for key, usual, known in (
            ('precisions', BuildSettings().precision, PRECISIONS),
            ('devices', BuildSettings().device, DEVICES),
        )
    ]
    common = {**_settings(path, text), **_settings(path, model)}
    entries = []
    for precision, device in itertools.product(*axes):
        of = {'model': file.stem, 'precision': precision, 'device': device}
        settings, out, skip = dict(common), model.get('out', text.get('out', '')), False
        for said, used in overrides:
            if all(of[key] == value for key, value in said['where'].items()):
                used.append(file.stem)
                settings.update(_settings(path, said))
                out, skip = said.get('out', out), said.get('skip', skip)
        if skip:
            continue
        where = f'{path}: {file.stem} {precision} {device}'
        built = _build_settings(
            where, file, {**settings, 'precision': precision, 'device': device}
        )
        folder = os.path.normpath(path.parent / out) if out else ''
        entries.append(Entry(file, built, target_of(file, folder, built)))
    return entries


def _build_settings(where: str, model: Path, values: dict[str, Any]) -> BuildSettings:
    if values['precision'] != 'int8':
        values.pop('calibration', None)
    if 'io_formats' not in values and 'io_precision' not in values:
        values['io_formats'] = usual_formats(model, values['precision'], values['device'])
    try:
        return BuildSettings.of_record(values)
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}') from error


def _settings(path: Path, part: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a part of the file, as `BuildSettings.of_record` takes them."""
    plain = {f.name: getattr(BuildSettings(), f.name) for f in dataclasses.fields(BuildSettings)}
    known = tuple(name for name in (*plain, 'workspace') if name not in OWN)
    values = _table(part.get('settings', {}), known, f'{path}: settings')
    for name, value in list(values.items()):
        if name == 'workspace':
            values['workspace_mb'] = whole_mib(str(values.pop(name)), 'workspace')
        elif name in POOLS:
            values[name] = read_size(str(value), name)
        elif name == 'sparsity' and isinstance(value, str):
            values[name] = sparse(value)
        elif name == 'profiles':
            values[name] = tuple(map(read_profile, _list(path, name, value)))
        elif name == 'tactic_sources':
            _list(path, name, value)
        elif name in ('calibration', 'layer_info') and value:
            values[name] = str(path.parent / str(value))
        elif name != 'opt_level' and not isinstance(value, type(plain[name])):
            raise ConfigError(f'{path}: settings: {name} is {value!r}, not like {plain[name]!r}')
    return values


def _overrides(path: Path, items: Any) -> list[Override]:
    found: list[Override] = []
    for item in _list(path, 'overrides', items):
        said = _table(item, OVERRIDE_KEYS, f'{path}: overrides')
        where = _table(said.get('where'), WHERE_KEYS, f'{path}: overrides: where')
        if 'model' in where:
            where['model'] = Path(str(where['model'])).name.removesuffix('.onnx')
        found.append(({**said, 'where': where}, []))
    return found


def _network(path: Path, name: str) -> Path:
    """Beside the file, or of that name in the models that ship with the package."""
    beside = path.parent / name
    if beside.is_file():
        return beside
    try:
        return model_file(name)
    except ConfigError:
        return beside  # told where it is to be built


def _choices(path: Path, key: str, values: Any, known: tuple[str, ...]) -> list[str]:
    for value in _list(path, key, values):
        if value not in known:
            raise ConfigError(f'{path}: {key}: {value!r} is not one of {", ".join(known)}')
    if not values:
        raise ConfigError(f'{path}: {key} is empty')
    return list(dict.fromkeys(values))


def _check_unique(path: Path, entries: list[Entry]) -> None:
    known: dict[Path, Entry] = {}
    for entry in entries:
        other = known.setdefault(entry.target, entry)
        if other is not entry:
            raise ConfigError(
                f'{path}: {entry.target} is the engine of both {other.name} ({other.model}) and '
                f'{entry.name} ({entry.model}): give one of them another folder, out'
            )


def _list(path: Path, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f'{path}: {key} is {value!r}: expected a list')
    return value


def _table(value: Any, known: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f'{where}: {value!r}: expected keys with values')
    unknown = [key for key in value if key not in known]
    if unknown:
        raise ConfigError(f'{where}: {unknown[0]!r} is not one of {", ".join(known)}')
    return dict(value)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'no text'
        raise ConfigError(f'{path}: cannot be read: {reason}') from error
    except yaml.YAMLError as error:
        said = ' '.join(str(error).split())
        raise ConfigError(f'{path}: no YAML: {said}') from error

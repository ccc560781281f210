"""Whether a repository is consistent, and is what Triton's own protobuf takes."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from airside_perception.deploy.triton.configs import Config
from airside_perception.errors import ConfigError

CONFIG = 'config.pbtxt'
FILES = {'tensorrt_plan': 'model.plan', 'onnxruntime_onnx': 'model.onnx', 'python': 'model.py'}
"""{platform or backend: the file of a version}"""


def problems(configs: Mapping[str, Config]) -> tuple[str, ...]:
    """What is wrong with the models of a repository, each in one line.

    Every input of every step of an ensemble is made before, by the request or by an earlier step,
    once, with the same type and with dimensions that can be the same.

    Args:
        configs: {folder: configuration}.
    """
    found: list[str] = []
    for folder, config in configs.items():
        if config['name'] != folder:
            found.append(f'{folder}: its name is {config["name"]!r}, not that of its folder')
        found += _own(config)
        if config.get('platform') == 'ensemble':
            found += _ensemble(config, configs)
    return tuple(found)


def missing_files(repository: str | Path, configs: Mapping[str, Config]) -> tuple[str, ...]:
    """Models whose version 1 is not complete."""
    found = []
    for folder, config in configs.items():
        version = Path(repository) / folder / '1'
        file = FILES.get(config.get('platform') or config.get('backend', ''))
        wanted = version if file is None else version / file
        if not wanted.exists():
            found.append(f'{folder}: {wanted} is missing')
    return tuple(found)


def parse(text: str) -> Any:
    """The `ModelConfig` of a text, by Triton's own protobuf; None where tritonclient is missing.

    Raises:
        ConfigError: it is no model configuration; says where.
    """
    module = model_config_module()
    if module is None:
        return None
    text_format = importlib.import_module('google.protobuf.text_format')
    try:
        return text_format.Parse(text, module.ModelConfig())
    except text_format.ParseError as error:
        raise ConfigError(f'{CONFIG}: {error}') from error


def model_config_module() -> ModuleType | None:
    """tritonclient's `model_config_pb2`; None where it, or protobuf, is missing.

    It is loaded from its file: the package around it wants gRPC, which is not needed for this.
    """
    spec = importlib.util.find_spec('tritonclient')
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, 'grpc', 'model_config_pb2.py')
        if file.is_file():
            try:
                return _load(file)
            except (ImportError, RuntimeError, TypeError):  # protobuf is missing or too old for it
                return None
    return None


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location('triton_model_config_pb2', file)
    if spec is None or spec.loader is None:
        raise ImportError(f'{file} cannot be loaded')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _own(config: Config) -> Iterator[str]:
    """What is wrong with one model by itself."""
    name = config['name']
    for kind in ('input', 'output'):
        names = [port['name'] for port in config[kind]]
        for twice in sorted({item for item in names if names.count(item) > 1}):
            yield f'{name}: {kind} {twice!r} is there twice'
        if not names:
            yield f'{name}: it has no {kind}'
    if 'dynamic_batching' in config:
        most = config['max_batch_size']
        for size in config['dynamic_batching'].get('preferred_batch_size', ()):
            if not 0 < size <= most:
                yield f'{name}: batches of {size} are preferred, of {most} allowed'
    shapes = {port['name']: port for port in config['input']}
    for warm_up in config.get('model_warmup', ()):
        if set(warm_up['inputs']) != set(shapes):
            yield f'{name}: warm-up {warm_up["name"]!r} has not all inputs'
        for key, item in warm_up['inputs'].items():
            port = shapes.get(key, item)
            if item['data_type'] != port['data_type'] or not _fit(item['dims'], port['dims']):
                yield f'{name}: warm-up of {key!r} is no such input'


def _ensemble(config: Config, configs: Mapping[str, Config]) -> Iterator[str]:
    name = config['name']
    made = {port['name']: (port, False) for port in config['input']}
    used: set[str] = set()
    for step in config['ensemble_scheduling']['step']:
        model = configs.get(step['model_name'])
        if model is None:
            yield f'{name}: there is no model {step["model_name"]!r}'
            continue
        batches = model['max_batch_size'] > 0
        inputs = {port['name']: port for port in model['input']}
        outputs = {port['name']: port for port in model['output']}
        for missing in sorted(set(inputs) - set(step['input_map'])):
            yield f'{name}: input {missing!r} of {model["name"]} gets nothing'
        for key, tensor in step['input_map'].items():
            if key not in inputs:
                yield f'{name}: {model["name"]} has no input {key!r}'
            elif tensor not in made:
                yield f'{name}: {tensor!r} is not made before {model["name"]} needs it'
            else:
                yield from _same(name, tensor, made[tensor], (inputs[key], batches))
                used.add(tensor)
        for key, tensor in step['output_map'].items():
            if key not in outputs:
                yield f'{name}: {model["name"]} has no output {key!r}'
            elif tensor in made:
                yield f'{name}: {tensor!r} is made twice'
            else:
                made[tensor] = (outputs[key], batches)
    for port in config['output']:
        if port['name'] not in made:
            yield f'{name}: its output {port["name"]!r} is not made'
        else:
            yield from _same(name, port['name'], made[port['name']], (port, False))
            used.add(port['name'])
    for port in config['input']:
        if port['name'] not in used:
            yield f'{name}: its input {port["name"]!r} is used by no model'


def _same(
    ensemble: str, tensor: str, one: tuple[Config, bool], other: tuple[Config, bool]
) -> Iterator[str]:
    """A tensor as its maker and as its user have it; Triton compares with and without batch."""
    (maker, maker_batches), (user, user_batches) = one, other
    if maker['data_type'] != user['data_type']:
        yield f'{ensemble}: {tensor!r} is {maker["data_type"]}, taken as {user["data_type"]}'
    full = [-1, *maker['dims']] if maker_batches else maker['dims']
    wanted = [-1, *user['dims']] if user_batches else user['dims']
    if not _fit(full, wanted):
        yield f'{ensemble}: {tensor!r} is {list(full)}, taken as {list(wanted)}'


def _fit(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(
        n < 0 or m < 0 or n == m for n, m in zip(one, other, strict=True)
    )

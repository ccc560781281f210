"""Networks as files: whole or not at all, with their weights inside or in a file beside them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx

from airside_perception.deploy.large import LIMIT, copy_whole, stored_bytes
from airside_perception.deploy.outputs import one_line
from airside_perception.engine.typed import read_network
from airside_perception.errors import ConfigError, EngineError
from airside_perception.files import write_whole

AUTO, INLINE = 'auto', 'inline'


def read(path: str | Path) -> Any:
    """A network with all its weights, wherever they lie.

    Raises:
        EngineError: missing, not ONNX, or a file of weights is missing or too short.
    """
    path = Path(path)
    try:
        light = onnx.load(str(path), load_external_data=False) if path.is_file() else None
    except Exception:  # noqa: BLE001  read_network says what is wrong
        light = None
    if light is not None:
        for name, (needed, tensor) in _external(light).items():
            beside = path.parent / name
            if not beside.is_file():
                raise EngineError(
                    f'{path}: its weights lie in {name!r}, which is not beside it; copy that '
                    'file, too'
                )
            if beside.stat().st_size < needed:
                raise EngineError(
                    f'{beside}: {beside.stat().st_size:,} bytes, but weight {tensor!r} of {path} '
                    f'ends at {needed:,}: it is cut off, or of another network'
                )
    return read_network(path)


def data_file(path: str | Path, external: str, size: int) -> str:
    """Name of the file for the weights beside `path`; empty: they stay in the ONNX.

    Args:
        external: `auto` (a file of its own where protobuf's limit asks for it), `inline`, or a
            name.
        size: of the network, bytes.

    Raises:
        ConfigError: `inline` is not possible, or the name is no plain file name.
    """
    if external == AUTO:
        return f'{Path(path).name}.data' if size >= LIMIT else ''
    if external == INLINE:
        if size >= LIMIT:
            raise ConfigError(
                f'{path}: {size:,} bytes do not fit into one ONNX file (most is {LIMIT:,}); '
                '--external-data auto puts the weights beside it'
            )
        return ''
    if Path(external).name != external or external == Path(path).name:
        raise ConfigError(
            f'--external-data {external!r}: expected auto, inline, or the plain name of a file '
            f'that lies beside {Path(path).name}'
        )
    return external


def write(model: Any, path: str | Path, external: str = AUTO) -> list[Path]:
    """Writes a network; what was there stays until all of it is written.

    Args:
        model: `onnx.ModelProto`, with its weights.
        path: of the ONNX file.
        external: as `data_file`; weights of less than 1 KiB stay in the ONNX.

    Returns:
        The files, the ONNX first.

    Raises:
        ConfigError: as `data_file`.
        EngineError: they cannot be written.
    """
    path = Path(path)
    beside = data_file(path, external, stored_bytes(model))
    if not beside:
        return [write_whole(path, model.SerializeToString())]
    copy = copy_whole(model)  # saving moves the weights out of what it is given
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.') as folder:
            onnx.save(
                copy, str(Path(folder, path.name)), save_as_external_data=True,
                location=beside, size_threshold=1024,
            )  # fmt: skip
            places = [path, path.with_name(beside)]
            made = [place for place in places if Path(folder, place.name).is_file()]
            mode = Path(folder, path.name).stat().st_mode
            for place in reversed(made):  # the ONNX last: it needs the other
                Path(folder, place.name).chmod(mode)  # onnx lets only the owner read weights
                Path(folder, place.name).replace(place)
    except Exception as error:  # OSError, and protobuf's, which has no nearer base
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise EngineError(f'{path}: cannot be written: {one_line(Exception(reason))}') from error
    return made


def _external(model: Any) -> dict[str, tuple[int, str]]:
    """{file of weights: (bytes that it must have, the weight that ends there)}."""
    found: dict[str, tuple[int, str]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {item.key: item.value for item in tensor.external_data}
        numbers = [entries.get(key, '0') for key in ('offset', 'length')]
        end = sum(int(number) if number.isdecimal() else 0 for number in numbers)
        name = entries.get('location', '')
        found[name] = max(found.get(name, (0, '')), (end, tensor.name))
    return found

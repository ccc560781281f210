"""Where the files that ship with the package are: configurations, models, launch files."""

from __future__ import annotations

import os
from pathlib import Path

from airside_perception.errors import ConfigError

PACKAGE = 'airside_perception'


def share_directory() -> Path:
    """Return the folder that holds `config/`, `models/` and `launch/`.

    Code and data that were shipped together are used together: the source tree this module lies in
    comes first, then the install prefix this module lies in, and last the prefixes of
    `AMENT_PREFIX_PATH`. ROS 2 need not be there.

    Raises:
        ConfigError: none of these holds the package's files.
    """
    candidates = _candidates()
    for candidate in candidates:
        if _holds_package(candidate):
            return candidate
    looked = ', '.join(str(candidate) for candidate in candidates)
    raise ConfigError(
        f'the files of {PACKAGE} (config, models, launch) were not found in: {looked}; '
        'build the package with colcon and source its install folder, or run from a source tree'
    )


def resource(*parts: str) -> Path:
    """Return the path of one shipped file, such as `resource('config', 'cameras.yaml')`.

    Raises:
        ConfigError: there is no such file.
    """
    share = share_directory()
    path = share.joinpath(*parts)
    if not path.exists():
        raise ConfigError(f"no '{'/'.join(parts)}' among the files of {PACKAGE} in {share}")
    return path


def model_file(path: str, here_first: bool = False) -> Path:
    """Return the absolute path of a network or model card.

    A plain name is looked up in `models/`, then in the current folder: what a node runs must not
    depend on where it was started. A relative path with a folder in it is taken from the current
    folder, then from `models/`.

    Args:
        path: as a setting or a command line names it.
        here_first: the current folder comes first for plain names, too, as on a command line.

    Raises:
        ConfigError: the name is empty, or neither place has such a file.
    """
    if not path:
        raise ConfigError('engine_path is empty; name a .onnx file or an engine built from one')
    given = Path(path).expanduser()
    if given.is_absolute():
        return given
    shipped = not here_first and '/' not in path and is_model(path)
    if given.is_file() and not shipped:
        return given.absolute()
    models = share_directory() / 'models'
    if not (models / given).exists():
        raise ConfigError(f'{path}: no such file, neither in {models} nor in {Path.cwd()}')
    return models / given


def is_model(name: str) -> bool:
    """Return whether `models/` has a file of that name."""
    return (share_directory() / 'models' / name).is_file()


def _candidates() -> list[Path]:
    module = Path(__file__).resolve()
    source_tree = module.parents[1]
    prefixes = [prefix / 'share' / PACKAGE for prefix in module.parents[2:]]
    ament = [
        Path(prefix) / 'share' / PACKAGE
        for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
        if prefix
    ]
    return [source_tree, *prefixes, *ament]


def _holds_package(folder: Path) -> bool:
    """A share folder and a source tree both have the package's manifest beside its `config/`."""
    return (folder / 'package.xml').is_file() and (folder / 'config').is_dir()

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


def model_file(path: str) -> Path:
    """Return a network or model card as a setting names it: as it stands, else in `models/`.

    Raises:
        ConfigError: the name is empty, or neither place has such a file.
    """
    if not path:
        raise ConfigError('engine_path is empty; name a .onnx file or an engine built from one')
    given = Path(path).expanduser()
    return given if given.is_absolute() or given.is_file() else resource('models', path)


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

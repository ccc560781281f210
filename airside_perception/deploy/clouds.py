"""Point clouds in files: KITTI and nuScenes .bin, .npy, .pcd."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from airside_perception.errors import ConfigError
from airside_perception.types import Float32, PointCloud

CLOUD_SUFFIXES = ('.bin', '.npy', '.pcd')
NUSCENES_SUFFIX = '.pcd.bin'
"""Their clouds have a fifth column, the ring."""
PCD_TYPES = {'F': 'f', 'I': 'i', 'U': 'u'}
PCD_KEYS = ('FIELDS', 'SIZE', 'TYPE', 'POINTS', 'DATA')


def read_cloud(path: str | Path, height: float, frame_id: str) -> PointCloud:
    """A cloud as x, y, z in metres and, where there are four columns, the intensity as it is.

    Points with a value that is not finite are left out, as of messages.

    Args:
        path: .bin of float32 rows x, y, z, intensity (.pcd.bin: and ring), .npy [N, 3 or more] or
            .pcd (ascii or binary) with fields x, y, z and perhaps intensity.
        height: metres added to z: of the lidar above the ground.
        frame_id: of the cloud that is returned.

    Raises:
        ConfigError: not readable, or of another layout.
    """
    path = Path(path)
    try:
        if path.suffix == '.npy':
            points = _npy(path)
        elif path.suffix == '.pcd':
            points = _pcd(path.read_bytes())
        else:
            points = _bin(path)
    except OSError as error:
        raise ConfigError(f'{path}: not readable: {error.strerror}') from error
    except (ValueError, KeyError, IndexError) as error:
        raise ConfigError(f'{path}: not a point cloud: {error}') from error
    points = points[np.isfinite(points).all(axis=1)]
    points[:, 2] += np.float32(height)
    return PointCloud(0, frame_id, points, ('x', 'y', 'z', 'intensity')[: points.shape[1]])


def _bin(path: Path) -> Float32:
    columns = 5 if path.name.endswith(NUSCENES_SUFFIX) else 4
    data = path.read_bytes()
    if len(data) % (4 * columns):
        raise ValueError(f'{len(data)} bytes are no whole number of {columns} float32 a point')
    return np.frombuffer(data, '<f4').reshape(-1, columns)[:, :4].astype(np.float32)


def _npy(path: Path) -> Float32:
    points = np.load(path, allow_pickle=False)
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in 'fiu':
        raise ValueError(f'array {points.dtype} {list(points.shape)}, expected floats [N, 3 or 4]')
    with np.errstate(over='ignore'):
        return np.array(points[:, :4], dtype=np.float32)


def _pcd(data: bytes) -> Float32:
    """A .pcd of version 0.7, the layout of the Point Cloud Library."""
    header: dict[str, list[str]] = {}
    place = 0
    while 'DATA' not in header:
        end = data.index(b'\n', place)
        words = data[place:end].decode('ascii', 'replace').split()
        if words and words[0] != '#':
            header[words[0]] = words[1:]
        place = end + 1
    missing = [key for key in PCD_KEYS if not header.get(key)]
    if missing:
        raise ValueError(f'its header has no {missing[0]}')
    counts = list(map(int, header.get('COUNT', ['1'] * len(header['FIELDS']))))
    columns = [
        (f'{name}_{number}' if name == '_' else name, f'<{PCD_TYPES[kind]}{size}', (count,))
        for number, (name, kind, size, count) in enumerate(
            zip(header['FIELDS'], header['TYPE'], header['SIZE'], counts, strict=True)
        )
    ]
    number, form = int(header['POINTS'][0]), header['DATA'][0]
    names = ['x', 'y', 'z', *(['intensity'] if 'intensity' in header['FIELDS'] else [])]
    unknown = [name for name in names if name not in header['FIELDS']]
    if unknown:
        raise ValueError(f'no field {unknown[0]!r}; its fields are {" ".join(header["FIELDS"])}')
    if form == 'binary':
        table = np.frombuffer(data, np.dtype(columns), number, place)
        return np.stack([table[name][:, 0].astype(np.float32) for name in names], axis=1)
    if form == 'ascii':
        starts = dict(zip(header['FIELDS'], np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
        rows = np.array(data[place:].split(), dtype=np.float64).reshape(number, sum(counts))
        return rows[:, [starts[name] for name in names]].astype(np.float32)
    raise ValueError(f'DATA {form} is not read; save it as ascii or binary')

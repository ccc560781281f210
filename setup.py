"""Build of the ament_python package: modules, executables, and the files under share/."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'airside_perception'
SHARE = Path('share') / PACKAGE


def shared_files(folder: str) -> list[tuple[str, list[str]]]:
    """List every file below `folder` with the share folder it is installed to."""
    by_target: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob('*')):
        if path.is_file() and '__pycache__' not in path.parts:
            by_target.setdefault(str(SHARE / path.parent), []).append(str(path))
    return list(by_target.items())


setup(
    name=PACKAGE,
    version='0.1.0',
    description='Camera, lidar and fused 3D detection on the airport apron for ROS 2',
    license='Apache-2.0',
    maintainer='airside_perception maintainers',
    maintainer_email='maintainers@airside-perception.invalid',
    python_requires='>=3.10',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={'': ['*.cu', '*.cuh', '*.yaml', 'py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (str(SHARE), ['package.xml']),
        *shared_files('launch'),
        *shared_files('config'),
        *shared_files('models'),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=True,
    entry_points={
        'console_scripts': [
            f'camera_detector = {PACKAGE}.nodes.camera_detector:main',
            f'lidar_detector = {PACKAGE}.nodes.lidar_detector:main',
            f'bev_fusion = {PACKAGE}.nodes.bev_fusion:main',
            f'replay = {PACKAGE}.replay.__main__:main',
            f'engine = {PACKAGE}.deploy.__main__:main',
        ],
    },
)

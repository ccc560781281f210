"""Settings as frozen dataclasses: every default, unit, range and description lives here, once.

What a parameter is, and how values get in and out, is in `parameter`; its names can be imported
from here too.
"""

from __future__ import annotations

from airside_perception.config.detectors import CameraConfig, EngineConfig, LidarConfig
from airside_perception.config.fusion import FusionConfig, fusion_priors
from airside_perception.parameter import (
    Parameter,
    flat_values,
    from_values,
    parameter,
    per_class,
    replace_values,
    specs,
)

__all__ = [
    'CameraConfig',
    'EngineConfig',
    'FusionConfig',
    'LidarConfig',
    'Parameter',
    'flat_values',
    'from_values',
    'fusion_priors',
    'parameter',
    'per_class',
    'replace_values',
    'specs',
]

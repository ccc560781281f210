"""The errors of the package: one small class a domain; each names the value and gives a hint."""

from __future__ import annotations


class PerceptionError(Exception):
    """Anything that this package refuses or fails to do."""


class ConfigError(PerceptionError):
    """A parameter, YAML file or combination of settings that cannot be used."""


class CardError(ConfigError):
    """A model card that is missing, incomplete or contradicts its network."""


class EngineError(PerceptionError):
    """A network that cannot be opened or run: missing, corrupt, wrong inputs or outputs."""


class DeviceError(EngineError):
    """A GPU that is not there, or a CUDA call that failed: no memory, no driver, a broken kernel."""


class MessageError(PerceptionError):
    """A message (cloud, image, calibration, detections) whose content cannot be trusted."""


class TransformError(PerceptionError):
    """A coordinate transform that is unknown, too old or lies in the future."""


class BagError(PerceptionError):
    """A recording that cannot be read, written or compared."""

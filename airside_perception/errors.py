"""The errors of the package: one small class a domain; each names the value and gives a hint."""

from __future__ import annotations

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended: 128 + SIGINT, as shells have it."""
CONTEXT_IS_LOST = (
    'CUDA_ERROR_ILLEGAL_ADDRESS', 'CUDA_ERROR_LAUNCH_TIMEOUT', 'CUDA_ERROR_ASSERT',
    'CUDA_ERROR_HARDWARE_STACK_ERROR', 'CUDA_ERROR_ILLEGAL_INSTRUCTION',
    'CUDA_ERROR_MISALIGNED_ADDRESS', 'CUDA_ERROR_INVALID_ADDRESS_SPACE', 'CUDA_ERROR_INVALID_PC',
    'CUDA_ERROR_LAUNCH_FAILED', 'CUDA_ERROR_ECC_UNCORRECTABLE', 'CUDA_ERROR_NVLINK_UNCORRECTABLE',
    'CUDA_ERROR_CONTEXT_IS_DESTROYED', 'CUDA_ERROR_CONTAINED', 'CUDA_ERROR_TENSOR_MEMORY_LEAK',
)  # fmt: skip
"""After these errors the CUDA driver wants the process ended and started again."""


class PerceptionError(Exception):
    """Anything that this package refuses or fails to do."""


class RefusalError(PerceptionError):
    """Well-formed, and still not to be had: this machine or a check says no."""


class ConfigError(PerceptionError):
    """A parameter, YAML file or combination of settings that cannot be used."""


class CardError(ConfigError):
    """A model card that is missing, incomplete or contradicts its network."""


class EngineError(PerceptionError):
    """A network that cannot be opened or run: missing, corrupt, wrong inputs or outputs."""


class DeviceError(EngineError):
    """No GPU, or a CUDA call that failed: no memory, no driver, a broken kernel."""

    @property
    def lost(self) -> bool:
        """Whether the CUDA context is lost: no CUDA call of this process works any more."""
        return any(name in str(self) for name in CONTEXT_IS_LOST)


class MessageError(PerceptionError):
    """A message (cloud, image, calibration, detections) whose content cannot be trusted."""


class TransformError(PerceptionError):
    """A coordinate transform that is unknown, too old or lies in the future."""


class BagError(PerceptionError):
    """A recording that cannot be read, written or compared."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""Whether this machine can do what the parameters ask for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from airside_perception.deploy.doctor.accelerators import (
    look_at_compiler,
    look_at_dla,
    look_at_gpu,
    look_at_tensorrt,
)
from airside_perception.deploy.doctor.board import (
    look_at_disk,
    look_at_heat,
    look_at_jetson,
    look_at_memory,
    look_at_power,
)
from airside_perception.deploy.doctor.check import PROBLEM, Check
from airside_perception.deploy.doctor.host import Host
from airside_perception.deploy.doctor.needs import Needs
from airside_perception.deploy.doctor.software import PACKAGES, look_at_parameters, look_at_ros

LOOKS = (
    look_at_parameters, look_at_jetson, look_at_gpu, look_at_tensorrt, look_at_compiler,
    look_at_dla, look_at_power, look_at_heat, look_at_memory, look_at_disk, *PACKAGES, look_at_ros,
)  # fmt: skip
"""What is looked at, in order."""


@dataclass(frozen=True)
class Examination:
    """What was found on a machine."""

    needs: Needs
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        """Whether nothing keeps the nodes of the parameters from their work."""
        return all(check.state != PROBLEM for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            'parameters': self.needs.path,
            'nodes': [asdict(use) for use in self.needs.uses],
            'good': self.good,
            'checks': [asdict(check) for check in self.checks],
        }


def examine(needs: Needs, host: Host | None = None) -> Examination:
    """Looks at this machine.

    Args:
        needs: what it is to do.
        host: how it is looked at.
    """
    used = host or Host()
    return Examination(needs, tuple(check for look in LOOKS for check in look(used, needs)))


def describe_examination(found: Examination) -> str:
    """An examination as text."""
    lines = [f'this machine, for {found.needs.path}']
    for check in found.checks:
        state = check.state.upper() if check.state == PROBLEM else check.state
        lines.append(f'  {state:<8} {check.name:<14} {check.found}')
        lines += [f'  {"":<23} {item}' for item in check.details]
        if check.fix:
            lines.append(f'  {"":<23} -> {check.fix}')
    count = sum(check.state == PROBLEM for check in found.checks)
    says = (
        f'{count} of these keep nodes from their work'
        if count
        else 'nothing here keeps the nodes of these parameters from their work'
    )
    return '\n'.join([*lines, says])

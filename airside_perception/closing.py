"""What is closed when its `with` block ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

Self = TypeVar('Self', bound='Closing')  # typing.Self needs Python 3.11


class Closing(ABC):
    """A context manager that is itself, and closes itself, whatever ends the block."""

    @abstractmethod
    def close(self) -> None:
        """Gives everything back; may be called again."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

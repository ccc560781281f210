"""A node as the facts see it, and the table of facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airside_perception.deploy.lint.folding import Shape
from airside_perception.deploy.lint.network import Network, Node


class Unknown(Exception):  # noqa: N818  no error: a value that does not follow from the graph
    """The fact depends on what is not known before the network runs; says on what."""


@dataclass(frozen=True)
class Subject:
    """A node, or without one the whole network, and what it is meant for.

    Attributes:
        precision: fp32, fp16 or int8.
        loadables: subgraphs on DLA, once these are known.
    """

    network: Network
    precision: str
    node: Node | None = None
    loadables: int = 0

    @property
    def at(self) -> Node:
        """The node."""
        if self.node is None:
            raise Unknown('no node')
        return self.node

    def attribute(self, name: str, default: Any = None) -> Any:
        """Of the node."""
        return self.at.attributes.get(name, default)

    def shape(self, place: int = 0, output: bool = False) -> Shape:
        """Of an input or output."""
        names = self.at.outputs if output else self.at.inputs
        name = names[place] if place < len(names) else ''
        shape = self.network.shape(name)
        if shape is None:
            raise Unknown(f'shape of {name}')
        return shape

    def fixed(self, place: int = 0, output: bool = False) -> tuple[int, ...]:
        """A shape without free dimensions."""
        return tuple(map(_number, self.shape(place, output)))

    def operand(self, place: int) -> Any:
        """Value of a constant input; None where it is left out.

        Raises:
            Unknown: it is computed.
        """
        name = self.at.inputs[place] if place < len(self.at.inputs) else ''
        if not name:
            return None
        value = self.network.value(name)
        if value is None:
            raise Unknown(f'value of {name}')
        return value

    @property
    def data(self) -> tuple[str, ...]:
        """The tensors through which data flows: inputs that are not constant, and outputs."""
        inputs = [n for n in self.at.inputs if n and not self.network.is_constant(n)]
        return (*inputs, *(name for name in self.at.outputs if name))


Fact = Callable[[Subject], Any]
FACTS: dict[str, Fact] = {}
"""{name in the YAML: function}. A fact is one value or a tuple; None where the node has none."""


def fact(function: Fact) -> Fact:
    """Makes a function a fact."""
    FACTS[function.__name__] = function
    return function


def _number(size: int | str) -> int:
    if isinstance(size, str):
        raise Unknown(f'dimension {size}')
    return size


def fixed_part(shape: Shape) -> tuple[int, ...]:
    """The dimensions that are not free."""
    return tuple(size for size in shape if isinstance(size, int))

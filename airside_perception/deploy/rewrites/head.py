"""Heads that leave four axes too early, kept on four axes until the last node.

A detector ends with maps [N, C, H, W] that become rows: Reshape to [N, C, H W], Concat of all
strides along the rows, Transpose to [N, rows, C]. On three axes the DLA has none of it. The same
with the rows as channels: every map is reshaped to [N, C, 1, H W] and transposed to
[N, H W, 1, C], Concat goes along axis 1, and a Reshape to three axes is all that is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from airside_perception.deploy.rewrites.network import Network, Shape, attributes

LARGEST_SIZE = 8192
ENTRIES = ('Reshape', 'Flatten', 'Squeeze')
UNARY = ('Sigmoid', 'Relu', 'Tanh', 'Clip', 'LeakyRelu')
KEPT, SWAPPED = 'kept', 'swapped'
"""How [N, A, B] lies on four axes: as [N, A, 1, B], or as [N, B, 1, A]."""


def flat_heads(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Does Concat, Transpose and activations of flattened maps on four axes.

    Left as they are: heads with other operators between, with dimensions above 8192, and such as
    have nothing but a Reshape.

    Returns:
        The new model, and what was changed.
    """
    net = Network(model)
    flat = _Flat(net)
    for node in list(net.nodes):
        if flat.enter(node) or flat.follow(node):
            continue
    flat.leave()
    return net.model()


class _Flat:
    """Tensors of three axes, and how each would be made on four."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self._images: dict[str, str] = {}  # what a flattened map was made of
        self._nodes: dict[str, Any] = {}  # Concat, Transpose, activations over such tensors
        self._made: dict[tuple[str, str], str] = {}
        self._new: list[Any] = []

    def enter(self, node: Any) -> bool:
        """Whether a node flattens height and width of a map."""
        if node.op_type not in ENTRIES:
            return False
        before, after = self._net.shape(node.input[0]), self._net.shape(node.output[0])
        if before is None or after is None or len(before) != 4 or len(after) != 3:
            return False
        flat = (*before[:2], before[2] * before[3])
        if after != flat or max(flat[1:]) > LARGEST_SIZE or not self._net.is_float(node.input[0]):
            return False
        self._images[node.output[0]] = node.input[0]
        return True

    def follow(self, node: Any) -> bool:
        """Whether a node goes on with such tensors only, in a way that four axes have too."""
        known = self._images.keys() | self._nodes.keys()
        count = 1 if node.op_type in UNARY else len(node.input)
        shape = self._net.shape(node.output[0])
        if not node.input or any(name not in known for name in node.input[:count]):
            return False
        if shape is None or max(shape[1:]) > LARGEST_SIZE:
            return False
        said = attributes(node)
        fits = (
            node.op_type in UNARY
            or (node.op_type == 'Concat' and said['axis'] % 3 in (1, 2) and count > 1)
            or (node.op_type == 'Transpose' and said.get('perm') == [0, 2, 1])
        )
        if fits:
            self._nodes[node.output[0]] = node
        return fits

    def leave(self) -> None:
        """Makes what somebody else reads, or is an output, of tensors on four axes."""
        net = self._net
        inner = set(self._nodes)
        for name, node in self._nodes.items():
            readers = net.readers(name)
            if name not in net.outputs and all(set(r.output) & inner for r in readers):
                continue
            self._new = []
            source = self._on_four(name, KEPT)
            target = net.store(f'{name}_shape', np.array(net.shape(name), np.int64))
            self._new.append(net.node('Reshape', [source, target], name))
            net.replace(node, self._new)
            maps = sorted(self._maps(name))
            net.changes.append(
                f'{name}: {len(maps)} flattened map{"s" * (len(maps) > 1)} on four axes until '
                'the last Reshape'
            )

    def _maps(self, name: str) -> set[str]:
        if name in self._images:
            return {self._images[name]}
        node = self._nodes[name]
        names = node.input[:1] if node.op_type in UNARY else node.input
        return {item for part in names for item in self._maps(part)}

    def _on_four(self, name: str, layout: str) -> str:
        """The tensor on four axes; its nodes join `_new` unless they are there already."""
        if (name, layout) in self._made:
            return self._made[name, layout]
        net, node = self._net, self._nodes.get(name)
        shape = net.shape(name) or ()
        if node is None:
            out = self._map(name, shape, layout)
        elif node.op_type == 'Transpose':
            out = self._on_four(node.input[0], SWAPPED if layout == KEPT else KEPT)
        elif node.op_type in UNARY:
            out = self._add(
                node.op_type, [self._on_four(node.input[0], layout), *node.input[1:]], name,
                layout, node,
            )  # fmt: skip
        else:
            # along the rows or along the columns: that axis has to be the channels
            needed = KEPT if attributes(node)['axis'] % 3 == 1 else SWAPPED
            if needed != layout:
                out = self._swap(self._on_four(name, needed), name, layout)
            else:
                parts = [self._on_four(part, layout) for part in node.input]
                out = self._add('Concat', parts, name, layout, axis=1)
        self._made[name, layout] = out
        return out

    def _map(self, name: str, shape: Shape, layout: str) -> str:
        """A map with its places in one axis."""
        if layout == SWAPPED:
            return self._swap(self._on_four(name, KEPT), name, layout)
        count, channels, places = shape
        goal = np.array([count, channels, 1, places], np.int64)
        target = self._net.store(f'{name}_{layout}_shape', goal)
        return self._add('Reshape', [self._images[name], target], name, layout)

    def _swap(self, source: str, name: str, layout: str) -> str:
        return self._add('Transpose', [source], name, layout, perm=[0, 3, 2, 1])

    def _add(
        self, kind: str, names: list[str], name: str, layout: str, like: Any = None, **said: Any
    ) -> str:
        out = self._net.name(f'{name}_{layout}')
        node = self._net.node(kind, names, out, **said)
        if like is not None:
            node.attribute.extend(like.attribute)
        self._new.append(node)
        return out

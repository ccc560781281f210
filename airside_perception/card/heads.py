"""Reads what a lidar card says about the outputs of its network: anchors, or centres."""

from __future__ import annotations

from airside_perception.card.cards import HEADINGS, Anchor, CenterHead
from airside_perception.card.reader import Reader, is_number
from airside_perception.errors import CardError


def read_anchors(output: Reader, classes: tuple[str, ...]) -> tuple[Anchor, ...]:
    """Shapes as they are listed, each with all its yaws."""
    anchors = []
    for item in output.take('anchors', list):
        anchor = Reader(f'{output.path}: anchors', item)
        name = anchor.take('class', str)
        if name not in classes:
            raise CardError(f'{anchor.path}: {name!r} is not among {", ".join(classes)}')
        length, width, height = anchor.numbers('size', 3)
        if min(length, width, height) <= 0.0:
            raise CardError(f'{anchor.path}: {name!r} has a size of {length, width, height} m')
        z = anchor.number('z')
        yaws = anchor.take('yaws', list)
        if not yaws or not all(map(is_number, yaws)):
            raise CardError(f'{anchor.path}: {name!r} has the yaws {yaws!r}, expected numbers')
        label, labels = classes.index(name), _labels(anchor, name, classes)
        anchors += [Anchor(label, length, width, height, z, float(yaw), labels) for yaw in yaws]
        anchor.finish()
    if not anchors:
        raise CardError(f'{output.path}: anchors is empty')
    scored = {label for anchor in anchors for label in anchor.labels or range(len(classes))}
    silent = [name for label, name in enumerate(classes) if label not in scored]
    if silent:
        raise CardError(
            f'{output.path}: anchors: no labels name {silent[0]!r}, so nothing finds it'
        )
    return tuple(anchors)


def read_centers(output: Reader, classes: tuple[str, ...]) -> CenterHead:
    """Outputs of a centre head, by default under CenterPoint's names, and their conventions."""
    norms = output.nested('rotation_norms', {})
    least = norms.all_numbers()
    for name, value in least.items():
        if name not in classes or value < 0.0:
            raise CardError(
                f'{norms.path}: {name!r}: {value:g} is no length (0 or more) for one of the '
                f'classes {", ".join(classes)}'
            )
    names = {
        key: output.take(key, str, default)
        for key, default in (
            ('heatmap', 'heatmap'),
            ('offset', 'reg'),
            ('height', 'height'),
            ('size', 'dim'),
            ('rotation', 'rot'),
        )
    }
    if velocity := output.take('velocity', str, ''):
        names['velocity'] = velocity
    if len(set(names.values())) < len(names):
        raise CardError(f'{output.path}: one output for two things: {", ".join(names.values())}')
    return CenterHead(
        **names,
        size_order=_one_of(output, 'size_order', ('lwh', 'wlh')),
        rotation_order=_one_of(output, 'rotation_order', ('sin_cos', 'cos_sin')),
        heading=_one_of(output, 'heading', tuple(HEADINGS)),
        peaks=output.take('peaks', bool, False),
        least_norms=tuple(least.get(name, 0.0) for name in classes),
    )


def _one_of(output: Reader, key: str, values: tuple[str, ...]) -> str:
    """A word out of `values`, the first by default."""
    value: str = output.take(key, str, values[0])
    if value not in values:
        raise CardError(f'{output.path}: {key} is {value!r}, expected {" or ".join(values)}')
    return value


def _labels(anchor: Reader, name: str, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Indices of the classes that an anchor says it scores; empty where it does not say."""
    if 'labels' not in anchor.left:
        return ()
    names = anchor.names('labels')
    unknown = [label for label in names if label not in classes]
    if unknown:
        raise CardError(f'{anchor.path}: labels: {unknown[0]!r} is not among {", ".join(classes)}')
    if name not in names:
        raise CardError(f'{anchor.path}: {name!r} is not among its own labels {", ".join(names)}')
    return tuple(classes.index(label) for label in names)

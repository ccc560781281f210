"""Whether two forms of a network give the same outputs, on several inputs of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from airside_perception.deploy.outputs import (
    IMAGE_SIDE,
    Difference,
    Feeds,
    compare_outputs,
    dynamic_dims,
    random_feeds,
    worst,
)
from airside_perception.errors import ConfigError, EngineError

Run = Callable[[Feeds], dict[str, NDArray[Any]]]
SIZES = (1, 2, 3)
"""What a dimension that varies, a batch mostly, is tried at."""
SIDES = (IMAGE_SIDE, IMAGE_SIDE * 2, IMAGE_SIDE * 3)
"""Pixels: the same for height and width."""


@dataclass(frozen=True)
class Agreement:
    """What a comparison of two networks found.

    Attributes:
        differences: by output, the worst of all inputs.
        tried: the inputs on which both ran, e.g. `seed 0, batch=2`.
        skipped: {inputs: why the reference does not run on them}.
        failed: {inputs: why the other fails on them although the reference runs}.
    """

    differences: Mapping[str, Difference]
    tried: tuple[str, ...]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]

    def within(self, max_rel: float) -> bool:
        """Whether the other runs wherever the reference does, and is that close."""
        return not self.failed and all(one.within(max_rel) for one in self.differences.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'outputs': {name: one.as_dict() for name, one in self.differences.items()},
            'tried': list(self.tried),
            'skipped': dict(self.skipped),
            'failed': dict(self.failed),
        }

    def lines(self) -> list[str]:
        """As text, one line an output and one for whatever did not run."""
        head = f'compared on {len(self.tried)} inputs: {"; ".join(self.tried)}'
        return [
            *([head] if self.tried else []),
            *(f'{name}: {_numbers(one)}' for name, one in self.differences.items()),
            *(f'FAILS on {labels}: {why}' for labels, why in _by_reason(self.failed)),
            *(f'not tried: {labels}: {why}' for labels, why in _by_reason(self.skipped)),
        ]


def compare_runs(
    reference: Run,
    other: Run,
    feeds: Iterable[tuple[str, Feeds]],
    progress: Callable[[str, float], None] = lambda step, share: None,
) -> Agreement:
    """Runs both on every input and compares.

    Args:
        reference, other: {input: array} to {output: array}; raise EngineError where they fail.
        feeds: (what to call it, inputs).

    Raises:
        EngineError: the reference runs on none of the inputs.
    """
    found, tried = [], []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    inputs = list(feeds)
    for index, (label, values) in enumerate(inputs):
        progress('comparing', index / len(inputs))
        try:
            expected = reference(values)
        except EngineError as error:
            skipped[label] = str(error)
            continue
        try:
            found.append(compare_outputs(expected, other(values)))
            tried.append(label)
        except EngineError as error:
            failed[label] = str(error)
    if not tried and not failed:
        label, why = next(iter(skipped.items()))
        raise EngineError(
            f'the network runs on no random input ({label}: {why}); say the sizes of dimensions '
            'that vary (--size batch=1), or bring inputs'
        )
    return Agreement(worst(found), tuple(tried), skipped, failed)


def random_inputs(
    model: Any, seed: int = 0, sizes: Mapping[str, Sequence[int]] | None = None, count: int = 3
) -> Iterator[tuple[str, Feeds]]:
    """(what to call it, random inputs): `count` of the first size, one of every other size.

    Args:
        model: `onnx.ModelProto`.
        seed: of the first; the others count on.
        sizes: what dimensions that vary are tried at, by their names of `dynamic_dims`; default:
            1, 2, 3, and 64, 128, 192 for height and width of images.

    Raises:
        EngineError, ConfigError: as `outputs.random_feeds`.
    """
    for name, step in size_steps(dynamic_dims(model), sizes or {}, count):
        label = ', '.join(f'{dim}={size}' for dim, size in step.items())
        yield (
            f'seed {seed + name}{f", {label}" if label else ""}',
            random_feeds(model, seed + name, step),
        )


def size_steps(
    known: Mapping[str, int], sizes: Mapping[str, Sequence[int]], count: int = 3
) -> Iterator[tuple[int, dict[str, int]]]:
    """(number, {dimension: size}): `count` at every dimension's first size, one of each later.

    Args:
        known: {dimension that varies: its usual size}.
        sizes: what to try instead.

    Raises:
        ConfigError: `sizes` names a dimension that does not vary, or none of its sizes.
    """
    for name in sizes:
        if name not in known:
            there = ', '.join(known) or 'none'
            raise ConfigError(f'size of {name!r}: no such dimension; those that vary: {there}')
        if not sizes[name]:
            raise ConfigError(f'size of {name!r}: none given')
    choices = {
        name: tuple(sizes.get(name, SIDES if usual == IMAGE_SIDE else SIZES))
        for name, usual in known.items()
    }
    longest = max((len(of) for of in choices.values()), default=1)
    for number in range(count + longest - 1):
        step = max(0, number - count + 1)
        yield number, {name: of[min(step, len(of) - 1)] for name, of in choices.items()}


def read_sizes(words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """{dimension: sizes} from words like `batch=1,2,8`.

    Raises:
        ConfigError: a word of another form.
    """
    sizes = {}
    for word in words:
        name, sign, numbers = word.rpartition('=')
        parts = numbers.split(',')
        if not (sign and name) or not all(part.isdecimal() and int(part) for part in parts):
            raise ConfigError(f'--size {word!r}: expected NAME=N or NAME=N,N, e.g. batch=1,2,8')
        sizes[name] = tuple(map(int, parts))
    return sizes


def _by_reason(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """(labels, why), each reason once."""
    labels: dict[str, list[str]] = {}
    for label, why in reasons.items():
        labels.setdefault(why, []).append(label)
    return [('; '.join(of), why) for why, of in labels.items()]


def _numbers(one: Difference) -> str:
    text = (
        f'cosine {one.cosine:.9f}, largest difference {one.max_abs:.3g}, '
        f'{one.max_rel:.3g} of the largest value'
    )
    odd = [f'{count} {what}' for what, count in (('NaN', one.nan), ('Inf', one.inf)) if count]
    return ', '.join([text, *odd])

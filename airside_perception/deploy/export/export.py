"""A PyTorch module as an ONNX network that is known to give the same outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from airside_perception.deploy import external, tidy
from airside_perception.deploy.agreement import Agreement, compare_runs, random_inputs
from airside_perception.deploy.export.examples import Examples, gather
from airside_perception.deploy.export.exporters import (
    AUTO,
    DYNAMO,
    EXPORTERS,
    TORCHSCRIPT,
    Job,
)
from airside_perception.deploy.export.factory import import_torch, kind_and_line
from airside_perception.deploy.export.lower import with_opset
from airside_perception.deploy.outputs import Feeds, OnnxRunner, dynamic_dims
from airside_perception.deploy.sanitize import Settings, sanitize
from airside_perception.deploy.sanitize_report import Report
from airside_perception.deploy.shapes import InputSpec
from airside_perception.engine.graph import opset
from airside_perception.errors import ConfigError, EngineError, RefusalError

OPSET = 17
TOLERANCE = 1e-4
"""Of the largest value of an output: fp32 sums in another order differ by some 1e-5."""
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Order:
    """What to export and how.

    Attributes:
        inputs: in the order of the module's arguments; empty: as the examples are.
        axes: {input: {axis: name}} of dimensions that vary.
        arrays: {input: array} to trace and compare with; empty: random ones.
        outputs: names; empty: torch's.
        opset: of the standard operators.
        exporter: `auto`, `dynamo` or `torchscript`.
        table: {operator of torch: function of onnxscript}, for dynamo.
        sizes: what dimensions that vary are compared at; default: a batch at 1, 2, 3, others at
            the size of the example and twice that.
        seed: of the random inputs.
        tolerance: largest difference of an output, of its largest value.
    """

    inputs: Sequence[InputSpec] = ()
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    opset: int = OPSET
    exporter: str = AUTO
    table: Mapping[Any, Any] = field(default_factory=dict)
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ConfigError(f'tolerance {self.tolerance}: expected 0 or more')
        if self.exporter not in (AUTO, *EXPORTERS):
            raise ConfigError(
                f'exporter {self.exporter!r} is not one of auto, dynamo, torchscript'
            )
        if self.opset < 7:
            raise ConfigError(f'opset {self.opset}: expected 7 or later, 17 for most TensorRT')
        if len(set(self.outputs)) < len(self.outputs) or not all(self.outputs):
            raise ConfigError(f'output names {",".join(self.outputs)}: expected different ones')

    def with_table(self, table: Mapping[Any, Any]) -> Order:
        """The same with translations for dynamo."""
        return replace(self, table=table)


@dataclass(frozen=True)
class Exported:
    """A network and how it came to be.

    Attributes:
        model: `onnx.ModelProto`.
        exporter: which one made it.
        reasons: {exporter that was tried before: why it is not that one}.
        report: of `sanitize`.
        agreement: of torch with ONNX Runtime; None: not compared, which `notes` explain.
        good: whether the outputs agree, or cannot be compared.
    """

    model: Any
    exporter: str
    reasons: Mapping[str, str]
    report: Report
    agreement: Agreement | None
    good: bool
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'exporter': self.exporter,
            'reasons': dict(self.reasons),
            'inputs': list(map(_port, self.model.graph.input)),
            'outputs': list(map(_port, self.model.graph.output)),
            'compared': None if self.agreement is None else self.agreement.as_dict(),
            'good': self.good,
            'notes': list(self.notes),
            'sanitize': self.report.as_dict(),
        }

    def lines(self) -> list[str]:
        """As text."""
        compared = self.agreement.lines() if self.agreement else ()
        return [
            f'  exporter    {self.exporter}',
            *(f'  not {name:8}  {why}' for name, why in self.reasons.items()),
            *(f'  input       {_port(value)}' for value in self.model.graph.input),
            *(f'  output      {_port(value)}' for value in self.model.graph.output),
            *(f'  torch       {line}' for line in compared),
            *(f'  note        {note}' for note in self.notes),
            *self.report.lines(outputs=False),
        ]


def export(
    module: Any,
    order: Order,
    own: Any = None,
    progress: Progress = lambda step, share: None,
) -> Exported:
    """Exports a module, sanitizes the network and compares it with torch.

    `auto` takes dynamo, and TorchScript where dynamo fails or gives other outputs.

    Args:
        module: an `nn.Module` on the CPU, in evaluation mode.
        order: what and how.
        own: example inputs of the factory: a tensor, several, {argument: tensor}, or None.
        progress: gets a step and its share.

    Raises:
        RefusalError: torch is not installed.
        ConfigError: inputs, axes or names do not fit the module.
        EngineError: the module does not run, or no exporter can export it.
    """
    import_torch()
    examples = gather(module, order.inputs, order.axes, order.arrays, own, order.seed)
    job = Job(module, examples, order.opset, order.outputs, order.table)
    progress('running', 0.0)
    run_module(module, examples.names, examples.arrays)  # what is wrong with it is told first
    names = [DYNAMO, TORCHSCRIPT] if order.exporter == AUTO else [order.exporter]
    reasons: dict[str, str] = {}
    second: Exported | None = None
    for index, name in enumerate(names):
        progress(f'{name}', 0.1 + 0.4 * index)
        try:
            made = _attempt(name, job, order, dict(reasons), progress)
        except ConfigError:
            raise
        except (EngineError, RefusalError) as error:
            reasons[name] = str(error)
            continue
        if made.good:
            return made
        second = second or made
        reasons[name] = 'its outputs differ from those of torch'
    if second is not None:
        return second
    raise EngineError(
        'it cannot be exported: ' + '; '.join(f'{name}: {why}' for name, why in reasons.items())
    )


def run_module(
    module: Any, names: Sequence[str], feeds: Feeds, outputs: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """{output: array} of a module; outputs are numbered where they have no names.

    Raises:
        EngineError: it fails, or gives another number of tensors.
    """
    torch = import_torch()
    try:
        with torch.no_grad():
            made = module(*(torch.from_numpy(feeds[name].copy()) for name in names))
    except Exception as error:  # what any operator of torch raises
        shapes = ', '.join(f'{name} {list(feeds[name].shape)}' for name in names)
        raise EngineError(f'the module fails on {shapes}: {kind_and_line(error)}') from error
    values = [value for value in _flat(made) if isinstance(value, torch.Tensor)]
    if not values:
        raise EngineError(f'the module returns {type(made).__name__}, which holds no tensor')
    labels = list(outputs) or [str(index) for index in range(len(values))]
    if len(labels) != len(values):
        raise EngineError(
            f'the module gives {len(values)} tensors, the network has {len(labels)} outputs'
        )
    return {
        label: value.detach().cpu().numpy() for label, value in zip(labels, values, strict=True)
    }


def _attempt(
    name: str, job: Job, order: Order, reasons: Mapping[str, str], progress: Progress
) -> Exported:
    """The network of one exporter, compared."""
    written, said = EXPORTERS[name](job)
    sizes = {**job.examples.sizes(), **order.sizes}
    known = dynamic_dims(written)
    settings = Settings(
        sizes={dim: of for dim, of in sizes.items() if dim in known}, seed=order.seed
    )
    if order.opset != opset(written):
        said = (*said, f'{name} wrote opset {opset(written)}, which became {order.opset}')
        try:
            written = with_opset(written, order.opset)
        except EngineError:  # it may be easier where constants are folded
            written = with_opset(sanitize(written, settings, 'its network').model, order.opset)
    made = sanitize(written, settings, 'its network')
    model = made.model
    progress('comparing', 0.8)
    agreement, notes = _compare(model, job, order, sizes)
    good = agreement is None or agreement.within(order.tolerance)
    return Exported(model, name, reasons, made.report, agreement, good, (*said, *notes))


def _compare(
    model: Any, job: Job, order: Order, sizes: Mapping[str, Sequence[int]]
) -> tuple[Agreement | None, list[str]]:
    try:
        runner = OnnxRunner(model)
    except EngineError:
        unknown = tidy.unknown_operators(model)
        if not unknown:
            raise
        return None, [
            f'not compared with torch: operator {unknown[0]} is not one of ONNX, and ONNX '
            'Runtime does not have it'
        ]
    outputs = [value.name for value in model.graph.output]
    taken = {value.name for value in model.graph.input}
    names = job.examples.names

    def reference(feeds: Feeds) -> dict[str, NDArray[Any]]:
        return run_module(job.module, names, feeds, outputs)

    def other(feeds: Feeds) -> dict[str, NDArray[Any]]:
        return runner.run({name: value for name, value in feeds.items() if name in taken})

    notes = [f'input {name!r} is not used, so the network lacks it' for name in names
             if name not in taken]  # fmt: skip
    return compare_runs(reference, other, _feeds(job.examples, order, sizes)), notes


def _feeds(
    examples: Examples, order: Order, sizes: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, Feeds]]:
    if examples.given:
        yield 'given inputs', examples.arrays
    yield from random_inputs(examples.interface(), order.seed, sizes)


def _flat(value: Any) -> Iterator[Any]:
    """The leaves of what a module returns, in the order of torch's own exporters."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _flat(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _port(value: Any) -> str:
    dims = ', '.join(
        str(dim.dim_param or (dim.dim_value if dim.HasField('dim_value') else '?'))
        for dim in value.type.tensor_type.shape.dim
    )
    return f'{value.name} [{dims}]'


def write(made: Exported, path: str | Path, external_data: str = external.AUTO) -> list[Path]:
    """Writes the network; the files, the ONNX first. Errors as `external.write`."""
    return external.write(made.model, path, external_data)

"""torch.onnx: its exporter by torch.export (dynamo), and the older one by TorchScript."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from airside_perception.deploy.export.examples import Examples
from airside_perception.deploy.export.factory import import_torch, kind_and_line
from airside_perception.deploy.external import read
from airside_perception.deploy.outputs import one_line
from airside_perception.errors import ConfigError, EngineError

DYNAMO, TORCHSCRIPT, AUTO = 'dynamo', 'torchscript', 'auto'
DYNAMO_OPSET = 18
"""Lowest that dynamo writes by itself."""


@dataclass(frozen=True)
class Job:
    """What is exported.

    Attributes:
        module: an `nn.Module` in evaluation mode.
        examples: its inputs.
        opset: of the standard operators.
        outputs: names; empty: torch's.
        table: {operator of torch: function of onnxscript}, for dynamo.
    """

    module: Any
    examples: Examples
    opset: int
    outputs: tuple[str, ...] = ()
    table: Mapping[Any, Any] = field(default_factory=dict)


class Written(NamedTuple):
    """What an exporter wrote: `onnx.ModelProto`, and what to know of it."""

    model: Any
    notes: tuple[str, ...]


def by_dynamo(job: Job) -> Written:
    """ONNX by torch.export; its opset is 18 or later, whatever was asked for.

    Raises:
        EngineError: why it cannot.
    """
    torch = import_torch()
    try:
        import onnxscript  # noqa: F401  torch says less clearly that it is missing
    except ImportError as error:
        raise EngineError('dynamo needs onnxscript: `pip install onnxscript`') from error
    shapes: Any = tuple(
        dict(job.examples.axes.get(name, {})) or None for name in job.examples.names
    )
    if any(one.kind is one.VAR_POSITIONAL for one in _forward(job.module)):
        shapes = (shapes,)
    return _exported(
        torch,
        job,
        'program',
        dynamo=True,
        opset_version=max(job.opset, DYNAMO_OPSET),
        dynamic_shapes=shapes if job.examples.axes else None,
        custom_translation_table=dict(job.table) or None,
        verbose=False,
    )


def by_torchscript(job: Job) -> Written:
    """ONNX by tracing: what Python decides by values or shapes is fixed, which the notes tell.

    Raises:
        EngineError: why it cannot.
    """
    torch = import_torch()
    return _exported(
        torch,
        job,
        'file',
        dynamo=False,
        opset_version=job.opset,
        dynamic_axes={name: dict(named) for name, named in job.examples.axes.items()},
    )


EXPORTERS: dict[str, Callable[[Job], Written]] = {DYNAMO: by_dynamo, TORCHSCRIPT: by_torchscript}


def call_symbolic(hook: Callable[..., Any], opset: int, text: str) -> dict[Any, Any]:
    """Calls the user's hook before the export; the table of translations that it returns.

    The hook registers symbolics for TorchScript (`torch.onnx.register_custom_op_symbolic`) and
    returns {operator of torch: function of onnxscript} for dynamo, or either. It gets the opset
    if it takes an argument.

    Raises:
        ConfigError: it raises, or returns something else.
    """
    try:
        takes = len(inspect.signature(hook).parameters) > 0
        table = hook(opset) if takes else hook()
    except (Exception, SystemExit) as error:  # what a user's function raises
        raise ConfigError(f'--symbolic {text!r} raises {kind_and_line(error)}') from error
    if table is None:
        return {}
    if not isinstance(table, Mapping):
        raise ConfigError(
            f'--symbolic {text!r} returns {type(table).__name__}, not {{operator of torch: '
            'function}} or None'
        )
    return dict(table)


def _exported(torch: Any, job: Job, kind: str, **options: Any) -> Written:
    """What torch writes, read back with its weights."""
    there = inspect.signature(torch.onnx.export).parameters
    options = {name: value for name, value in options.items() if name in there}
    if job.outputs:
        options['output_names'] = list(job.outputs)
    values = tuple(torch.from_numpy(value) for value in job.examples.traced())
    with tempfile.TemporaryDirectory(prefix='export') as folder:
        path = str(Path(folder, 'network.onnx'))
        try:
            with _quiet() as said, torch.no_grad():
                program = torch.onnx.export(
                    job.module,
                    values,
                    None if kind == 'program' else path,
                    input_names=list(job.examples.names),
                    **options,
                )
                if kind == 'program':
                    program.save(path, external_data=True)
        except Exception as error:  # torch's exporters raise what any operator of theirs raises
            raise EngineError(_reason(error)) from error
        model = read(path)
    _check_ports(model, job)
    fixed = [one for one in said if issubclass(one.category, torch.jit.TracerWarning)]
    notes = {f'line {one.lineno} of {Path(one.filename).name}: {_sentence(one)}' for one in fixed}
    return Written(model, tuple(sorted(notes)))


def _check_ports(model: Any, job: Job) -> None:
    """That inputs which were to vary do, and outputs are as many as their names."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis, name in job.examples.axes.get(value.name, {}).items():
            if dims[axis].dim_param != name:
                raise EngineError(
                    f'input {value.name!r}: axis {axis} ({name}) came out as '
                    f'{dims[axis].dim_param or dims[axis].dim_value}'
                )
    if job.outputs and len(model.graph.output) != len(job.outputs):
        raise ConfigError(
            f'--output-names {",".join(job.outputs)}: the network has '
            f'{len(model.graph.output)} outputs'
        )


def _forward(module: Any) -> Sequence[inspect.Parameter]:
    return list(inspect.signature(module.forward).parameters.values())


def _reason(error: BaseException) -> str:
    """The innermost cause: what torch wraps around it says how to report a bug."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = one_line(Exception(lines[0])) if lines else ''
    return f'{type(error).__name__}: {said}' if said else type(error).__name__


def _sentence(said: warnings.WarningMessage) -> str:
    """The first two sentences of a tracer's warning: what, and what it may do."""
    text = ' '.join(str(said.message).split())
    return '. '.join(text.split('. ')[:2])


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """torch explains itself at length on both streams; the reason is in what it raises.

    Yields:
        The warnings.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(record=True) as said,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            _silent_library(),
        ):
            warnings.simplefilter('always')
            yield said
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _silent_library() -> Iterator[None]:
    """TorchScript's C++ prints the graph that it cannot export: not through Python's streams."""
    with contextlib.ExitStack() as stack:
        nothing = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nothing)
        for stream in (1, 2):
            kept = os.dup(stream)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, stream)
            os.dup2(nothing, stream)
        yield

"""The PyTorch module that a user's function makes, with its weights."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airside_perception.deploy.outputs import one_line
from airside_perception.errors import ConfigError, EngineError, RefusalError

WRAPPERS = ('state_dict', 'model_state_dict', 'model')
"""Under which of its keys a checkpoint holds the weights, where they are not all it has."""
PARALLEL = 'module.'
"""What DataParallel puts before every name."""
NO_TORCH = (
    'export needs PyTorch, which is not installed here: `pip install torch onnxscript`; the CPU '
    'build is enough, on the machine where the network was trained for example'
)


def import_torch() -> Any:
    """The package torch.

    Raises:
        RefusalError: it is not installed; says how to get it.
    """
    try:
        import torch
    except ImportError as error:
        raise RefusalError(NO_TORCH) from error
    return torch


def load_function(option: str, text: str) -> Callable[..., Any]:
    """What `MODULE:FUNCTION` names; modules of the current folder count, too.

    Raises:
        ConfigError: malformed, no such module or function, or the module raises.
    """
    module, colon, name = text.partition(':')
    if not (colon and module and name):
        raise ConfigError(f'{option} {text!r}: expected MODULE:FUNCTION, e.g. nets.yolox:make')
    if '' not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            found = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # what a user's module raises
            raise ConfigError(
                f'{option} {text!r}: {module} cannot be imported: {kind_and_line(error)}'
            ) from error
    for part in name.split('.'):
        if not hasattr(found, part):
            raise ConfigError(f'{option} {text!r}: {module} has no {name!r}')
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f'{option} {text!r}: {name} is no function')
    function: Callable[..., Any] = found
    return function


def make_module(factory: Callable[..., Any], checkpoint: str, text: str) -> tuple[Any, Any]:
    """(module in evaluation mode on the CPU, its example inputs or None).

    Args:
        factory: returns an `nn.Module`, or (module, example inputs). It gets the path of the
            checkpoint if it takes an argument; else the weights are loaded into what it returns.
        checkpoint: file; empty: none.
        text: what the user called the factory, for messages.

    Raises:
        ConfigError: the factory raises or returns something else.
        EngineError: the checkpoint is missing or does not fit.
    """
    torch = import_torch()
    if checkpoint and not Path(checkpoint).is_file():
        raise EngineError(f'{checkpoint}: no such checkpoint')
    takes, needs = _arguments(factory)
    if needs > (1 if checkpoint else 0):
        raise ConfigError(
            f'--factory {text!r}: it needs {needs} argument{"s" if needs > 1 else ""}; at most '
            'one is given, the path of --checkpoint'
        )
    hand_over = bool(checkpoint) and takes > 0
    with contextlib.redirect_stdout(sys.stderr):
        try:
            made = factory(checkpoint) if hand_over else factory()
        except (Exception, SystemExit) as error:  # what a user's function raises
            raise ConfigError(f'--factory {text!r} raises {kind_and_line(error)}') from error
    module, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(
            f'--factory {text!r} returns {type(module).__name__}, not an nn.Module or (module, '
            'example inputs)'
        )
    if checkpoint and not hand_over:
        _load_weights(torch, module, checkpoint)
    return module.cpu().eval(), examples


def _arguments(factory: Callable[..., Any]) -> tuple[int, int]:
    """How many positional arguments it takes, and how many it needs."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # built in
        return 1, 0
    positional = [
        one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    return len(positional), sum(one.default is one.empty for one in positional)


def _load_weights(torch: Any, module: Any, checkpoint: str) -> None:
    try:
        state = torch.load(checkpoint, map_location='cpu', weights_only=True)
    except Exception as error:  # pickle's, zipfile's and torch's own have no nearer base
        raise EngineError(
            f'{checkpoint}: not a checkpoint of weights alone ({kind_and_line(error)}); give the '
            'factory an argument and let it load the file'
        ) from error
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping):
        raise EngineError(f'{checkpoint}: holds a {type(state).__name__}, not weights by name')
    if state and all(str(name).startswith(PARALLEL) for name in state):
        state = {str(name)[len(PARALLEL) :]: value for name, value in state.items()}
    try:
        module.load_state_dict(state)
    except Exception as error:  # RuntimeError, or whatever an odd value leads to
        raise EngineError(
            f'{checkpoint}: does not fit {type(module).__name__}: {one_line(error)}'
        ) from error


def kind_and_line(error: BaseException) -> str:
    """`Kind: what it says`, on one line."""
    said = one_line(error)
    kind = type(error).__name__
    return kind if said == kind else f'{kind}: {said}'

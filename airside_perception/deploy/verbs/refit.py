"""`engine refit`: new weights in an engine that is there."""

from __future__ import annotations

import argparse

from airside_perception.deploy.interrupt import interruptible
from airside_perception.deploy.refit import as_dict, describe_refit, refit
from airside_perception.deploy.verb import Answer, progress

DESCRIPTION = """\
Puts the weights of a network into an engine that was built with --refit (or --strip) from one of
the same names, operators and shapes: seconds instead of minutes. The answers are compared with
ONNX Runtime's on random input; then engine and manifest are written.
Exit status 1: the engine's weights are fixed, the network is another, this machine has no GPU for
it, TensorRT does not take a weight, or the answers differ; the engine is as it was."""
EXAMPLES = """\
engine refit models/apron_yolox.fp16.gpu.engine retrained.onnx
engine refit stripped.engine models/apron_yolox.onnx --out full.engine --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('engine', metavar='ENGINE', help='built with --refit or --strip; its manifest beside it')
    add('network', metavar='NEW.onnx', help='the same network with other weights')
    add('--out', default='', metavar='FILE', help='default: the engine itself')
    add(
        '--check', action=argparse.BooleanOptionalAction, default=True,
        help='compare with ONNX Runtime on random input before anything is written',
    )  # fmt: skip
    add('--allow-host-code', action='store_true', help='the engine may bring host code')


def run(options: argparse.Namespace) -> Answer:
    """Refits."""
    with progress() as bar, interruptible(bar) as step:
        found = refit(
            options.engine,
            options.network,
            options.out,
            options.check,
            options.allow_host_code,
            step,
        )
    return Answer(describe_refit(found), as_dict(found))

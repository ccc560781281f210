"""Lint of a file, with its report."""

from __future__ import annotations

from pathlib import Path

from airside_perception.deploy.lint.judge import lint
from airside_perception.deploy.lint.network import Network
from airside_perception.deploy.lint.report import page
from airside_perception.deploy.lint.result import Lint
from airside_perception.engine.typed import read_network
from airside_perception.files import write_whole


def lint_file(
    path: str | Path,
    target: str,
    jetpack: str,
    batch: int = 1,
    precision: str = 'fp16',
    html: str | Path = '',
) -> Lint:
    """Judges an ONNX file.

    Args:
        path: ONNX file.
        target, jetpack, batch, precision: as `lint`.
        html: report to write; empty: none.

    Raises:
        EngineError: not a network, or the report cannot be written.
        ConfigError, RefusalError: as `lint`.
    """
    model = read_network(path)
    found = lint(model, target, jetpack, batch, precision)
    if html:
        write_whole(html, page(found, Network(model, batch), Path(path).name))
    return found

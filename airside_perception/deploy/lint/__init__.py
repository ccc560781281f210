"""Every node of an ONNX network against the rules of a target: DLA or GPU of a JetPack."""

from airside_perception.deploy.lint.judge import lint
from airside_perception.deploy.lint.network import node_name, node_names
from airside_perception.deploy.lint.placement import Transfer
from airside_perception.deploy.lint.result import Finding, Lint, Verdict
from airside_perception.deploy.lint.table import generations, load_table

__all__ = [
    'Finding', 'Lint', 'Transfer', 'Verdict', 'generations', 'lint', 'load_table', 'node_name',
    'node_names',
]  # fmt: skip

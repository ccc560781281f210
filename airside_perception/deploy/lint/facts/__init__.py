"""What the rules measure at a node, by name."""

from airside_perception.deploy.lint.facts import arithmetic, axes, general, resize, windows
from airside_perception.deploy.lint.facts.subject import FACTS, Subject, Unknown

__all__ = [
    'FACTS', 'Subject', 'Unknown', 'arithmetic', 'axes', 'general', 'resize', 'windows',
]  # fmt: skip

"""YAML, five times faster where PyYAML has libyaml: cards are read whenever a node starts."""

from __future__ import annotations

from typing import Any

import yaml

LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


def load_yaml(text: str | bytes) -> Any:
    """What `yaml.safe_load` gives.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, LOADER)  # a safe loader either way

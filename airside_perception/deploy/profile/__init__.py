"""Where the time of a network goes: per layer, and what only moves data."""

"""Recorded drives: import, run in lock-step, play, compare."""

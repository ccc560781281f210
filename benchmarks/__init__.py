"""Speed and accuracy, measured; `python -m benchmarks` prints the table of speeds."""

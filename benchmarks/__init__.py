"""Speed and accuracy, measured; `python -m benchmarks` prints the table of speeds."""

import airside_perception.nodes  # noqa: F401  # measured as the nodes run: one BLAS thread

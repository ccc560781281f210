"""The lifecycle nodes: the only place that imports rclpy."""

import os

# Every node is one process among several on a few cores. A BLAS that spreads small products over
# all of them waits for the others' threads: twenty times slower, measured with two busy processes.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

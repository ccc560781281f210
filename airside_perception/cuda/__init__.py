"""CUDA: the driver, kernels compiled on the machine, queues of work. Imports without a GPU."""

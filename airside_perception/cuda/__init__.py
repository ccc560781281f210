"""CUDA: the driver, kernels compiled on the machine, queues of launches. Imports without a GPU."""

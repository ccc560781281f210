"""The GPU without a framework: driver, kernels, and what is common to lidar and camera."""

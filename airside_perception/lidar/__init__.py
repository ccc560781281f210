"""Lidar detection: point cloud to 3D boxes."""

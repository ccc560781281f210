"""Camera, lidar and fused 3D detection on the airport apron, as ROS 2 lifecycle nodes over a plain core."""

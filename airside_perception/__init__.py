"""Camera, lidar and fused 3D detection on the airport apron: ROS 2 nodes over a plain core."""

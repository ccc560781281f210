"""`ros2 launch` and `ros2 lifecycle` for a ROS 2 tree that comes without them."""

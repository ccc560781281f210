"""The lifecycle nodes: the only place that imports rclpy."""

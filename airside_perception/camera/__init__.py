"""Camera detection: image to 2D boxes to boxes on the ground plane."""

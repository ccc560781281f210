"""How good detections in space are: average precision, errors of what was found, calibration."""

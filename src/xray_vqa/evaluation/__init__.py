"""What a model is worth: predictions on held-out scans, scores with intervals, calibration, speed and a report."""

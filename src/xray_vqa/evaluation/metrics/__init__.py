"""What predictions are worth in numbers: text, ranking, screening, places, calibration, and their intervals."""

"""Whether one model is better than another on the same scans, or only luckier."""

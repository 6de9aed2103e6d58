"""From scans to inspections: engines that read a scan, and the inspector that makes a decision of what they read."""

"""The pre-training of nano on a stream of simulated scans."""

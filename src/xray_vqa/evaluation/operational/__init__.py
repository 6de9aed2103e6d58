"""What inspections cost: latency, throughput and memory in this process, and a running server under load."""

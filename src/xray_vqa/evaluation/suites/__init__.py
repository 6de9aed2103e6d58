"""Benchmarks of others run through our engines, and our questions written for the tools of others."""

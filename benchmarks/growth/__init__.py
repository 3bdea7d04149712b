"""Seconds and memory of one workload an area, over its size."""

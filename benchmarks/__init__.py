"""Measurements that others can repeat: `python -m benchmarks`, or `make bench`."""

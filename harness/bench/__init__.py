"""Benchmarks of whole jobs: each a process of its own, one at a time, beside commands of others that do the same."""

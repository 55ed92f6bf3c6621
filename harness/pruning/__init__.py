"""Pruning: which weights of a model become zero, and what the others become.

The calibration walk (`walk`) is the only part that touches a model's forward pass; criteria, patterns, allocations and
solvers are pure functions on tensors, one a file; `recipe` joins them for a layer; `keep` stores the masks.
"""

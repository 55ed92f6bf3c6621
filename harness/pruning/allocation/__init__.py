"""Allocations: how sparse each layer becomes, `allocate(layers, sparsity) -> dict` from layer name to sparsity."""

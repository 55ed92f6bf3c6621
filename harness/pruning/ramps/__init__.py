"""Ramps: over which sparsities a model is pruned on its way to the last, `targets(sparsity) -> list[float]`.

Every target is a walk of its own over the model that the one before left, so its calibration sees those zeros.
"""

"""Refiners: swap pruned weights for kept ones, `refine(weight, keep, <needs>) -> BoolTensor [out, in]`.

A refiner sees the dense weight and the mask that a criterion chose; it may ask for input statistics, for the
criterion's `scores`, for the `part` of the block that the layer belongs to, and for the `period` of the pattern (N:M;
None for a pattern without groups). It changes no count that the pattern fixes. `GROUP` is the comparison group of the
mask that its paper starts from; `PATTERNS` names the patterns that it keeps.
"""

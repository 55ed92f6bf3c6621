"""Criteria: how much each weight matters, `score(weight, <needs>) -> Tensor [out, in]`, larger is kept.

The positional arguments after `weight` name what the criterion needs: input statistics (see `pruning.statistics`),
the dense model's gradients (`gradient`, `gradient_norm`, see `pruning.gradients`), or the layer's name (`layer`).
`GROUP` is the paper's comparison group, "row" or "matrix".
"""

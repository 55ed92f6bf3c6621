"""Criteria: how much each weight matters, `score(weight, <statistics>) -> Tensor [out, in]`, larger is kept.

The positional arguments after `weight` name the input statistics that the criterion needs (see `pruning.statistics`).
`GROUP` is the paper's comparison group, "row" or "matrix".
"""

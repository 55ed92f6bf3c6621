"""Patterns: what shape the zeros take, `choose(scores, sparsity) -> BoolTensor [out, in]`, True stays.

Counts are exact and ties go by column order, so equal scores give equal masks on every machine. Choosing by a mask of
the pattern gives the mask itself, which is how a pruned layer is checked. A pattern with groups along the inputs names
the option that holds the group's width in `PERIOD`: a solver that works column by column calls `choose` on that many
columns at a time.

A pattern that cannot express every rate has a second verb, `fit(rates, layers, sparsity) -> dict`: the rates nearest to
those asked for that it can express, keeping the overall sparsity.
"""

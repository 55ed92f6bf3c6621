"""Patterns: what shape the zeros take, `choose(scores, sparsity) -> BoolTensor [out, in]`, True stays.

Counts are exact and ties go by column order, so equal scores give equal masks on every machine. A pattern with groups
along the inputs names the option that holds the group's width in `PERIOD`: a solver that works column by column calls
`choose` on that many columns at a time.
"""

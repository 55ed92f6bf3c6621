"""Losses: `loss(<needs>, *, <options>) -> dict[str, Tensor]`, one file a term.

The positional arguments say what a term needs: `student` and `teacher` are `harness.tuning.forward.Forward` results on
the same batch, `batch` is the batch itself, `total` sums a tensor, without a gradient, over the processes that share a
micro-batch, for a term that is no plain mean; a term that does not name `teacher` costs no teacher forward. A module
that says `HIDDEN = True` gets hidden states; one that gained options after its first results names them with their
defaults in `SINCE`, so that what was computed before keeps its key.

A term returns means. Each key is the set of positions that its mean is taken over, "answer" (the scored labels) or a
stack's valid positions ("encoder", "decoder"), so that the loop can weight micro-batches as one big batch would. The
term's value is the sum of its means.
"""

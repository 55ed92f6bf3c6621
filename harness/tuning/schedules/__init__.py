"""Learning-rate schedules: `factor(step, total, warmup) -> float`, what the peak rate is multiplied by.

`step` counts the updates already done, from 0, so that with a warm-up the very first update has rate 0, as in the
released code of SquareHead (and in transformers). The step alone decides: there is no state to save.
"""

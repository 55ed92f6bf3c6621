"""Allocations: how sparse each layer becomes, `allocate(layers, sparsity, <needs>) -> dict`, a rate by layer name.

What an allocation may ask for, by the names of its positional arguments (`pruning.survey` provides it). All of it is of
the model as the turn finds it: the dense one in one shot, later in a ramp the one that the turn before has pruned.

- `weights`: the weight [out, in] of each layer, a mapping by layer name;
- `norms`: root mean square of each layer's inputs [in], by layer name, with no block pruned yet in this turn;
- `scores`: the criterion's scores [out, in] on such inputs, by layer name, each computed when it is looked up;
- `kernels`: the linear kernel F F^T [n, n] of each block's inputs, a row of F a calibration sequence, by block index;
- `judge`: a function from rates by layer to the loss of the model pruned so, a mean over held-out labels.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.models import Part


@dataclass(frozen=True)
class Layer:
    """What is known of a prunable layer without its weights: its shape (out, in), its block's index, its part."""

    shape: tuple[int, int]
    block: int
    part: Part

    @property
    def size(self) -> int:
        """How many weights it has."""
        return self.shape[0] * self.shape[1]

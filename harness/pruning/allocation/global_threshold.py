"""One threshold for all layers: the lowest scores of the model go, wherever they are.

s_l = share of layer l's weights that are among the floor(S * n) lowest of all n scores. A rate is an exact count, so
for scores that look at no inputs, such as magnitudes, the pattern `unstructured:group=matrix` gives the very mask of
the one threshold. Others are taken here with no block pruned, and again in the walk on inputs from pruned blocks: the
counts are the threshold's, the mask is only near it. Scores of different layers must be comparable: magnitudes are, and
Wanda's, as its norms here are per token. A layer may lose everything.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from harness.pruning.allocation import Layer
from harness.pruning.allocation._pooled import smallest
from harness.pruning.patterns._smallest import count


def allocate(layers: Mapping[str, Layer], sparsity: float, scores: Mapping[str, Tensor]) -> dict[str, float]:
    """Global threshold: the criterion's scores of all layers compete with each other.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).
        scores: The criterion's scores [out, in] by layer name, each looked up three times.

    Returns:
        The sparsity of each layer.

    Raises:
        Problem: A score is not finite.
    """
    number = count(sum(layer.size for layer in layers.values()), sparsity)
    zeros = smallest(scores.__getitem__, layers, number)
    return {name: zeros[name] / layer.size for name, layer in layers.items()}

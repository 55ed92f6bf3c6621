"""SmoothQuant: outliers of the inputs become part of the weights, whose rows bear them, while the function stays.

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)        X_j / s_j comes out of the norm before, W_j * s_j is the weight

Xiao et al., arXiv:2211.10438, section 4. The linears that read one norm's output (q, k, v; gate and up) share s, with
max|W_j| over all of them; 1 / s goes into the norm's weight and, where it has one, its bias. Linears that read no norm
(o, down) are left as they are, as in the paper.

Different from the released code: an input that was never active on the calibration data, or that no kept weight reads,
keeps s_j = 1. Theirs bounds both maxima and s by 1e-5, so that such an input, should it become active, is 100,000 times
as large and coarsens the whole token's grid; behind 75% sparsity and more, whole columns are pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from harness import models
from harness.models import Block, Linear
from harness.problems import Problem
from harness.pruning.paused import evaluating
from harness.quantization.inputs import Seen

_LEAST = 1e-5
"""The least maximum of a column's weights, and the least s, as released."""
_SAME = 1e-3
"""How far, against its largest value, the output of a stack may move by float32 rounding alone."""


def scales(largest: Tensor, weights: Sequence[Tensor], alpha: float) -> Tensor:
    """Returns s by column, [columns], float32.

    Args:
        largest: max|X_j| over the calibration tokens, [columns].
        weights: The weights that read these inputs, [out, columns] each.
        alpha: How much of the difficulty moves into the weights: 0 leaves the inputs' range to itself, 1 moves all.
    """
    heaviest = torch.stack([weight.float().abs().amax(dim=0) for weight in weights]).amax(dim=0)
    found = largest.float().pow(alpha) / heaviest.clamp(min=_LEAST).pow(1 - alpha)
    return torch.where((largest > 0) & (heaviest > 0), found.clamp(min=_LEAST), 1)


@torch.no_grad()
def fold(norm: nn.Module, linears: Sequence[nn.Linear], s: Tensor) -> None:
    """Divides what a norm puts out by s, and multiplies the columns of those who read it, in place."""
    unit = _unit(norm)
    norm.weight.copy_((norm.weight + unit) / s - unit)
    if getattr(norm, "bias", None) is not None:
        norm.bias.div_(s)
    for linear in linears:
        linear.weight.mul_(s.to(linear.weight.dtype))


def _unit(norm: nn.Module) -> float:
    """Returns what a norm adds to its weight before it multiplies by it: 1 in Gemma's, 0 in the others."""
    weight = norm.weight
    still = {name: torch.zeros_like(value) for name, value in norm.named_parameters()}
    probe = torch.linspace(-1, 1, len(weight), dtype=weight.dtype, device=weight.device)
    return float(bool(torch.func.functional_call(norm, still, (probe[None],)).count_nonzero()))


@torch.no_grad()
def smooth(
    model: nn.Module,
    blocks: Sequence[Block],
    seen: Mapping[str, Seen],
    alpha: float,
    quantised: Sequence[Linear],
    batch: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Smooths a model in place, and checks on a batch that it computes what it did.

    Args:
        model: The model, on its device.
        blocks: Its blocks with all their linears, quantised or not.
        seen: The inputs of all of these.
        alpha: Migration strength, from 0 to 1.
        quantised: The linears that will be quantised; a norm that none of them reads is left alone.
        batch: What the model is checked on.

    Returns:
        s by the norm that it was folded into.

    Raises:
        Problem: In a block, none of the linears of an attention or feed-forward to be quantised reads a norm; or the
            model computes something else than before, because a norm's output is used elsewhere too.
    """
    chosen = {linear.name for linear in quantised}
    before, folded = _states(model, batch), {}
    for block in blocks:
        _check_reachable(block, seen, chosen)
        for norm in dict.fromkeys(seen[linear.name].norm for linear in block.linears):
            readers = [linear for linear in block.linears if seen[linear.name].norm == norm]
            if norm is None or not any(linear.name in chosen for linear in readers):
                continue
            modules = [linear.module for linear in readers]
            s = scales(seen[readers[0].name].largest, [module.weight for module in modules], alpha)
            fold(model.get_submodule(norm), modules, s)
            folded[norm] = s
    for stack, after in _states(model, batch).items():
        moved, size = float((after - before[stack]).abs().max()), float(before[stack].abs().max())
        if not moved <= _SAME * size:
            what = f"smoothing changed what the {stack} puts out, by {moved:g} of {size:g}"
            raise Problem(what, where=next(iter(folded), None), hint="a norm's output has another reader: smooth: null")
    return folded


def _check_reachable(block: Block, seen: Mapping[str, Seen], chosen: set[str]) -> None:
    for part in ("attention", "feed_forward"):
        linears = [linear for linear in block.linears if linear.part == part]
        mine = [linear.name for linear in linears if linear.name in chosen]
        if mine and all(seen[linear.name].norm is None for linear in linears):
            what = f"these layers cannot be smoothed, for none of them reads a norm's output: {', '.join(mine)}"
            raise Problem(what, where=block.name, hint="set smooth: null, or leave them out with skip")


def _states(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what the final norm of each stack puts out, on the positions that count."""
    found: dict[str, Tensor] = {}
    batch = models.placed(model, batch)
    valid = models.valid(model, batch)

    def keep(stack: str, output: Tensor) -> None:
        found[stack] = output[valid[stack]].cpu() if output.shape[:2] == valid[stack].shape else output.cpu()

    hooks = [
        norm.register_forward_hook(lambda _, __, output, stack=stack: keep(stack, output))
        for stack, norm in models.norms(model).items()
    ]
    try:
        with evaluating(model):
            model(**batch, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found

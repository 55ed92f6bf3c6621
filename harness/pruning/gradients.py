"""Gradients of a model's loss with respect to its prunable weights, over the calibration batches.

What criteria ask for by the names of their arguments:

- `gradient`: the gradient of the mean loss over all scored labels, [out, in];
- `gradient_norm`: each weight's root mean square over the sequences of the gradient of the sequence's own mean loss,
  [out, in]: GBLM's (arXiv:2311.04902), which sums where this averages.

What is propagated is the sum of the labels' losses, divided by their number in float32 afterwards: a logit's gradient
of a mean over a thousand labels and a large vocabulary is too small for float16, and becomes 0 without a word. Sums are
float32 whatever the model's dtype, and each layer's gradient is counted in and freed as soon as the backward pass has
it, so that the model is never held a third time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness import models
from harness.models import IGNORED, Block, Linear, attended
from harness.problems import Problem
from harness.pruning.paused import evaluating

GRADIENTS = ("gradient", "gradient_norm")


def gradients(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    need: str = "gradient",
    blocks: Sequence[Block] | None = None,
) -> dict[str, Tensor]:
    """Returns the gradient of every prunable weight by layer name; the model is left as it was.

    Args:
        model: A model of a known family.
        batches: Calibration batches, keyword arguments of the model; moved to its device. A decoder-only model whose
            batch has no labels is scored on every token that the attention mask shows.
        need: Which of `GRADIENTS`.
        blocks: The model's blocks, each with the linears that are wanted; all linears by default.

    Returns:
        [out, in] by layer, float32, on the weights' device.

    Raises:
        Problem: There is no label to score, the model gives no loss, the loss does not depend on a layer, or a gradient
            is not finite; the layer is named.
    """
    if need not in GRADIENTS:
        raise ValueError(f"{need!r} is none of {GRADIENTS}")
    blocks = models.blocks(model) if blocks is None else blocks
    linears = [linear for block in blocks for linear in block.linears]
    sums = {linear.name: torch.zeros_like(linear.module.weight, dtype=torch.float32) for linear in linears}
    reached: set[str] = set()
    squared, scored, total = need == "gradient_norm", 0, 0

    def count_in(linear: Linear) -> None:
        gradient = linear.module.weight.grad.float()
        sums[linear.name].add_((gradient / scored).square_() if squared else gradient)
        linear.module.weight.grad = None
        reached.add(linear.name)

    with evaluating(model), _trainable(model, linears), contextlib.ExitStack() as stack, torch.enable_grad():
        for linear in linears:
            hook = linear.module.weight.register_post_accumulate_grad_hook(lambda _, linear=linear: count_in(linear))
            stack.callback(hook.remove)
        for batch in batches:
            for part in _sequences(batch) if squared else (batch,):
                labelled, scored = _labelled(model, part)
                if scored:
                    total += 1 if squared else scored
                    (models.loss(model, labelled).float() * scored).backward()
    if not total:
        raise Problem("there is no label to take a gradient of", hint="give a calibration set with labels")
    for linear in linears:
        if linear.name not in reached:
            raise Problem("the loss does not depend on this layer", where=linear.name)
        mean = sums[linear.name].div_(total)
        if squared:
            mean.sqrt_()
        if not mean.isfinite().all():
            raise Problem(f"its {need} is not finite", where=linear.name, hint="load the model in a wider dtype")
    return sums


@contextlib.contextmanager
def _trainable(model: nn.Module, linears: Sequence[Linear]) -> Iterator[None]:
    """Makes these weights the only parameters with a gradient, and everything as before afterwards."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for linear in linears:
            linear.module.weight.requires_grad_(True)
            linear.module.weight.grad = None
        yield
    finally:
        for parameter, required, gradient in before:
            parameter.requires_grad_(required)
            parameter.grad = gradient


def _sequences(batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yields a batch's sequences, each a batch of one."""
    size = len(next(iter(batch.values())))
    for index in range(size):
        yield {name: value[index : index + 1] for name, value in batch.items()}


def _labelled(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Returns a batch with labels, on the model's device and in its dtype, and how many of them are scored."""
    batch = models.placed(model, batch)
    if "labels" not in batch:
        if not models.causal(model):
            raise Problem("a calibration batch has no labels", hint="an encoder-decoder model has no loss without them")
        batch["labels"] = batch["input_ids"].masked_fill(~attended(batch), IGNORED)
    return batch, models.scored(model, batch)

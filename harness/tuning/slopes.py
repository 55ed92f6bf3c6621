"""The mean gradient of what is descended with respect to dense weights, for a method that starts from it.

    gradient = dL/dW over the first training examples, of the model as it is, no mask on the gradient

LoRS (arXiv:2501.08582, released code) averages it over 128 training examples in batches of the training's size; each
layer's goes to the CPU as soon as the backward pass has it, so that the weights are never held a second time on the
device. Means are over all positions of these examples, as if they were one batch, where the release averages batches:
the same for text in windows of one length. Dropout is off, unlike there.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from harness.problems import Problem
from harness.pruning.paused import evaluating
from harness.tuning.forward import positions
from harness.tuning.objective import Objective, measure


def mean_gradients(
    model: nn.Module,
    aim: Objective,
    of: Callable[[int], list[Mapping[str, Tensor]]],
    accelerator: Accelerator,
    layers: Sequence[str],
    samples: int,
) -> dict[str, Tensor]:
    """Returns each layer's mean gradient [out, in], float32, on the CPU; the model is left as it was.

    Args:
        model: The model, on its device, not wrapped.
        aim: What is descended.
        of: Step (from 0) -> its micro-batches: the examples are those that the training begins with.
        accelerator: Moves and casts.
        layers: Names of linear layers.
        samples: How many examples; the last micro-batch is cut to them.

    Raises:
        Problem: The precision is fp16; or the objective does not depend on a layer, or its gradient is not finite, and
            the layer is named.
    """
    if accelerator.mixed_precision == "fp16":
        raise Problem("gradients of fp16 without a loss scale may vanish", where="precision", hint="bf16 or fp32")
    sums: dict[str, Tensor] = {}
    weights = {name: model.get_submodule(name).weight for name in layers}
    terms = {summand.name: summand.weight for summand in aim.summands}

    def count_in(name: str) -> None:
        gradient = weights[name].grad.to("cpu", torch.float32)
        sums[name] = sums[name].add_(gradient) if name in sums else gradient
        weights[name].grad = None

    batches = list(_first(of, samples))
    counts = [{name: int(chosen.sum()) for name, chosen in positions(model, batch).items()} for batch in batches]
    whole = sum(map(Counter, counts), Counter())
    with evaluating(model), _only(model, weights.values()), torch.enable_grad(), contextlib.ExitStack() as hooks:
        for name, weight in weights.items():
            hook = weight.register_post_accumulate_grad_hook(lambda _, name=name: count_in(name))
            hooks.callback(hook.remove)
        for batch, count in zip(batches, counts, strict=True):
            batch = {name: value.to(accelerator.device) for name, value in batch.items()}
            with accelerator.autocast():
                means = measure(aim, model, batch)
            shares = {where: count[where] / whole[where] for where in whole if count[where]}
            shared = [terms[name] * mean * shares[where] for (name, where), mean in means.items() if where in shares]
            if shared:
                sum(shared).backward()
    for name in layers:
        if name not in sums:
            raise Problem("the objective does not depend on this layer", where=name)
        if not sums[name].isfinite().all():
            raise Problem("its gradient is not finite", where=name, hint="precision: fp32 may help")
    return sums


def _first(of: Callable[[int], list[Mapping[str, Tensor]]], samples: int) -> Iterator[Mapping[str, Tensor]]:
    """Yields micro-batches of as many examples."""
    step = 0
    while samples:
        for batch in of(step):
            size = min(samples, len(batch["labels"]))
            if size:
                yield {name: value[:size] for name, value in batch.items()}
            samples -= size
        step += 1


@contextlib.contextmanager
def _only(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Makes these weights the only parameters with a gradient, and everything as before afterwards."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)

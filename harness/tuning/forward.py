"""What the losses see of one model on one batch: logits, its own loss, hidden states, and which positions count.

Hidden states are taken by hooks on the blocks and on the final norms, not from `output_hidden_states`, because that
list differs between model families: some replace the last block's output by the final norm's, some keep both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import BoolTensor, Tensor, nn

from harness import models
from harness.models import IGNORED


@dataclass(frozen=True)
class Stack:
    """The modules of one stack ("encoder" or "decoder") whose outputs are hidden states.

    Args:
        blocks: The transformer blocks in execution order.
        norm: The norm after the last block.
    """

    blocks: tuple[nn.Module, ...]
    norm: nn.Module


@dataclass(frozen=True)
class Forward:
    """One model's result on one batch.

    Args:
        loss: The model's own loss, the mean cross-entropy over the scored labels; None if it was not asked for.
        logits: [batch, time, vocabulary].
        answer: [batch, time], the logit positions that predict a scored label; of a classifier [batch].
        valid: Per stack [batch, time], the positions that are no padding.
        blocks: Per stack, the output of every block [batch, time, width]; empty if hidden states were not asked for.
        norms: Per stack, the output of the final norm [batch, time, width]; empty likewise.
    """

    loss: Tensor | None
    logits: Tensor
    answer: BoolTensor
    valid: Mapping[str, BoolTensor]
    blocks: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    norms: Mapping[str, Tensor] = field(default_factory=dict)


def stacks(model: nn.Module) -> dict[str, Stack]:
    """Returns the stacks of a model in execution order.

    Args:
        model: A model of a known family, not wrapped.
    """
    norms = models.norms(model)
    blocks = models.blocks(model)
    names = dict.fromkeys(block.stack for block in blocks)
    return {s: Stack(tuple(b.module for b in blocks if b.stack == s), norms[s]) for s in names}


def predicting(labels: Tensor, causal: bool) -> BoolTensor:
    """Returns the logit positions that predict a scored label.

    Args:
        labels: [batch, time], or [batch] of a classifier; `IGNORED` where nothing is scored.
        causal: Whether position t - 1 predicts label t (decoder-only models) rather than position t (encoder-decoder
            models, whose decoder inputs are the labels moved right, and classifiers).
    """
    scored = labels != IGNORED
    return nn.functional.pad(scored[:, 1:], (0, 1)) if causal else scored


def positions(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, BoolTensor]:
    """Returns the sets of positions that means are taken over: "answer", and the valid ones of each stack.

    Args:
        model: A model of a known family, not wrapped; only its configuration is read.
        batch: A collated batch with labels.
    """
    causal = models.causal(model)
    return {"answer": predicting(batch["labels"], causal), **models.valid(model, batch)}


def forward(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    hidden: Mapping[str, Stack] | None = None,
    *,
    scored: bool = True,
) -> Forward:
    """Runs a model on a batch.

    Args:
        model: The model, wrapped by accelerate or not.
        batch: A collated batch with labels, on the model's device.
        hidden: The stacks whose hidden states are wanted, from `stacks`.
        scored: Whether its own loss is wanted: over a large vocabulary it takes a fifth of a small model's forward.

    Raises:
        Problem: Its loss is wanted, and it has none.
    """
    modules = [module for stack in (hidden or {}).values() for module in (*stack.blocks, stack.norm)]
    inner = unwrapped(model)
    read = batch if scored or inner.config.is_encoder_decoder else _without_labels(batch)
    with listening(modules) as heard:
        out = model(**read)
    sets = positions(inner, batch)
    answer = sets.pop("answer")
    blocks = {name: tuple(heard[block] for block in stack.blocks) for name, stack in (hidden or {}).items()}
    norms = {name: heard[stack.norm] for name, stack in (hidden or {}).items()}
    loss = getattr(out, "loss", None) if scored else None
    if scored and loss is None:
        raise models.no_loss(inner)
    return Forward(loss, out.logits, answer, sets, blocks, norms)


def _without_labels(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leaves out what only a loss is made of; the decoder of an encoder-decoder model reads its labels."""
    return {name: value for name, value in batch.items() if name != "labels"}


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the model inside accelerate's wrappers, or the model itself."""
    while not hasattr(model, "config"):
        model = model.module
    return model


@contextmanager
def listening(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Collects the outputs of modules while it is open."""
    heard: dict[nn.Module, Tensor] = {}

    def keep(module, _, output):
        heard[module] = output[0] if isinstance(output, tuple) else output

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()

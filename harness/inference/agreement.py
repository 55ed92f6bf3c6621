"""Whether an engine says what the dense model says: greedy tokens, and the logits behind them.

Both are walked through the dense model's own greedy tokens, so that one early difference does not make the rest
unlike. Per step and row:

    error = max |logit - dense logit| / standard deviation of the dense logits
    same  = share of steps whose largest logit is the dense model's

An engine that calls itself exact may differ by the order of its sums alone: TOLERANCE. Where two logits lie closer
than that, even it may choose the other one. One that rounds is held to a bound of its own (`rounding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from harness.inference.greedy import follow, generate
from harness.problems import Problem

TOLERANCE = 1e-3
"""Largest error of an exact engine, in standard deviations of the logits."""


@dataclass(frozen=True)
class Reference:
    """What the dense float32 model generated: its tokens [batch, tokens] and their logits [batch, tokens, vocab]."""

    tokens: Tensor
    logits: Tensor


def reference(model: nn.Module, inputs: Mapping[str, Tensor], tokens: int) -> Reference:
    """Generates with the dense model.

    Raises:
        Problem: A logit is not finite; where a weight is to blame, it is named.
    """
    found = generate(model, inputs, tokens).tokens.cpu()
    logits = follow(model, inputs, found.to(model.device)).cpu()
    if not logits.isfinite().all():
        where = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
        hint = "this weight is not finite" if where else "its weights are finite and its activations are not"
        raise Problem("the model computes logits that are not finite", where=where, hint=hint)
    return Reference(found, logits)


def agreement(model: nn.Module, inputs: Mapping[str, Tensor], dense: Reference) -> dict[str, float | bool]:
    """Compares an engine with the dense model of the same weights.

    Args:
        model: What the engine made of the model.
        inputs: What the reference was generated from.
        dense: The reference.

    Returns:
        `greedy_equal`: whether its own greedy tokens are the dense ones; `same_choice`: the share of steps; and
        `logit_error`: the largest error.

    Raises:
        Problem: A logit is not finite.
    """
    own = generate(model, inputs, dense.tokens.shape[1]).tokens.cpu()
    logits = follow(model, inputs, dense.tokens.to(model.device)).cpu()
    if not logits.isfinite().all():
        raise Problem("the engine computes logits that are not finite", hint="the weights overflow its type")
    return {
        "greedy_equal": bool((own == dense.tokens).all()),
        "same_choice": float((logits.argmax(-1) == dense.logits.argmax(-1)).float().mean()),
        "logit_error": error(logits, dense),
    }


def error(logits: Tensor, said: Reference) -> float:
    """Returns the largest difference of logits from those of a reference, in standard deviations of its own."""
    return float(((logits - said.logits).abs().amax(-1) / said.logits.std(-1)).max())


def exact(found: Mapping[str, float | bool]) -> dict[str, float]:
    """Returns what an engine that calls itself exact is held to: the dense model itself, but for the order of sums."""
    return {"own_error": found["logit_error"], "bound": TOLERANCE, "weight_error": 0.0}


def check(engine: str, found: Mapping[str, float | bool]) -> None:
    """Refuses an engine that computes something else than it says.

    Args:
        engine: Its choice.
        found: Its `own_error` and its `bound`.

    Raises:
        Problem: Its logits are further off than its sums in another order, and its roundings, can be.
    """
    if not found["own_error"] <= found["bound"]:  # so that an error that is no number is refused too
        what = f"{engine} computes other logits than its weights: off by {found['own_error']:.2g} of their spread"
        raise Problem(what, hint=f"it may be off by {found['bound']:.2g}; its speed is not reported")

"""AdamW that counts the updates of every single number: positions that come and go start their moments anew.

    p <- (1 - lr * weight_decay) (p - lr * sqrt(1 - beta2^age) / (1 - beta1^age) * m / (sqrt(v) + eps))

`age` is a number's own: 1 in its first update. Whoever replaces a number (`methods/_exchange.py`) sets its age and
moments. The update is that of SpIEL's released `SftAdamW` (github.com/AlanAnsell/peft), which differs from the AdamW of
torch in two places besides the ages: eps is added before the bias is corrected, and decay follows the step.

Different from the release: 1 - beta^age is taken by expm1, where theirs loses four of seven digits of 1 - 0.999^age to
cancellation in float32 (a relative 3e-5 of the first steps); and the work goes through the tensors in pieces that stay
in a cache (on a CPU) or over all tensors at once (elsewhere).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_PIECE = 1 << 16
"""Numbers that a CPU updates at once: with whole tensors of ten million the step takes twice as long."""


class AgedAdamW(torch.optim.Optimizer):
    """AdamW with an `age` for every number, in float32, beside its moments `exp_avg` and `exp_avg_sq`.

    A parameter's state also holds its `betas`, for whoever seeds moments of its numbers.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decays of the two moments.
        eps: Added to sqrt(v) before the correction of the bias.
        weight_decay: Decoupled; times lr.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Updates every parameter that has a gradient; returns what `closure` does, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            for p in given:
                self._begin(p, group["betas"])
            moved = [(p, p.grad, *(self.state[p][k] for k in ("exp_avg", "exp_avg_sq", "age"))) for p in given]
            for piece in _pieces(moved):
                _update(*piece, group["lr"], *group["betas"], group["eps"], group["weight_decay"])
        return loss

    def _begin(self, p: nn.Parameter, betas: tuple[float, float]) -> None:
        state = self.state[p]
        if not state:
            state["age"] = torch.ones_like(p, dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
            state["betas"] = tuple(betas)


def _pieces(moved: list[tuple[Tensor, ...]]) -> Iterator[list[list[Tensor]]]:
    """Yields lists (parameters, gradients, m, v, ages): a short stretch at a time on a CPU, else all at once."""
    flat = [[_share(t).view(-1) for t in (p.data, g.contiguous(), *rest)] for p, g, *rest in moved]
    elsewhere = [tensors for tensors in flat if tensors[0].device.type != "cpu"]
    if elsewhere:
        yield [list(tensors) for tensors in zip(*elsewhere, strict=True)]
    for tensors in flat:
        if tensors[0].device.type == "cpu":
            for piece in zip(*(t.split(_PIECE) for t in tensors), strict=True):
                yield [[t] for t in piece]


def _share(tensor: Tensor) -> Tensor:
    """Returns this process's share of a tensor that several share out; every other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _update(
    p: list[Tensor],
    g: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
    age: list[Tensor],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    torch._foreach_lerp_(m, g, 1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, g, g, value=1 - beta2)
    below = torch._foreach_sqrt(v)
    torch._foreach_add_(below, eps)
    torch._foreach_mul_(below, _grown(age, beta1))  # both factors are negative, as the step is below
    grown = _grown(age, beta2)
    torch._foreach_neg_(grown)
    torch._foreach_sqrt_(grown)
    torch._foreach_div_(below, grown)
    torch._foreach_addcdiv_(p, m, below, value=lr)
    if weight_decay:
        torch._foreach_mul_(p, 1 - lr * weight_decay)
    torch._foreach_add_(age, 1)


def _grown(age: list[Tensor], beta: float) -> list[Tensor]:
    """Returns beta^age - 1."""
    power = torch._foreach_mul(age, math.log(beta) if beta else -math.inf)
    torch._foreach_expm1_(power)
    return power

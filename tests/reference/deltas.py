"""Slow, plain versions of the rounds of SpIEL and SEFT, one number at a time, and a run of a method on one layer."""

from __future__ import annotations

import torch

from harness.tuning.aged import AgedAdamW
from harness.tuning.bits import Bits


def exchange(indices, values, candidates, sums, share):
    """The pairs (slot, candidate) that change, all winners and the candidates after them; all arguments are lists."""
    number = int(len(values) * share)
    dropped = sorted(range(len(values)), key=lambda slot: abs(values[slot]))[:number]
    leaving = {indices[slot] for slot in dropped}
    staying = set(indices) - leaving
    ranked = sorted(range(len(candidates)), key=lambda c: -abs(sums[c]))
    ranked = [c for c in ranked if candidates[c] not in staying]
    grown, spare = ranked[:number], ranked[number:]
    won = {candidates[c] for c in grown}
    slots = [slot for slot in dropped if indices[slot] not in won]
    chosen = [c for c in grown if candidates[c] not in leaving]
    return list(zip(slots, chosen, strict=False)), grown, spare


def seft_round(layer, share, age, betas, magnitude=False, exempt=True):
    """Drop, grow, adapt: changes the lists of a layer in place.

    `layer` holds weight, keep, indices, values, age, exp_avg, exp_avg_sq, candidates, sums, squares, count, weak and
    weak_sums; weight and keep are flat.
    """

    def place(slot, c):
        layer["indices"][slot] = layer["candidates"][c]
        layer["values"][slot] = 0.0
        layer["age"][slot] = float(max(age, 1))
        layer["exp_avg"][slot] = layer["sums"][c] / layer["count"] * (1 - betas[0] ** age)
        layer["exp_avg_sq"][slot] = layer["squares"][c] / layer["count"] * (1 - betas[1] ** age)

    keep, candidates = layer["keep"], layer["candidates"]
    pairs, grown, spare = exchange(layer["indices"], layer["values"], candidates, layer["sums"], share)
    for slot, c in pairs:
        place(slot, c)
    revived = [candidates[c] for c in grown if not keep[candidates[c]]]
    for i in revived:
        keep[i] = True
    young = {candidates[c] for _, c in pairs} | set(revived) if exempt else set()

    whole = list(layer["weight"])
    slot_at = {}
    for slot, i in enumerate(layer["indices"]):
        whole[i] += layer["values"][slot]
        slot_at[i] = slot
    slope = dict(zip(layer["weak"], layer["weak_sums"], strict=True))
    scores = {}
    for i in range(len(keep)):
        if keep[i] and i not in young:
            if magnitude:
                scores[i] = abs(whole[i])
            elif whole[i] == 0:
                scores[i] = 0.0
            elif i in slope:
                scores[i] = abs(whole[i] * slope[i] / layer["count"])
    pool = sorted(scores, key=lambda i: (scores[i], i))

    first = pool[: len(revived)]
    wanted = sum(i in slot_at for i in first)
    free = [c for c in spare if keep[candidates[c]] and candidates[c] not in slot_at and candidates[c] not in first]
    free = free[:wanted]
    taken = {candidates[c] for c in free}
    leaving, room = [], len(free)
    for i in pool:
        if len(leaving) == len(revived):
            break
        if i in taken or (i in slot_at and not room):
            continue
        room -= i in slot_at
        leaving.append(i)
    for slot, c in zip(sorted(slot_at[i] for i in leaving if i in slot_at), free, strict=False):
        place(slot, c)
    for i in leaving:
        keep[i] = False
        layer["weight"][i] = 0.0


def run(method, weight, keep, steps, *, noise=1.0, micro=1, seed=0, lr=0.02, **options):
    """Trains one layer of a method's on a noisy quadratic and yields (step, weight, keep, trained, moments) after each
    update; `weight` and `keep` are changed.

    The layer's dense gradient is `curve * (whole - target) + noise`: its input is the identity.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    target = torch.randn(weight.shape, generator=generator)
    curve = torch.rand(weight.shape, generator=generator) + 0.1

    def taken(verb, *given):
        function = getattr(method, verb)
        return function(*given, **{k: v for k, v in options.items() if k in (function.__kwdefaults__ or {})})

    torch.manual_seed(seed + 2)
    values = torch.nn.Parameter(taken("prepare", weight, keep)["values"])
    trained = {"values": values, **taken("state", weight, keep)}
    optimizer = AgedAdamW([values], lr=lr)
    for step in range(1, steps + 1):
        for _ in range(micro):
            y = taken("adapt", torch.eye(weight.shape[1]), weight, Bits.of(keep), trained)
            slope = curve * (y.detach().T - target) + noise * torch.randn(weight.shape, generator=generator)
            y.backward(slope.T / micro)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            taken("evolve", weight, keep, trained, {"values": optimizer.state[values]}, step, steps)
        yield step, weight, keep, trained, optimizer.state[values]

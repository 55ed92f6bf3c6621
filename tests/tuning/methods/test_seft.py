from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.keep import apply, verify
from harness.tuning import attach, checkpoint, session
from harness.tuning.methods import _deltas, _exchange, seft, spiel
from harness.tuning.optimizer import adamw

ROUNDS = {"density": 0.1, "interval": 6, "window": 3}


def layer(seed=0, rows=12, columns=20, live=0.4):
    """A pruned weight and its mask."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, columns, generator=generator) < live
    return torch.randn(rows, columns, generator=generator) * keep, keep


def after_a_round(slow, weight, keep, **options):
    """The state and the moments after the first round of a longer run; weight and mask are changed."""
    return next(islice(slow("deltas").run(seft, weight, keep, 30, **ROUNDS, **options), 2, None))[3:]


def check(weight, keep, trained, size):
    indices = trained["indices"].long()
    assert len(indices.unique()) == len(indices) == len(trained["values"])
    assert int(keep.sum()) == size and not weight[~keep].any()
    outside = ~keep.view(-1)[indices]
    assert not trained["values"][outside].any()
    x = torch.randn(5, weight.shape[1])
    merged = seft.merge(weight, keep, trained)
    assert not merged[~keep].any()
    torch.testing.assert_close(seft.adapt(x, weight, keep, trained), x @ merged.T)


@settings(max_examples=40)
@given(
    st.data(),
    st.integers(0, 10**6),
    st.integers(1, 14),
    st.integers(4, 24),
    st.floats(0.05, 0.95),
    st.floats(0.01, 0.9),
)
def test_size_of_mask_and_budget_are_constant(slow, data, seed, rows, columns, live, density):
    weight, keep = layer(seed, rows, columns, live)
    size, number = int(keep.sum()), max(1, int(density * keep.numel()))
    options = {
        "density": density,
        "interval": data.draw(st.integers(3, 9)),
        "window": data.draw(st.integers(1, 2)),
        "drop": data.draw(st.floats(0, 1)),
        "policy": data.draw(st.sampled_from(["cosine", "linear"])),
        "score": data.draw(st.sampled_from(["sensitivity", "magnitude"])),
        "sensitivity": data.draw(st.sampled_from(["window", "last"])),
        "initial": data.draw(st.sampled_from(["live", "all"])),
        "newborn": data.draw(st.sampled_from(["seeded", "zero"])),
        "exempt": data.draw(st.booleans()),
        "reactivate": data.draw(st.booleans()),
    }
    if size < number or (options["reactivate"] and _deltas.pattern(keep)):
        with pytest.raises(Problem):
            seft.prepare(weight, keep, density=density, reactivate=options["reactivate"])
        return
    before = keep.clone()
    for *_, trained, _ in slow("deltas").run(seft, weight, keep, 20, micro=1 + seed % 2, seed=seed, **options):
        check(weight, keep, trained, size)
    if not options["reactivate"]:
        assert torch.equal(keep, before)


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("exempt", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_a_round_is_that_of_the_plain_loops(slow, seed, exempt, magnitude):
    generator = torch.Generator().manual_seed(seed)
    weight, keep = layer(seed, 10, 14, live=0.3 + 0.05 * seed)
    if seed % 2:
        weight[keep & (torch.rand(weight.shape, generator=generator) < 0.1)] = 0  # revived once, dropped since
    live = keep.view(-1).nonzero().view(-1)
    n = min(len(live), 8 + 2 * seed)

    def some(numbers, size=n):
        return numbers[torch.randperm(len(numbers), generator=generator)[:size]]

    values = torch.randn(n, generator=generator) * (torch.rand(n, generator=generator) < 0.8)
    trained = {"values": values, **_exchange.tensors(some(live).int())}
    trained["candidates"].copy_(some(torch.arange(140)))
    trained["sums"].normal_(generator=generator)
    trained["squares"].copy_(torch.rand(n, generator=generator))
    trained["count"].fill_(4)
    if not magnitude:
        whole = seft.merge(weight, keep, trained).view(-1)
        weak = some((keep.view(-1) & (whole != 0)).nonzero().view(-1))
        weak = torch.cat([weak, some(torch.arange(140)[~keep.view(-1) | (whole == 0)], n - len(weak))])
        trained |= {"weak": weak.int(), "weak_sums": torch.randn(n, generator=generator)}
    moments = {name: torch.rand(n, generator=generator) for name in ("age", "exp_avg", "exp_avg_sq")}
    plain = {k: v.flatten().tolist() for k, v in {"weight": weight, "keep": keep, **trained, **moments}.items()}
    plain["count"] = 4
    plain.setdefault("weak", [])
    plain.setdefault("weak_sums", [])
    slow("deltas").seft_round(plain, 0.2 * (1 + seed % 5), 4, (0.9, 0.999), magnitude, exempt)
    seft._round(weight, keep, trained, {**moments, "betas": (0.9, 0.999)}, 0.2 * (1 + seed % 5), 4, exempt, True)
    assert keep.flatten().tolist() == plain["keep"] and trained["indices"].tolist() == plain["indices"]
    found = {"weight": weight.flatten(), "values": values, **moments}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, torch.tensor(plain[name]), msg=name)


def test_a_round_revives_as_many_as_it_prunes_and_leaves_other_weights_alone(slow):
    weight, keep = layer()
    before, dense = keep.clone(), weight.clone()
    trained, _ = after_a_round(slow, weight, keep, drop=0.8)
    revived, gone = keep & ~before, before & ~keep
    assert revived.sum() == gone.sum() > 0 and not weight[gone].any()
    assert torch.equal(weight[keep & before], dense[keep & before])
    assert set(revived.view(-1).nonzero().view(-1).tolist()) <= set(trained["indices"].tolist())


def test_what_a_window_sums(slow):
    weight, keep = layer()
    trained = {"values": torch.nn.Parameter(seft.prepare(weight, keep, **{"density": 0.1})["values"])}
    trained |= seft.state(weight, keep, **ROUNDS)
    slopes = torch.randn(3, *weight.shape)
    for slope in slopes:
        seft.adapt(torch.eye(20), weight, keep, trained).backward(slope.T)
    n = len(trained["values"])
    largest = slopes[0].abs().view(-1).topk(n).indices
    assert set(trained["candidates"].tolist()) == set(largest.tolist()) and trained["count"] == 3
    at = trained["candidates"].long()
    torch.testing.assert_close(trained["sums"], slopes.sum(0).view(-1)[at])
    torch.testing.assert_close(trained["squares"], (slopes**2).sum(0).view(-1)[at])
    score = (weight * slopes[0]).abs().masked_fill(~keep, torch.inf).view(-1)
    assert set(trained["weak"].tolist()) == set(score.topk(n, largest=False).indices.tolist())
    torch.testing.assert_close(trained["weak_sums"], slopes.sum(0).view(-1)[trained["weak"].long()])
    seft.adapt(torch.eye(20), weight, keep, trained, sensitivity="last").backward(slopes[1].T)
    score = (weight * slopes[1]).abs().masked_fill(~keep, torch.inf).view(-1)
    assert set(trained["weak"].tolist()) == set(score.topk(n, largest=False).indices.tolist())
    torch.testing.assert_close(trained["weak_sums"], slopes[1].view(-1)[trained["weak"].long()])
    _exchange.close(trained)
    seft.adapt(torch.eye(20), weight, keep, trained).backward(slopes[0].T)
    torch.testing.assert_close(trained["sums"], (slopes.sum(0) + slopes[1]).view(-1)[at])


def test_without_reactivation_and_all_live_it_is_spiel(slow):
    run = slow("deltas").run
    options = {"interval": 7, "window": 3, "policy": "cosine", "density": 0.1, "initial": "all"}
    ends = []
    for method in (seft, spiel):
        weight, keep = layer(live=2.0)
        *_, last = run(method, weight, keep, 30, **options, reactivate=False)
        ends.append(last)
    (_, _, _, a, m), (_, _, _, b, v) = ends
    for name in ("values", "indices", "candidates", "sums", "squares", "count"):
        assert torch.equal(a[name], b[name]), name
    for name in ("age", "exp_avg", "exp_avg_sq"):
        assert torch.equal(m[name], v[name]), name


@pytest.mark.parametrize("seed", range(6))
def test_without_the_exemption_the_mask_never_moves_and_growth_is_that_without_reactivation(slow, seed):
    """Little noise: equal gradients would leave the deltas' sizes, and so which are dropped, to rounding."""
    found = {}
    for name, options in {"fixed": {"reactivate": False}, "control": {"exempt": False}, "seft": {}}.items():
        weight, keep = layer(seed, rows=30, columns=30, live=0.7)
        before = keep.clone()
        steps = slow("deltas").run(seft, weight, keep, 22, noise=0.2, seed=seed, **ROUNDS, **options)
        places = [set(trained["indices"].tolist()) for _, _, _, trained, _ in steps]
        found[name] = places[1:3], torch.equal(keep, before)
    assert found["control"] == found["fixed"] and found["fixed"][1] and not found["seft"][1]
    (start, first), _ = found["fixed"]
    assert len(first - start) > 5


def test_pruning_at_the_end_brings_the_mask_back_once(slow):
    weight, keep = layer()
    before, sizes = keep.clone(), []
    for *_, trained, _ in slow("deltas").run(seft, weight, keep, 24, prune="end", **ROUNDS):
        sizes.append(int(keep.sum()))
        assert not weight[~keep].any() and len(trained["indices"].unique()) == len(trained["indices"])
    assert sizes == sorted(sizes[:-1]) + sizes[-1:] and sizes[-2] > sizes[-1] == sizes[0] == int(before.sum())
    check(weight, keep, trained, sizes[0])
    assert not torch.equal(keep, before)


def test_newborn_moments_are_those_of_the_window_or_zero(slow):
    ages = {}
    for newborn in ("seeded", "zero"):
        weight, keep = layer()
        trained, moments = after_a_round(slow, weight, keep, newborn=newborn)
        fresh = trained["values"] == 0
        assert 0 < fresh.sum() < len(fresh)
        ages[newborn] = set(moments["age"][fresh].tolist())
        assert moments["exp_avg"][fresh].any() == moments["exp_avg_sq"][fresh].any() == (newborn == "seeded")
        assert ("squares" in trained) == (newborn == "seeded"), "held for nothing"
    assert ages == {"seeded": {3.0}, "zero": {1.0}}


@pytest.mark.parametrize("n, m", [(2, 4), (1, 2), (4, 8)])
def test_an_nm_mask_needs_a_fixed_pattern_and_keeps_it(slow, n, m):
    weight = torch.randn(12, 16)
    keep = torch.rand(12 * 16 // m, m).argsort(1).view(12, 16) < n
    weight *= keep
    with pytest.raises(Problem, match=f"every group of {m} keeps {n}"):
        seft.prepare(weight, keep)
    before = keep.clone()
    *_, (_, weight, keep, trained, _) = slow("deltas").run(seft, weight, keep, 20, reactivate=False, **ROUNDS)
    assert torch.equal(keep, before) and trained["values"].any()
    assert bool(((seft.merge(weight, keep, trained) != 0).view(-1, m).sum(1) <= n).all())


def test_more_values_than_weights_and_windows_without_end_are_refused():
    weight, keep = layer(live=0.1)
    with pytest.raises(Problem, match="cannot have 120 sparse deltas"):
        seft.prepare(weight, keep, density=0.5)
    with pytest.raises(Problem, match="does not end within an interval of 5"):
        seft.state(weight, keep, interval=5, window=5)
    assert seft.prepare(weight, torch.ones_like(keep), rank=2)["values"].shape == (2 * 32,)


class Run:
    """A model with SEFT attached, its optimiser, and steps that follow from their number."""

    def __init__(self, tiny, random_masks, batches, family="llama", method="seft:density=0.05,interval=4,window=2"):
        self.model, self.batch = tiny(family), batches[family]
        keeps = random_masks(self.model)
        apply(self.model, keeps)
        torch.manual_seed(5)
        self.attached = attach.attach(self.model, keeps, method)
        self.optimizer = adamw(self.model, lr=0.01, weight_decay=0.1, aged=True)

    def step(self, number, steps=12, **given):
        for part in range(2):
            batch = self.batch(seed=2 * number + part)
            (self.model(**batch, use_cache=False, **given).loss / 2).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        attach.evolve(self.attached, self.optimizer.state, number, steps)


@pytest.fixture
def run(tiny, masks, batches):
    return lambda **given: Run(tiny, masks, batches, **given)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_whole_model_keeps_its_sparsity_and_merges(run, batches, family):
    it = run(family=family)
    sizes = {name: int(keep.sum()) for name, keep in it.attached.keeps.items()}
    plain = {n: p.clone() for n, p in it.model.named_parameters() if not n.endswith("values")}
    first = {name: keep.clone() for name, keep in it.attached.keeps.items()}
    for number in range(1, 9):
        it.step(number)
        assert {name: int(keep.sum()) for name, keep in it.attached.keeps.items()} == sizes
        verify(it.model, it.attached.keeps)
    keeps = it.attached.keeps
    assert sum(not torch.equal(first[name], keeps[name]) for name in keeps) > len(keeps) / 2
    it.model.eval()
    with torch.no_grad():
        unmerged = it.model(**batches[family]()).logits
        attach.merge(it.attached)
        torch.testing.assert_close(it.model(**batches[family]()).logits, unmerged)
    verify(it.model, keeps)
    layers = {f"{name}.weight" for name in keeps}
    assert all(torch.equal(p, plain[n]) for n, p in it.model.named_parameters() if n not in layers)


def test_a_resumed_run_repeats_every_bit(run, tmp_path):
    whole, cut = run(), run()
    for number in range(1, 12):
        whole.step(number)
    for number in range(1, 6):  # within the second window
        cut.step(number)
    checkpoint.save(tmp_path, 5, cut.model, cut.optimizer)
    cut = run()
    start, _ = checkpoint.load(checkpoint.newest(tmp_path), cut.model, cut.optimizer)
    for number in range(start + 1, 12):
        cut.step(number)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, cut.model.state_dict()[name]), name


OPTIONS = {
    "data": "prose",
    "steps": 7,
    "lr": 5e-3,
    "warmup": 1,
    "schedule": "linear",
    "batch_size": 4,
    "accumulation": 2,
    "weight_decay": 0.1,
    "betas": [0.9, 0.95],
    "clip": 1.0,
    "precision": "fp32",
    "recompute": False,
    "seed": 3,
    "checkpoint_every": 3,
    "method": "seft:density=0.05,interval=3,window=1,drop=0.9",
    "loss": "cross_entropy",
}


def finish(session_run):
    """Runs a session to its end; returns what it returned."""
    while True:
        try:
            next(session_run)
        except StopIteration as end:
            return end.value


def test_a_session_that_is_closed_goes_on_to_the_same_bits_and_returns_the_moved_masks(run_parts, tmp_path):
    def parts():
        given, named = run_parts("llama", OPTIONS)
        apply(given[0], named["keeps"])
        return given, named

    given, named = parts()
    whole, before = given[0], {name: keep.clone() for name, keep in named["keeps"].items()}
    curve, summary, keeps = finish(session.fit(*given, tmp_path / "whole", **named))
    given, named = parts()
    begun = session.fit(*given, tmp_path / "cut", **named)
    for _ in range(4):
        next(begun)
    begun.close()
    given, named = parts()
    again, _, masks_again = finish(session.fit(*given, tmp_path / "cut", **named))
    assert again == curve
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, given[0].state_dict()[name]), name
    verify(whole, keeps)
    assert all(torch.equal(keeps[name], masks_again[name]) for name in keeps)
    assert all(int(keeps[name].sum()) == int(before[name].sum()) for name in keeps)
    assert any(not torch.equal(keeps[name], before[name]) for name in keeps)
    assert summary["trained_parameters"] == sum(max(1, int(0.05 * keep.numel())) for keep in keeps.values())


def test_gradient_checkpointing_counts_a_micro_batch_once_and_changes_nothing(run):
    plain, recomputed = run(), run()
    recomputed.model.gradient_checkpointing_enable({"use_reentrant": False})
    for it in (plain, recomputed):
        it.model.train()
        it.step(1)
    for layer_ in recomputed.attached.layers.values():
        assert layer_.tensors["count"] == 2
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(tensor, recomputed.model.state_dict()[name], msg=name)


def test_under_autocast_a_layer_computes_in_bf16_with_float32_deltas(run, batches):
    it = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        it.step(1), it.step(2)
        some = next(iter(it.attached.layers.values()))
        x = torch.randn(4, some.module.in_features)
        y = some.module(x)
        merged = seft.merge(some.module.weight, some.keep[:], some.tensors)
        assert torch.equal(y, torch.nn.functional.linear(x.bfloat16(), merged.bfloat16()))
    assert y.dtype == torch.bfloat16 and some.tensors["values"].dtype == torch.float32
    assert some.tensors["values"].any()

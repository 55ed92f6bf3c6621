from __future__ import annotations

import pytest
import torch
from torch.nn.functional import dropout

from harness import models, rooms
from harness.problems import Problem
from harness.tuning import attach
from harness.tuning.bits import Bits
from harness.tuning.methods import _masked_product, sparse_peft


def test_training_begins_at_the_pruned_model(slow):
    x, weight, keep, _, _ = slow("low_rank").parts(torch.float32)
    trained = sparse_peft.prepare(weight, keep, rank=4)
    torch.testing.assert_close(sparse_peft.adapt(x, weight, Bits.of(keep), trained, True), x @ weight.T)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("band", [2**19, 100])
@pytest.mark.parametrize("lead", [(3, 5), (7,), ()])
def test_outputs_and_gradients_are_those_of_the_definition(slow, scaled, band, lead, monkeypatch):
    monkeypatch.setattr(_masked_product, "CPU_BAND", band)
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = plain.parts(lead=lead)
    inputs = (x, *trained.values())
    y = sparse_peft.adapt(x, weight, Bits.of(keep), trained, True, alpha=6.0, scaled=scaled)
    expected = plain.masked(x, weight, keep, *trained.values(), 6 / 4 if scaled else 1)
    theirs = plain.gradients(expected, gradient, *inputs)
    torch.testing.assert_close(plain.gradients(y, gradient, *inputs), theirs, rtol=1e-10, atol=1e-10)


def test_dropout_is_on_the_adapter_alone(slow):
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = plain.parts()
    inputs = (x, *trained.values())
    torch.manual_seed(3)
    ours = plain.gradients(
        sparse_peft.adapt(x, weight, Bits.of(keep), trained, True, alpha=6.0, dropout=0.5), gradient, *inputs
    )
    torch.manual_seed(3)
    inner = dropout(x, 0.5)
    y = x @ weight.T + plain.masked(inner, torch.zeros_like(weight), keep, *trained.values(), 6 / 4)
    torch.testing.assert_close(ours, plain.gradients(y, gradient, *inputs), rtol=1e-10, atol=1e-10)
    still = sparse_peft.adapt(x, weight, Bits.of(keep), trained, False, alpha=6.0, dropout=0.5)
    torch.testing.assert_close(still, sparse_peft.adapt(x, weight, Bits.of(keep), trained, True, alpha=6.0))


def test_merged_it_computes_the_same_and_its_zeros_stay(slow):
    x, weight, keep, trained, _ = slow("low_rank").parts()
    merged = sparse_peft.merge(weight, keep, trained, alpha=6.0)
    torch.testing.assert_close(x @ merged.T, sparse_peft.adapt(x, weight, Bits.of(keep), trained, True, alpha=6.0))
    assert torch.equal(merged != 0, keep)


def test_training_draws_a_rank_and_the_middle_one_is_merged(slow):
    x, weight, keep, trained, _ = slow("low_rank").parts()

    def of(rank):
        a, b = trained.values()
        return slow("low_rank").masked(x, weight, keep, a[:rank], b[:, :rank], 16 / 4)

    torch.manual_seed(0)
    drawn = [sparse_peft.adapt(x.clone(), weight, Bits.of(keep), trained, True, ranks="4-3-2-1") for _ in range(40)]
    seen = {rank for rank in (4, 3, 2, 1) for y in drawn if torch.allclose(y, of(rank))}
    assert seen == {4, 3, 2, 1}
    assert torch.allclose(sparse_peft.adapt(x, weight, Bits.of(keep), trained, False, ranks="4-3-2-1"), of(3))
    assert torch.allclose(x @ sparse_peft.merge(weight, keep, trained, ranks="4-3-2-1").T, of(3))


@pytest.mark.parametrize("recomputed", [False, True])
def test_layers_that_read_the_same_input_share_a_draw(tiny, batches, monkeypatch, recomputed):
    used, product = [], sparse_peft.product

    def noted(x, weight, keep, a, *rest):
        used.append((weight, len(a)))
        return product(x, weight, keep, a, *rest)

    monkeypatch.setattr(sparse_peft, "product", noted)
    model, batch = tiny().train(), batches["llama"]()
    if recomputed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    linears = [linear for block in models.blocks(model) for linear in block.linears]
    keeps = {linear.name: torch.ones_like(linear.module.weight, dtype=torch.bool) for linear in linears}
    attach.attach(model, keeps, "sparse_peft:rank=8,ranks=8-7-6-5-4-3-2-1")
    name_of = {id(linear.module.weight): linear.name for linear in linears}
    draws = set()
    for _ in range(8):
        used.clear()
        model(**batch).loss.backward()
        drawn = [(name_of[id(weight)], rank) for weight, rank in used]
        ranks = dict(drawn)
        assert len(set(drawn)) == len(ranks) == len(linears) == len(used) // (1 + recomputed)
        for name in ranks:
            if name.endswith("q_proj"):
                assert ranks[name] == ranks[name.replace("q_proj", "k_proj")] == ranks[name.replace("q_proj", "v_proj")]
        draws.add(tuple(ranks.values()))
    assert len(draws) == 8 and all(len(set(ranks)) > 1 for ranks in draws)


def test_what_all_blocks_of_a_decoder_read_may_be_recomputed(tiny, batches):
    model, batch = tiny("t5").train(), batches["t5"]()
    linears = [linear for block in models.blocks(model) for linear in block.linears]
    keeps = {linear.name: torch.ones_like(linear.module.weight, dtype=torch.bool) for linear in linears}
    attach.attach(model, keeps, "sparse_peft:rank=8,ranks=8-7-6-5-4-3-2-1")
    grown = [p for p in model.parameters() if p.requires_grad]
    torch.nn.init.normal_(grown[-1], generator=torch.Generator().manual_seed(0))
    found = []
    for recomputed in (False, True):
        if recomputed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        torch.manual_seed(3)
        model(**batch).loss.backward()
        found.append([p.grad.clone() for p in grown if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 0
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def test_ranks_are_an_option_in_text():
    assert rooms.resolve("method", "sparse_peft:rank=32,ranks=32-24-16").options["ranks"] == "32-24-16"


@pytest.mark.parametrize("ranks", ["3-2", "4-5", "4-0", "4-x", "2-4"])
def test_ranks_that_cannot_be_are_a_problem(ranks):
    with pytest.raises(Problem, match="ranks"):
        sparse_peft.prepare(torch.zeros(8, 8), torch.ones(8, 8, dtype=torch.bool), rank=4, ranks=ranks)

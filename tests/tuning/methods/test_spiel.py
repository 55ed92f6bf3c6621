from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.keep import apply, verify
from harness.tuning import attach
from harness.tuning.methods import _deltas, _exchange, spiel
from harness.tuning.optimizer import adamw


def layer(seed=0, rows=12, columns=20, live=0.4):
    """A pruned weight and its mask."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, columns, generator=generator) < live
    return torch.randn(rows, columns, generator=generator) * keep, keep


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 1), st.sampled_from(["linear", "cosine"]), st.integers(3, 9))
def test_positions_are_distinct_and_within_its_own_budget(slow, seed, density, policy, interval):
    weight, keep = layer(seed)
    dense, number = weight.clone(), max(1, int(density * keep.numel()))
    most = int(keep.sum()) + number
    options = {"density": density, "policy": policy, "interval": interval, "window": 2, "drop": 0.5}
    for *_, trained, _ in slow("deltas").run(spiel, weight, keep, 20, seed=seed, **options):
        indices = trained["indices"].long()
        assert len(indices.unique()) == len(indices) == number
        assert torch.equal(weight, dense) and keep.view(-1)[indices].all()
        merged = spiel.merge(weight, keep, trained)
        assert not merged[~keep].any() and int(keep.sum()) <= most
        x = torch.randn(3, 20)
        torch.testing.assert_close(spiel.adapt(x, weight, keep, trained), x @ merged.T)


@pytest.mark.parametrize("number", [1, 17, 60])
def test_an_exchange_is_that_of_the_plain_loops(slow, number):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        kept = _exchange.tensors(torch.randperm(120, generator=generator)[:number].int())
        kept["candidates"].copy_(torch.randperm(120, generator=generator)[:number])
        kept["sums"].copy_(torch.randn(number, generator=generator).round())  # some are equal
        values = torch.randn(number, generator=generator).round()
        given = [t.tolist() for t in (kept["indices"], values, kept["candidates"], kept["sums"])]
        pairs, grown, spare = slow("deltas").exchange(*given, seed / 19)
        found = _exchange.choose(values, kept, seed / 19)
        assert list(zip(found.slots.tolist(), found.chosen.tolist(), strict=True)) == pairs
        assert found.grown.tolist() == grown and found.spare.tolist() == spare


def test_a_kept_weight_that_is_0_stays_in_the_mask_when_its_delta_leaves(slow):
    weight, keep = layer()
    weight[keep & (torch.rand(weight.shape) < 0.5)] = 0
    given = keep.clone()
    options = {"density": 0.3, "interval": 3, "window": 2, "drop": 1.0}
    for *_, trained, _ in slow("deltas").run(spiel, weight, keep, 20, **options):
        own = torch.zeros_like(keep).view(-1).index_fill(0, trained["indices"].long(), True).view_as(keep)
        assert torch.equal(keep, given | own)


def test_bands_name_and_sum_what_the_whole_gradient_would(monkeypatch):
    weight, keep = layer(rows=30)
    found = []
    for band in (2**21, 40):
        monkeypatch.setattr(_deltas, "CPU_BAND", band)
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        trained = {"values": spiel.prepare(weight, keep, density=0.1)["values"].normal_(generator=generator)}
        trained["values"].requires_grad_()
        trained |= spiel.state(weight, keep, density=0.1)
        for _ in range(3):
            x = torch.randn(7, 20, generator=generator)
            spiel.adapt(x, weight, keep, trained).backward(torch.randn(7, 30, generator=generator))
        order = trained["candidates"].argsort()
        looked = [trained[name][order] for name in ("candidates", "sums", "squares")]
        found.append([trained["values"].grad, *looked, trained["count"]])
    torch.testing.assert_close(*found)


def test_the_weight_is_bit_by_bit_as_before_even_where_a_product_fails():
    weight, keep = layer()
    trained = {"values": torch.full((60,), 0.1, requires_grad=True)}
    trained |= _exchange.tensors(torch.arange(0, 240, 4, dtype=torch.int32))
    before = weight.clone()
    spiel.adapt(torch.randn(3, 20), weight, keep, trained).sum().backward()
    assert torch.equal(weight, before)
    with pytest.raises(RuntimeError):
        spiel.adapt(torch.randn(3, 21), weight, keep, trained)
    assert torch.equal(weight, before)


def test_windows_and_shares_are_those_of_the_release():
    """Hooks from the start and where (t + 1) % 20 == 0; an exchange where t % 20 == 5, all slots at first if linear."""
    assert [t for t in range(1, 101) if _exchange.ends(t, 20, 5)] == [5, 25, 45, 65, 85]
    assert [t for t in range(1, 101) if _exchange.begins(t, 100, 20, 5)] == [19, 39, 59, 79]
    assert [_exchange.updates(t, 5) for t in (5, 25, 45)] == [5, 6, 6]
    linear = [_exchange.share(t, 100, 5, 0.2, "linear") for t in (5, 25, 85)]
    assert linear == pytest.approx([1, 0.15, 0.03])
    cosine = [_exchange.share(t, 100, 5, 0.2, "cosine") for t in (5, 50, 100)]
    assert cosine == pytest.approx([0.1 * (1 + math.cos(math.pi / 20)), 0.1, 0])


def test_gradients_are_those_of_a_dense_weight_with_the_deltas_added():
    torch.manual_seed(0)
    weight = torch.randn(6, 8, dtype=torch.float64)
    values = torch.randn(5, dtype=torch.float64, requires_grad=True)
    trained = {"values": values, **_exchange.tensors(torch.tensor([3, 0, 47, 21, 22], dtype=torch.int32))}
    _exchange.close(trained)
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, values: spiel.adapt(x, weight, None, {**trained, "values": values}), (x, values)
    )
    slope = torch.randn(2, 3, 6, dtype=torch.float64)
    found = torch.autograd.grad(spiel.adapt(x, weight, None, trained), (x, values), slope)
    whole = weight.clone().view(-1).index_add(0, trained["indices"].long(), values).view(6, 8)
    expected = torch.autograd.grad(x @ whole.T, (x, values), slope)
    torch.testing.assert_close(found, expected)


def test_between_forward_and_backward_only_input_weight_values_and_positions_are_kept():
    weight, keep = layer()
    trained = {"values": torch.nn.Parameter(spiel.prepare(weight, keep)["values"]), **spiel.state(weight, keep)}
    x, packed = torch.randn(7, 20, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        spiel.adapt(x, weight, keep, trained).sum().backward()
    assert {t.data_ptr() for t in packed} == {t.data_ptr() for t in (x, weight, trained["values"], trained["indices"])}


SHARE = """
import sys, torch
from harness.tuning.methods import spiel
rank, where, rows = int(sys.argv[1]), sys.argv[2], torch.load(sys.argv[3])
torch.distributed.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
trained = rows["trained"]
trained["values"].requires_grad_()
y = spiel.adapt(rows["x"][rank::2], rows["weight"], None, trained)
y.backward(2 * rows["slope"][rank::2])
torch.save({k: trained[k] for k in ("candidates", "sums", "squares", "count")}, f"{where}/{rank}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_several_processes_look_at_the_mean_of_their_gradients(tmp_path):
    weight, keep = layer()
    trained = {"values": spiel.prepare(weight, keep, density=0.1)["values"], **spiel.state(weight, keep, density=0.1)}
    x, slope = torch.randn(8, 20), torch.randn(8, 12)
    torch.save({"trained": trained, "weight": weight, "x": x, "slope": slope}, tmp_path / "given.pt")
    command = [sys.executable, "-c", SHARE]
    running = [subprocess.Popen([*command, str(k), tmp_path, tmp_path / "given.pt"]) for k in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    trained["values"].requires_grad_()
    spiel.adapt(x, weight, keep, trained).backward(slope)
    first, second = (torch.load(tmp_path / f"{k}.pt") for k in range(2))
    order = trained["candidates"].argsort()
    for name, value in first.items():
        assert torch.equal(value, second[name])
        if name != "count":
            torch.testing.assert_close(value[first["candidates"].argsort()], trained[name][order])


def test_fp16_whose_scale_moves_is_refused():
    weight, keep = layer()
    trained = {"values": spiel.prepare(weight, keep)["values"], **spiel.state(weight, keep)}
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(Problem, match="in fp16 these change their scale"):
        spiel.adapt(torch.randn(2, 20), weight, keep, trained)


def test_budget_is_a_density_or_that_of_a_lora():
    weight, keep = layer()
    assert spiel.prepare(weight, keep)["values"].shape == (2,)
    assert spiel.prepare(weight, keep, density=0.1, rank=3)["values"].shape == (3 * (12 + 20),)
    shapes = [(4096, 4096)] * 4 + [(11008, 4096)] * 3
    assert sum(_deltas.budget(shape, 0.01, 32) for shape in shapes) == 2498560, "SpIEL's script counts this for 7B"
    with pytest.raises(Problem, match="cannot have 288 sparse deltas: it has 240 weights"):
        spiel.state(weight, keep, rank=9)
    with pytest.raises(Problem, match="does not end"):
        spiel.state(weight, keep, interval=5)


def test_an_nm_mask_is_refused():
    keep = torch.rand(12, 4, 4).argsort(2).view(12, 16) < 2
    with pytest.raises(Problem, match="every group of 4 keeps 2") as caught:
        spiel.prepare(torch.randn(12, 16) * keep, keep)
    assert "seft:reactivate=false" in caught.value.hint
    assert spiel.budget(keep, density=0.1) == 12 * 8 + 19


def test_positions_follow_the_seed_and_are_spread_over_pruned_weights_too():
    weight, keep = layer()
    found = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        found.append(spiel.state(weight, keep, density=0.5)["indices"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[0].sort().values) and found[0].dtype == torch.int32
    assert 0 < keep.view(-1)[found[0].long()].sum() < len(found[0])


def test_a_model_of_bf16_trains_float32_deltas(slow):
    weight, keep = layer()
    weight = weight.bfloat16()
    values = torch.nn.Parameter(spiel.prepare(weight, keep, density=0.2)["values"])
    trained = {"values": values, **spiel.state(weight, keep, density=0.2)}
    spiel.adapt(torch.randn(4, 20).bfloat16(), weight, keep, trained).sum().backward()
    assert values.dtype == values.grad.dtype == trained["sums"].dtype == torch.float32
    assert spiel.merge(weight, keep, trained).dtype == torch.bfloat16


def test_on_a_pruned_model_its_mask_grows_by_its_own_budget_and_the_merged_model_fits_it(tiny, masks, batches):
    model = tiny()
    keeps = {name: keep.clone() for name, keep in masks(model).items()}
    apply(model, keeps)
    pruned = {name: int(keep.sum()) for name, keep in keeps.items()}
    attached = attach.attach(model, keeps, "spiel:density=0.05,interval=4,window=2")
    assert [p for p in model.parameters() if p.requires_grad] == [
        layer.trained["values"] for layer in attached.layers.values()
    ]
    optimizer = adamw(model, lr=0.01, aged=True)
    for step in range(1, 8):
        model(**batches["llama"](seed=step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        attach.evolve(attached, optimizer.state, step, 7)
    after = attached.keeps
    attach.merge(attached)
    verify(model, after)
    for name, keep in after.items():
        assert pruned[name] < int(keep.sum()) <= pruned[name] + max(1, int(0.05 * keep.numel()))
    assert all(p.requires_grad for p in model.parameters())

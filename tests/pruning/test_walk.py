from __future__ import annotations

from functools import partial

import pytest
import torch

from harness import models
from harness.problems import Problem
from harness.pruning import recipe
from harness.pruning.walk import walk

FAMILIES = ("llama", "mpt", "opt", "t5", "vit", "whisper")
NEEDS = ("norm", "gram")


@torch.no_grad()
def halve(block):
    """Prunes half of every linear by magnitude: a rule that needs no statistic, so rounding cannot change the masks."""
    for linear in block.linears:
        weight = linear.module.weight
        weight[weight.abs() < weight.abs().median()] = 0


def statistics(model, batches, prune=halve, needs=NEEDS):
    """All statistics of one walk that prunes as it goes."""
    found = {}
    for block, inputs in walk(model, batches, needs):
        found |= {name: dict(values) for name, values in inputs.items()}
        prune(block)
    return found


def assert_same(found, other, **tolerance):
    assert found.keys() == other.keys()
    for name in found:
        for need in found[name]:
            pair = found[name][need], other[name][need]
            torch.testing.assert_close(*pair, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


@pytest.fixture(params=FAMILIES)
def case(request, tiny_models):
    model, processor = tiny_models.tiny(request.param)
    return request.param, model, tiny_models.batches(request.param, processor)


@pytest.mark.filterwarnings("ignore")
def test_statistics_are_those_of_a_whole_forward_pass_for_every_block(case, tiny_models, reference):
    family, model, batches = case
    found = statistics(model, batches)
    again, _ = tiny_models.tiny(family)
    rows = reference.walk(again, models.blocks(again), batches, partial(models.valid, again), halve)
    assert set(found) == {linear.name for block in models.blocks(model) for linear in block.linears} == set(rows)
    for name, x in rows.items():
        torch.testing.assert_close(found[name]["norm"].double(), x.square().mean(0).sqrt(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[name]["gram"].double(), x.T @ x / len(x), rtol=1e-3, atol=1e-5)
    for parameter, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter, other)


def test_a_later_block_sees_the_pruned_blocks_before_it(case):
    _, model, batches = case
    first, last = models.blocks(model)[0].linears[0].name, models.blocks(model)[-1].linears[0].name
    dense = statistics(model, batches, prune=lambda block: None)
    pruned = statistics(model, batches)
    torch.testing.assert_close(dense[first]["norm"], pruned[first]["norm"])
    assert not torch.allclose(dense[last]["norm"], pruned[last]["norm"], rtol=1e-3)


def test_batch_size_and_padding_change_nothing(case, tiny_models):
    family, model, _ = case
    _, processor = tiny_models.tiny(family)
    one = tiny_models.batches(family, processor, size=1)
    assert_same(
        statistics(model, one, prune=lambda block: None),
        statistics(model, tiny_models.batches(family, processor, size=6), prune=lambda block: None),
        rtol=1e-3,
        atol=1e-5,
    )


def test_layers_that_read_one_tensor_share_one_matrix(tiny_models):
    model, processor = tiny_models.tiny("t5")
    for block, inputs in walk(model, tiny_models.batches("t5", processor), ("gram",)):
        gram = {name.removeprefix(block.name + "."): values["gram"] for name, values in inputs.items()}
        assert gram["layer.0.SelfAttention.q"] is gram["layer.0.SelfAttention.v"]
        if block.stack == "decoder":
            assert gram["layer.1.EncDecAttention.k"] is gram["layer.1.EncDecAttention.v"]
            assert gram["layer.1.EncDecAttention.q"] is not gram["layer.1.EncDecAttention.k"]


def test_without_needs_there_is_no_forward_pass(case):
    _, model, _ = case
    walked = list(walk(model, (), ()))
    assert [block.name for block, _ in walked] == [block.name for block in models.blocks(model)]
    assert all(inputs == {} for _, inputs in walked)


def is_restored(model):
    modules = list(model.modules())
    return not any("forward" in vars(m) or m._forward_pre_hooks for m in modules) and torch.is_grad_enabled()


def test_everything_is_restored_at_the_end(case):
    _, model, batches = case
    model.train()
    model.get_input_embeddings().eval()
    modes = [module.training for module in model.modules()]
    logits = model.eval()(**batches[0]).logits
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    statistics(model, batches, prune=lambda block: None)
    assert [module.training for module in model.modules()] == modes and is_restored(model)
    assert torch.equal(model.eval()(**batches[0]).logits, logits)


@pytest.mark.parametrize("step", [0, 1])
def test_everything_is_restored_after_an_exception_of_the_listener(case, step):
    _, model, batches = case
    with pytest.raises(ZeroDivisionError):
        for index, _ in enumerate(walk(model.train(), batches, ("norm",))):
            if index == step:
                1 / 0
    assert is_restored(model) and model.training


@pytest.mark.parametrize("path", ["collect", "propagate", "start"])
def test_everything_is_restored_after_an_exception_inside_the_model(tiny_models, path, monkeypatch):
    model, processor = tiny_models.tiny("llama")
    batches = tiny_models.batches("llama", processor)
    layers = model.model.layers
    broken = {"collect": layers[1].mlp, "propagate": layers[0].mlp, "start": model.model.rotary_emb}
    original, calls = broken[path].forward, []

    def fail(*args, **kwargs):
        calls.append(1)
        if len(calls) > {"collect": 1, "propagate": len(batches), "start": 1}[path]:
            raise RuntimeError("broken")
        return original(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="broken"):
        patch.setattr(broken[path], "forward", fail)
        list(walk(model, batches, ("norm",)))
    broken[path].__dict__.pop("forward", None)
    assert is_restored(model)


def test_closing_early_restores(case):
    _, model, batches = case
    steps = walk(model, batches, ("norm",))
    next(steps)
    assert "forward" in vars(models.blocks(model)[0].module)
    steps.close()
    assert is_restored(model)


def test_the_model_may_be_called_while_the_walk_waits(case):
    _, model, batches = case
    before = model(**batches[0]).logits
    steps = walk(model, batches, ("norm",))
    next(steps)
    assert torch.equal(model(**batches[0]).logits, before) and torch.is_grad_enabled()
    steps.close()


def test_no_batches_is_a_problem(tiny_models):
    model, _ = tiny_models.tiny("mpt")
    with pytest.raises(Problem, match="no calibration batch"):
        list(walk(model, [], ("norm",)))
    assert is_restored(model)


def test_a_block_that_is_never_met_is_named(tiny_models):
    model, processor = tiny_models.tiny("llama")
    model.config.num_hidden_layers = 3
    with pytest.raises(Problem, match=r"model\.layers\.3: .*without meeting"):
        list(walk(model, tiny_models.batches("llama", processor), ("norm",)))
    assert is_restored(model)


def test_blocks_in_another_order_are_named(tiny_models, monkeypatch):
    model, processor = tiny_models.tiny("llama")
    blocks = models.blocks(model)
    monkeypatch.setattr(models, "blocks", lambda _: [blocks[1], blocks[0], *blocks[2:]])
    with pytest.raises(Problem, match=r"model\.layers\.1: .*met model\.layers\.0 in its place"):
        list(walk(model, tiny_models.batches("llama", processor), ("norm",)))
    assert is_restored(model)


def test_a_layer_that_no_token_reaches_is_named(tiny_models):
    model, processor = tiny_models.tiny("t5")
    batch = tiny_models.batches("t5", processor)[0]
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with pytest.raises(Problem, match=r"decoder\.block\.0\.layer\.0\.SelfAttention\.q: no calibration token"):
        list(walk(model, [batch], ("gram",)))


@pytest.mark.parametrize("need", NEEDS)
def test_a_statistic_that_is_not_finite_is_named(tiny_models, need):
    model, processor = tiny_models.tiny("mpt")
    with torch.no_grad():
        model.transformer.blocks[1].norm_2.weight[3] = float("inf")
    with pytest.raises(Problem, match=rf"transformer\.blocks\.1\.ffn\.up_proj: the statistic '{need}'"):
        list(walk(model, tiny_models.batches("mpt", processor), (need,)))
    assert is_restored(model)


def test_a_model_of_half_precision_is_fed_in_its_precision(tiny_models):
    model, processor = tiny_models.tiny("whisper")
    found = statistics(model.bfloat16(), tiny_models.batches("whisper", processor), prune=lambda block: None)
    assert all(values["gram"].dtype == torch.float32 for values in found.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(case, tiny_models):
    family, model, batches = case
    here = statistics(model, batches)
    there = statistics(tiny_models.tiny(family)[0].cuda(), batches)
    assert_same({n: {k: v.cpu() for k, v in values.items()} for n, values in there.items()}, here, rtol=1e-2, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_pruned_layer_stays_on_cuda(tiny_models):
    model, processor = tiny_models.tiny("llama")
    how = recipe.recipe("solver", "sparsegpt", "2:4")
    for block, inputs in walk(model.cuda(), tiny_models.batches("llama", processor), how.needs):
        for linear in block.linears:
            keep, _ = recipe.prune(linear, inputs[linear.name], 0.5, how)
            assert keep.is_cuda and linear.module.weight.is_cuda


def test_a_collecting_run_ends_at_its_last_linear(tiny_models):
    model, processor = tiny_models.tiny("llama")
    batches, calls = tiny_models.batches("llama", processor), {}
    for name in ("q_proj", "down_proj"):
        for path, module in model.named_modules():
            if path.endswith(name):
                module.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    blocks = len(list(walk(model, batches, ["norm"])))
    assert calls["q_proj"] == (2 * blocks - 1) * len(batches)  # the last block is not propagated
    assert calls["down_proj"] == (blocks - 1) * len(batches)

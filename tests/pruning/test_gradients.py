from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, LlamaConfig, LlamaForCausalLM

from harness import models
from harness.models import Block, Linear
from harness.problems import Problem
from harness.pruning.gradients import GRADIENTS, gradients

FAMILIES = ("llama", "mpt", "opt", "t5", "vit", "whisper")


@pytest.fixture(scope="module")
def made(tiny_models):
    """Family -> its tiny model and batches, made once."""
    found = {}

    def make(family):
        if family not in found:
            model, processor = tiny_models.tiny(family)
            found[family] = model.eval(), tiny_models.batches(family, processor)
        return found[family]

    return make


def linears_of(model):
    return {linear.name: linear.module for block in models.blocks(model) for linear in block.linears}


def nll(model, batch):
    """Sum of the scored labels' negative log-likelihoods, from the logits, and how many they are."""
    logits, labels = model(**batch, use_cache=False).logits, batch["labels"]
    if models.causal(model):
        logits, labels = logits[:, :-1], labels[:, 1:]
    return cross_entropy(logits[labels != -100], labels[labels != -100], reduction="sum"), int((labels != -100).sum())


def slow_gradients(model, batches):
    """One sum of all losses, one backward pass."""
    sums, counts = zip(*(nll(model, batch) for batch in batches), strict=True)
    linears = linears_of(model)
    found = torch.autograd.grad(sum(sums) / sum(counts), [module.weight for module in linears.values()])
    return dict(zip(linears, found, strict=True))


def one_by_one(batches):
    return [
        {key: value[i : i + 1] for key, value in batch.items()}
        for batch in batches
        for i in range(len(batch["labels"]))
    ]


def assert_near(ours, slow):
    assert ours.keys() == slow.keys()
    for name, value in slow.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5 * float(value.abs().max()), msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_gradient_of_the_mean_over_all_labels(made, family):
    model, batches = made(family)
    ours = gradients(model, batches)
    assert_near(ours, slow_gradients(model, batches))
    assert all(value.dtype == torch.float32 and value.count_nonzero() for value in ours.values())


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_norm_is_a_root_mean_square_over_the_sequences(made, family):
    model, batches = made(family)
    each = [slow_gradients(model, [sequence]) for sequence in one_by_one(batches)]
    slow = {name: torch.stack([g[name] for g in each]).square().mean(0).sqrt() for name in each[0]}
    assert_near(gradients(model, batches, "gradient_norm"), slow)


@pytest.mark.parametrize("need", GRADIENTS)
def test_the_batch_size_does_not_matter(made, tiny_models, need):
    model, batches = made("whisper")
    assert_near(gradients(model, batches, need), gradients(model, one_by_one(batches), need))


def test_labels_are_made_for_a_batch_without_them(made):
    model, batches = made("llama")
    bare = [{key: value for key, value in batch.items() if key != "labels"} for batch in batches]
    with_labels, without = gradients(model, batches), gradients(model, bare)
    assert all(torch.equal(with_labels[name], without[name]) for name in with_labels)
    assert all("labels" not in batch for batch in bare)


def test_an_encoder_decoder_needs_labels(made):
    model, batches = made("t5")
    with pytest.raises(Problem, match="has no labels"):
        gradients(model, [{"input_ids": batches[0]["input_ids"]}])


def test_a_batch_without_scored_labels_counts_for_nothing(made):
    model, batches = made("llama")
    silent = {**batches[0], "labels": torch.full_like(batches[0]["labels"], -100)}
    before, after = gradients(model, batches), gradients(model, [silent, *batches])
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(Problem, match="no label to take a gradient of"):
        gradients(model, [silent])


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(tiny_models, fails):
    model, processor = tiny_models.tiny("t5")
    model.train()
    frozen, graded = list(linears_of(model).values())[:2]
    frozen.weight.requires_grad_(False)
    graded.weight.grad = mark = torch.ones_like(graded.weight)
    model.shared.weight.requires_grad_(False)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    batches = tiny_models.batches("t5", processor)
    if fails:
        with pytest.raises(Problem):
            gradients(model, [*batches, {"input_ids": batches[0]["input_ids"]}])
    else:
        gradients(model, batches)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(module.training for module in model.modules())
    assert graded.weight.grad is mark and (mark == 1).all()
    assert all(parameter.grad is None for parameter in model.parameters() if parameter is not graded.weight)
    # nothing listens to backward passes any more
    loss = model(**batches[0]).loss
    loss.backward()
    assert frozen.weight.grad is None and not torch.equal(graded.weight.grad, torch.ones_like(mark))


def test_dropout_is_off(tiny_models):
    model, processor = tiny_models.tiny("t5")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    batches = tiny_models.batches("t5", processor)
    at_rest = gradients(model.eval(), batches)
    in_training = gradients(model.train(), batches)
    assert all(torch.equal(at_rest[name], in_training[name]) for name in at_rest)


def test_it_works_where_the_caller_takes_no_gradients(made):
    model, batches = made("llama")
    with torch.no_grad():
        inside = gradients(model, batches)
    outside = gradients(model, batches)
    assert all(torch.equal(inside[name], outside[name]) for name in outside)


def test_half_precision_is_summed_in_float32(tiny_models):
    model, processor = tiny_models.tiny("llama")
    batches = tiny_models.batches("llama", processor)
    exact, half = gradients(model, batches), gradients(model.bfloat16(), batches)
    for name, value in exact.items():
        assert half[name].dtype == torch.float32
        assert float((half[name] - value).norm() / value.norm()) < 0.05, name


def test_only_the_blocks_that_are_asked_for(made):
    model, batches = made("llama")
    first = models.blocks(model)[0]
    one = [Block(first.name, first.module, first.stack, first.linears[:1])]
    ours = gradients(model, batches, blocks=one)
    assert list(ours) == [first.linears[0].name]
    assert torch.equal(ours[first.linears[0].name], gradients(model, batches)[first.linears[0].name])


def test_a_layer_that_the_loss_does_not_see_is_named(made):
    model, batches = made("llama")
    stray = Linear("a.stray.layer", nn.Linear(4, 4), "decoder", "attention")
    blocks = [*models.blocks(model), Block("a", nn.Module(), "decoder", (stray,))]
    with pytest.raises(Problem, match=r"a\.stray\.layer: the loss does not depend on this layer"):
        gradients(model, batches, blocks=blocks)


def test_a_gradient_that_is_not_finite_is_named(tiny_models):
    model, processor = tiny_models.tiny("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(Problem, match=r"model\.layers\.0\.self_attn\.q_proj: its gradient is not finite"):
        gradients(model, tiny_models.batches("llama", processor))


def test_an_unknown_kind_is_refused(made):
    model, batches = made("llama")
    with pytest.raises(ValueError, match="'hessian' is none of"):
        gradients(model, batches, "hessian")


@pytest.mark.parametrize(("dtype", "most"), [("float16", 0.005), ("bfloat16", 0.02)])
@pytest.mark.parametrize("need", GRADIENTS)
def test_small_gradients_do_not_vanish_in_half_precision(need, dtype, most):
    """A mean over 1,022 labels of 32,000 words: its gradient by a logit is below float16's least number."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32_000, **sizes)).eval()
        batch = {"input_ids": torch.randint(32_000, (2, 512))}
    exact, half = gradients(model, [batch], need), gradients(model.to(getattr(torch, dtype)), [batch], need)
    for name, value in exact.items():
        assert float((half[name] - value).norm() / value.norm()) < most, name


def test_a_model_without_a_loss_is_named(tiny_models):
    _, processor = tiny_models.tiny("vit")
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    model = DeiTForImageClassificationWithTeacher(DeiTConfig(num_attention_heads=2, num_labels=3, **sizes))
    with pytest.raises(Problem, match="DeiTForImageClassificationWithTeacher gives no loss"):
        gradients(model, tiny_models.batches("vit", processor))

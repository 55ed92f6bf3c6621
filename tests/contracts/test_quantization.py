"""What every rounding promises; a new file in the room is checked here by itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness import models
from harness.models import Linear
from harness.pruning import keep
from harness.pruning.patterns import nm
from harness.pruning.statistics import STATISTICS
from harness.quantization import activations, codes
from harness.quantization.activations import Dynamic
from harness.quantization.whole import how, masks, quantise, quantise_model
from harness.rooms import ROOMS

FAMILIES = ("llama", "mpt", "opt", "t5", "vit", "whisper")
ROUNDINGS = ROOMS["rounding"].names()


def sparse_model(tiny_models, family, n=2, m=4):
    """A tiny model whose linears keep N of M by magnitude, its batches and masks."""
    model, processor = tiny_models.tiny(family)
    keeps = {}
    with torch.no_grad():
        for block in models.blocks(model):
            for linear in block.linears:
                keeps[linear.name] = nm.choose(linear.module.weight.abs(), 1 - n / m, n=n, m=m)
                linear.module.weight.masked_fill_(~keeps[linear.name], 0)
    return model, tiny_models.batches(family, processor), keeps


def quantised(model, batches, keeps, name, bits=8, **options):
    """A copy whose linears are quantised, and their codes."""
    model, found = copy.deepcopy(model), {}
    blocks = models.blocks(model)
    for layers, _ in quantise_model(model, blocks, batches, keeps, how(name, bits, **options)):
        found.update(layers)
    return model, found


def logits(model, batches):
    with torch.no_grad():
        return torch.cat([model(**batch).logits.flatten() for batch in batches])


@pytest.mark.parametrize("name", ROUNDINGS)
def test_every_rounding_says_in_a_line_what_it_is(name):
    summary = ROOMS["rounding"].method(name).summary
    assert summary.endswith(".") and len(summary) < 110


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_zeros_and_the_nm_mask_stay_on_every_family(tiny_models, family, name):
    model, batches, keeps = sparse_model(tiny_models, family)
    after, layers = quantised(model, batches, keeps, name)
    assert layers.keys() == keeps.keys()
    keep.verify(after, keeps)
    codes.verify(after, layers)
    for layer, mask in keeps.items():
        weight = after.get_submodule(layer).weight
        assert torch.equal(nm.choose(mask.float(), 0.5), mask) and (weight.view(-1, 4) != 0).sum(1).max() <= 2
        assert layers[layer].codes.dtype == torch.int8 and weight.count_nonzero() > 0.4 * weight.numel()
    changed = {name for name, value in after.named_parameters() if not torch.equal(value, model.get_parameter(name))}
    assert changed == {f"{layer}.weight" for layer in keeps}
    assert not any(module._forward_pre_hooks for module in after.modules())


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_outputs_stay_close_with_8_bits_and_less_so_with_4(tiny_models, family, name):
    model, batches, keeps = sparse_model(tiny_models, family)
    exact, error = logits(model, batches), {}
    for bits in (8, 4):
        after, layers = quantised(model, batches, keeps, name, bits)
        error[bits] = float((logits(after, batches) - exact).norm() / exact.norm())
        activations.attach(after, dict.fromkeys(layers, Dynamic()))
        error[bits, "activations"] = float((logits(after, batches) - exact).norm() / exact.norm())
    assert error[8] < 0.02 and error[8, "activations"] < 0.03 and 5 * error[8] < error[4] < 0.4


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("symmetric", "group"), [(True, None), (False, 16)])
def test_codes_are_in_range_and_pruned_weights_zero_even_where_they_were_not(name, bits, symmetric, group):
    torch.manual_seed(0)
    linear = Linear("layer", nn.Linear(48, 20), "decoder", "attention")
    mask = torch.rand(20, 48) > 0.6
    x = torch.randn(200, 48)
    given = {need: statistic(48, x.device) for need, statistic in STATISTICS.items()}
    for statistic in given.values():
        statistic.add(x, torch.tensor([200]))
    values = {need: statistic.value for need, statistic in given.items()}
    layer, row = quantise(linear, mask, values, how(name, bits, symmetric, group))
    low, high = int(layer.codes.min()), int(layer.codes.max())
    assert -(2 ** (bits - 1)) <= low < high <= 2 ** (bits - 1) - 1
    assert (linear.module.weight[~mask] == 0).all() and row["pruned"] == int((~mask).sum()) <= row["zeros"]
    assert torch.equal(layer.grid.decode(layer.codes), linear.module.weight)


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(name, dtype):
    torch.manual_seed(0)
    linear = Linear("layer", nn.Linear(16, 8).to(dtype), "decoder", "attention")
    quantise(linear, torch.ones(8, 16, dtype=torch.bool), {"gram": torch.eye(16)}, how(name, 8))
    assert linear.module.weight.dtype == dtype


@pytest.mark.parametrize("name", ROUNDINGS)
def test_twice_the_same_gives_the_same_codes(tiny_models, name):
    model, batches, keeps = sparse_model(tiny_models, "llama")
    one, other = (quantised(model, batches, keeps, name)[1] for _ in range(2))
    assert all(torch.equal(one[layer].codes, other[layer].codes) for layer in one)


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_how_examples_are_batched_hardly_matters(tiny_models, family, name):
    model, _, keeps = sparse_model(tiny_models, family)
    processor = tiny_models.tiny(family)[1]
    one, other = (quantised(model, tiny_models.batches(family, processor, size), keeps, name)[1] for size in (1, 6))
    same = torch.cat([(one[layer].codes == other[layer].codes).flatten() for layer in one]).float().mean()
    assert same > 0.999


def test_a_layer_without_a_mask_keeps_the_zeros_it_has(tiny_models):
    model, _, keeps = sparse_model(tiny_models, "llama")
    found = masks(models.blocks(model), {})
    assert all(torch.equal(found[layer], mask) for layer, mask in keeps.items())
    some = dict(list(keeps.items())[:3])
    assert all(torch.equal(mask, keeps[layer]) for layer, mask in masks(models.blocks(model), some).items())

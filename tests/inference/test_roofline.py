"""What a step reads, the machine's bandwidth, and the sparsity at which an engine begins to pay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness import rooms
from harness.inference import roofline
from harness.inference.prompts import prompts
from harness.inference.swap import head, prunable


def test_bandwidth_is_what_was_read_over_the_shortest_time(monkeypatch):
    read, now = [], iter([0.0, 0.5, 1.0, 1.25, 2.0, 3.0])
    monkeypatch.setattr(roofline, "LARGEST_READ", 2**24)
    monkeypatch.setattr(roofline.torch, "dot", lambda *both: read.append(sum(each.nbytes for each in both)))
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(now))
    assert roofline.bandwidth(repeats=3) == 2**24 / 0.25
    assert read == [2**24] * 3


def test_a_step_of_a_decoder_reads_its_linears_norms_and_head(tiny_models):
    model, _ = tiny_models.tiny("llama")
    read = roofline.read_by_a_step(model, prompts(model, 2, 7, seed=0))
    tensors = [*model.parameters(), *model.buffers()]  # the head is the embedding
    assert read["weights"] == 4 * sum(tensor.numel() for tensor in tensors)
    config = model.config
    positions, width = 8, config.num_key_value_heads * config.head_dim
    assert read["cache"] == 4 * 2 * 2 * positions * width * config.num_hidden_layers
    assert not any(module._forward_hooks for module in model.modules())


def test_the_cache_of_a_step_is_the_mean_over_all_steps(tiny_models):
    model, _ = tiny_models.tiny("llama")
    config, inputs, tokens = model.config, prompts(model, 2, 7, seed=0), 6
    sizes = [7 + step for step in range(1, tokens)]  # positions that step 1, 2, ... attends to
    each = 4 * 2 * 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers
    assert roofline.read_by_a_step(model, inputs, tokens)["cache"] == each * sum(sizes) / len(sizes)


def test_a_step_of_an_encoder_decoder_reads_neither_encoder_nor_cross_attention_keys(tiny_models):
    model, _ = tiny_models.tiny("t5")
    read = roofline.read_by_a_step(model, prompts(model, 1, 7, seed=0))["weights"]
    cross = [
        p for name, p in model.decoder.named_parameters() if ".EncDecAttention.k" in name or "EncDecAttention.v" in name
    ]
    biases = [p for name, p in model.decoder.named_parameters() if "relative_attention_bias" in name]
    decoder = sum(p.numel() for name, p in model.decoder.named_parameters() if name != "embed_tokens.weight")
    expected = decoder - sum(p.numel() for p in (*cross, *biases)) + model.lm_head.weight.numel()
    assert read == 4 * expected


def test_bytes_of_int8_and_of_sparse_rows(tiny_models):
    model, _ = tiny_models.tiny("llama")
    for name in prunable(model):
        weight = model.get_submodule(name).weight.data
        weight[:, ::2] = 0
    linears = sum(model.get_submodule(name).weight.numel() for name in prunable(model))
    rows = sum(model.get_submodule(name).out_features for name in prunable(model))
    dense = roofline.in_memory(model)
    assert dense == 4 * sum(p.numel() for p in model.parameters()) + 4 * model.model.rotary_emb.inv_freq.numel() * 2
    int8 = rooms.bind("engine", "torch_int8")(copy.deepcopy(model))
    assert roofline.in_memory(int8) == dense - 3 * linears + 12 * rows
    csr = rooms.bind("engine", "torch_csr")(copy.deepcopy(model))
    assert roofline.in_memory(csr) == dense - 4 * linears + 8 * (linears // 2) + 4 * (rows + len(prunable(model)))


def test_bytes_of_torchao_s_int8_are_those_it_holds(tiny_models):
    if reason := rooms.bind("engine", "torchao_int8", "available")():
        pytest.skip(reason)
    model, _ = tiny_models.tiny("llama")
    linears = [model.get_submodule(name).weight for name in prunable(model)]
    ran = rooms.bind("engine", "torchao_int8")(copy.deepcopy(model))
    saved = roofline.in_memory(model) - roofline.in_memory(ran)
    per_row = 4 + 1  # a scale and a zero point
    assert saved == sum(3 * weight.numel() - per_row * len(weight) for weight in linears)


@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor")
def test_bytes_of_2_4_are_those_it_holds():
    held = {"packed": torch.zeros(64, 64, dtype=torch.float16), "meta": torch.zeros(64, 8, dtype=torch.int16)}
    rest = dict.fromkeys(("packed_t", "meta_t", "compressed_swizzled_bitmask"))
    linear = nn.Linear(128, 64, bias=False)
    linear.weight = nn.Parameter(torch.sparse.SparseSemiStructuredTensorCUTLASS((64, 128), **held, **rest), False)
    assert roofline.stored(linear) == 64 * 64 * 2 + 64 * 8 * 2


def test_the_ratio_of_operations_counts_what_is_not_zero(tiny_models):
    model, _ = tiny_models.tiny("mpt")
    names = prunable(model)
    assert roofline.theoretical_flop_ratio(model, names) == 1
    for name in names:
        model.get_submodule(name).weight.data[:, ::4] = 0
    assert roofline.theoretical_flop_ratio(model, names) == pytest.approx(4 / 3)
    assert 1 < roofline.theoretical_flop_ratio(model, [*names, head(model)]) < 4 / 3


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [
        ([0.8, 1.2, 2.0], 0.25),
        ([1.1, 1.5, 2.0], 0.0),
        ([0.5, 0.8, 0.9], None),
        ([1.2, 0.9, 1.1], 0.65),
        ([0.5, 0.9, 1.0], 0.8),
    ],
)
def test_break_even_lies_where_the_line_crosses_one(speedups, expected):
    found = roofline.break_even([0.0, 0.5, 0.8], speedups)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_a_module_without_tensors_stores_nothing():
    assert roofline.stored(nn.ReLU()) == 0
    assert roofline.stored(nn.Linear(3, 2)) == 4 * 8
    assert roofline.stored(nn.Linear(3, 2).to(torch.bfloat16)) == 2 * 8

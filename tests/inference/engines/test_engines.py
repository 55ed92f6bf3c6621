"""Every engine that this machine can run: all families, the tokens of the dense weights, errors within their bounds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import GenerationMixin

from harness import rooms
from harness.inference import roofline, swap
from harness.inference.agreement import TOLERANCE, agreement, reference
from harness.inference.engines.torch_csr import CsrLinear
from harness.inference.kernels.linear import PackedLinear
from harness.inference.prompts import prompts, start
from harness.problems import Problem

FAMILIES = ("t5", "whisper", "mpt", "llama", "opt")
ENGINES = {
    "packed": TOLERANCE,
    "torch_dense": TOLERANCE,
    "torch_dense:dtype=bfloat16": 0.1,
    "torch_int8": 0.4,
    "torch_int8:head=int8": 0.4,
    "torchao_int8": 0.15,
    "torchao_int8:activations=int8": 0.4,
    "torchao_int8:head=int8": 0.15,
    "torch_csr": TOLERANCE,
    "packed:format=bitmask": TOLERANCE,
    "packed:format=bitmask,join=false": TOLERANCE,
    "packed:format=bitmask,native=false": TOLERANCE,
    "packed:format=index": TOLERANCE,
    "packed:format=slot,precision=bf16": 0.05,
    "packed:format=bitmask,precision=int8": 0.15,
    "packed:format=dense,precision=int8,head=int8": 0.15,
    "packed:format=bitmask,precision=int8,activations=8": 0.4,
}
"""Each engine, and the largest error of its logits in standard deviations that is let pass here."""


@pytest.fixture(scope="module")
def sparse(tiny_models):
    """The tiny model of each family with 60% zeros, its prompt and what it generates."""

    def make(family):
        model, _ = tiny_models.tiny(family)
        draw = torch.Generator().manual_seed(2)
        for name in swap.prunable(model):
            weight = model.get_submodule(name).weight.detach()
            weight *= torch.rand(weight.shape, generator=draw) > 0.6
        inputs = prompts(model, 2, 7, seed=0)
        return model, inputs, reference(model, inputs, 5)

    return {family: make(family) for family in FAMILIES}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_says_what_the_dense_weights_say(family, engine, sparse):
    if reason := rooms.bind("engine", engine, "available")():
        pytest.skip(reason)
    model, inputs, dense = sparse[family]
    ran = rooms.bind("engine", engine)(copy.deepcopy(model))
    found = agreement(ran, inputs, dense)
    assert found["logit_error"] <= ENGINES[engine]
    if rooms.bind("engine", engine, "exact")():
        assert found["greedy_equal"] and ENGINES[engine] == TOLERANCE
    else:
        assert found["logit_error"] > 1e-5  # it does round


@pytest.mark.parametrize("shape", [(12,), (1, 12), (1, 1, 12), (3, 12), (2, 3, 12)])
@pytest.mark.parametrize("bias", [None, torch.arange(5.0)])
def test_compressed_rows_multiply_one_row_or_many(shape, bias):
    weight, x = torch.randn(5, 12) * (torch.rand(5, 12) > 0.5), torch.randn(shape)
    expected = nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(CsrLinear(weight, bias)(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", ["torch_csr", "packed:format=bitmask"])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_generates_with_it(family, engine, sparse):
    model, inputs, _ = sparse[family]
    ran = rooms.bind("engine", engine)(copy.deepcopy(model))
    given = {"decoder_input_ids": start(model, 2)} if model.config.is_encoder_decoder else {}
    settings = {"max_new_tokens": 5, "num_beams": 2, "do_sample": False}
    ours, theirs = (GenerationMixin.generate(each, **inputs, **given, **settings) for each in (ran, model))
    assert torch.equal(ours, theirs)


def test_packed_holds_less_the_sparser_it_is(sparse):
    model = sparse["llama"][0]
    dense, fp32, int8 = (
        roofline.in_memory(rooms.bind("engine", engine)(copy.deepcopy(model)))
        for engine in ("torch_dense", "packed:format=bitmask", "packed:format=bitmask,precision=int8,head=int8")
    )
    assert int8 < fp32 < dense


def test_packed_joins_what_reads_one_input(sparse):
    model = rooms.bind("engine", "packed:format=bitmask")(copy.deepcopy(sparse["llama"][0]))
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.joined is attention.k_proj.joined is attention.v_proj.joined
    assert attention.q_proj.joined.layer.shape == (128 + 64 + 64, 128)
    assert isinstance(attention.o_proj, PackedLinear) and isinstance(model.lm_head, nn.Linear)


def test_packed_int8_heads_leave_the_embedding(sparse):
    model = rooms.bind("engine", "packed:format=bitmask,head=int8")(copy.deepcopy(sparse["llama"][0]))
    assert isinstance(model.lm_head, PackedLinear) and model.lm_head.precision == "int8"
    assert torch.equal(model.model.embed_tokens.weight, sparse["llama"][0].model.embed_tokens.weight)


@pytest.mark.parametrize("engine", rooms.ROOMS["engine"].names())
def test_every_engine_says_whether_it_can_run_and_where(engine):
    reason = rooms.bind("engine", engine, "available")()
    assert reason is None or (reason == reason.strip() and not reason.endswith("."))
    assert rooms.load("engine", engine).DEVICE in ("cpu", "cuda", "any")
    assert isinstance(rooms.bind("engine", engine, "exact")(), bool)
    if not torch.cuda.is_available() and rooms.load("engine", engine).DEVICE == "cuda":
        assert reason == "there is no CUDA device"


def test_int8_without_pytorch_s_routines_is_told(monkeypatch):
    module = rooms.load("engine", "torch_int8")
    monkeypatch.delattr(torch.ao.quantization, "quantize_dynamic")
    assert "no torch.ao.quantization" in module.available()
    monkeypatch.undo()
    assert module.available() is None


def test_24_is_seen_by_groups_of_four(sparse):
    is_24 = rooms.load("engine", "torch_24").is_24
    assert is_24(torch.tensor([[1.0, 0, 2, 0, 0, 0, 3, 4]]))
    assert not is_24(torch.tensor([[1.0, 2, 3, 0, 0, 0, 0, 0]]))
    assert not is_24(torch.ones(2, 6))
    with pytest.raises(Problem, match="do not lie 2:4"):
        rooms.bind("engine", "torch_24")(copy.deepcopy(sparse["llama"][0]))

"""The output layer and the embeddings tied to it, loaded as they are stored: of 16 bits where published so, or int8."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import nn

from harness import export, exported
from harness.inference import formats, roofline, swap, weights
from harness.inference.agreement import TOLERANCE, agreement, reference
from harness.inference.embedding import PackedEmbedding, factor
from harness.inference.greedy import follow, generate
from harness.inference.kernels import build
from harness.inference.kernels.linear import PackedLinear
from harness.inference.prompts import prompts
from harness.problems import Problem

FAMILIES = ("llama", "mpt", "opt", "t5", "whisper", "gemma", "t5 v1.1")
IDS = ("vocab_size", "pad_token_id", "eos_token_id")
needs_compiler = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


@pytest.mark.parametrize("precision", formats.PRECISIONS)
@pytest.mark.parametrize("width", [64, 70])
def test_rows_are_those_of_the_matrix(precision, width):
    layer = PackedLinear(formats.pack(torch.randn(9, width), "dense", precision))
    tokens = torch.tensor([[0, 8, 3], [3, 1, 0]])
    found = PackedEmbedding(layer)(tokens)
    assert found.dtype == torch.float32 and torch.equal(found, formats.unpack(layer.packed)[tokens])
    assert torch.equal(PackedEmbedding(layer, 3.0)(tokens), 3 * found)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("token", [-1, 9])
def test_a_token_that_there_is_not_is_refused(precision, token):
    layer = PackedLinear(formats.pack(torch.randn(9, 64), "dense", precision))
    with pytest.raises(IndexError):
        PackedEmbedding(layer)(torch.tensor([[0, token]]))


def tiny(tiny_models, family):
    """The tiny model of a family or of its kin: Gemma scales its embedding, T5 v1.1 has its output layer apart."""
    if family == "gemma":
        llama, processor = tiny_models.tiny("llama")
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        same = {name: getattr(llama.config, name) for name in (*names, *IDS, "bos_token_id")}
        return transformers.GemmaForCausalLM(transformers.GemmaConfig(**same, head_dim=32)).eval(), processor
    if family == "t5 v1.1":
        t5, processor = tiny_models.tiny("t5")
        names = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "dropout_rate", "decoder_start_token_id")
        same = {name: getattr(t5.config, name) for name in (*names, *IDS)}
        config = transformers.T5Config(**same, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        made = transformers.T5ForConditionalGeneration(config).eval()
        made.lm_head.weight = nn.Parameter(torch.randn_like(made.lm_head.weight))
        return made, processor
    return tiny_models.tiny(family)


@pytest.fixture(params=FAMILIES)
def published(request, tiny_models):
    """A model whose weights are all numbers of bfloat16."""
    torch.manual_seed(0)
    model, processor = tiny(tiny_models, request.param)
    return copy.deepcopy(model).bfloat16().float(), processor


def parted(model):
    """Says whether a model has apart what its config ties."""
    tied = model.get_submodule(swap.head(model)).weight is model.get_input_embeddings().weight
    return model.config.tie_word_embeddings and not tied


@needs_compiler
def test_an_output_layer_of_16_bits_stays_as_it_is_stored(published, tmp_path):
    model, processor = published
    export.export(model, processor, tmp_path, "bitmask")
    loaded, inputs = weights.load(tmp_path), prompts(model, 2, 6, seed=0)
    output = loaded.get_submodule(swap.head(model))
    kept = isinstance(output, PackedLinear) and (output.format, output.precision) == ("dense", "bf16")
    assert kept is not parted(model)
    assert agreement(loaded, inputs, reference(model, inputs, 5))["logit_error"] < TOLERANCE
    generated = loaded.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(generated, model.generate(**inputs, max_new_tokens=4, do_sample=False))


@needs_compiler
def test_a_head_of_int8_is_one_matrix_with_its_embeddings(published, tmp_path):
    model, processor = published
    export.export(model, processor, tmp_path, "bitmask", "int8", head="int8")
    assert exported.described(tmp_path)["head"] == "int8"
    name = swap.head(model)
    dense, loaded = weights.load(tmp_path, dense=True), weights.load(tmp_path)
    expected = formats.unpack(formats.pack(model.get_submodule(name).weight, "dense", "int8"))
    tied = model.get_submodule(name).weight is model.get_input_embeddings().weight
    assert torch.equal(dense.get_submodule(name).weight, expected)
    assert (dense.get_submodule(name).weight is dense.get_input_embeddings().weight) is tied
    assert isinstance(loaded.get_input_embeddings(), PackedEmbedding) is tied
    inputs = prompts(model, 2, 6, seed=0)
    assert agreement(loaded, inputs, reference(dense, inputs, 5))["logit_error"] < 20 * TOLERANCE  # 14 bits
    assert roofline.in_memory(loaded) < roofline.in_memory(dense)


@needs_compiler
@pytest.mark.parametrize("head", export.HEADS)
def test_a_loaded_model_has_nothing_to_tie(published, head, tmp_path, monkeypatch):
    model, processor = published
    export.export(model, processor, tmp_path, "bitmask", head=head)
    said = []
    monkeypatch.setattr(transformers.modeling_utils.logger, "warning", said.append)
    loaded, inputs = weights.load(tmp_path), prompts(model, 2, 6, seed=0)
    assert bool(said) is (head == export.KEEP and parted(model))  # the file has both, and they differ
    tokens = generate(model, inputs, 3).tokens
    before = follow(loaded, inputs, tokens)
    loaded.tie_weights()
    assert torch.equal(follow(loaded, inputs, tokens), before)


class Doubled(nn.Embedding):
    def forward(self, tokens):
        return 2 * super().forward(tokens)


@needs_compiler
def test_an_embedding_that_is_not_known_stays_dense(tiny_models, tmp_path, monkeypatch):
    model, processor = tiny_models.tiny("llama")
    model = copy.deepcopy(model).bfloat16().float()
    model.model.embed_tokens.__class__ = Doubled
    assert factor(model.model.embed_tokens) is None
    with pytest.raises(Problem, match=r"model\.embed_tokens, tied to the output layer, does more than to look up rows"):
        export.export(model, processor, tmp_path, "bitmask", head="int8")
    assert not list(tmp_path.iterdir())
    export.export(model, processor, tmp_path, "bitmask")
    skeleton = weights._skeleton

    def doubled(folder):
        made = skeleton(folder)
        made.model.embed_tokens.__class__ = Doubled
        return made

    monkeypatch.setattr(weights, "_skeleton", doubled)
    loaded, inputs = weights.load(tmp_path), prompts(model, 2, 6, seed=0)
    assert isinstance(loaded.lm_head, nn.Linear) and isinstance(loaded.get_input_embeddings(), Doubled)
    assert agreement(loaded, inputs, reference(model, inputs, 5))["logit_error"] < TOLERANCE


@needs_compiler
def test_an_embedding_that_was_parted_from_the_head_stays_as_it_was(tiny_models, tmp_path):
    model, processor = copy.deepcopy(tiny_models.tiny("llama")[0]), tiny_models.tiny("llama")[1]
    model.config.tie_word_embeddings = True
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    export.export(model, processor, tmp_path, "bitmask", head="int8")
    loaded = weights.load(tmp_path)
    assert loaded.lm_head.precision == "int8"
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_head_that_cannot_be_is_refused():
    with pytest.raises(Problem, match="unknown output layer 'int4'"):
        export.check("bitmask", "int8", head="int4")
    with pytest.raises(Problem, match="hf-dense keeps its output layer"):
        export.check("hf-dense", "fp32", head="int8")

"""The output layer and the embeddings tied to it, loaded as they are stored: of 16 bits where published so, or int8."""

from __future__ import annotations

import copy

import pytest
import torch

from harness import export, exported
from harness.inference import formats, roofline, swap, weights
from harness.inference.agreement import TOLERANCE, agreement, reference
from harness.inference.embedding import PackedEmbedding
from harness.inference.kernels import build
from harness.inference.kernels.linear import PackedLinear
from harness.inference.prompts import prompts
from harness.problems import Problem

FAMILIES = ("llama", "mpt", "t5", "whisper")
needs_compiler = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


@pytest.mark.parametrize("precision", formats.PRECISIONS)
@pytest.mark.parametrize("width", [64, 70])
def test_rows_are_those_of_the_matrix(precision, width):
    layer = PackedLinear(formats.pack(torch.randn(9, width), "dense", precision))
    tokens = torch.tensor([[0, 8, 3], [3, 1, 0]])
    found = PackedEmbedding(layer)(tokens)
    assert found.dtype == torch.float32 and torch.equal(found, formats.unpack(layer.packed)[tokens])


@pytest.fixture(params=FAMILIES)
def published(request, tiny_models):
    """A model whose weights are all numbers of bfloat16."""
    model, processor = tiny_models.tiny(request.param)
    return copy.deepcopy(model).bfloat16().float(), processor


@needs_compiler
def test_an_output_layer_of_16_bits_stays_as_it_is_stored(published, tmp_path):
    model, processor = published
    export.export(model, processor, tmp_path, "bitmask")
    loaded, inputs = weights.load(tmp_path), prompts(model, 2, 6, seed=0)
    output = loaded.get_submodule(swap.head(model))
    assert (output.format, output.precision) == ("dense", "bf16")
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

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness import models, rooms
from harness.models import Linear
from harness.problems import Problem
from harness.quantization import whole
from harness.quantization.rounding import Rounded
from harness.quantization.whole import chosen, how, quantise, quantise_embedding, quantise_model

LAYER = Linear("model.layer", nn.Linear(16, 8), "decoder", "attention")
KEEP = torch.ones(8, 16, dtype=torch.bool)


def replaced(**changes):
    """Rounding to nearest, with something changed in what it returns."""

    def rounded(weight, keep, grid):
        codes = grid.encode(weight)
        return Rounded(changes.get("change", lambda c: c)(codes))

    return whole.How(rounded, (), changes.get("bits", 8), True, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda codes: codes.float(), "its codes are torch.float32"),
        (lambda codes: codes[:3], r"its codes are torch.int8 \(3, 16\)"),
        (lambda codes: codes.clone().fill_(99), "its codes are not of 4 bits"),
        (lambda codes: codes.clone().fill_(1), "its pruned weights are not all zero"),
    ],
)
def test_a_rounding_that_is_wrong_is_caught_and_the_layer_named(change, said):
    keep = KEEP.clone()
    keep[0, 0] = False
    with pytest.raises(Problem, match=f"model.layer: {said}"):
        quantise(LAYER, keep, {}, replaced(change=change, bits=4))


def test_weights_that_are_not_finite_are_a_problem():
    linear = Linear("model.layer", nn.Linear(16, 8), "decoder", "attention")
    linear.module.weight.data[1, 1] = torch.nan
    with pytest.raises(Problem, match=r"model\.layer: its weights are not finite"):
        quantise(linear, KEEP, {}, how("rtn", 8))


def test_a_small_weight_may_become_zero_and_is_counted():
    linear = Linear("model.layer", nn.Linear(16, 8), "decoder", "attention")
    linear.module.weight.data.fill_(1.0)
    linear.module.weight.data[:, 0] = 1e-4
    _, row = quantise(linear, KEEP, {}, how("rtn", 8))
    assert row["zeros"] == 8 and row["pruned"] == 0 and row["size"] == 128 and 0 < row["error"] < 0.01


def test_what_a_rounding_needs_is_collected_and_what_nothing_provides_refused(tmp_path, monkeypatch):
    assert how("rtn", 8).needs == () and how("gptq", 8).needs == ("gram",)
    (tmp_path / "mine.py").write_text('"""Mine."""\n\ndef round(weight, keep, grid, charm):\n    """Mine."""\n')
    monkeypatch.setitem(rooms.ROOMS, "rounding", rooms.Room("rounding", str(tmp_path), ("round",)))
    with pytest.raises(Problem, match="rounding 'mine' needs 'charm', which nothing provides"):
        how("mine", 8)


def test_gptq_sees_what_quantised_blocks_put_out(tiny_models):
    model, processor = tiny_models.tiny("llama")
    batches, blocks = tiny_models.batches("llama", processor), models.blocks(model)
    keeps = whole.masks(blocks, {})
    with torch.no_grad():
        exact = model(**batches[0]).logits
    steps = quantise_model(model, blocks, batches, keeps, how("gptq", 3))
    layers, rows = next(steps)
    assert layers.keys() == rows.keys() == {linear.name for linear in blocks[0].linears}
    assert all(row["damping"] == 0.01 and row["seconds"] >= 0 for row in rows.values())
    assert len(list(steps)) == len(blocks) - 1
    assert not torch.equal(model(**batches[0]).logits, exact)


def test_layers_are_left_out_by_globs(tiny_models):
    blocks = models.blocks(tiny_models.tiny("llama")[0])
    left = [linear.name for block in chosen(blocks, ["*.down_proj"]) for linear in block.linears]
    assert len(left) == 24 and not any("down" in name for name in left)
    with pytest.raises(Problem, match=r"quantize\.skip: '\*down_prj' matches no layer"):
        chosen(blocks, ["*down_prj"])
    with pytest.raises(Problem, match=r"quantize\.skip: every layer is skipped: there is nothing to quantise"):
        chosen(blocks, ["*proj"])


@pytest.mark.parametrize(
    ("family", "name"),
    [("llama", "model.embed_tokens"), ("t5", "shared"), ("whisper", "model.decoder.embed_tokens")],
)
def test_the_embedding_is_rounded_a_row_a_token_and_a_tied_head_with_it(tiny_models, family, name):
    model, _ = tiny_models.tiny(family)
    before = model.get_input_embeddings().weight.detach().clone()
    [(found, layer)] = quantise_embedding(model).items()
    weight = model.get_input_embeddings().weight.detach()
    assert found == name and layer.input is None and layer.grid.bits == 8 and layer.grid.scale.shape == (len(weight), 1)
    assert torch.equal(layer.grid.decode(layer.codes), weight) and layer.grid.zero.count_nonzero()
    assert 0 < float((weight - before).norm() / before.norm()) < 0.01
    if model.config.tie_word_embeddings:
        assert torch.equal(model.get_output_embeddings().weight, weight)


def test_a_model_of_images_has_no_embedding_of_tokens(tiny_models):
    with pytest.raises(Problem, match=r"quantize\.embeddings: ViTForImageClassification has no embedding of tokens"):
        quantise_embedding(tiny_models.tiny("vit")[0])

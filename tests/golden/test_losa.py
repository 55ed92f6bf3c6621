"""LoSA's released functions: rank allocation, and all five steps on a small llama with given branches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from harness import models
from harness.pruning import keep
from harness.pruning.ramps import cubic
from harness.pruning.recipe import recipe
from harness.stages._pruner import Pruner
from harness.tuning import attach, ranks, reconstruction

GOLDEN = json.loads((Path(__file__).parent / "losa.json").read_text(encoding="utf8"))


def errors_of(blocks, seed, sigma):
    rng = np.random.default_rng(seed)
    assert blocks == rng.integers(4, 41)
    return rng.lognormal(0, sigma, blocks)


@pytest.mark.parametrize("case", GOLDEN["ranks"], ids=lambda case: f"seed {case['seed']}")
def test_ranks_are_those_of_the_released_code(case):
    errors = errors_of(case["blocks"], case["seed"], case["sigma"])
    assert ranks.allocate(errors, case["mean"]) == case["ranks"]


def test_so_are_those_whose_budget_it_misses():
    assert ranks.allocate(0.7 ** np.arange(32), 10) == GOLDEN["geometric"]["ranks"]
    errors = np.full(32, 1e-6)
    errors[20] = 1
    assert ranks.allocate(errors, 10) == GOLDEN["dominant"]["ranks"]


def model_of(hidden, layers):
    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=32, attn_implementation="eager", tie_word_embeddings=False,
    )  # fmt: skip
    model, rng = transformers.LlamaForCausalLM(config).eval(), np.random.default_rng(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                drawn = rng.standard_normal(parameter.shape) * (0.1 if "layers" in name else 0.5)
                parameter.copy_(torch.from_numpy(drawn.astype(np.float32)))
    return model


@torch.no_grad()
def test_five_steps_have_its_rates_masks_errors_ranks_and_outputs():
    given = GOLDEN["model"]
    model = model_of(given["hidden"], given["layers"])
    ids = torch.from_numpy(np.random.default_rng(6).integers(4, 100, (given["sequences"], 24)))
    batches = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in ids]
    how = recipe("criterion", "wanda", "unstructured:as_released=true")
    pruner = Pruner({"allocation": "rmi"}, model, models.blocks(model), how, batches, [])
    blocks = [[linear.name for linear in block.linears] for block in pruner.blocks]
    names, rng = [name for block in blocks for name in block], np.random.default_rng(7)
    dense = {name: torch.ones_like(model.get_submodule(name).weight, dtype=torch.bool) for name in names}
    attached = attach.attach(model, dense, "losa:dropout=0.0")
    tensors = {name: layer.tensors for name, layer in attached.layers.items()}
    for name in names:
        columns = tensors[name]["lora_A"].shape[1]
        tensors[name]["lora_A"].copy_(torch.from_numpy(rng.uniform(-1, 1, (8, columns)) / columns**0.5))
    outputs = reconstruction.outputs(model, batches)
    targets = cubic.targets(given["sparsity"], steps=given["steps"])
    for turn, (target, theirs) in enumerate(zip(targets, GOLDEN["steps"], strict=True), 1):
        with attach.merged(attached):
            list(pruner.turn(target))
            pruner.stay_pruned(attached.keeps)
            for name, mask in pruner.keeps.items():
                attached.layers[name].keep[:] = mask
            errors = reconstruction.errors(outputs, model, batches)
        attach.allot(attached, blocks, errors, turn)
        assert [pruner.rows[block[0]]["asked"] for block in blocks] == pytest.approx(theirs["rates"], abs=1e-6)
        assert [int((~attached.keeps[name]).sum()) for name in names] == theirs["zeros"]
        assert errors == pytest.approx(theirs["errors"], rel=1e-4)
        assert [int(tensors[block[0]]["slices"]) for block in blocks] == theirs["ranks"]
        for name in names:
            grown = rng.standard_normal((tensors[name]["lora_B"].shape[0], 8)) * 0.02
            tensors[name]["lora_B"].add_(torch.from_numpy(grown.astype(np.float32)))
    attach.merge(attached)
    keep.verify(model, pruner.keeps)
    assert model(ids[:1]).logits[0, -1, :8].tolist() == pytest.approx(GOLDEN["logits"], abs=1e-5)

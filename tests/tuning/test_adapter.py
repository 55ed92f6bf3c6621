from __future__ import annotations

import json
import warnings
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file

from harness import models
from harness.pruning import keep
from harness.tuning import adapter, attach

FAMILIES = ("llama", "t5", "whisper", "mpt")
METHOD = "lora:rank=3,alpha=5,rslora=true,dropout=0.1"


@pytest.fixture(scope="module")
def trained(tiny_models, tmp_path_factory):
    """A function from a family to: its pruned model, masks, a batch, the outputs with an adapter, and its folder."""
    made = {}

    def make(family):
        if family not in made:
            model, processor = tiny_models.tiny(family)
            linears = [linear for block in models.blocks(model) for linear in block.linears]
            draw = torch.Generator().manual_seed(0)
            keeps = {x.name: torch.rand(x.module.weight.shape, generator=draw) < 0.5 for x in linears}
            keep.apply(model, keeps)
            plain, batch = deepcopy(model).eval(), tiny_models.batches(family, processor)[0]
            attached = attach.attach(model, keeps, METHOD)
            for layer in attached.layers.values():
                torch.nn.init.normal_(layer.trained["lora_B"], std=0.1, generator=draw)
            folder = tmp_path_factory.mktemp(family) / "adapter"
            adapter.save(model, attached, METHOD, folder)
            with torch.no_grad():
                made[family] = plain, keeps, batch, model.eval()(**batch).logits, folder
        return made[family]

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_computes_the_same(trained, family):
    from peft import PeftModel

    plain, _, batch, expected, folder = trained(family)
    with torch.no_grad(), warnings.catch_warnings(action="error", category=UserWarning):
        logits = PeftModel.from_pretrained(deepcopy(plain), folder)(**batch).logits
        assert not torch.allclose(plain(**batch).logits, expected, atol=1e-3)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_config_says_what_was_trained(trained):
    _, keeps, _, _, folder = trained("llama")
    config = json.loads((folder / adapter.CONFIG).read_text())
    assert config["task_type"] == "CAUSAL_LM" and config["target_modules"] == sorted(keeps)
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["use_rslora"]) == (3, 5.0, 0.1, True)


def test_merged_it_is_what_peft_merges(trained):
    from peft import PeftModel

    plain, keeps, _, _, folder = trained("llama")
    theirs = PeftModel.from_pretrained(deepcopy(plain), folder).merge_and_unload()
    model = deepcopy(plain)
    attached = attach.attach(model, keeps, METHOD)
    tensors = load_file(folder / adapter.WEIGHTS)
    for name, layer in attached.layers.items():
        for part, parameter in layer.trained.items():
            parameter.data.copy_(tensors[f"base_model.model.{name}.{part}.weight"])
    attach.merge(attached)
    for name in keeps:
        torch.testing.assert_close(model.get_submodule(name).weight, theirs.get_submodule(name).weight)

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ViTForImageClassification,
)

from harness import models
from harness.models import vit
from harness.problems import Problem
from harness.pruning.recipe import prune, recipe
from harness.pruning.walk import walk

SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_labels": 3,
}


def deit(kind=DeiTForImageClassification, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(DeiTConfig(**SMALL)).eval()


@pytest.fixture
def batches(tiny_models):
    _, processor = tiny_models.tiny("vit")
    return tiny_models.batches("vit", processor)


def test_blocks_of_vit(tiny_models):
    model, _ = tiny_models.tiny("vit")
    blocks = vit.blocks(model)
    assert [block.name for block in blocks] == [f"vit.layers.{i}" for i in range(4)]
    names = [(linear.name.removeprefix("vit.layers.0."), linear.part) for linear in blocks[0].linears]
    attention = [(f"attention.{p}_proj", "attention") for p in ("q", "k", "v", "o")]
    assert names == [*attention, ("mlp.fc1", "feed_forward"), ("mlp.fc2", "feed_forward")]


def test_classes_are_the_texts_in_their_first_order():
    model, _ = vit.tiny(["red ring", "blue cross", "red ring", "a disc"], seed=0)
    assert model.config.id2label == {0: "red ring", 1: "blue cross", 2: "a disc"}
    assert model.config.label2id == {"red ring": 0, "blue cross": 1, "a disc": 2}
    assert model.classifier.out_features == 3


@pytest.mark.parametrize(("kind", "special"), [("vit", 1), ("deit", 2), ("distilled", 2)])
def test_every_patch_and_special_token_counts(kind, special, tiny_models, batches):
    made = {"vit": lambda: tiny_models.tiny("vit")[0], "deit": deit}
    model = made.get(kind, lambda: deit(DeiTForImageClassificationWithTeacher))()
    heads = {"vit": ["classifier"], "deit": ["classifier"]}.get(kind, ["cls_classifier", "distillation_classifier"])
    valid = models.valid(model, batches[0])["encoder"]
    assert valid.shape == (2, (32 // 8) ** 2 + special) and valid.all()
    prunable = {linear.module for block in models.blocks(model) for linear in block.linears}
    dense = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and m not in prunable]
    assert dense == heads
    seen = []
    models.norms(model)["encoder"].register_forward_hook(lambda _, args, out: seen.append(out.shape[:2]))
    model(pixel_values=batches[0]["pixel_values"])
    assert seen == [valid.shape]


@pytest.mark.parametrize("make", [deit, lambda: deit(DeiTForImageClassificationWithTeacher)])
@pytest.mark.parametrize(("kind", "name"), [("criterion", "wanda"), ("solver", "sparsegpt")])
def test_pruning_reads_all_tokens_of_every_picture(make, kind, name, batches):
    """The first layer's statistics are those of what the model itself feeds it, and half of every layer goes."""
    model, how = make(), recipe(kind, name, "unstructured")
    first = models.blocks(model)[0].linears[0]
    fed = []
    hook = first.module.register_forward_pre_hook(lambda _, args: fed.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        for batch in batches:
            model(pixel_values=batch["pixel_values"])
    hook.remove()
    x = torch.cat(fed)
    assert len(x) == 6 * 18
    expected = {"norm": x.square().mean(0).sqrt(), "gram": x.T @ x / len(x), "length": torch.tensor(18.0)}
    for block, inputs in walk(model, batches, how.needs):
        for linear in block.linears:
            if linear.name == first.name:
                for need in how.needs:
                    torch.testing.assert_close(inputs[linear.name][need], expected[need], rtol=1e-4, atol=1e-5)
            keep, _ = prune(linear, inputs[linear.name], 0.5, how)
            assert (linear.module.weight[~keep] == 0).all() and 2 * int(keep.sum()) == keep.numel()


def test_a_distilled_deit_is_loaded_with_both_heads(tmp_path, tiny_models):
    _, processor = tiny_models.tiny("vit")
    model = deit(DeiTForImageClassificationWithTeacher)
    models.save(model, processor, tmp_path)
    loaded = models.load(tmp_path)
    assert type(loaded) is DeiTForImageClassificationWithTeacher
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_checkpoints_with_the_names_of_transformers_4_are_read(tmp_path, tiny_models):
    """Those on the hub: encoder.layer.0.attention.attention.query and the like."""
    model, processor = tiny_models.tiny("vit")
    models.save(model, processor, tmp_path)
    names = {
        "layers.": "encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    old = {}
    for name, value in model.state_dict().items():
        for new, before in names.items():
            name = name.replace(new, before)
        old[name] = value.contiguous()
    assert "vit.encoder.layer.3.attention.attention.query.weight" in old
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    assert load_file(tmp_path / "model.safetensors").keys() == old.keys()
    loaded = models.load(tmp_path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_the_processor_is_pillows_whatever_is_installed(tmp_path, tiny_models, monkeypatch):
    model, processor = tiny_models.tiny("vit")
    models.save(model, processor, tmp_path)
    asked = {}
    real = models.transformers.AutoImageProcessor.from_pretrained
    monkeypatch.setattr(
        models.transformers.AutoImageProcessor,
        "from_pretrained",
        lambda folder, **options: asked.update(options) or real(folder, **options),
    )
    loaded = models.load_processor(tmp_path)
    assert asked == {"backend": "pil"} and type(loaded) is type(processor)
    assert loaded.to_dict() == processor.to_dict()
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["size"] == {"height": 32, "width": 32}


def test_the_loss_is_the_mean_over_pictures(tiny_models, batches):
    model: ViTForImageClassification = tiny_models.tiny("vit")[0]
    whole = model(**batches[0]).loss
    alone = [model(**{name: value[i : i + 1] for name, value in batches[0].items()}).loss for i in range(2)]
    torch.testing.assert_close(whole, sum(alone) / 2)


def test_the_loss_is_the_models_own_and_asks_for_no_cache(tiny_models, batches):
    model, asked = tiny_models.tiny("vit")[0], []
    hook = model.register_forward_pre_hook(lambda _, args, given: asked.append(set(given)), with_kwargs=True)
    found = models.loss(model, batches[0])
    hook.remove()
    assert asked == [{"pixel_values", "labels"}]
    torch.testing.assert_close(found, model(**batches[0]).loss)


def test_a_distilled_deit_has_no_loss_and_is_named(batches):
    with pytest.raises(Problem, match="DeiTForImageClassificationWithTeacher gives no loss"):
        models.loss(deit(DeiTForImageClassificationWithTeacher), batches[0])
    assert models.loss(deit(), batches[0]).isfinite()

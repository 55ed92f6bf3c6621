"""What every family of models promises; a new file in `harness/models` is checked here by itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from harness import models, rooms

FAMILIES = rooms.ROOMS["model"].names()
TEXTS = ["Two words.", "A family answers five questions; nothing else knows an architecture.", "drei Wörter hier"] * 3


@pytest.fixture(params=FAMILIES)
def family(request):
    return rooms.load("model", request.param)


@pytest.fixture
def built(family):
    return family.tiny(TEXTS, seed=3)


def batch_of(model, processor):
    """A padded batch with labels for any family: by what its model reads first."""
    path = Path(__file__).parents[1] / "reference" / "tiny_models.py"
    spec = importlib.util.spec_from_file_location("reference_tiny_models", path)
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    if model.main_input_name == "input_features":
        return helper.whisper_batch(processor, TEXTS[:3])
    return (helper.t5_batch if model.config.is_encoder_decoder else helper.causal_batch)(processor, TEXTS[:3])


def test_constants_are_read_without_importing_and_name_classes(family):
    constants = rooms.ROOMS["model"].method(family.__name__.rpartition(".")[2]).constants
    assert all(isinstance(kind, str) for kind in constants["MODEL_TYPES"])
    assert hasattr(transformers, constants["MODEL"]) and hasattr(transformers, constants["PROCESSOR"])


def test_no_model_type_belongs_to_two_families():
    kinds = [kind for name in FAMILIES for kind in rooms.ROOMS["model"].method(name).constants["MODEL_TYPES"]]
    assert len(kinds) == len(set(kinds))


def test_blocks_hold_every_linear_but_the_head(family, built):
    model, _ = built
    blocks = models.blocks(model)
    modules = dict(model.named_modules())
    linears = [linear for block in blocks for linear in block.linears]
    assert models.family(model) is family and all(modules[block.name] is block.module for block in blocks)
    assert all(modules[linear.name] is linear.module for linear in linears)
    assert len({linear.name for linear in linears}) == len(linears)
    head = model.get_output_embeddings()
    every = {name for name, module in modules.items() if isinstance(module, nn.Linear) and module is not head}
    assert {linear.name for linear in linears} == every
    assert {linear.reads for linear in linears} | {b.stack for b in blocks} == set(models.norms(model))


def test_valid_has_the_shape_of_each_stacks_states(built):
    model, processor = built
    batch = batch_of(model, processor)
    shapes = {}

    def note(stack):
        return lambda module, args, out: shapes.update({stack: out.shape[:2]})

    hooks = [norm.register_forward_hook(note(stack)) for stack, norm in models.norms(model).items()]
    model(**batch)
    assert {s: v.shape for s, v in models.valid(model, batch).items()} == shapes and len(hooks) == len(shapes)
    assert all(v.dtype == torch.bool for v in models.valid(model, batch).values())
    assert not models.valid(model, batch)["decoder"].all()


def test_tiny_is_small_seeded_and_leaves_the_generator_alone(family, built):
    model, processor = built
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    again, other = family.tiny(iter(TEXTS), seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    different, _ = family.tiny(TEXTS, seed=4)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), different.parameters(), strict=True))
    assert sum(p.numel() for p in model.parameters()) < 3e6 and not model.training
    tokenizer, same = (getattr(each, "tokenizer", each) for each in (processor, other))
    assert tokenizer.get_vocab() == same.get_vocab()


def test_special_tokens_are_set(built):
    model, processor = built
    tokenizer = getattr(processor, "tokenizer", processor)
    assert None not in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    text = "Grüße: 3 + 4 = 7!"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.filterwarnings("ignore")
def test_plain_transformers_loads_what_is_saved(family, built, tmp_path):
    model, processor = built
    models.save(model, processor, tmp_path)
    loaded = getattr(transformers, family.MODEL).from_pretrained(tmp_path).eval()
    read = getattr(transformers, family.PROCESSOR).from_pretrained(tmp_path)
    batch, again = batch_of(model, processor), batch_of(loaded, read)
    assert batch.keys() == again.keys() and all(torch.equal(batch[key], again[key]) for key in batch)
    assert torch.equal(model(**batch).logits, loaded(**again).logits)
    inputs = {key: value[:1] for key, value in batch.items() if key != "labels"}
    first, second = (each.generate(**inputs, max_new_tokens=4, do_sample=False) for each in (model, loaded))
    assert torch.equal(first, second)


def test_it_learns(built):
    model, processor = built
    batch = batch_of(model, processor)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

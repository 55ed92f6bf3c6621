from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from harness import models
from harness.models import llama, t5

TEXTS = ("the quick brown fox jumps over the lazy dog", "one two three four five six seven eight nine ten")


def causal_batch(rows: int = 6, time: int = 10, vocabulary: int = 60, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of different lengths, padded on the right, whose first two tokens are an unscored prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, vocabulary, (rows, time), generator=generator)
    lengths = torch.randint(4, time + 1, (rows, 1), generator=generator)
    mask = torch.arange(time) < lengths
    labels = ids.masked_fill(~mask, -100)
    labels[:, :2] = -100
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long(), "labels": labels}


def pair_batch(rows: int = 6, time: int = 9, vocabulary: int = 60, seed: int = 0) -> dict[str, torch.Tensor]:
    """Source and target rows of an encoder-decoder model, both padded on the right."""
    source, target = (causal_batch(rows, t, vocabulary, seed + k) for k, t in enumerate((time, time - 3)))
    labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
    return {"input_ids": source["input_ids"], "attention_mask": source["attention_mask"], "labels": labels}


@pytest.fixture(scope="session")
def _tiny():
    return {"llama": llama.tiny(TEXTS, seed=0)[0], "t5": t5.tiny(TEXTS, seed=0)[0]}


@pytest.fixture
def tiny(_tiny):
    """A function from a family's name to a fresh copy of its tiny model."""
    return lambda name="llama": deepcopy(_tiny[name])


@pytest.fixture
def batches():
    """The two makers of batches, by the family they are for."""
    return {"llama": causal_batch, "t5": pair_batch}


def noisy(model: torch.nn.Module, scale: float = 0.02, seed: int = 1) -> torch.nn.Module:
    """Adds seeded noise to every parameter, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    return model


def random_masks(model: torch.nn.Module, seed: int = 2) -> dict[str, torch.Tensor]:
    """Random masks that keep half of every prunable weight."""
    generator = torch.Generator().manual_seed(seed)
    linears = [linear for block in models.blocks(model) for linear in block.linears]
    return {x.name: torch.rand(x.module.weight.shape, generator=generator) < 0.5 for x in linears}


def batch_of(family: str):
    """The maker of batches for a family."""
    return {"llama": causal_batch, "t5": pair_batch}[family]


def run_parts(family: str, options: dict) -> tuple[tuple, dict]:
    """Parts of a run: (a model with dropout, ten rows, collate, options), {teacher, keeps}."""
    make, of = {"llama": llama, "t5": t5}[family], batch_of(family)
    model, teacher = (make.tiny(TEXTS, seed=0)[0] for _ in range(2))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    batch = of(rows=10)
    rows = [{k: v[i] for k, v in batch.items()} for i in range(10)]
    given = (model, rows, torch.utils.data.default_collate, options)
    return given, {"teacher": noisy(teacher), "keeps": random_masks(model)}


@pytest.fixture(name="run_parts")
def _run_parts():
    return run_parts


@pytest.fixture
def teacher(tiny):
    """A function from a family's name to a model near, but not equal to, the tiny one."""
    return lambda name="llama": noisy(tiny(name))


@pytest.fixture
def masks():
    """A function from a model to random masks that keep half of every prunable weight."""
    return random_masks

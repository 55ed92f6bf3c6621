from __future__ import annotations

import pytest
import torch

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
    from copy import deepcopy

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


@pytest.fixture
def teacher(tiny):
    """A function from a family's name to a model near, but not equal to, the tiny one."""
    return lambda name="llama": noisy(tiny(name))


@pytest.fixture
def masks():
    """A function from a model to random masks that keep half of every prunable weight."""
    from harness import models

    def of(model, seed=2):
        generator = torch.Generator().manual_seed(seed)
        linears = [linear for block in models.blocks(model) for linear in block.linears]
        return {x.name: torch.rand(x.module.weight.shape, generator=generator) < 0.5 for x in linears}

    return of

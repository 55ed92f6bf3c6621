"""What FSDP2 shares out, in a group of one process: whole where a walk is, shares everywhere else."""

from __future__ import annotations

import pytest
import torch
import torch.distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from harness import models
from harness.models import llama
from harness.pruning.shares import borrowed, walking
from harness.pruning.walk import walk

TEXTS = ("the quick brown fox", "one two three four")
IDS = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 4, 5, 7]]), "attention_mask": torch.ones(2, 4, dtype=torch.long)}


@pytest.fixture
def alone():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def shared(alone):
    """A tiny model, shared out."""
    model = llama.tiny(TEXTS, seed=0)[0].eval()
    for block in models.blocks(model):
        fully_shard(block.module, reshard_after_forward=True)
    return fully_shard(model)


@pytest.fixture
def plain():
    return llama.tiny(TEXTS, seed=0)[0].eval()


def shares(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)}


def inside(model) -> set[str]:
    return {f"{block.name}.{name}" for block in models.blocks(model) for name, _ in block.module.named_parameters()}


def test_a_borrowed_block_alone_is_whole_and_what_changes_in_it_stays(shared, plain):
    every, (first, second, *_) = shares(shared), models.blocks(shared)
    with walking(shared):
        assert shares(shared) == inside(shared) < every
        with borrowed(first.module), torch.no_grad():
            assert shares(shared) == {name for name in inside(shared) if not name.startswith(f"{first.name}.")}
            first.linears[0].module.weight.mul_(2)
        with pytest.raises(KeyError), borrowed(second.module), torch.no_grad():
            second.linears[0].module.weight.mul_(2)
            raise KeyError
    assert shares(shared) == every
    before = plain.state_dict()
    for name, value in shared.state_dict().items():
        factor = 2 if name == f"{first.linears[0].name}.weight" else 1
        assert torch.equal(value.full_tensor(), factor * before[name]), name


def test_after_a_walk_the_model_gathers_itself_as_before(shared, plain):
    with walking(shared), pytest.raises(RuntimeError):
        shared(**IDS)
    with torch.no_grad():
        assert torch.equal(shared(**IDS).logits, plain(**IDS).logits)
    assert shares(shared) >= inside(shared)


@pytest.mark.parametrize("needs", [["norm", "gram"], []])
def test_a_walk_prunes_what_is_shared_out_as_what_is_not(shared, plain, needs):
    found = []
    for model in (shared, plain):
        statistics = {}
        for block, inputs in walk(model, [IDS], needs):
            for linear in block.linears:
                linear.module.weight.data[:, ::2] = 0
            statistics |= {name: {need: value.clone() for need, value in by.items()} for name, by in inputs.items()}
        found.append(statistics)
    assert found[0].keys() == found[1].keys() and bool(found[0]) == bool(needs)
    assert all(torch.equal(value, found[1][name][need]) for name, by in found[0].items() for need, value in by.items())
    for name, value in plain.state_dict().items():
        assert torch.equal(shared.state_dict()[name].full_tensor(), value), name


def test_a_model_in_one_process_is_left_alone(plain):
    block = models.blocks(plain)[0]
    before = {id(parameter) for parameter in plain.parameters()}
    with walking(plain), borrowed(block.module):
        assert {id(parameter) for parameter in plain.parameters()} == before

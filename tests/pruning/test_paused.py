from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from harness.models import Block
from harness.pruning import paused
from harness.pruning.paused import Pass, pausing


class Toy(nn.Module):
    """Three blocks with something of the model's own before, between and after them."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(3))
        self.trace = []

    def forward(self, x, use_cache):
        with contextlib.ExitStack() as stack:
            stack.callback(self.trace.append, "left")
            for index, block in enumerate(self.blocks):
                self.trace.append(index)
                x = block(x) + 1
            return x


@pytest.fixture
def toy(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(paused.models, "valid", lambda model, batch: {"decoder": torch.ones(1, 1, dtype=torch.bool)})
    model = Toy()
    return model, [Block(f"blocks.{i}", block, "decoder", ()) for i, block in enumerate(model.blocks)]


def test_it_goes_on_with_what_it_is_given(toy):
    model, blocks = toy
    x = torch.tensor([[1.0, 2.0]])
    expected = model(x, False)
    model.trace.clear()
    with pausing(blocks) as originals:
        one = Pass(model, {"x": x})
        seen = []
        for index in range(3):
            one.expect(blocks, index)
            seen.append(one.call.args[0])
            one.resume(originals[index](*one.call.args))
        assert one.call is None
    assert model.trace == [0, 1, 2, "left"]
    torch.testing.assert_close(originals[2](seen[2]) + 1, expected)


def test_closing_unwinds_the_models_own_contexts(toy):
    model, blocks = toy
    with pausing(blocks):
        one = Pass(model, {"x": torch.ones(1, 2)})
        assert model.trace == [0]
        one.close()
        assert model.trace == [0, "left"]
        one.close()


def test_a_forward_of_the_modules_own_is_put_back(toy):
    model, blocks = toy

    def own(x):
        return x * 2

    model.blocks[1].forward = own
    with pausing(blocks) as originals:
        assert originals[1] is own and model.blocks[1].forward is not own
    assert model.blocks[1].forward is own and "forward" not in vars(model.blocks[0])

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness import exported
from harness.inference import loading, mapped


@pytest.fixture
def model(tmp_path):
    """Three weights in one mapped file, one elsewhere, one of no numbers."""
    save_file({name: torch.full((3000,), 2.0) for name in "abc"}, tmp_path / "file")
    _, tensors = mapped.read(exported.content(tmp_path / "file"))
    made = nn.Module()
    for name, tensor in {**tensors, "own": torch.ones(5), "none": torch.empty(0)}.items():
        made.register_buffer(name, tensor)
    return made


def test_memory_that_weights_share_is_read_once_and_all_of_it(model, monkeypatch):
    read = []
    whole = torch.Tensor.sum
    monkeypatch.setattr(torch.Tensor, "sum", lambda tensor: (read.append(len(tensor)), whole(tensor))[1])
    found, seconds = loading.timed(lambda: model)
    size = model.a.untyped_storage().nbytes()
    assert found is model and seconds > 0 and size > 3 * 12000
    assert sorted(pages for pages in read if pages) == [1, -(-size // loading.PAGE)]

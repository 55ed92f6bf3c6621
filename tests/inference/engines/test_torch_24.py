from __future__ import annotations

import copy

import pytest
import torch

from harness import models, rooms
from harness.inference import swap
from harness.problems import Problem


@pytest.fixture(scope="module")
def kept(tiny_models):
    """A tiny LLaMA with the larger two of every four weights."""
    model = copy.deepcopy(tiny_models.tiny("llama")[0]).eval()
    choose = rooms.bind("pattern", "2:4")
    for name in swap.prunable(model):
        weight = model.get_submodule(name).weight
        weight.data *= choose(weight.data.abs(), 0.5)
    return model


def test_a_layer_that_torch_refuses_is_named(kept, monkeypatch):
    def refuse(weight):
        raise RuntimeError("Error original_tensor.shape is not supported! \nmore")

    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", refuse)
    first = models.blocks(kept)[0].linears[0].name
    with pytest.raises(Problem, match=r"cannot hold this layer 2:4: Error original_tensor.shape") as told:
        rooms.bind("engine", "torch_24")(copy.deepcopy(kept))
    assert told.value.where == first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_gpu_multiplies_the_kept_weights(kept, dtype, batch):
    model = rooms.bind("engine", f"torch_24:dtype={dtype}")(copy.deepcopy(kept).cuda())
    for name in swap.prunable(kept):
        weight = kept.get_submodule(name).weight.detach().cuda().to(getattr(torch, dtype))
        x = torch.randn(batch, weight.shape[1], device="cuda", dtype=weight.dtype)
        layer = model.get_submodule(name)
        bias = 0 if layer.bias is None else layer.bias.double()
        wanted = x.double() @ weight.double().T + bias
        error = (torch.nn.functional.linear(x, layer.weight, layer.bias).double() - wanted).abs().max()
        assert error <= 4 * torch.finfo(weight.dtype).eps * wanted.abs().max()

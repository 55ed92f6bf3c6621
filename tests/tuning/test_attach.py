from __future__ import annotations

import pytest
import torch

from harness.pruning import keep
from harness.tuning import attach as a


def test_attaching_prunes_exactly_the_masked_layers(tiny, masks):
    model, before = tiny(), tiny()
    keeps = masks(model)
    a.attach(model, keeps, "masked")
    keep.verify(model, keeps)
    for (name, p), q in zip(model.named_parameters(), before.parameters(), strict=True):
        mask = keeps.get(name.removesuffix(".weight"))
        assert torch.equal(p, q if mask is None else q * mask)


def test_projection_reaches_weights_and_moments(tiny, masks):
    model = tiny()
    keeps = masks(model)
    attached = a.attach(model, keeps, "masked")
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(model.get_submodule(name).weight[~mask].any() for name, mask in keeps.items())
    a.project(attached, optimizer.state)
    a.merge(attached)
    for name, mask in keeps.items():
        weight = model.get_submodule(name).weight
        for tensor in (weight, optimizer.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg_sq"]):
            assert tensor.shape == mask.shape and not tensor[~mask].any() and tensor[mask].all()
    assert optimizer.state[model.model.norm.weight]["exp_avg"].all()


def test_where_nothing_is_projected_nothing_changes(tiny, masks):
    a.project(a.DENSE, {})
    a.merge(a.DENSE)
    model = tiny()
    attached = a.attach(model, masks(model), "lora")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    a.project(attached, {})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_interrupted_pruning_leaves_the_layers_own_weights_even_where_no_change_could_be_put_back(tiny, masks):
    model = tiny()
    attached = a.attach(model, masks(model), "spp")
    for layer in attached.layers.values():
        layer.trained["spp_q"].data.fill_(0.5)
    before = {name: layer.module.weight.detach().clone() for name, layer in attached.layers.items()}
    with pytest.raises(KeyboardInterrupt), a.merged(attached):
        for layer in attached.layers.values():
            layer.module.weight.data[0] = 0
        raise KeyboardInterrupt
    assert all(torch.equal(layer.module.weight, before[name]) for name, layer in attached.layers.items())
    assert all("forward" in vars(layer.module) for layer in attached.layers.values())


def test_an_interrupt_of_weights_that_are_shared_out_is_handed_on(tiny, masks, monkeypatch):
    """As FSDP leaves them in the middle of a pass: of another shape than they were."""
    monkeypatch.setattr(a, "DTensor", torch.Tensor)
    model = tiny()
    attached = a.attach(model, masks(model), "spp")
    with pytest.raises(KeyboardInterrupt), a.merged(attached):
        for layer in attached.layers.values():
            layer.module.weight.data = torch.empty(0)
        raise KeyboardInterrupt
    assert all("forward" in vars(layer.module) for layer in attached.layers.values())

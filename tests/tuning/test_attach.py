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


def test_projection_reaches_gradients_and_weights(tiny, masks):
    model = tiny()
    keeps = masks(model)
    attached = a.attach(model, keeps, "masked")
    for p in model.parameters():
        p.grad = torch.ones_like(p)
        p.data.fill_(1)
    a.project_gradients(attached)
    a.project_weights(attached)
    a.merge(attached)
    for name, mask in keeps.items():
        layer = model.get_submodule(name)
        assert torch.equal(layer.weight.grad, mask.float()) and torch.equal(layer.weight, mask.float())
    assert model.model.norm.weight.grad.min() == 1


def test_dense_fine_tuning_projects_nothing(tiny):
    a.project_gradients(a.DENSE)
    a.project_weights(a.DENSE)
    a.merge(a.DENSE)


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

from __future__ import annotations

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

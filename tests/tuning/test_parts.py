"""Where models lie when a run begins: on its device, or still on the CPU where they are shared out block by block."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness.spec.sections import Tune
from harness.tuning import devices, parts

THERE = torch.device("meta")
"""A device that nothing here computes on, so that it can be seen what was brought to it."""


class Reached(Exception):
    """The models were to be shared out, or gradients to be taken of them."""


def begun(run_parts, monkeypatch, shares, *, dense=False, ramp=None, **section):
    """Returns where student and teacher are when something is first done with them."""
    given = {"data": "prose", "task": "language_modelling", "steps": 1, "lr": 1e-3, "loss": "cross_entropy + kl"}
    options = Tune.model_validate({**given, "batch_size": 2, **section}).model_dump(mode="json")
    (model, rows, collate, _), named = run_parts("llama", options)

    def reached(*_):
        raise Reached

    monkeypatch.setattr(devices, "shares_out", lambda _: shares)
    for module, name in ((devices, "shard"), (parts, "mean_gradients"), (parts.attach, "attach")):
        monkeypatch.setattr(module, name, reached)
    keeps = None if dense else named["keeps"]
    accelerator = SimpleNamespace(device=THERE)
    with pytest.raises(Reached):
        parts.begin(model, named["teacher"], rows, collate, options, keeps, ramp, accelerator)
    return {p.device.type for each in (model, named["teacher"]) for p in each.parameters()}


@pytest.mark.parametrize("section", [{"method": "seft"}, {"method": "lors:init=kaiming"}, {"dense": True}])
def test_models_that_are_shared_out_wait_on_the_cpu(run_parts, monkeypatch, section):
    assert begun(run_parts, monkeypatch, True, **section) == {"cpu"}
    assert begun(run_parts, monkeypatch, False, **section) == {"meta"}


@pytest.mark.parametrize("section", [{"method": "lors:samples=2"}, {"ramp": SimpleNamespace(blocks=[])}])
def test_models_that_something_is_computed_with_before_are_on_their_device(run_parts, monkeypatch, section):
    monkeypatch.setattr(parts, "reset_peak", lambda _: None)
    assert begun(run_parts, monkeypatch, True, **section) == {"meta"}

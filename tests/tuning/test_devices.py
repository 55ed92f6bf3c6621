from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness import rooms
from harness.problems import Problem
from harness.pruning import keep, shares
from harness.tuning import attach, devices, loop
from harness.tuning.objective import measure, objective
from harness.tuning.optimizer import adamw


def test_the_named_gpu_becomes_the_current_one_and_another_is_refused(monkeypatch):
    current = []
    monkeypatch.setattr(devices, "device", lambda: torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1].index)
    for place, fits in (("cuda", True), ("cuda:1", True), ("cuda:0", False), ("cpu", False)):
        made = SimpleNamespace(device=torch.device(place))
        monkeypatch.setattr(devices, "Accelerator", lambda made=made, **_: made)
        if fits:
            assert devices.accelerator_for("fp32").device.type == "cuda"
        else:
            with pytest.raises(Problem, match=f"accelerate trains on {place}, not on cuda:1"):
                devices.accelerator_for("fp32")
    assert current == [torch.device("cuda:1")] * 4


def test_precisions_can_change_within_a_process(monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    found = [devices.accelerator_for(p).mixed_precision for p in ("fp32", "bf16", "fp32")]
    assert found == ["no", "bf16", "no"]


def test_fp16_needs_a_gpu(monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    with pytest.raises(Problem, match="cannot train in fp16: it is a CPU") as caught:
        devices.accelerator_for("fp16")
    assert "bf16" in caught.value.hint


def test_what_processes_hold_apart_is_named(monkeypatch):
    mine = {"a.keep": torch.ones(2, 3, dtype=torch.bool), "b.slices": torch.tensor(4), "c.keep": torch.zeros(2).bool()}
    devices.check_alike(mine, SimpleNamespace(num_processes=1))
    two = SimpleNamespace(num_processes=2)
    monkeypatch.setattr(devices, "gathered", lambda counts, _: [counts, counts])
    devices.check_alike(mine, two)
    monkeypatch.setattr(devices, "gathered", lambda counts, _: [counts, [[counts[0][0], 1, counts[0][2]]]])
    with pytest.raises(Problem, match=r"b\.slices: the processes pruned it apart"):
        devices.check_alike(mine, two)


def saved_bytes(run) -> int:
    """What autograd keeps while `run` computes, each storage once."""
    seen = {}

    def keep(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(seen.values())


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("method", ["masked", "lora", "lors", "spiel"])
def test_recomputing_gives_the_same_gradients_and_keeps_less(tiny, teacher, masks, batches, family, method):
    gradients, kept = [], []
    for wanted in (False, True):
        model = tiny(family).train()
        keeps = masks(model)
        keep.apply(model, keeps)
        given = {name: torch.ones(mask.shape) for name, mask in keeps.items()}
        torch.manual_seed(0)
        attach.attach(model, keeps, method, given)
        devices.recompute(model, wanted)
        aim = objective(rooms.resolve_terms("loss", "cross_entropy + squarehead"), model, teacher(family))
        torch.manual_seed(1)
        found = {}
        kept.append(saved_bytes(lambda m=model, a=aim, f=found: f.update(measure(a, m, batches[family]()))))
        sum(found.values()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, g in gradients[0].items():  # what several blocks read is summed in another order
        assert torch.allclose(g, gradients[1][name], rtol=1e-5, atol=1e-6 * float(g.abs().max())), name
    assert kept[1] < kept[0]


def test_a_model_that_cannot_recompute_is_refused():
    with pytest.raises(Problem, match="cannot recompute"):
        devices.recompute(SimpleNamespace(supports_gradient_checkpointing=False), True)
    devices.recompute(SimpleNamespace(supports_gradient_checkpointing=False), False)


def test_in_one_process_nothing_is_gathered_or_drawn_anew(monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    accelerator, x = devices.accelerator_for("fp32"), torch.ones(2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    devices.draw(accelerator, 0, 3, 0)
    assert torch.equal(state, torch.get_rng_state())
    assert devices.total(x) is x and shares.full(x) is x and devices.like(x, x) is x
    assert devices.gathered([[1, 2]], accelerator) == [[[1, 2]]] and devices.said(accelerator) == {}
    assert devices.agreed(True, accelerator) and not devices.agreed(False, accelerator)
    with devices.whole({"x": x}) as tensors:
        tensors["x"].mul_(3)
    assert x.tolist() == [3, 3]


class Scaler:
    """A loss scale that a step may leave this small."""

    def __init__(self, scale: float):
        self.scale = scale

    def get_scale(self) -> float:
        return self.scale


def test_a_step_that_fp16_skips_is_said_and_a_vanishing_scale_stops():
    optimizer = SimpleNamespace(step_was_skipped=True)
    assert loop._skipped(optimizer, SimpleNamespace(scaler=None), 0) is None
    assert loop._skipped(optimizer, SimpleNamespace(scaler=Scaler(2.0)), 0) is True
    with pytest.raises(Problem, match="overflows at any loss scale"):
        loop._skipped(optimizer, SimpleNamespace(scaler=Scaler(2.0**-11)), 0)
    skipped = loop.Report(1, 2.0, {"kl": 2.0}, 0.1, float("inf"), 4, 5, 1.0, True)
    assert skipped.curve == {"loss": 2.0, "kl": 2.0, "lr": 0.1, "skipped": 1.0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fp16_trains_with_a_scaled_loss(tiny, batches, monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cuda")
    accelerator = devices.accelerator_for("fp16")
    model = tiny().to(accelerator.device)
    aim = objective(rooms.resolve_terms("loss", "cross_entropy"), model)
    wrapped, stepper = devices.spread(model, adamw(model, lr=3e-3), accelerator)
    reports = list(
        loop.train(wrapped, stepper, aim, lambda step: [batches["llama"]()], accelerator, steps=8, lr=lambda s: 3e-3)
    )
    assert reports[-1].loss < reports[0].loss and {r.skipped for r in reports} <= {False, True}
    assert {p.dtype for p in model.parameters()} == {torch.float32}

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from accelerate import Accelerator
from pytest import approx

from harness import rooms
from harness.problems import Problem
from harness.pruning import keep
from harness.tuning import attach
from harness.tuning.devices import accelerator_for
from harness.tuning.loop import train
from harness.tuning.objective import objective
from harness.tuning.optimizer import adamw


def rows_of(batch, *cuts):
    """Cuts a batch into micro-batches at these rows."""
    edges = [0, *cuts, len(batch["labels"])]
    return [{k: v[a:b] for k, v in batch.items()} for a, b in pairwise(edges)]


def flat(model) -> list[float]:
    return torch.nn.utils.parameters_to_vector(model.parameters()).tolist()


def run(model, loss, of, *, teacher=None, steps=3, lr=1e-3, optimizer=None, **options):
    accelerator = Accelerator(cpu=True)
    optimizer = optimizer or adamw(model, lr=lr)
    aim = objective(rooms.resolve_terms("loss", loss), model, teacher)
    rate = lr if callable(lr) else lambda step: lr
    return train(model, optimizer, aim, of, accelerator, steps=steps, lr=rate, **options)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_loss_goes_down_and_every_step_is_reported(tiny, batches, family):
    model, batch = tiny(family), batches[family]()
    reports = list(run(model, "cross_entropy", lambda step: [batch], steps=8, lr=3e-3))
    assert [r.step for r in reports] == list(range(1, 9))
    assert reports[-1].loss < 0.8 * reports[0].loss
    assert all(r.loss == r.terms["cross_entropy"] and r.seconds > 0 and r.samples == 6 for r in reports)
    expected = batch["attention_mask"].sum() + ((batch["labels"] != -100).sum() if family == "t5" else 0)
    assert reports[0].tokens == expected


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_micro_batches_of_any_size_are_one_big_batch(tiny, teacher, batches, family):
    batch, taught = batches[family](), teacher(family)
    batch["labels"][1] = -100  # a micro-batch may have nothing to score
    ends = []
    for cuts in ((), (1, 2, 4)):
        model = tiny(family)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = "0.5*cross_entropy + kl:temperature=2"
        (report,) = run(
            model, loss, lambda step, c=cuts: rows_of(batch, *c), teacher=taught, steps=1, lr=0.1, optimizer=sgd
        )
        ends.append((report, model))
    (one, big), (many, split) = ends
    assert many.terms == approx(one.terms, rel=1e-4)
    assert many.grad_norm == approx(one.grad_norm, rel=1e-4)
    assert (many.tokens, many.samples) == (one.tokens, one.samples)
    for a, b in zip(big.parameters(), split.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_squarehead_is_averaged_over_micro_batches_by_their_valid_positions(tiny, teacher, batches):
    batch, taught = batches["llama"](), teacher()
    parts = rows_of(batch, 1)
    values = [next(run(tiny(), "squarehead", lambda s, p=p: [p], teacher=taught)).loss for p in parts]
    counts = [int(p["attention_mask"].sum()) for p in parts]
    (report,) = run(tiny(), "squarehead", lambda s: parts, teacher=taught, steps=1)
    assert report.loss == approx(sum(v * c for v, c in zip(values, counts, strict=True)) / sum(counts), rel=1e-5)


def test_terms_are_reported_before_their_weights_and_by_stack(tiny, teacher, batches):
    loss = "0.5*cross_entropy + 2*squarehead:eps=1e-9"
    report = next(run(tiny("t5"), loss, lambda s: [batches["t5"]()], teacher=teacher("t5")))
    terms = report.terms
    assert list(terms) == ["cross_entropy", "squarehead", "squarehead/encoder", "squarehead/decoder"]
    assert terms["squarehead"] == approx(terms["squarehead/encoder"] + terms["squarehead/decoder"])
    assert report.loss == approx(0.5 * terms["cross_entropy"] + 2 * terms["squarehead"])
    assert set(report.curve) == {"loss", *terms, "lr", "grad_norm"}


def test_pruned_weights_and_their_moments_are_zero_after_every_step(tiny, masks, batches):
    model = tiny()
    keeps = masks(model)
    attached = attach.attach(model, keeps, "masked")
    optimizer = adamw(model, lr=1e-2, weight_decay=0.1)
    start = [p.clone() for p in model.parameters()]
    for _ in run(model, "cross_entropy", lambda s: [batches["llama"]()], optimizer=optimizer, attached=attached):
        keep.verify(model, keeps)
        for name, mask in keeps.items():
            state = optimizer.state[model.get_submodule(name).weight]
            assert state["exp_avg"][~mask].abs().max() == 0 and state["exp_avg"][mask].abs().max() > 0
    assert all(not torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))


def test_pruned_weights_and_their_moments_are_exactly_zero_after_every_step(tiny, masks, batches):
    model = tiny()
    keeps = masks(model)
    attached = attach.attach(model, keeps, "masked")
    optimizer = adamw(model, lr=1e-2, weight_decay=0.5)
    steps = run(
        model, "cross_entropy", lambda s: [batches["llama"]()], attached=attached, optimizer=optimizer, clip=0.1
    )
    for _ in range(3):
        next(steps)
        keep.verify(model, keeps)
        for name, mask in keeps.items():
            state = optimizer.state[model.get_submodule(name).weight]
            assert not state["exp_avg"][~mask].any() and not state["exp_avg_sq"][~mask].any()


def test_the_clip_and_the_norm_see_the_masked_gradient(tiny, masks, batches):
    batch, norms, moved = batches["llama"](), {}, {}
    for name in ("masked", "dense"):
        model = tiny()
        keeps = masks(model)
        keep.apply(model, keeps)
        which = attach.attach(model, keeps, "masked") if name == "masked" else attach.DENSE
        before = flat(model)
        sgd = torch.optim.SGD(model.parameters(), lr=1.0)
        norms[name] = next(
            run(model, "cross_entropy", lambda s: [batch], lr=1.0, optimizer=sgd, attached=which, clip=0.01)
        ).grad_norm
        moved[name] = math.dist(before, flat(model))
    assert norms["masked"] < 0.99 * norms["dense"]
    assert moved == approx({"masked": 0.01, "dense": 0.01}, rel=1e-3)


def test_the_rate_of_each_step_is_the_schedules(tiny, batches):
    model, batch = tiny(), batches["llama"]()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loop = run(model, "cross_entropy", lambda s: [batch], lr=lambda step: 0.1 * step, optimizer=adamw(model, lr=1))
    assert next(loop).lr == 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert next(loop).lr == 0.1
    assert not all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_stops_before_the_update(tiny, batches, broken):
    model, batch = tiny(), batches["llama"]()
    loop = run(model, "cross_entropy", lambda s: [batch])
    next(loop)
    with torch.no_grad():
        model.model.norm.weight[0] = broken
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(Problem, match="diverged at step 2: cross_entropy is"):
        next(loop)
    assert all(torch.equal(v.nan_to_num(7), before[k].nan_to_num(7)) for k, v in model.state_dict().items())


def test_a_step_with_nothing_to_score_is_refused(tiny, batches):
    batch = batches["llama"]()
    batch["labels"][:] = -100
    with pytest.raises(Problem, match="step 1 has no label to score"):
        next(run(tiny(), "cross_entropy", lambda s: [batch]))


def test_a_loop_may_begin_later_and_trains_in_train_mode(tiny, batches):
    model = tiny().eval()
    reports = list(run(model, "cross_entropy", lambda s: [batches["llama"](seed=s)], start=2))
    assert [r.step for r in reports] == [3] and model.training


def test_the_teacher_does_not_move(tiny, teacher, batches):
    taught = teacher()
    before = {k: v.clone() for k, v in taught.state_dict().items()}
    list(run(tiny(), "kl + squarehead", lambda s: [batches["llama"]()], teacher=taught))
    assert all(torch.equal(v, before[k]) for k, v in taught.state_dict().items()) and not taught.training


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_bf16_autocast_trains_over_fp32_weights_and_keeps_zeros(tiny, teacher, masks, batches, monkeypatch, where):
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setenv("HARNESS_DEVICE", where)
    accelerator = accelerator_for("bf16")
    model, taught = tiny().to(accelerator.device), teacher().to(accelerator.device)
    keeps = masks(model)
    attached = attach.attach(model, keeps, "masked")
    aim = objective(rooms.resolve_terms("loss", "cross_entropy + kl + squarehead"), model, taught)
    wrapped, stepper = accelerator.prepare(model, adamw(model, lr=1))

    def of(step):
        return [batches["llama"]()]

    dtypes = set()
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda _, inputs, output: dtypes.add(output.dtype))
    loop = train(wrapped, stepper, aim, of, accelerator, steps=5, lr=lambda s: 3e-3, attached=attached, clip=1.0)
    reports = list(loop)
    assert reports[-1].loss < reports[0].loss
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    keep.verify(model, keeps)

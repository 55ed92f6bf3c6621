"""SquareHead's released losses on hidden states that are drawn here again; `squarehead.json` says what made it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from harness.tuning import forward
from harness.tuning.forward import Forward
from harness.tuning.losses import squarehead

GOLDEN = json.loads((Path(__file__).parent / "squarehead.json").read_text(encoding="utf8"))
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]], dtype=torch.bool)
ANSWER = MASK & (torch.arange(6) >= 2)
TARGET = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)


def drawn(seed, scale, shape=(3, 6, 8)):
    """The student's and the teacher's states after three blocks, each twice as large as the one before."""
    rng = np.random.default_rng(seed)
    teacher = [scale * 2.0**block * rng.standard_normal(shape) for block in range(3)]
    student = [t + 0.5 * scale * 2.0**block * rng.standard_normal(shape) for block, t in enumerate(teacher)]
    return [[torch.from_numpy(x.astype(np.float32)) for x in states] for states in (student, teacher)]


def result(states, valid=None):
    """A decoder's result, or an encoder's and a decoder's; the last of the states also stands as the final norm's."""
    valid = valid or {"decoder": MASK}
    stacks = dict(zip(valid, states if len(valid) > 1 else (states,), strict=True))
    norms = {name: blocks[-1] for name, blocks in stacks.items()}
    return Forward(None, None, ANSWER, valid, {name: tuple(blocks) for name, blocks in stacks.items()}, norms)


def check(parts, leaves, said):
    loss = sum(parts.values())
    assert loss.item() == pytest.approx(said["loss"], rel=1e-6)
    gradients = torch.autograd.grad(loss, leaves)
    assert [g.norm().item() for g in gradients] == pytest.approx(said["gradients"], rel=1e-5)


@pytest.mark.parametrize("said", GOLDEN["released"], ids=lambda said: f"scale {said['scale']}")
def test_the_loss_and_its_gradient_are_those_of_the_release(said):
    student, teacher = drawn(said["seed"], said["scale"])
    leaves = [x.requires_grad_() for x in student]
    check(squarehead.loss(result(leaves), result(teacher)), leaves, said)


@pytest.mark.parametrize("said", GOLDEN["development"], ids=lambda s: f"{s['tokens']}-{s['distance']}-{s['layers']}")
def test_so_is_every_setting_of_the_switches_it_was_developed_with(said):
    student, teacher = drawn(4, 0.3)
    leaves = [x.requires_grad_() for x in student]
    how = {name: said[name] for name in ("tokens", "distance", "layers")}
    check(squarehead.loss(result(leaves), result(teacher), **how), leaves, said)


def test_the_release_was_asked_for_every_setting():
    asked = itertools.product(("valid", "answer", "all"), ("normalised", "mse", "elementwise", "norm"), ("sum", "mean"))
    assert {(said["tokens"], said["distance"], said["layers"]) for said in GOLDEN["development"]} == set(asked)
    assert len({round(said["loss"], 6) for said in GOLDEN["development"]}) == len(GOLDEN["development"])


def model_of(seed):
    config = transformers.MptConfig(
        d_model=32, n_heads=4, n_layers=3, expansion_ratio=2, max_seq_len=16, vocab_size=64
    )  # fmt: skip
    model, rng = transformers.MptForCausalLM(config).eval(), np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.from_numpy((0.3 * rng.standard_normal(parameter.shape)).astype(np.float32)))
    return model


@torch.no_grad()
def test_the_states_taken_from_a_model_are_those_that_the_release_reads():
    ids = torch.from_numpy(np.random.default_rng(7).integers(0, 64, (3, 6)))
    batch = {"input_ids": ids, "attention_mask": MASK.long(), "labels": ids.masked_fill(~MASK, -100)}
    student, teacher = (forward.forward(m, batch, forward.stacks(m)) for m in (model_of(5), model_of(6)))
    assert squarehead.loss(student, teacher)["decoder"].item() == pytest.approx(GOLDEN["model"], rel=1e-5)
    assert squarehead.loss(student, teacher, final="block")["decoder"].item() != pytest.approx(
        GOLDEN["model"], rel=0.01
    )


@pytest.mark.parametrize("said", GOLDEN["encoder_decoder"], ids=lambda said: f"{said['script']}-{said['feat_loss']}")
def test_of_two_stacks_it_is_that_of_t5_and_of_whisper(said):
    whisper = said["script"] == "run_asr.py"
    valid = {"encoder": torch.ones_like(MASK) if whisper else MASK, "decoder": TARGET}
    pairs = zip(drawn(said["seed"], 1.0), drawn(said["seed"] + 100, 2.0, (3, 4, 8)), strict=True)
    student, teacher = ([*encoder, *decoder] for encoder, decoder in pairs)
    leaves = [x.requires_grad_() for x in student]
    distance = {"l2": "mse", "l2_norm": "normalised"}[said["feat_loss"]]
    student, teacher = (result((each[:3], each[3:]), valid) for each in (leaves, teacher))
    eps = 1e-8 if whisper else 1e-9
    check(squarehead.loss(student, teacher, eps=eps, final="block", distance=distance), leaves, said)

from __future__ import annotations

import torch
from pytest import approx
from torch.nn import functional

from harness.tuning import forward
from harness.tuning.losses import cross_entropy


def test_it_is_the_mean_over_the_scored_labels(tiny, batches):
    for family in ("llama", "t5"):
        model, batch = tiny(family), batches[family]()
        result = forward.forward(model, batch)
        labels = batch["labels"]
        if family == "llama":
            labels = functional.pad(labels[:, 1:], (0, 1), value=-100)
        by_hand = -result.logits.log_softmax(-1)[result.answer].gather(1, labels[result.answer][:, None]).mean()
        assert cross_entropy.loss(result)["answer"].item() == approx(by_hand.item(), rel=1e-6)


def test_an_unscored_label_changes_nothing(tiny, batches):
    model, batch = tiny(), batches["llama"]()
    before = cross_entropy.loss(forward.forward(model, batch))["answer"]
    batch["labels"][:, 0] = 5  # a causal model never predicts its first token
    assert torch.equal(cross_entropy.loss(forward.forward(model, batch))["answer"], before)

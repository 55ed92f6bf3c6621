from __future__ import annotations

import pytest
import torch

from harness.tuning.bits import Bits
from harness.tuning.methods import losa


@pytest.fixture
def layer():
    """An input, a sparse weight, its mask, and a trained branch of rank 8 of which 3 slices are in use."""
    torch.manual_seed(0)
    keep = torch.rand(20, 32) < 0.4
    weight = torch.randn(20, 32).masked_fill(~keep, 0)
    trained = {**losa.prepare(weight, keep), **losa.state(weight, keep)}
    trained["lora_B"].normal_()
    trained["slices"].fill_(3)
    return torch.randn(2, 5, 32), weight, keep, trained


def test_it_is_the_masked_product_of_the_slices_in_use(layer):
    x, weight, keep, trained = layer
    delta = 16 / 8 * (trained["lora_B"][:, :3] @ trained["lora_A"][:3]) * keep
    torch.testing.assert_close(
        losa.adapt(x, weight, Bits.of(keep), trained, False), x @ (weight + delta).T, rtol=1e-4, atol=1e-5
    )
    merged = losa.merge(weight, keep, trained)
    torch.testing.assert_close(merged, weight + delta)
    assert not merged[~keep].any()


def test_only_the_branch_has_dropout_and_only_in_training(layer):
    x, weight, keep, trained = layer
    quiet, dropped = (losa.adapt(x, weight, Bits.of(keep), trained, training) for training in (False, True))
    assert not torch.allclose(quiet, dropped)
    trained["lora_B"].zero_()
    torch.testing.assert_close(losa.adapt(x, weight, Bits.of(keep), trained, True), x @ weight.T)


def test_slices_out_of_use_learn_nothing(layer):
    x, weight, keep, trained = layer
    for name in ("lora_A", "lora_B"):
        trained[name].requires_grad_(True)
    losa.adapt(x, weight, Bits.of(keep), trained, False).square().sum().backward()
    assert trained["lora_A"].grad[:3].all() and not trained["lora_A"].grad[3:].any()
    assert not trained["lora_B"].grad[:, 3:].any()


def test_more_ranks_than_there_are_act_as_all_and_new_ones_change_nothing(layer):
    _, weight, keep, trained = layer
    trained["lora_B"][:, 3:] = 0
    before = losa.merge(weight, keep, trained)
    for slices in (8, 16):
        trained["slices"].fill_(slices)
        torch.testing.assert_close(losa.merge(weight, keep, trained), before)


def test_the_mean_rank_grows_with_every_pruning():
    first, third = (losa.allot([1.0, 1.0, 1.0], turn, mean=4.0) for turn in (1, 3))
    assert [int(each["slices"]) for each in (*first, *third)] == [4, 4, 4, 6, 6, 6]

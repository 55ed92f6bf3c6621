from __future__ import annotations

import pytest
import torch

from harness import models
from harness.problems import Problem
from harness.tuning import reconstruction


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_errors_are_those_of_the_definition_over_what_is_no_padding(tiny, teacher, batches, family):
    model, other = tiny(family).eval(), teacher(family).eval()
    given = [batches[family](rows=3, seed=seed) for seed in (0, 1)]
    found = reconstruction.errors(reconstruction.outputs(model, given), other, given)
    blocks = models.blocks(model)
    assert len(found) == len(blocks)
    for index, block in enumerate(blocks):
        was, now = (torch.cat([_heard(each, index, batch) for batch in given]) for each in (model, other))
        by_channel = (was - now).square().sum(0) / was.square().sum(0)
        assert found[index] == pytest.approx(float(by_channel.mean()), rel=1e-5), block.name


def test_padding_changes_nothing(tiny, teacher, batches):
    model, other, batch = tiny(), teacher(), batches["llama"](rows=3)
    fill = {"labels": -100}
    longer = {name: torch.nn.functional.pad(x, (0, 4), value=fill.get(name, 0)) for name, x in batch.items()}
    short, long = (reconstruction.errors(reconstruction.outputs(model, [b]), other, [b]) for b in (batch, longer))
    assert short == pytest.approx(long, rel=1e-5)


def test_the_same_model_has_no_error(tiny, batches):
    model, batch = tiny(), batches["llama"]()
    assert set(reconstruction.errors(reconstruction.outputs(model, [batch]), model, [batch])) == {0.0}


def test_a_channel_that_is_always_zero_is_named(tiny, teacher, batches):
    model, batch = tiny(), batches["llama"]()
    dense = reconstruction.outputs(model, [batch])
    dense[0][1][:, 3] = 0
    with pytest.raises(Problem, match="block 1 has no relative error: 1 of its output channels"):
        reconstruction.errors(dense, teacher(), [batch])


@torch.no_grad()
def _heard(model, index, batch):
    heard, block = [], models.blocks(model)[index]
    hook = block.module.register_forward_hook(lambda _, __, output: heard.append(output))
    model(**batch)
    hook.remove()
    output = heard[0][0] if isinstance(heard[0], tuple) else heard[0]
    return output[models.valid(model, batch)[block.stack]].double()

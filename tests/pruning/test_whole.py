from __future__ import annotations

import math
import time

import pytest
import torch

from harness import models
from harness.problems import Problem
from harness.pruning.recipe import recipe
from harness.pruning.whole import Setup, mean_loss, prune_model, trial, without


@pytest.fixture(params=["llama", "t5"])
def case(request, tiny_models):
    model, processor = tiny_models.tiny(request.param)
    return model, tiny_models.batches(request.param, processor), models.blocks(model)


def names(blocks):
    return [linear.name for block in blocks for linear in block.linears]


def test_globs_leave_layers_out(case):
    _, _, blocks = case
    first = names(blocks)[0]
    assert names(without(blocks, [])) == names(blocks)
    assert names(without(blocks, [first])) == names(blocks)[1:]
    left = without(blocks, [f"{blocks[0].name}.*"])
    assert len(left) == len(blocks) and not left[0].linears and names(left) == names(blocks[1:])


def test_a_glob_must_match_and_leave_something(case):
    _, _, blocks = case
    with pytest.raises(Problem, match=r"'nothing\.here' matches no layer") as raised:
        without(blocks, ["nothing.here"])
    assert names(blocks)[0] in raised.value.hint
    with pytest.raises(Problem, match="every layer is skipped"):
        without(blocks, ["*"])


@pytest.mark.parametrize("method", [("criterion", "magnitude"), ("criterion", "wanda"), ("solver", "sparsegpt")])
def test_skipped_layers_stay_as_they_are_and_the_others_get_their_rates(case, method):
    model, batches, blocks = case
    skipped = names(blocks)[3]
    before = {name: model.get_submodule(name).weight.detach().clone() for name in names(blocks)}
    left = without(blocks, [skipped])
    rates = {name: 0.25 if i % 2 else 0.5 for i, name in enumerate(names(left))}
    done = list(prune_model(Setup(model, left, batches, recipe(*method, "unstructured")), rates))
    assert [block.name for block in done] == [block.name for block in blocks]
    assert torch.equal(model.get_submodule(skipped).weight, before[skipped])
    for block in done:
        account = block.account()
        assert account["zeros"] == sum(int((~keep).sum()) for keep in block.keeps.values())
        assert account["seconds"] >= 0 and account["peak_memory_bytes"] > 0
        for name, row in block.rows.items():
            assert row["asked"] == rates[name] and row["reached"] == rates[name]


def test_a_trial_puts_the_weights_back(case):
    model, batches, blocks = case
    how = recipe("criterion", "wanda", "unstructured")

    def judge(rate):
        return trial(Setup(model, blocks, batches, how), dict.fromkeys(names(blocks), rate), batches)

    before = {key: value.clone() for key, value in model.state_dict().items()}
    dense = mean_loss(model, batches)
    assert judge(0.0) == pytest.approx(dense, abs=1e-6)
    assert judge(0.9) != pytest.approx(dense, abs=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@torch.no_grad()
def test_the_mean_loss_is_over_labels_not_batches(case):
    model, batches, _ = case
    lost = []
    for batch in batches:
        logits, labels = model(**batch).logits.log_softmax(-1), batch["labels"]
        if not model.config.is_encoder_decoder:
            logits, labels = logits[:, :-1], labels[:, 1:]
        scored = labels != -100
        lost += [-float(row[label]) for row, label in zip(logits[scored], labels[scored], strict=True)]
    assert mean_loss(model, batches) == pytest.approx(sum(lost) / len(lost), rel=1e-5)


def test_a_loss_that_is_no_number_is_a_problem(case):
    model, batches, _ = case
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(Problem, match="held-out text is nan"):
        mean_loss(model, batches)


def test_the_time_of_whoever_listens_is_no_blocks(case, monkeypatch):
    """The clock stands still but for what is done between two blocks."""
    model, batches, blocks = case
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    how = recipe("criterion", "wanda", "unstructured")
    seconds = []
    for done in prune_model(Setup(model, blocks, batches, how), dict.fromkeys(names(blocks), 0.5)):
        now[0] += 100
        seconds.append(done.account()["seconds"])
    assert seconds == [0.0] * len(blocks)


def test_no_cache_is_built_for_a_loss(case):
    model, batches, _ = case
    seen = []
    model.register_forward_hook(lambda _, args, out: seen.append(out.get("past_key_values")))
    mean_loss(model, batches)
    assert seen == [None] * len(batches)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_trial_holds_no_second_model_on_cuda(tiny_models):
    model, processor = tiny_models.tiny("llama")
    blocks = models.blocks(model.cuda())
    setup = Setup(model, blocks, [], recipe("criterion", "magnitude", "unstructured"))
    weights = {linear.name: linear.module.weight.detach().cpu() for block in blocks for linear in block.linears}
    held = torch.cuda.memory_allocated()
    during = []
    model.register_forward_pre_hook(lambda *_: during.append(torch.cuda.memory_allocated()))
    trial(setup, dict.fromkeys(weights, 0.5), tiny_models.batches("llama", processor)[:1])
    assert during[0] - held < sum(weight.nbytes for weight in weights.values()) / 2
    assert all(torch.equal(model.get_submodule(name).weight.cpu(), weight) for name, weight in weights.items())

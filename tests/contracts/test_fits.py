"""What files say of what they fit is true: a metric scores the tasks it names, a model has the widths that are told."""

from __future__ import annotations

import math

import pytest

from harness import models, rooms
from harness.problems import Problem
from harness.spec import fits

TASKS, METRICS, FAMILIES = (rooms.ROOMS[kind].names() for kind in ("task", "metric", "model"))
TEXT = {"prediction": "so\n#### 7", "reference": "thus\n#### 7"}
PREDICTED = {
    "translation": {"source": "one", "prediction": "eins", "reference": "eins"},
    "text_to_text": {"source": "one", "prediction": "one two", "reference": "one two three"},
    "speech": {**TEXT, "prediction": "one", "reference": "one", "normaliser": "n", "normalised": TEXT},
    "reasoning": {**TEXT, "strict": "7", "flexible": "7"},
    "instruction": {"prediction": "one two", "reference": "one two three"},
    "language_modelling": {"protocol": "ppl-8-concat", "nll": 3.0, "tokens": 7},
    "classification": {"task": "shapes", "doc": 0, "label": "disc", "prediction": "disc", "acc": 1.0, "protocol": "p"},
    "zero_shot": {"task": "a", "doc": 0, "acc": 1.0, "acc_norm": 0.0, "cut": False, "protocol": "p"},
}
"""A row of what each task's `predict` gives."""


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_names_tasks_that_there_are_and_its_own_among_them(metric):
    named = rooms.ROOMS["metric"].method(metric).constants["TASKS"]
    judged = {task for task in TASKS if rooms.ROOMS["task"].method(task).constants["METRIC"] == metric}
    assert named and judged <= set(named) <= set(TASKS)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("task", PREDICTED)
def test_a_metric_scores_the_tasks_it_names_and_no_other(task, metric):
    score = rooms.bind("metric", metric)
    if fits.wrong_metric(metric, task) is None:
        assert score([PREDICTED[task]] * 2)[metric].count == 2
    else:
        with pytest.raises(Problem):
            score([PREDICTED[task]] * 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_names_tasks_that_there_are(family):
    assert set(rooms.ROOMS["model"].method(family).constants["TASKS"]) <= set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_family(task):
    assert any(fits.wrong_family(family, task) is None for family in FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_models_layers_are_as_wide_as_is_said(family):
    model, _ = rooms.load("model", family).tiny(["one two three", "four five"], seed=0)
    widths = [linear.module.in_features for block in models.blocks(model) for linear in block.linears]
    assert min(widths) == math.gcd(*widths) == fits.TINY["hidden_size"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_tells_the_widths_of_its_layers(family):
    model, _ = rooms.load("model", family).tiny(["one two three", "four five"], seed=0)
    widths = {linear.module.in_features for block in models.blocks(model) for linear in block.linears}
    config = model.config.to_dict()
    assert fits.family_of(config) == family
    told = {config[key] for key in fits.WIDTHS if isinstance(config.get(key), int)}
    assert all(any(width % known == 0 for known in told) for width in widths) and told


LLAMA = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}


@pytest.mark.parametrize(
    ("method", "config", "said"),
    [
        ("lora:rank=193", LLAMA, "no layer with keys and values = 192 has rank 193"),
        ("lora:rank=192", LLAMA, None),
        ("losa:rank=40", {**LLAMA, "head_dim": 13}, "keys and values = 39"),
        ("lors:rank=600", {"d_model": 512, "d_ff": 2048}, "d_model = 512 has rank 600"),
        ("spp:rank=1000", LLAMA, None),
        ("seft:rank=193", LLAMA, None),
        ("lora:rank=600", {"vocab_size": 33}, None),
    ],
)
def test_a_rank_that_the_narrowest_layer_cannot_have_is_told(method, config, said):
    problem = fits.wrong_rank(config, str(rooms.resolve("method", method)))
    assert (problem is None) is (said is None)
    if said:
        assert said in problem.what and problem.hint.startswith("at most")


@pytest.mark.parametrize(
    ("method", "pattern", "wrong"),
    [
        ("seft", "2:4", True),
        ("seft", "mixed_nm", True),
        ("seft:reactivate=false", "2:4", False),
        ("spiel", "2:4", True),
        ("spiel", "unstructured", False),
        ("seft", "unstructured", False),
        ("masked", "2:4", False),
    ],
)
def test_revived_weights_and_groups_do_not_go_together(method, pattern, wrong):
    given = str(rooms.resolve("method", method)), str(rooms.resolve("pattern", pattern))
    problem = fits.wrong_revival(*given)
    assert (problem is not None) == wrong
    if wrong:
        assert "would break the pattern" in problem.what and "seft:reactivate=false" in problem.hint

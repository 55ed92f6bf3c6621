from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.spec import entry as spec
from harness.spec.axes import Axis, Point
from harness.spec.claims import Condition, Side, holds, parse


def axis(name, **points):
    return Axis(name, {label.replace("_dot_", "."): Point(value, {}) for label, value in points.items()})


AXES = [
    Axis("prune.sparsity", {"0.5": Point(0.5, {}), "0.75": Point(0.75, {})}),
    Axis("tune.loss", {"ce": Point("cross_entropy", {}), "sh": Point("squarehead", {}), "ce + kl": Point("both", {})}),
    Axis("arm", {"long": Point({}, {}), "short": Point({}, {})}),
]


def test_a_claim_is_two_sides_and_conditions():
    claim = parse("sh > ce at prune.sparsity >= 0.7 and arm = long", AXES)
    assert (claim.left, claim.op, claim.right) == (
        Side("sh", (("tune.loss", "sh"),), None),
        ">",
        Side("ce", (("tune.loss", "ce"),), None),
    )
    assert claim.conditions == (Condition("prune.sparsity", ">=", 0.7), Condition("arm", "=", "long"))


@pytest.mark.parametrize(
    ("text", "labels", "baseline"),
    [
        ("dense", (), "dense"), ("one_shot", (), "one_shot"),
        ("0.5/one_shot", (("prune.sparsity", "0.5"),), "one_shot"),
        ("0.5/sh/long", (("prune.sparsity", "0.5"), ("tune.loss", "sh"), ("arm", "long")), None),
        ("0.75", (("prune.sparsity", "0.75"),), None), ("ce + kl", (("tune.loss", "ce + kl"),), None),
    ],
)  # fmt: skip
def test_sides(text, labels, baseline):
    left = parse(f"{text} <= sh", AXES).left
    assert (left.labels, left.baseline) == (labels, baseline)


@pytest.mark.parametrize(
    ("text", "part", "near"),
    [
        ("squarehed > ce", "no label 'squarehed'", None),
        ("shh > ce", "no label 'shh'", "sh"),
        ("sh > dens", "no label 'dens'", "dense"),
        ("sh ce", "cannot be read", None),
        ("sh >", "cannot be read", None),
        ("sh => ce", "cannot be read", None),
        ("sh > sh", "compares a cell with itself", None),
        ("sh > ce at", "no label 'ce at'", None),
        ("sh > ce at prune.sparsity", "the condition 'prune.sparsity' cannot be read", None),
        ("sh > ce at prune.sparsty > 0.5", "no axis 'prune.sparsty'", "prune.sparsity"),
        ("sh > ce at prune.sparsity = 0.7", "prune.sparsity has no value 0.7", "0.75"),
        ("sh > ce at prune.sparsity > high", "compares no numbers", None),
        ("sh > ce at arm > long", "compares no numbers", None),
        ("sh > ce at arm = lng", "arm has no value 'lng'", "long"),
    ],
)
def test_a_wrong_claim_is_named(text, part, near):
    with pytest.raises(Problem) as caught:
        parse(text, AXES, where="x.yaml:3")
    assert part in caught.value.what and repr(text) in caught.value.what and caught.value.where == "x.yaml:3"
    assert near is None or near in caught.value.nearest


def test_a_label_of_two_axes_is_clear_only_in_a_full_cell_label():
    axes = [Axis(name, {"1": Point(1, {}), "2": Point(2, {})}) for name in ("a", "b")]
    with pytest.raises(Problem, match="label '1' is not clear"):
        parse("1 > 2", axes)
    assert parse("1/2 > 2/1", axes).right.labels == (("a", "2"), ("b", "1"))


def test_a_baseline_that_is_not_run_cannot_be_named():
    with pytest.raises(Problem, match="no label 'dense'"):
        parse("sh > dense", AXES, ["one_shot"])


sides = st.sampled_from(["0.5", "0.75", "ce", "sh", "ce + kl", "long", "dense", "one_shot", "0.5/sh", "0.75/one_shot"])
conditions = st.lists(
    st.tuples(st.just("prune.sparsity"), st.sampled_from([">", "<", ">=", "<="]), st.floats(0, 1, allow_nan=False)),
    max_size=3,
)


@settings(max_examples=100)
@given(
    left=sides,
    right=sides,
    op=st.sampled_from([">", "<", ">=", "<=", "~"]),
    conditions=conditions,
    space=st.text(" ", min_size=1, max_size=3),
)
def test_what_the_grammar_writes_is_read_back(left, right, op, conditions, space):
    text = f"{left}{space}{op}{space}{right}"
    if conditions:
        text += f"{space}at{space}" + f"{space}and{space}".join(f"{a} {o} {v}" for a, o, v in conditions)
    if left == right:
        with pytest.raises(Problem):
            parse(text, AXES)
        return
    claim = parse(text, AXES)
    assert (claim.left.text, claim.op, claim.right.text) == (left, op, right)
    assert [(c.axis, c.op, c.value) for c in claim.conditions] == conditions


def test_claims_of_an_entry_have_their_line(registry):
    line, problem = registry.one(("grid:", "claims:\n- sh > ce\n- sh > cf\ngrid:"))
    assert line == 13 and "'sh > cf'" in problem.what


def test_a_claim_about_what_only_the_top_level_has_is_left_out_at_a_scale(registry):
    text = "claims: [sh > ce, 0.5/sh > 0.5/ce]\nscales: {tiny: {grid: {prune.sparsity: [0.75]}}}\ngrid:"
    assert registry.check(("grid:", text)) == []
    assert [claim.text for claim in spec.claims(registry.read(("grid:", text)))] == ["sh > ce", "0.5/sh > 0.5/ce"]
    assert [claim.text for claim in spec.claims(registry.read(("grid:", text), scale="tiny"))] == ["sh > ce"]


def never(text):
    return ("grid:", f"claims:\n- {text}\ngrid:")


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("sh > ce at prune.sparsity >= 0.9", "never holds: no value of prune.sparsity is so"),
        ("sh > ce at prune.sparsity < 0.5", "never holds: no value of prune.sparsity is so"),
        ("sh > ce at prune.sparsity > 0.5 and prune.sparsity < 0.75", "no value of prune.sparsity is so"),
        ("sh > ce at prune.sparsity = 0.5 and prune.sparsity = 0.75", "no value of prune.sparsity is so"),
        ("sh > ce at tune.loss = sh", "never holds: 'ce' is at tune.loss = ce"),
        ("0.5/sh > ce at prune.sparsity > 0.5", "never holds: '0.5/sh' is at prune.sparsity = 0.5"),
        ("0.5/sh > 0.75/sh at prune.sparsity >= 0.5 and prune.sparsity <= 0.6", "'0.75/sh' is at prune.sparsity"),
        ("dense > one_shot at tune.loss = sh", "never holds: neither side has the axis tune.loss"),
        ("sh/one_shot > ce", "no cell is 'sh/one_shot'"),
        ("0.5/dense > ce", "no cell is '0.5/dense'"),
    ],
)
def test_a_claim_that_can_never_hold_is_told_with_its_line(registry, claim, said):
    line, problem = registry.one(never(claim))
    assert line == 12 and said in problem.what and repr(claim) in problem.what and problem.hint


@pytest.mark.parametrize(
    "claim",
    [
        "sh > ce at prune.sparsity >= 0.75",
        "sh > ce at prune.sparsity > 0.4 and prune.sparsity < 0.6",
        "0.5/sh > 0.5/ce at prune.sparsity = 0.5",
        "sh > one_shot at tune.loss = sh",
        "dense > one_shot at prune.sparsity = 0.5",
        "0.75/sh > 0.75/one_shot",
    ],
)
def test_a_claim_that_can_hold_is_none(registry, claim):
    assert registry.check(never(claim)) == []


def test_a_pruned_model_is_no_baseline_of_an_entry_that_tunes_nothing(registry):
    text = "title: a\nmodel: org/a\ndata: pairs\ntask: translation\nprune: {solver: sparsegpt}\n"
    text += 'claims: ["0.5 > 0.75", "0.5 > one_shot"]\ngrid: {prune.sparsity: [0.5, 0.75]}\n'
    assert "no cell is 'one_shot'" in registry.one(text=text)[1].what


def test_a_claim_that_no_value_of_a_scale_meets_is_left_out_there(registry):
    text = "claims: [sh > ce, sh > ce at prune.sparsity >= 0.7]\nscales: {tiny: {grid: {prune.sparsity: [0.5]}}}\ngrid:"
    assert registry.check(("grid:", text)) == []
    assert len(spec.claims(registry.read(("grid:", text)))) == 2
    assert [claim.text for claim in spec.claims(registry.read(("grid:", text), scale="tiny"))] == ["sh > ce"]


@pytest.mark.parametrize(("op", "met"), [(">", [2]), (">=", [1, 2]), ("<", [0]), ("<=", [0, 1])])
def test_a_condition_is_met_by_the_values_it_compares(op, met):
    assert [value for value in range(3) if holds(Condition("a", op, 1), str(value), value)] == met
    assert holds(Condition("a", "=", "half"), "half", 0.5) and not holds(Condition("a", "=", "half"), "0.5", 0.5)

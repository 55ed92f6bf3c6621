from __future__ import annotations

import pytest

REFERENCE = """\
reference:
  metric: translation
  unit: "%"
  read: Table 2
  cells:
    dense: 28.2
    0.5/sh: {value: 27, read: a card, plus_minus: 0.2}
    0.5/one_shot: null
grid:"""


def test_cells_have_a_value_or_a_blank_and_the_place_where_it_was_read(registry):
    reference = registry.read(("grid:", REFERENCE)).reference
    assert (reference.metric, reference.unit, reference.factor) == ("translation", "%", 1.0)
    assert {label: cell.value for label, cell in reference.cells.items()} == {
        "dense": 28.2, "0.5/sh": 27.0, "0.5/one_shot": None,
    }  # fmt: skip
    assert [reference.read_at(label) for label in reference.cells] == ["Table 2", "a card", "Table 2"]
    assert reference.cells["0.5/sh"].plus_minus == 0.2


@pytest.mark.parametrize(
    ("old", "new", "line", "part", "near"),
    [
        ("0.5/sh:", "0.5/shh:", 17, "reference.cells: no cell is called '0.5/shh'", "0.5/sh"),
        ("    dense: 28.2", "    dens: 28.2", 16, "no cell is called 'dens'", "dense"),
        ("metric: translation", "metric: translatoin", 12, "no evaluation is called 'translatoin'", "translation"),
        ("  read: Table 2\n", "", 15, "reference.cells.dense: the place where this was read is missing", None),
        ("28.2", "high", 16, "reference.cells.dense: should be", None),
        ("plus_minus: 0.2", "plus_minus: -1", 17, "reference.cells.0.5/sh.plus_minus", None),
        ('  unit: "%"', "  unit: 3", 13, "reference.unit: should be a valid string", None),
    ],
)
def test_a_wrong_reference_is_told_with_its_line(registry, old, new, line, part, near):
    found, problem = registry.one(("grid:", REFERENCE.replace(old, new)))
    assert found == line and part in problem.what
    assert near is None or near in problem.nearest


def test_the_metric_may_be_one_score_of_an_evaluation(registry):
    assert registry.check(("grid:", REFERENCE.replace("metric: translation", "metric: translation.bleu"))) == []


def test_cells_that_only_the_top_level_has_stay_at_other_scales(registry):
    text = REFERENCE.replace("grid:", "scales: {tiny: {grid: {prune.sparsity: [0.75]}}}\ngrid:")
    assert registry.check(("grid:", text)) == []
    assert "0.5/sh" in registry.read(("grid:", text), scale="tiny").reference.cells


def test_further_metrics_have_references_of_their_own(registry):
    also = REFERENCE.replace("grid:", "  also:\n    - {metric: other, read: Table 2, cells: {dense: 1}}\ngrid:")
    evaluate = ("grid:", "evaluate: {translation: null, other: null}\ngrid:")
    reference = registry.read(("grid:", also), evaluate).reference
    assert [one.metric for one in reference.every] == ["translation", "other"]
    assert reference.also[0].cells["dense"].value == 1 and reference.also[0].read_at("dense") == "Table 2"
    _, problem = registry.one(("grid:", also.replace("dense: 1", "dens: 1")), evaluate)
    assert problem.what == "reference.also.0.cells: no cell is called 'dens'" and problem.nearest == ("dense",)


FACTS = """\
reference:
  metric: translation
  read: Figure 3
  facts:
    - {name: peak memory, value: 26012, unit: MiB}
    - {name: peak memory of another, value: out of memory, read: a log}
    - {name: accuracy, value: 28.25, unit: "%"}
    - {name: energy, value: null, unit: J}
  also:
    - {metric: translation.bleu, read: a card, facts: [{name: speed, value: 2, unit: x}]}
grid:"""


def test_what_fits_no_cell_is_a_fact_with_its_unit_and_place(registry):
    reference = registry.read(("grid:", FACTS)).reference
    assert reference.cells == {} and reference.rows() == [
        ("peak memory", "26012 MiB", "Figure 3"),
        ("peak memory of another", "out of memory", "a log"),
        ("accuracy", "28.25%", "Figure 3"),
        ("energy", "not found", "Figure 3"),
        ("speed", "2x", "a card"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "part"),
    [
        ("  read: Figure 3\n", "", 14, "reference.facts.0: the place where this was read is missing"),
        ("value: 28.25", "value: [1]", 17, "reference.facts.2.value"),
        ("  - {name: energy, ", "  - {", 18, "reference.facts.3.name"),
        (FACTS[FACTS.index("  facts:") : FACTS.index("  also:")], "", 11, "reference: it says nothing"),
    ],
)
def test_a_wrong_fact_is_told_with_its_line(registry, old, new, line, part):
    assert old in FACTS
    found, problem = registry.one(("grid:", FACTS.replace(old, new)))
    assert found == line and part in problem.what

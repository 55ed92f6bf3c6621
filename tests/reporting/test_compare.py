from __future__ import annotations

import math

import pytest

from harness.problems import Problem
from harness.reporting.compare import NOT_GIVEN, NOT_RUN, OTHER_SCALE, OUTDATED, compare, mean_and_error
from harness.runs.keys import version


def row(comparison, label, metric="bleu"):
    return next(r for r in comparison.select("bleu", metric).itertuples() if r.label == label)


@pytest.mark.parametrize(
    ("values", "mean", "error"),
    [([2.0, 4.0, 9.0], 5.0, math.sqrt((9 + 1 + 16) / 2 / 3)), ([1.0, 3.0], 2.0, 1.0), ([5.0, 5.0], 5.0, 0.0)],
)
def test_the_standard_error_is_that_of_the_mean_over_seeds(values, mean, error):
    assert mean_and_error(values) == pytest.approx((mean, error))


def test_one_value_has_no_error_and_none_has_no_mean():
    assert mean_and_error([3.0])[0] == 3.0
    assert math.isnan(mean_and_error([3.0])[1])
    assert math.isnan(mean_and_error([])[0])


def test_a_cell_has_its_mean_over_seeds_and_the_papers_number(make):
    found = row(make(), "0.5/squarehead")
    assert found.mean == pytest.approx(30 - 20 * 0.25 * 0.5 + 1)
    assert (found.n, found.expected, found.status) == (3, 3, "")
    assert found.stderr == found.error == pytest.approx(1 / math.sqrt(3))
    assert found.sampling == 0.5
    assert (found.paper, found.read) == (25.5, "Table 1")
    assert found.gap == pytest.approx(found.mean - 25.5)
    assert (found.row, found.x, found.arm) == ("0.5", 0.5, "squarehead")


def test_every_cell_of_the_grid_has_a_row_in_the_order_of_sparsity(make):
    comparison = make(("[0.5, 0.75, 0.9]", "[0.9, 0.5, 0.75]"))
    expected = ["dense"]
    for sparsity in ("0.5", "0.75", "0.9"):
        expected += [f"{sparsity}/{arm}" for arm in ("one_shot", "cross_entropy", "squarehead")]
    assert list(comparison.frame["label"]) == expected


def test_a_cell_that_was_not_run_says_so_and_a_partial_one_counts(make):
    lacks = {("0.9/squarehead", 0), ("0.9/squarehead", 1), ("0.9/squarehead", 2), ("0.5/squarehead", 2)}
    comparison = make(skip=lambda cell: (cell.label, cell.seed) in lacks)
    assert (row(comparison, "0.9/squarehead").status, row(comparison, "0.9/squarehead").n) == (NOT_RUN, 0)
    assert math.isnan(row(comparison, "0.9/squarehead").mean)
    assert row(comparison, "0.5/squarehead").status == "2 of 3 seeds"


def test_with_no_record_at_all_every_row_is_there(make):
    comparison = make(skip=lambda cell: True)
    assert set(comparison.frame["status"]) == {NOT_RUN}
    assert comparison.columns() == [("bleu", "bleu")]
    assert row(comparison, "dense").paper == 25.9


def test_blanks_of_the_paper_say_where_was_looked(make):
    comparison = make()
    assert row(comparison, "0.9/squarehead").read == "the scan is cut off"
    assert row(comparison, "0.9/cross_entropy").read == NOT_GIVEN
    assert math.isnan(row(comparison, "0.9/squarehead").gap)


def test_the_papers_numbers_and_spread_come_in_our_unit(make):
    comparison = make(("unit: BLEU", "unit: BLEU of 1\n  factor: 100"), ("value: 25.9, read", "value: 0.259, read"))
    found = row(comparison, "dense")
    assert (found.paper, found.spread) == pytest.approx((25.9, 20.0))


def test_one_seed_has_the_error_over_the_test_rows(make):
    comparison = make(("seeds: [0, 1, 2]", "seeds: [0]"))
    assert not comparison.seeds_are_repeated
    assert row(comparison, "0.5/squarehead").error == 0.5
    assert row(make(), "dense").error != row(make(), "dense").sampling


def test_cells_of_the_paper_that_a_scale_lacks_have_a_row(make):
    smaller = ("tiny: {model: tiny/t5, data: cldr_pairs}", "tiny: {model: tiny/t5, grid: {prune.sparsity: [0.75]}}")
    comparison = make(smaller, scale="tiny")
    found = row(comparison, "0.5/squarehead")
    assert (found.status, found.paper, found.expected) == (OTHER_SCALE, 25.5, 0)
    assert "0.9/squarehead" not in set(comparison.frame["label"])


def test_unlike_settings_are_named_and_like_ones_are_not(make):
    assert make().unlike is None
    said = make(scale="tiny").unlike
    assert "tiny/t5 instead of google-t5/t5-small" in said
    assert "cldr_pairs" in said
    assert "wmt14" in said


def test_unlike_protocols_in_one_column_are_refused_unless_told(samples, tmp_path):
    entry = samples.entry(tmp_path, "paper")
    records = samples.plain(entry, lambda cell: 1.0)
    records[-1]["metrics"]["bleu"]["bleu"]["protocol"] = "another tokeniser"
    with pytest.raises(Problem, match="another tokeniser") as caught:
        compare(entry, records)
    assert "a metric on made-up rows" in str(caught.value)
    assert "0.9/squarehead" in str(caught.value)
    mixed = row(compare(entry, records, mix=True), "0.9/squarehead")
    assert mixed.protocol == "a metric on made-up rows | another tokeniser"


def test_records_of_others_are_passed_over(make, samples):
    def more(found):
        changes = ({"entry": "other"}, {"scale": "small"}, {"label": "0.6/gone"})
        return [*found, *({**found[0], **change} for change in changes)]

    assert make(records=more).frame.equals(make().frame)


def test_what_was_run_with_other_settings_is_left_out_and_says_what_differs(make):
    def older(found):
        for one in found:
            if one["label"] == "0.5/squarehead":
                one["settings"]["prune"]["samples"] = 64
            if (one["label"], one["seed"]) == ("0.75/squarehead", 1):
                one["settings"]["tune"]["clip"] = 2.0
            del one["settings"]["prepare"]["precision"]  # a setting that came later: its default counts
        return found

    comparison = make(records=older)
    assert (row(comparison, "0.5/squarehead").status, row(comparison, "0.5/squarehead").n) == (OUTDATED, 0)
    assert row(comparison, "0.75/squarehead").status == "2 of 3 seeds"
    assert (row(comparison, "0.9/squarehead").status, row(comparison, "dense").n) == ("", 1)
    assert comparison.outdated == {
        "prune.samples 64, now 128": ("0.5/squarehead",),
        "tune.clip 2.0, now none": ("0.75/squarehead",),
    }


def test_of_many_differences_the_first_are_named(make):
    def older(found):
        other = {"samples": 1, "seed": 2, "rows": 3, "batch_size": 5, "criterion": "wanda"}
        for one in found:
            (one["settings"]["prune"] or {}).update(other)
        return found

    ((why, labels),) = make(records=older).outdated.items()
    assert why.count(", now ") == 4 and why.endswith("; and 1 more")
    assert len(labels) == 9 and make().outdated == {}


def test_patterns_keep_the_order_of_the_grid(make, samples):
    comparison = make(text=samples.PATTERNS)
    assert comparison.axis == "prune.pattern"
    assert list(dict.fromkeys(comparison.frame["row"])) == ["dense", "2:4", "16:64"]
    assert comparison.frame["x"].isna().all()
    assert not comparison.units


def test_a_reference_to_a_score_that_records_lack_is_a_problem(make):
    with pytest.raises(Problem, match=r"bleu\.ter") as caught:
        make(("metric: bleu", "metric: bleu.ter"))
    assert "bleu.bleu" in str(caught.value)


def test_headlines_are_the_first_metrics_and_the_papers(make):
    def more(found):
        for one in found:
            for name in ("chrf", "ter"):
                one["metrics"]["bleu"][name] = one["metrics"]["bleu"]["bleu"]
        return found

    assert make(records=more).headlines() == [("bleu", "bleu")]
    assert make(("metric: bleu", "metric: bleu.ter"), records=more).headlines() == [("bleu", "bleu"), ("bleu", "ter")]
    assert row(make(("metric: bleu", "metric: bleu.ter"), records=more), "dense", "ter").paper == 25.9


def test_environments_are_counted_once_each(make, samples):
    def two(found):
        return [{**found[0], "environment": {**samples.ENVIRONMENT, "cpu": "another"}}, *found[1:]]

    counts = [count for _, count in make(records=two).environments]
    assert sorted(counts) == [1, 21]


ALSO = "claims:", "  also:\n    - {metric: chrf, unit: points, read: Table 2, cells: {dense: 50}}\nclaims:"
TWO = "evaluate: {bleu: {batch_size: 64}}", "evaluate: {bleu: {batch_size: 64}, chrf: {metric: bleu}}"


def test_the_paper_may_have_numbers_of_several_metrics(make):
    comparison = make(ALSO, TWO)
    assert comparison.units == {("bleu", "bleu"): "BLEU", ("chrf", "bleu"): "points"}
    rows = comparison.select("chrf", "bleu").set_index("label")
    assert rows.loc["dense", "paper"] == 50 and rows.loc["dense", "read"] == "Table 2"
    assert comparison.select("bleu", "bleu").set_index("label").loc["dense", "paper"] == 25.9
    assert comparison.headlines() == [("bleu", "bleu"), ("chrf", "bleu")]


def test_costs_are_those_of_the_last_training_as_a_mean_over_seeds(make):
    def records(found):
        for record in found:
            if record["seed"] is not None:
                cost = {"parameters": 100, "trained_parameters": 10 + record["seed"], "merged": 0.5}
                record["stages"] = {role: {"version": version(role)} for role in ("pretrain", "tune")}
                record["stages"]["pretrain"]["cost"], record["stages"]["tune"]["cost"] = {"merged": 1}, cost
                record["sparsity"] = {"asked": 0.75, "after_prune": 0.75}
        return found

    comparison = make(records=records)
    assert "dense" not in comparison.costs and make().costs == {}
    assert comparison.costs["0.5/squarehead"] == {
        **{"asked": 0.75, "after_prune": 0.75, "merged": 0.5},
        **{"parameters": 100, "trained_parameters": 11},
    }


def test_a_reference_of_facts_alone_puts_no_number_beside_the_cells(make, samples):
    given = samples.YAML[samples.YAML.index("  cells:") : samples.YAML.index("claims:")]
    comparison = make((given, "  facts: [{name: memory, value: 3, unit: GiB, read: a log}]\n"))
    assert comparison.facts == (("memory", "3 GiB", "a log"),)
    assert comparison.units == {} and comparison.frame["paper"].isna().all()

from __future__ import annotations

import math
import re

import pytest

from harness.reporting import tables
from harness.reporting.tables import escape, markdown, matrix, number
from harness.runs.keys import version

BLEU = ("bleu", "bleu")


def cells(table):
    """Returns the table's texts by row label, the header among them."""
    return {line[0]: line[1:] for line in (table.header, *table.body)}


def test_sparsity_goes_down_arms_across_and_the_papers_numbers_stand_beside(make):
    found = cells(matrix(make(), BLEU))
    assert found["sparsity"] == ("no tuning", "paper", "gap", "cross_entropy", "squarehead", "paper", "gap")
    assert found["50%"] == ("20.00", "not given", "", "26.00 ± 0.58", "28.50 ± 0.58", "25.50", "+3.00")
    assert found["dense"] == ("30.00", "25.90 ± 0.20", "+4.10", "", "", "", "")
    assert found["90%"][-2:] == ("not given", "")


def test_what_was_not_run_is_said_and_fewer_seeds_too(make):
    lacks = {("0.9/squarehead", 0), ("0.9/squarehead", 1), ("0.9/squarehead", 2), ("0.75/squarehead", 2)}
    found = cells(matrix(make(skip=lambda cell: (cell.label, cell.seed) in lacks), BLEU))
    assert found["90%"][4:] == ("not run", "not given", "")
    assert found["75%"][4] == "26.75 ± 0.50 (n=2)"
    assert found["50%"][4] == "28.50 ± 0.58"


def test_a_papers_number_without_ours_has_no_gap(make):
    found = cells(matrix(make(skip=lambda cell: cell.label == "0.75/squarehead"), BLEU))
    assert found["75%"][4:] == ("not run", "24.70", "")


def test_notes_say_direction_errors_protocol_and_places(make):
    notes = " ".join(matrix(make(), BLEU).notes)
    assert "Higher is better." in notes
    assert "standard error over seeds, n = 3" in notes
    assert "Protocol: a metric on made-up rows." in notes
    assert "0.5/squarehead 25.50 (Table 1)" in notes
    assert "No number of the paper for 0.9/squarehead: the scan is cut off." in notes
    assert "cross_entropy (all): not given in what could be read." in notes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replace": ("seeds: [0, 1, 2]", "seeds: [0]")}, "error over the rows of the test set, not over seeds"),
        ({"replace": ("seeds: [0, 1, 2]", "seeds: [0]"), "stderr": None}, "One seed, without an error."),
        ({"skip": lambda cell: True}, "Nothing was run yet."),
        ({"higher": False}, "Lower is better."),
    ],
)
def test_notes_say_what_the_errors_are(make, options, said):
    replace = [options.pop("replace")] if "replace" in options else []
    assert said in " ".join(matrix(make(*replace, **options), BLEU).notes)


def test_levels_of_another_model_are_not_to_be_compared(make):
    assert tables.warning(make()) == ""
    assert "orderings with the paper, not levels" in markdown(make(scale="tiny"))
    assert "orderings" not in markdown(make())


def test_patterns_go_down_as_they_are_written(make, samples):
    found = cells(matrix(make(text=samples.PATTERNS), BLEU))
    assert list(found) == ["pattern", "dense", "2:4", "16:64"]
    assert found["pattern"] == ("no tuning", "cross_entropy", "squarehead")


def test_without_untuned_cells_the_dense_model_has_its_own_column(make):
    found = cells(matrix(make(("seeds: [0, 1, 2]", "seeds: [0, 1, 2]\nbaselines: [dense]")), BLEU))
    assert found["sparsity"] == ("dense", "paper", "gap", "cross_entropy", "squarehead", "paper", "gap")
    assert found["50%"][:3] == ("", "", "")


def test_every_metric_has_its_column_where_there_are_several(make):
    def more(found):
        for one in found:
            one["metrics"]["bleu"]["chrf"] = {**one["metrics"]["bleu"]["bleu"], "value": 60.0}
        return found

    assert len(tables.tables(make())) == 1
    table = tables.tables(make(records=more, skip=lambda cell: cell.label == "0.9/squarehead"))[1]
    assert table.header == ("cell", "bleu", "bleu chrf")
    assert cells(table)["0.5/squarehead"] == ("28.50 ± 0.58", "60.00 ± 0.00")
    assert "0.9/squarehead" not in cells(table)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((12.345,), "12.35"),
        ((12.3, 0.456), "12.30 ± 0.46"),
        ((-3.0, math.nan, "+"), "−3.00"),
        ((0.5, math.nan, "+"), "+0.50"),
        ((54321.9, 12.0), "54,322 ± 12.00"),
    ],
)
def test_numbers_are_written_alike(arguments, text):
    assert number(*arguments) == text


def test_markdown_is_a_table_of_equal_lines(make):
    text = markdown(make(scale="tiny"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert text.startswith("# Made-up numbers for tests\n")
    assert "sample (arXiv:0000.00000, Table 1)" in text
    assert text.endswith("\n")


def test_latex_has_equal_rows_and_nothing_unescaped(make):
    text = tables.latex(make(scale="tiny"))
    columns = len(re.search(r"\\begin\{tabular\}\{(l r*)\}".replace(" ", ""), text)[1])
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") + 1 for line in rows} == {columns}
    assert r"cross\_entropy" in text
    assert r"50\%" in text
    assert not re.search(r"(?<!\\)[_%#]", text.replace("\\label{tab:sample-translation-tiny-bleu}", ""))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1


def test_latex_escapes_its_own_characters():
    assert escape(r"a_b 50% & $x$ {y} #1 ~ ^ \z ± −") == (
        r"a\_b 50\% \& \$x\$ \{y\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}z $\pm$ $-$"
    )


def test_files_are_named_after_entry_and_scale_and_have_the_same_bytes_again(make, tmp_path):
    paths = tables.write(make(), tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        "sample/translation.paper.md",
        "sample/translation.paper.tex",
    ]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in tables.write(make(), tmp_path)] == before


def test_what_was_run_with_other_settings_is_said_under_the_table(make):
    def older(found):
        for one in found:
            if one["settings"]["prune"]:
                one["settings"]["prune"]["samples"] = 64
        return found

    text = tables.markdown(make(records=older))
    assert "run with other settings: prune.samples 64, now 128 (0.5/one_shot, 0.75/one_shot, " in text
    assert "| run with other settings |" in text
    assert "other settings" not in tables.markdown(make())


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"peak_memory_bytes": 5 * 2**30, "held_memory_bytes": 2**30, "step_seconds": 0.5}, ("4,096", "0.50", "", "")),
        ({"gradient_seconds": 2.5, "pruning_seconds": 3.0}, ("", "", "2.50", "3.00")),
        ({"peak_memory_bytes": 5 * 2**30}, ("", "", "", "")),  # of before what was held was recorded
    ],
)
def test_the_table_of_costs_has_a_row_a_cell_that_was_trained(make, measured, said):
    cost = {"parameters": 20000, "trained_parameters": 3000, **measured}

    def records(found):
        for record in found:
            if record["label"] == "0.5/squarehead":
                record["stages"] = {"tune": {"version": version("tune"), "cost": {**cost, "merged": 0.0}}}
                record["sparsity"] = {"asked": 0.5, "after_prune": 0.501, "after_tune": 0.502}
        return found

    comparison = make(records=records)
    table = tables.cost(comparison)
    assert table.body == (("0.5/squarehead", "50%", "50.1%", "0%", "50.2%", "3,000 (15%)", *said),)
    assert tables.tables(comparison)[-1] == table and len(tables.tables(make())) == len(tables.tables(comparison)) - 1


def test_what_the_paper_says_of_no_cell_has_a_table_of_its_own(make):
    assert "Facts" not in markdown(make())
    facts = "  facts: [{name: SPP's memory, value: 25830, unit: MiB, read: a log}]\n"
    comparison = make(("  cells:\n", facts + "  cells:\n"))
    table = tables.tables(comparison)[-1]
    assert table.header == ("the paper also says", "value", "read")
    assert table.body == (("SPP's memory", "25830 MiB", "a log"),)
    assert "## Facts\n\n| the paper also says | value | read |\n" in markdown(comparison)
    assert "25830 MiB & a log" in tables.latex(comparison)

from __future__ import annotations

from harness import show
from harness.rooms import ROOMS
from harness.spec import entry as spec

TEXT = """\
title: Two sparsities
model: google-t5/t5-small
data: cldr_pairs
task: translation
prune: {criterion: magnitude}
grid: {prune.sparsity: [0.5, 0.75]}
reference:
  metric: translation
  unit: "%"
  read: Table 2
  cells: {0.5: 28.2}
  facts:
    - {name: training memory saved, value: 2, unit: x, read: a review}
"""


def test_an_experiment_is_shown_with_what_its_paper_says_of_no_cell(tmp_path):
    (tmp_path / "two.yaml").write_text(TEXT, encoding="utf8")
    with show.console.capture() as said:
        show.experiment(spec.read("two", root=tmp_path))
    lines = [" ".join(line.split()) for line in said.get().splitlines()]
    assert "0.5 1 28.2% Table 2" in lines
    assert lines[lines.index("the paper also says value read") + 1] == "training memory saved 2x a review"
    (tmp_path / "two.yaml").write_text(TEXT.partition("  facts:")[0], encoding="utf8")
    with show.console.capture() as said:
        show.experiment(spec.read("two", root=tmp_path))
    assert "the paper also says" not in said.get()


def test_a_pattern_keeps_its_colon():
    with show.console.capture() as said:
        show.methods(ROOMS["format"])
    assert "N:M: at most n of every m" in said.get()


def shown_of_pruning(tmp_path, **more):
    row = {"asked": 0.5, "reached": 0.5, "zeros": 8, "size": 16}
    block = {**row, "seconds": 2.0, "peak_memory_bytes": 2**30}
    report = {"overall": row, "layers": {"layers.0.up": row}, "blocks": {"layers.0": block}, **more}
    with show.console.capture() as said:
        show.pruned(report, tmp_path, {"model_type": "llama"})
    return [" ".join(line.split()) for line in said.get().splitlines()]


def test_a_pruning_is_shown_with_what_it_took_before_its_first_block(tmp_path):
    before = {"seconds": 120.0, "peak_memory_bytes": 7 * 2**30}
    lines = shown_of_pruning(tmp_path, before=before)
    assert "before 2:00 7.0 GiB" in lines and "all 1 50.00% 50.00% 2:02 7.0 GiB" in lines
    for nothing in ({}, {"before": {**before, "seconds": 0.01}}):
        lines = shown_of_pruning(tmp_path, **nothing)
        assert "all 1 50.00% 50.00% 2.0 s 1.0 GiB" in lines and not any("before" in line for line in lines)

"""What every entry under experiments/ must keep: it checks clean at every scale, and its numbers have their places."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.spec import entry as spec
from harness.spec import listing
from harness.spec.grid import cells

ROOT = Path(__file__).parents[2] / "experiments"
NAMES = listing.names(ROOT)
SCALED = [(name, scale) for name in NAMES for scale in spec.scales(name, root=ROOT)]


def test_the_entries_of_the_papers_are_there():
    tables = {f"squarehead/{table}" for table in ("t5-wmt14", "whisper", "mpt-gsm8k", "mpt-nm", "llama-wikitext2")}
    assert {"quickstart", *tables} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_no_problem_and_begins_with_its_command(name):
    assert [str(problem) for problem in spec.check(name, root=ROOT)] == []
    text = (ROOT / f"{name}.yaml").read_text(encoding="utf8")
    assert text.startswith(f"# harness run {name}")
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_tiny_scale_that_needs_no_download(name):
    entry = spec.read(name, "tiny", root=ROOT)
    for cell in cells(entry):
        assert cell.settings["model"].startswith("tiny/") and cell.settings["prepare"] is not None


@pytest.mark.parametrize(("name", "scale"), SCALED)
def test_it_expands_into_cells_that_differ(name, scale):
    entry = spec.read(name, scale, root=ROOT)
    found = cells(entry)
    assert len({(cell.label, cell.seed) for cell in found}) == len(found) > 1
    assert {cell.baseline for cell in found} >= set(entry.baselines)
    assert len(spec.claims(entry.top)) == len(entry.claims)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_of_a_papers_table_has_its_number_or_its_blank(name):
    entry = spec.read(name, root=ROOT)
    if entry.paper is None or entry.paper.table is None:
        assert entry.reference is None or not entry.reference.cells  # facts alone
        return
    one_shot = {cell.label for cell in cells(entry) if cell.baseline == "one_shot"}
    assert set(entry.reference.cells) | one_shot == {cell.label for cell in cells(entry)}
    assert all(entry.reference.read_at(label) for label in entry.reference.cells)

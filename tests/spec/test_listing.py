from __future__ import annotations

import subprocess
import sys

import pytest

from harness.problems import Problem
from harness.spec import listing


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "experiments"
    (folder / "paper").mkdir(parents=True)
    (folder / "paper" / "table.yaml").write_text(
        'title: A table\nmodel: org/x\npaper: {id: "arXiv:1", table: Table 2, name: p}\nscales: {small: {}, tiny: {}}\n'
    )
    (folder / "quick.yaml").write_text("title: Quick\nmodel: tiny/t5\n")
    return folder


def test_names_are_paths_below_the_folder(root):
    assert listing.names(root) == ["paper/table", "quick"]


def test_a_headline_says_title_paper_and_scales_the_own_one_first(root):
    assert listing.headline(root / "paper/table.yaml") == ("A table", "arXiv:1 Table 2", ("paper", "small", "tiny"))
    assert listing.headline(root / "quick.yaml") == ("Quick", None, ("tiny",))


def test_a_headline_survives_a_file_that_says_little(root):
    (root / "odd.yaml").write_text("scales: 3\npaper: x\n")
    assert listing.headline(root / "odd.yaml") == ("odd", None, ("paper",))


def test_an_unknown_entry_comes_with_the_nearest(root):
    with pytest.raises(Problem) as caught:
        listing.path_of("paper/tabel", root)
    assert caught.value.nearest == ("paper/table",)


def test_the_folder_is_found_from_below_it_else_beside_the_package(root, tmp_path, tmp_path_factory):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    assert listing.folder(tmp_path / "deep" / "er") == root
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert listing.folder(elsewhere).parent.joinpath("harness").is_dir()


def test_paths_below_the_current_directory_are_shown_relative(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(listing.path_of("quick", root)) == "experiments/quick.yaml"


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; import harness.spec.listing; print(sorted({'torch', 'pydantic', 'griffe'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

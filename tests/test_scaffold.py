"""`harness add`: what it writes is found by its room, keeps the contracts and passes its own test, as it stands."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import scaffold
from harness.problems import Problem

ROOT = Path(__file__).parents[1]
CONTRACTS = [f"tests/contracts/{name}.py" for name in ("test_pruning", "test_losses", "test_metrics")]
TRIED = (
    "brand_new_criterion and unstructured or brand_new_pattern and magnitude or brand_new_solver and unstructured",
    "brand_new_refiner and magnitude or brand_new_allocation or brand_new_ramp or brand_new_loss or brand_new_metric",
)
"""The contract tests that are run: of all that a new method can be combined with, one."""
FLAWS = {
    "criterion": (".abs()", ""),
    "pattern": ("return ~smallest", "return smallest"),
    "allocation": ("(layers, sparsity)", "(layers, sparsity / 2)"),
    "solver": (" * gram.diagonal().sqrt()", ""),
    "refiner": ("& ~gains", ""),
    "ramp": ("* step /", "/"),
    "loss": ("difference.square()", "difference.abs()"),
    "metric": ("p == r", "p != r"),
}
"""A mistake in each start that its own test must find."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, imported by the processes that the tests start, with a new method of every kind."""
    folder = tmp_path_factory.mktemp("checkout")
    unwanted = shutil.ignore_patterns("__pycache__", "artifacts", "mlartifacts", "*.db", ".git")
    for name in ("harness", "experiments", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    code = (
        "from pathlib import Path; from harness import scaffold\n"
        "for kind in scaffold.METHODS: scaffold.add(kind, f'brand_new_{kind}', Path('elsewhere'))"
    )
    added = python(folder, "-c", code)
    assert added.returncode == 0 and not (folder / "elsewhere").exists(), added.stderr
    return folder


def python(checkout, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def run_tests(checkout, *arguments):
    return python(checkout, "-m", "pytest", "-o", "addopts=--import-mode=importlib", "-q", *arguments)


def own_tests(checkout):
    return [str(path) for path in sorted((checkout / "tests").rglob("test_brand_new_*.py"))]


def test_there_is_a_start_for_every_kind_of_pruning_and_for_losses_metrics_and_experiments():
    pruning = {"criterion", "pattern", "allocation", "solver", "refiner", "ramp"}
    assert set(scaffold.KINDS) == pruning | {"loss", "metric", "experiment"} == FLAWS.keys() | {"experiment"}


def test_new_methods_are_listed_keep_the_contracts_and_pass_their_tests(checkout):
    assert len(own_tests(checkout)) == len(FLAWS)
    for kind in FLAWS:
        code = f"from harness.rooms import ROOMS; print(ROOMS[{kind!r}].method('brand_new_{kind}').summary)"
        assert python(checkout, "-c", code).stdout.startswith(f"Brand new {kind}")
    tried = ("-k", f"worked or {' or '.join(TRIED)}")
    ran = run_tests(checkout, "-vv", *tried, *own_tests(checkout), *CONTRACTS, "tests/test_ranges.py")
    assert ran.returncode == 0, ran.stdout
    for kind in FLAWS:
        over = [line for line in ran.stdout.splitlines() if f"brand_new_{kind}" in line and "contracts/" in line]
        assert over or kind == "ramp", f"no contract ran over the new {kind}"


def test_the_test_of_a_start_fails_where_its_method_is_wrong(checkout, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkout, broken)
    for kind, (right, wrong) in FLAWS.items():
        (path,) = (broken / "harness").rglob(f"brand_new_{kind}.py")
        text = path.read_text()
        assert text.count(right) == 1, f"{kind}: {right!r}"
        path.write_text(text.replace(right, wrong))
    ran = run_tests(broken, *own_tests(broken))
    failed = {line.partition("test_brand_new_")[2].partition(".py")[0] for line in ran.stdout.splitlines()}
    assert failed >= FLAWS.keys(), ran.stdout


def test_what_is_written_is_linted_and_formatted(checkout):
    ruff = shutil.which("ruff", path=Path(sys.executable).parent)
    new = [str(path) for path in checkout.rglob("*brand_new_*.py")]
    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run([ruff, *command, *new], cwd=checkout, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout


def test_a_new_experiment_is_listed_and_checks_clean(checkout):
    added = python(checkout, "-m", "harness.cli", "add", "experiment", "mine/first-try")
    assert added.returncode == 0 and str(checkout / "experiments/mine/first-try.yaml") in added.stdout
    assert "mine/first-try" in python(checkout, "-m", "harness.cli", "list").stdout
    text = (checkout / "experiments/mine/first-try.yaml").read_text()
    assert text.startswith("# harness run mine/first-try") and "title: First try\n" in text and "new" not in text
    checked = python(checkout, "-m", "harness.cli", "check", "mine")
    assert checked.returncode == 0, checked.stderr
    planned = python(checkout, "-m", "harness.cli", "plan", "mine/first-try")
    assert planned.returncode == 0 and "7 cells" in planned.stdout, planned.stderr


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("criterium", "x", ["unknown kind 'criterium'", "did you mean 'criterion'?"]),
        ("criterion", "Not-a-name", ["'Not-a-name' is no name for a new criterion"]),
        ("criterion", "_hidden", ["'_hidden' is no name for a new criterion"]),
        ("criterion", "wanda", ["is there already"]),
        ("loss", "class", ["'class' is no name for a new loss: it is a word of Python's own", "try class_loss"]),
        ("loss", "match", ["it is a word of Python's own"]),
        ("loss", "sum", ["'sum' is no name for a new loss: it has a meaning of its own", "try sum_loss"]),
        ("ramp", "none", ["it has a meaning of its own"]),
        ("metric", "mean", ["'mean' is no name for a new metric", "metrics/__init__.py defines it", "try mean_metric"]),
        ("solver", "field", ["solvers/__init__.py defines it"]),
        ("experiment", "../up", ["'../up' is no name for a new experiment"]),
        ("experiment", "all", ["'all' is no name for a new experiment", "stands for every experiment"]),
        ("experiment", "experiments/x", ["'experiments/' is left out"]),
    ],
)
def test_a_mistake_writes_nothing(tmp_path, kind, name, words):
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "harness").rglob("*.py")}
    with pytest.raises(Problem) as caught:
        scaffold.add(kind, name, tmp_path)
    for word in words:
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "harness").rglob("*.py")}.keys() == before.keys()


def test_a_package_without_its_checkout_gets_no_method(tmp_path, monkeypatch):
    monkeypatch.setattr(scaffold, "PACKAGE", tmp_path / "site-packages" / "harness")
    with pytest.raises(Problem, match="has no tests beside it"):
        scaffold.add("criterion", "brand_new", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", sorted(scaffold.STARTS.rglob("*.py")), ids=lambda path: path.stem)
def test_a_start_is_a_whole_module_with_nothing_to_fill_in_but_its_name(start):
    tree = ast.parse(start.read_text())
    assert ast.get_docstring(tree).startswith("New method: ")

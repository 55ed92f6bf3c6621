"""`harness add`: what it writes is found by its room, keeps the contracts and passes its own test, as it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import scaffold
from harness.problems import Problem

ROOT = Path(__file__).parents[1]
CONTRACTS = {"criterion": "test_pruning.py", "loss": "test_losses.py", "metric": "test_metrics.py"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, imported by the processes that the tests start."""
    folder = tmp_path_factory.mktemp("checkout")
    unwanted = shutil.ignore_patterns("__pycache__", "artifacts", "mlartifacts", "*.db", ".git")
    for name in ("harness", "experiments", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def python(checkout, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("kind", CONTRACTS)
def test_a_new_method_is_listed_keeps_the_contracts_and_passes_its_test(checkout, kind):
    added = python(checkout, "-m", "harness.cli", "add", kind, "brand_new")
    assert added.returncode == 0, added.stderr
    listed = python(checkout, "-m", "harness.cli", "list", kind)
    assert "brand_new" in listed.stdout and "Brand new" in listed.stdout
    own = next((checkout / "tests").rglob("test_brand_new.py"))
    tests = [str(own), f"tests/contracts/{CONTRACTS[kind]}"]
    ran = python(checkout, "-m", "pytest", "-o", "addopts=--import-mode=importlib", "-k", "brand_new or worked", *tests)
    assert ran.returncode == 0, ran.stdout
    assert int(ran.stdout.rpartition(" passed")[0].split()[-1]) > 1, "no contract ran over the new file"
    own.unlink()
    next((checkout / "harness").rglob("brand_new.py")).unlink()


def test_a_new_experiment_is_listed_and_checks_clean(checkout):
    assert python(checkout, "-m", "harness.cli", "add", "experiment", "mine/first-try").returncode == 0
    assert "mine/first-try" in python(checkout, "-m", "harness.cli", "list").stdout
    checked = python(checkout, "-m", "harness.cli", "check", "mine")
    assert checked.returncode == 0, checked.stderr
    planned = python(checkout, "-m", "harness.cli", "plan", "mine/first-try")
    assert planned.returncode == 0 and "7 cells" in planned.stdout, planned.stderr


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("criterium", "x", ["unknown kind 'criterium'", "did you mean 'criterion'?"]),
        ("criterion", "Not-a-name", ["'Not-a-name' is no name for a new criterion"]),
        ("criterion", "wanda", ["is there already"]),
        ("experiment", "../up", ["'../up' is no name for a new experiment"]),
    ],
)
def test_a_mistake_writes_nothing(tmp_path, kind, name, words):
    with pytest.raises(Problem) as caught:
        scaffold.add(kind, name, tmp_path)
    for word in words:
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())

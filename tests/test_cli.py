"""The command line: what a person types and reads; a mistake ends with a sentence and status 2, not a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder with the quickstart as its only experiment, and no mirror."""
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "experiments" / "quickstart.yaml", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    for name in ("HARNESS_MIRROR", "HARNESS_RESULTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def harness(monkeypatch, capsys):
    """Runs a command in this process; returns its status, output and error output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call


def entry(registry, name, text):
    path = registry / "experiments" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_list_shows_experiments_and_methods(registry, harness):
    status, out, _ = harness("list")
    assert status == 0 and "quickstart" in out and "tiny" in out
    status, out, _ = harness("list", "loss")
    assert status == 0 and "squarehead" in out and "eps=0.0078125" in out


def test_show_prints_settings_with_their_meaning_and_the_cells(registry, harness):
    status, out, _ = harness("show", "quickstart")
    assert status == 0
    for words in ("Peak learning rate", "sparsegpt:block=128,damping=0.01", "0.9/squarehead", "0.5/one_shot", "claim:"):
        assert words in out


def test_check_is_content_with_the_registry(registry, harness):
    assert harness("check") == (0, "1 entry: no problem found\n", "")


def test_plan_says_what_is_missing_and_what_is_shared(registry, harness):
    status, out, _ = harness("plan", "quickstart")
    assert status == 0 and "13 cells, 26 stages (26 missing); sharing saves 21" in out


def test_plan_and_list_import_no_torch(registry):
    code = (
        "import sys; from harness import cli; sys.argv = ['harness', *sys.argv[1:]]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'datasets', 'mlflow', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    for arguments in (
        ["list"],
        ["list", "criterion"],
        ["show", "quickstart"],
        ["check"],
        ["plan", "quickstart"],
        ["status"],
    ):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quickstrat"], ["unknown experiment 'quickstrat'", "did you mean 'quickstart'?"]),
        (["run", "quickstart", "--scale", "huge"], ["huge", "tiny"]),
        (["run", "quickstart", "--set", "tune.step=3"], ["tune.step", "did you mean 'tune.steps'"]),
        (["run", "quickstart", "--set", "tune.method=maskd"], ["unknown method 'maskd'", "did you mean 'masked'?"]),
        (["run", "quickstart", "--set", "model=tiny/t6"], ["tiny/t6", "did you mean"]),
        (["run", "quickstart", "--set", "prune.sparsity=[0.5,1.0]"], ["sparsity is at least 0 and below 1, not 1.0"]),
        (["plan", "quickstart", "--set", "prune.pattern=5:4"], ["5:4 cannot be", "N:M keeps N of M"]),
        (["list", "criteria"], ["unknown kind 'criteria'", "did you mean 'criterion'?"]),
        (["add", "experimnt", "x"], ["did you mean 'experiment'?"]),
        (["report"], ["there is no record to report on"]),
    ],
)
def test_a_mistake_is_told_with_the_nearest_choice(registry, harness, arguments, words):
    status, _, err = harness(*arguments)
    assert status == 2 and "Traceback" not in err
    for word in words:
        assert word in err
    assert not (registry / "results").exists(), "a mistake left something behind"


def test_check_tells_every_problem_with_its_line(registry, harness):
    good = (registry / "experiments" / "quickstart.yaml").read_text()
    bad = good.replace("solver: sparsegpt", "solver: sparsgpt").replace("beams=1", "beam=1")
    entry(registry, "mine/bad", bad + "\n  - squarehed > one_shot\n")
    status, _, err = harness("check", "mine")
    assert status == 2 and "Traceback" not in err
    line = 1 + next(i for i, text in enumerate(bad.splitlines()) if text.startswith("prune:"))
    assert f"mine/bad.yaml:{line}: " in err and "did you mean 'sparsegpt'?" in err
    assert "did you mean 'beams'?" in err


def test_an_absent_model_is_named_before_anything_runs(registry, harness, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(registry))
    status, _, err = harness("run", "quickstart", "--set", "model=org/absent")
    assert status == 2 and "org/absent" in err and "Traceback" not in err
    assert not (registry / "results" / "artifacts").exists()


def test_a_tiny_run_records_reports_and_then_has_nothing_to_do(registry):
    small = [f"--set={text}" for text in (
        "prepare.steps=2", "prepare.rows=64", "prepare.warmup=0", "tune.steps=2", "tune.rows=64", "tune.warmup=0",
        "prune.samples=8", "evaluate.bleu.limit=4", "prune.sparsity=[0.5]", "tune.loss=squarehead",
    )]  # fmt: skip
    command = [sys.executable, "-m", "harness.cli", "run", "quickstart", *small]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    record = json.loads(next((registry / "results" / "records").rglob("0.5.squarehead*.json")).read_text())
    assert record["sparsity"]["after_tune"] == pytest.approx(0.5, abs=1e-3)
    assert list((registry / "results" / "plots").glob("*.png")) and "harness ui" in first.stdout
    assert (registry / "results" / "mlflow.db").is_file()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0 and second.stdout.startswith("nothing to do: 3 cells")
    page = subprocess.run([sys.executable, "-m", "harness.cli", "report"], capture_output=True, text=True, check=False)
    assert page.returncode == 0 and ".html" in page.stdout

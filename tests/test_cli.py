"""The command line: what a person types and reads; a mistake ends with a sentence and status 2, not a traceback."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.runs import files
from harness.runs.store import Store

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


SHORT = """
title: A short run
model: tiny/t5
data: cldr_pairs:size=200
task: translation:beams=1,max_new_tokens=8
prepare: {steps: 2, lr: 1e-3, rows: 64}
prune: {criterion: magnitude, sparsity: 0.5}
tune: {steps: 2, lr: 1e-3, rows: 64, loss: cross_entropy}
evaluate: {bleu: {limit: 4}}
baselines: [dense]
"""


def run(*arguments, **environment):
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_a_run_records_reports_and_then_has_nothing_to_do(registry):
    path = entry(registry, "short", SHORT)
    results = registry / "results"
    first = run("run", "short")
    assert first.returncode == 0, first.stderr
    record = json.loads((results / "records" / "short" / "tiny" / "tuned.seed0.json").read_text())
    assert record["sparsity"]["after_tune"] == pytest.approx(0.5, abs=1e-3)
    assert list((results / "plots").glob("short.tiny.*.png")) and "harness ui" in first.stdout
    assert (results / "mlflow.db").is_file()

    second = run("run", "short")
    assert second.returncode == 0 and second.stdout.startswith("nothing to do: 2 cells"), second.stderr

    table = (results / "tables" / "short.tiny.md").read_text()
    trial = run("run", "short", "--set", "tune.steps=1")
    assert trial.returncode == 0, trial.stderr
    assert (results / "tables" / "short.tiny.md").read_text() == table, "a trial changed the experiment's own table"
    assert list((results / "trials").glob("tune.steps=1-*/records/short/tiny/tuned.seed0.json"))

    path.write_text(SHORT.replace("tune: {steps: 2", "tune: {steps: 3"))
    page = run("report", "short")
    assert page.returncode == 0, page.stderr
    assert "run with other settings: tune.steps 2, now 3 (tuned)" in (results / "tables" / "short.tiny.md").read_text()
    path.write_text(SHORT)

    for written in ("records", "tables", "plots"):
        shutil.rmtree(results / written)
    mended = run("run", "short", MLFLOW_TRACKING_URI="sqlite:////dev/null/never/opened.db", PYTHONIOENCODING="ascii")
    assert mended.returncode == 0 and "MLflow" not in mended.stdout + mended.stderr, mended.stderr
    assert mended.stdout.isascii() and "+/-" in mended.stdout and (results / "plots").is_dir()

    pruned = next((results / "artifacts" / "prune").glob("*/prune.json"))
    text = pruned.read_bytes()
    pruned.write_bytes(text.replace(b"0.5", b"0.6", 1))
    refused = run("run", "short")
    assert refused.returncode != 0 and "prune.json is damaged" in refused.stderr and "--retry" in refused.stderr
    pruned.write_bytes(text)

    predictions = next((results / "artifacts" / "evaluate").glob("*/predictions.jsonl"))
    text = predictions.read_bytes()
    predictions.write_bytes(text[:-3] + b"x" + text[-2:])
    refused = run("run", "short")
    assert refused.returncode != 0 and "predictions.jsonl" in refused.stderr and "--retry" in refused.stderr
    mended = run("run", "short", "--retry")
    assert mended.returncode == 0 and predictions.read_bytes() == text, mended.stderr


def test_clean_shows_what_may_go_and_frees_it_when_told(registry, harness, monkeypatch):
    monkeypatch.setattr("harness.runs.freeing.LARGE", 10_000)
    path = entry(registry, "short", SHORT)
    (registry / "experiments" / "quickstart.yaml").unlink()
    assert harness("run", "short")[0] == 0
    records = registry / "results" / "records" / "short" / "tiny"
    before = {each.name: each.read_bytes() for each in records.iterdir()}
    weights = sorted((registry / "results" / "artifacts").glob("*/*/model.safetensors"))
    sizes = [each.stat().st_size for each in weights]

    left = [folder / "x.01234567.partial" for folder in (records, weights[0].parent)]  # as of killed processes
    for each in left:
        each.write_text("half")
        os.utime(each, (1e9, 1e9))
    status, out, _ = harness("clean", "short")
    assert status == 0 and out.count("MiB") == 4 and "3 results" in out
    assert "2 files" in out and "--yes frees and removes them" in out
    assert [each.stat().st_size for each in weights] == sizes and all(each.is_file() for each in left)
    with Store(registry / "results" / "artifacts").running():
        status, _, err = harness("clean", "short", "--yes")
    assert status == 2 and "is computing here" in err and all(each.is_file() for each in left)
    status, out, _ = harness("clean", "short", "--yes")
    assert status == 0 and "3 of 3 freed" in out and not any(each.exists() for each in left)
    assert all(each.stat().st_size < 10_000 for each in weights)
    assert "5 stages (3 freed, 2 cached)" in harness("status", "short")[1]
    assert harness("run", "short")[1].startswith("nothing to do: 2 cells")

    shutil.rmtree(records)
    assert harness("run", "short")[0] == 0, "records are made of what is left"
    assert {each.name: each.read_bytes() for each in records.iterdir()} == before

    path.write_text(SHORT.replace("limit: 4", "limit: 5"))
    assert "5 stages (5 missing)" in harness("plan", "short")[1]
    assert harness("run", "short", "--lean")[0] == 0
    assert all(each.stat().st_size < 10_000 for each in weights)
    assert "there are no weights" in harness("clean")[1]
    status, _, err = harness("clean", "short", "--scale", "huge")
    assert status == 2 and "huge" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("arguments", "unbuffered"), [(["list"], ""), (["plan", "quickstart"], "1")])
def test_an_output_that_is_full_is_told_without_a_traceback(registry, arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_a_reader_that_leaves_is_no_mistake(registry):
    command = f"{sys.executable} -m harness.cli list criterion | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_letters_that_the_output_lacks_are_written_plainly(registry):
    text = SHORT.replace("A short run", "A short run – 90 ± 1 → ∞")
    entry(registry, "short", text)
    done = run("show", "short", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "A short run - 90 +/- 1 -> ?" in done.stdout, done.stderr
    done = run("show", "short", LANG="C", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(registry, harness, monkeypatch):
    (registry / "file").write_text("")
    monkeypatch.setattr("harness.runs.execute.execute", lambda *_, **__: pytest.fail("it ran"))
    status, _, err = harness("run", "quickstart", "--results", str(registry / "file" / "results"))
    assert status == 2 and "nothing can be written here" in err and "--results" in err and "Traceback" not in err


@pytest.mark.parametrize("where", ["tables", "report"])
def test_a_report_that_meets_a_full_disk_keeps_what_was_there(registry, harness, monkeypatch, where):
    shutil.copytree(ROOT / "results" / "records" / "quickstart", registry / "results" / "records" / "quickstart")
    assert harness("report")[0] == 0
    written = next((registry / "results" / where).glob("quickstart*"))
    before, replace = written.read_bytes(), files.replace

    def full(path, content):
        if where in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        replace(path, content)

    monkeypatch.setattr(files, "replace", full)
    status, _, err = harness("report")
    assert status == 2 and "could not be written: No space left on device" in err and "Traceback" not in err
    assert written.read_bytes() == before


@pytest.mark.parametrize(("variable", "words"), [("odd://place", "no tracking store"), (None, "port 5999 is taken")])
def test_a_dashboard_that_cannot_open_says_why(registry, harness, monkeypatch, variable, words):
    (registry / "results").mkdir()
    monkeypatch.setattr(cli.experiments.os, "execvp", lambda *_: pytest.fail("it started"))
    if variable:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    else:

        class Taken(socket.socket):
            def bind(self, _):
                raise OSError(errno.EADDRINUSE, "in use")

        monkeypatch.setattr(socket, "socket", Taken)
    status, _, err = harness("ui", "--port", "5999")
    assert status == 2 and words in err and "Traceback" not in err


def test_one_bad_record_hides_no_other_entry(registry):
    for name in ("short", "other"):
        entry(registry, name, SHORT.replace("tune: {", "#").replace("A short run", name))
        assert run("run", name).returncode == 0
    damaged = next((registry / "results" / "records" / "short").rglob("*.json"))
    damaged.write_text("{")
    page = run("report")
    assert page.returncode == 2 and damaged.name in page.stderr and "Traceback" not in page.stderr
    assert "other.tiny.md" in page.stdout


def test_a_broken_entry_hides_no_other(registry, harness):
    entry(registry, "broken", 'title: "x\nmodel: y')
    entry(registry, "short", SHORT)
    status, out, _ = harness("list")
    assert status == 0 and "quickstart" in out and "cannot be read: experiments/broken.yaml:" in out
    status, out, err = harness("plan", "all")
    assert status == 0 and "15 cells" in out and "broken.yaml" in err
    status, _, err = harness("plan", "broken")
    assert status == 2 and "broken.yaml" in err


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_system_refuses_is_told_without_a_traceback(registry, harness, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code), "some/place")

    monkeypatch.setattr("harness.runs.plan.plan", refuse)
    status, _, err = harness("plan", "quickstart")
    assert status == 2 and f"some/place: {os.strerror(code)}" in err and "--results" in err


def test_ctrl_c_says_that_nothing_is_lost(registry, harness, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.runs.plan.plan", interrupt)
    status, _, err = harness("plan", "quickstart")
    assert status == 130 and "What is done is kept" in err


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("prune", ("--sparsity", 0.5, "--skip", "a*", "--task", "x"), {"sparsity": 0.5, "skip": ["a*"]}),
        ("tune", ("--data", "x", "--lr", 1, "--warmup", 3, "--teacher", "org/t"), {"lr": 1.0, "warmup": 3}),
        ("quantize", ("--method", "gptq", "--no-symmetric"), {"rounding": "gptq", "symmetric": False}),
    ],
)
def test_an_option_with_the_name_of_a_setting_is_handed_on(harness, monkeypatch, command, given, expected):
    work, seen = importlib.import_module(f"harness.oneoff.{command}"), []
    monkeypatch.setattr(work, "section", lambda settings, *rest: seen.append(settings))
    monkeypatch.setattr(work, "command", lambda *_: None)
    status, _, err = harness(command, "org/model", "--out", "out", *map(str, given))
    assert status == 0, err
    settings = {key: list(one) if isinstance(one, tuple) else one for key, one in seen[0].items()}
    assert expected.items() <= settings.items() and not {"data", "task", "teacher"} & settings.keys()
    assert len(settings) > 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shapes", ","), "nothing is asked for"),
        (("--batches", "x"), "'x' is no number 1 or more"),
        (("--threads", "0"), "'0' is no number from 1 to"),
        (("--out", "."), "this is a folder"),
        (("--out", "file/record.json"), "file is no folder"),
    ],
)
def test_a_benchmark_is_refused_before_anything_is_timed(options, said, harness, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    status, out, err = harness("bench", "linear", "--shapes", "8x64", *options)
    assert status == 2 and said in err and not out

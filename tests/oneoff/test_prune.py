"""`harness prune`: the settings of a section, a folder that is whole or absent, each mistake before anything heavy."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers

from harness import cli, models, oneoff, rooms
from harness.oneoff import prune
from harness.problems import Problem
from harness.pruning import keep
from harness.runs.job import Progress
from harness.spec.sections import Prune
from harness.stages import prune as stage

ROOT = Path(__file__).parents[2]
MAGNITUDE = ("--criterion", "magnitude", "--sparsity", "0.5")
WANDA = ("--criterion", "wanda", "--sparsity", "0.5", "--samples", "8", "--calibration", "{ids}")
TEXTS = ["Once upon a time there was a cat. It sat on a mat and slept."] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny llama."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    models.save(*rooms.load("model", "llama").tiny(TEXTS, seed=0), folder)
    return folder


@pytest.fixture
def ids(tmp_path):
    """A file of 8 rows of 24 token ids."""
    path = tmp_path / "ids.jsonl"
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(4, 60, (8, 24), generator=draw).tolist()
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_folder_is_a_plain_model_with_mask_and_report(harness, model, ids, tmp_path):
    out = tmp_path / "deep" / "pruned"
    status, said, err = harness(
        *("prune", model, "--out", out, "--solver", "sparsegpt", "--sparsity", 0.5, "--calibration", ids),
        *("--samples", 6, "--batch-size", 3, "--skip", "*.down_proj", "--seed", 3),
    )
    assert status == 0, err
    pruned, keeps = transformers.AutoModelForCausalLM.from_pretrained(out), keep.load(out)
    transformers.AutoTokenizer.from_pretrained(out)
    keep.verify(pruned, keeps)
    report = json.loads((out / "prune.json").read_text())
    assert report["method"]["solver"].startswith("sparsegpt:block=128,")
    calibration = {"samples": 6, "batch_size": 3, "seed": 3, "data": f"jsonl:path={ids}"}
    calibration["task"] = "language_modelling:length=2048,cut=joined,seed=0"
    assert calibration.items() <= report["calibration"].items()
    assert report["overall"] == {"asked": 0.5, "reached": 0.5}
    assert len(keeps) == 24 and not any("down_proj" in name for name in keeps)
    dense = models.load(model)
    for name, weight in pruned.named_parameters():
        same = torch.equal(weight, dense.get_parameter(name))
        assert same == (name.removesuffix(".weight") not in keeps), name
    for words in ("model.layers.3", "50.00%", f"model: {out}", "AutoModelForCausalLM", "peak memory", "about "):
        assert words in said
    assert not hidden(out.parent)
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(model.stat().st_mode), "only its maker could read it"


def test_it_does_what_the_stage_does_with_the_section(harness, model, ids, tmp_path):
    status, _, err = harness(
        *("prune", model, "--out", tmp_path / "ours", "--criterion", "wanda", "--pattern", "2:4"),
        *("--calibration", ids, "--samples", 8),
    )
    assert status == 0, err
    section = {"criterion": "wanda", "pattern": "2:4", "samples": 8, "data": f"jsonl:path={ids}"}
    options = Prune.model_validate({**section, "task": "language_modelling:length=2048"}).model_dump(mode="json")
    for name in ("result", "scratch"):
        (tmp_path / name).mkdir()
    list(stage.run(stage.Job(options, {"model": model}, tmp_path / "result", tmp_path / "scratch")))
    for name in ("model.safetensors", keep.FILE):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "result" / name).read_bytes(), name


def test_a_pruned_folder_can_be_pruned_on(harness, model, tmp_path):
    for name, parent, sparsity in (("one", model, 0.5), ("two", tmp_path / "one", 0.75)):
        status, _, err = harness(
            *("prune", parent, "--out", tmp_path / name, "--criterion", "magnitude", "--sparsity", sparsity)
        )
        assert status == 0, err
    report = json.loads((tmp_path / "two" / "prune.json").read_text())
    assert report["overall"] == {"asked": 0.75, "reached": 0.75, "revived": 0}
    assert report["calibration"] is None


def test_the_type_of_the_weights_is_that_of_the_folder(harness, model, ids, tmp_path):
    status, _, err = harness(
        *("prune", model, "--out", tmp_path / "half", "--criterion", "wanda", "--sparsity", 0.5),
        *("--calibration", ids, "--samples", 8, "--dtype", "bfloat16"),
    )
    assert status == 0, err
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert models.load(tmp_path / "half", "bfloat16").dtype == torch.bfloat16


def test_the_libraries_own_bars_are_not_shown(model, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_DEVICE": "cpu", "HARNESS_CACHE": str(tmp_path / "c")}
    command = [sys.executable, "-m", "harness.cli", "prune", str(model), "--out", str(tmp_path / "out"), *MAGNITUDE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == "" and "50.00%" in done.stdout


def test_an_empty_folder_may_stand_there(harness, model, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = harness("prune", model, "--out", tmp_path / "empty", "--criterion", "magnitude", "--sparsity", 0.5)
    assert status == 0 and (tmp_path / "empty" / "prune.json").is_file(), err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--criterion", "magnitud", "--sparsity", "0.5"],
            ["unknown criterion 'magnitud'", "did you mean 'magnitude'?"],
        ),
        (["--criterion", "magnitude"], ["is missing", "sparsity: 0.5"]),
        (["--criterion", "magnitude", "--sparsity", "60"], ["below 1, not 60.0", "for 60% write 0.6"]),
        (["--criterion", "magnitude", "--sparsity", "0.6", "--pattern", "2:4"], ["its sparsity is 0.5, not 0.6"]),
        (["--criterion", "magnitude", "--solver", "sparsegpt", "--sparsity", "0.5"], ["exactly one of criterion and"]),
        (["--sparsity", "0.5"], ["exactly one of criterion and solver"]),
        ([*MAGNITUDE, "--samples", "0"], ["samples: should be", "1"]),
        ([*MAGNITUDE, "--dtype", "float8"], ["dtype", "'float32', 'bfloat16' or 'float16'"]),
        (["--criterion", "magnitude", "--pattern", "nm:n=1,m=3"], ["groups of 3", "groups that do"]),
        (["--criterion", "wanda", "--sparsity", "0.5"], ["looks at calibration data", "--calibration FILE.jsonl"]),
        ([*WANDA[:-1], "absent.jsonl"], ["there is no file 'absent.jsonl'"]),
        ([*WANDA[:-1], "a,b.jsonl"], ["has a comma"]),
        ([*WANDA[:-1], "tinystorys"], ["unknown data 'tinystorys'", "did you mean 'tinystories'?"]),
        ([*WANDA[:-1], "cldr_pairs"], ["not serve the task 'translation'"]),
        ([*WANDA, "--samples", "9"], ["9 samples are asked for, and there are 8 rows", "--samples 8"]),
        ([*WANDA, "--rows", "7"], ["8 samples are asked for, and there are 7 rows", "--samples 7"]),
        ([*WANDA[:-1], "prose"], ["an example of 2048 tokens is longer than the model's context of 1024"]),
        ([*WANDA[:-1], "prose", "--length", "0"], ["length=0 should be at least 1"]),
        (
            [*WANDA, "--task", "language_modelling:length=9", "--length", "8"],
            ["--length 8 and the task's length=9 differ"],
        ),
        ([*WANDA, "--split", "test"], ["unknown split of jsonl 'test'"]),
        ([*MAGNITUDE, "--device", "gpu"], ["'gpu' is no device"]),
    ],
)
def test_a_mistake_is_told_before_anything_is_loaded(harness, model, ids, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.setattr(prune, "prune", lambda *_: pytest.fail("the pruning began"))
    before = sorted(tmp_path.iterdir())
    status, _, err = harness("prune", model, "--out", tmp_path / "out", *(each.format(ids=ids) for each in arguments))
    assert status == 2 and "Traceback" not in err, err
    for word in words:
        assert word in err
    assert sorted(path for path in tmp_path.iterdir() if path.name != "cache") == before


def test_an_absent_or_unknown_model_is_a_problem(harness, model, tmp_path):
    status, _, err = harness("prune", "org/absent", "--out", tmp_path / "out", *MAGNITUDE)
    assert status == 2 and "org/absent" in err
    status, _, err = harness("prune", "tiny/llama", "--out", tmp_path / "out", *MAGNITUDE)
    assert status == 2 and "tiny/llama is made by an experiment" in err
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "oddity"}')
    status, _, err = harness("prune", tmp_path / "odd", "--out", tmp_path / "out", *MAGNITUDE)
    assert status == 2 and "oddity" in err


def test_what_is_there_is_never_written_over(harness, model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for out, words in ((tmp_path / "full", "this folder is not empty"), (tmp_path / "full" / "notes.txt", "a file")):
        status, _, err = harness("prune", model, "--out", out, *MAGNITUDE)
        assert status == 2 and words in err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), Problem("the weights are not finite"), RuntimeError("a bug")])
def test_a_pruning_that_ends_early_leaves_nothing(harness, model, tmp_path, monkeypatch, end):
    def run(job):
        (job.folder / "model.safetensors").write_text("half")
        yield Progress(1, 4, unit="block")
        raise end

    monkeypatch.setattr(stage, "run", run)
    arguments = ["prune", model, "--out", tmp_path / "new" / "out", *MAGNITUDE]
    if isinstance(end, RuntimeError):
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        with pytest.raises(RuntimeError, match="a bug"):
            cli.main()
    else:
        status, _, err = harness(*arguments)
        assert status == 2 and ("nothing was written" in err or "not finite" in err)
    assert not (tmp_path / "new").exists()


def test_sigterm_leaves_nothing(model, tmp_path):
    code = (
        "import sys, time\nfrom harness import cli\nfrom harness.runs.job import Progress\n"
        "from harness.stages import prune\n"
        "def run(job):\n"
        "    (job.folder / 'half').write_text('half')\n"
        "    print('running', flush=True)\n"
        "    time.sleep(60)\n"
        "    yield Progress(1, 1)\n"
        "prune.run = run\nsys.argv = ['harness', *sys.argv[1:]]\ncli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_DEVICE": "cpu", "HARNESS_CACHE": str(tmp_path / "c")}
    command = [sys.executable, "-c", code, "prune", str(model), "--out", str(tmp_path / "new" / "out"), *MAGNITUDE]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert any("running" in line for line in process.stdout)
    assert hidden(tmp_path / "new")
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert process.wait(30) == 128 + signal.SIGTERM and time.monotonic() - begin < 20
    assert not (tmp_path / "new").exists()


def test_the_task_follows_the_kind_of_the_data():
    def task(data, **options):
        return prune.section({"criterion": "wanda", "sparsity": 0.5}, data, **options)["task"]

    assert task("prose").startswith("language_modelling:") and "length=2048," in task("prose")
    assert "length=64," in task("prose", length=64)
    assert "cut=crops" in task("prose", task="language_modelling:cut=crops,length=32")
    assert task("arithmetic").startswith("reasoning:") and "length=512" in task("arithmetic")
    assert task("cldr_pairs").startswith("translation:")
    with pytest.raises(Problem, match="task 'translation' has no length"):
        task("cldr_pairs", length=64)


def test_the_bar_shows_how_far_it_is():
    import io

    from rich.console import Console

    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    oneoff.follow((Progress(n, 3, unit="block") for n in (1, 2, 3)), "pruning it", console)
    assert "pruning it, block" in shown.getvalue() and "3/3" in shown.getvalue()


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The folders of tiny models of other families, by family."""
    found = {}
    for family in ("t5", "whisper", "vit"):
        found[family] = tmp_path_factory.mktemp(family)
        models.save(*rooms.load("model", family).tiny(TEXTS, seed=0), found[family])
    return found


@pytest.mark.parametrize(
    "row",
    [
        {"source": "summarize: Once upon a time there was a cat.", "target": "A cat."},
        {"source_ids": [5, 9, 11, 7, 1], "target_ids": [6, 8, 1]},
    ],
)
def test_an_encoder_decoder_is_calibrated_on_pairs(harness, others, tmp_path, row):
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "pruned"
    pairs.write_text("".join(json.dumps(row) + "\n" for _ in range(4)))
    options = ("--criterion", "wanda", "--sparsity", "0.5", "--calibration", pairs)
    status, _, err = harness("prune", others["t5"], "--out", out, *options)
    assert status == 2 and f"128 samples are asked for, and there are 4 rows of {' and '.join(row)}" in err
    status, _, err = harness("prune", others["t5"], "--out", out, *options, "--samples", 4)
    assert status == 0, err
    assert keep.sparsity(keep.load(out)) == 0.5
    report = json.loads((out / "prune.json").read_text())
    assert report["calibration"]["data"] == f"jsonl_pairs:path={pairs}"
    assert report["calibration"]["task"] == "text_to_text:max_source=512,max_target=512"


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("t5", "t5 models read the data cldr_pairs, jsonl_pairs"),
        ("whisper", "whisper models read the data asterisk, common_voice, librivox"),
        ("vit", "vit models read the data imagenet, shapes"),
    ],
)
def test_a_model_that_reads_no_text_names_the_data_it_reads(harness, others, ids, tmp_path, family, words):
    options = [each.format(ids=ids) for each in WANDA]
    status, _, err = harness("prune", others[family], "--out", tmp_path / "out", *options)
    assert status == 2 and f"{family} models do not serve the task 'language_modelling'" in err and words in err


def test_only_rows_of_one_known_kind_choose_the_data(tmp_path):
    path = tmp_path / "rows.jsonl"
    for columns, name in (
        (("text",), "jsonl"),
        (("input_ids", "labels"), "jsonl"),
        (("text", "source", "target"), "jsonl"),
        (("source", "target"), "jsonl_pairs"),
        (("target_ids", "source_ids"), "jsonl_pairs"),
        (("source",), "jsonl"),
    ):
        path.write_text(json.dumps(dict.fromkeys(columns, "x")) + "\n")
        assert oneoff.data_of(str(path)) == f"{name}:path={path}"

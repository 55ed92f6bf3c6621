from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness import cli, models, rooms
from harness.bench import masks, measure
from harness.bench import prune as bench
from harness.problems import Problem

TEXTS = ["one two three four five six seven eight"] * 3
METHODS = ("wanda", "sparsegpt")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny llama."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    models.save(*rooms.load("model", "llama").tiny(TEXTS, seed=0), folder)
    return folder


@pytest.fixture
def task(model, tmp_path):
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(json.dumps({"input_ids": [4 + i, 5, 6, 7]}) + "\n" for i in range(8)))
    return bench.Task(model, path, 0.5, 8)


@pytest.fixture
def ran(monkeypatch):
    """Lets no command run: each takes as many seconds as its own list says, and what was asked is kept."""
    calls, times = [], {}

    def run(name, command, log):
        calls.append((name, command))
        seconds = times[name].pop(0) if name in times else 1.0
        return measure.Run(seconds, seconds, int(seconds * 2**30), 0.0)

    monkeypatch.setattr(measure, "run", run)
    calls_and_times = type("Ran", (), {"calls": calls, "times": times})
    return calls_and_times


def test_a_peer_is_a_name_and_a_command():
    found = bench.peer("authors=python 'my run.py' {model} --s={sparsity}", METHODS)
    assert found == bench.Contender("authors", ("python", "my run.py", "{model}", "--s={sparsity}"))
    assert bench.peer("wanda/theirs=run {out}", METHODS) == bench.Contender("theirs", ("run", "{out}"), "wanda")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("python run.py", "write NAME=COMMAND"),
        ("name=", "write NAME=COMMAND"),
        ("wando/theirs=run", "did you mean 'wanda'"),
        ("theirs=run {modle}", "did you mean 'model'"),
    ],
)
def test_a_peer_that_cannot_be_read_is_a_problem(text, said):
    with pytest.raises(Problem) as caught:
        bench.peer(text, METHODS)
    assert said in str(caught.value)


def test_words_are_filled_in_and_never_split(task):
    contender = bench.Contender("it", ("run", "{model}", "{calibration}:{samples}", "{sparsity}", "{method}", "{out}"))
    spaced = bench.Task(Path("/a b/model"), Path("/a b/c.jsonl"), 0.5, 8)
    words = contender.words(spaced, "wanda", Path("/tmp/out dir"))
    assert words == ["run", "/a b/model", "/a b/c.jsonl:8", "0.5", "wanda", "/tmp/out dir"]


def test_ours_is_a_solver_where_there_are_both():
    assert "--solver" in bench.ours("sparsegpt").command and "--criterion" in bench.ours("wanda").command
    with pytest.raises(Problem, match="did you mean 'wanda'"):
        bench.ours("wand")


def test_ours_takes_a_methods_options_and_others_its_name_alone(task):
    contender = bench.ours("sparsegpt:as_released=true")
    assert "sparsegpt:as_released=true" in contender.command and contender.method == "sparsegpt"
    with pytest.raises(Problem, match="has no option 'as_relesed'"):
        bench.ours("sparsegpt:as_relesed=true")
    theirs = bench.peer("sparsegpt/theirs=run {method}", ["wanda", "sparsegpt:as_released=true"])
    assert theirs.method == "sparsegpt"
    assert theirs.words(task, "sparsegpt:as_released=true", Path("out")) == ["run", "sparsegpt"]
    cut = ["wanda", "sparsegpt:as_released=true", "block=64", "ria:power=1.0", "magnitude"]
    assert bench.listed(cut) == ["wanda", "sparsegpt:as_released=true,block=64", "ria:power=1.0", "magnitude"]


def left(folder, zeros, name="layer"):
    """A folder as a pruning leaves it, a layer of 4 x 4 whose first `zeros` weights are 0."""
    folder.mkdir()
    weight = torch.ones(16).index_fill_(0, torch.arange(zeros), 0.0).view(4, 4)
    save_file({f"{name}.weight": weight.bfloat16()}, folder / "model.safetensors")
    (folder / "prune.json").write_text(json.dumps({"layers": {name: {}}}))


def test_masks_are_compared_with_the_first_rivals(tmp_path):
    rows = [{"method": "wanda", "name": name} for name in ("ours", "x", "y")] + [{"method": "ria", "name": "ours"}]
    for lane, zeros in enumerate((8, 6, 6, 8)):
        left(tmp_path / str(lane), zeros)
    bench.compare(rows, tmp_path)
    assert [row["agreement"] for row in rows] == [14 / 16, None, 1.0, None]
    left(tmp_path / "other", 8, name="another")
    assert masks.agreement(tmp_path / "0", tmp_path / "other", ["layer"]) is None
    assert masks.agreement(tmp_path / "0", tmp_path / "absent", ["layer"]) is None


def test_rounds_are_interleaved_and_begin_with_another_contender(task, ran, tmp_path):
    contenders = {
        "wanda": [bench.Contender("ours", ("a", "{out}"), "wanda"), bench.Contender("x", ("b", "{out}"))],
        "sparsegpt": [bench.Contender("ours", ("c",), "sparsegpt")],
    }
    told = []
    rows = bench.race(task, contenders, 3, lambda what, run: told.append(what), tmp_path)
    lanes = ["wanda ours", "wanda x", "sparsegpt ours"]
    assert [name for name, _ in ran.calls] == told == [*lanes, *lanes[1:], lanes[0], lanes[2], *lanes[:2]]
    assert [(row["method"], row["name"], len(row["runs"])) for row in rows] == [
        ("wanda", "ours", 3), ("wanda", "x", 3), ("sparsegpt", "ours", 3)
    ]  # fmt: skip
    kept = [command[1] for _, command in ran.calls if len(command) > 1 and command[1].startswith(str(tmp_path))]
    assert sorted(kept) == [str(tmp_path / "0"), str(tmp_path / "1")], "what the last round wrote stays"


def test_the_table_has_medians_spreads_and_ratios_to_the_first_peer(task, ran, tmp_path):
    ran.times |= {"wanda ours": [2.0, 4.0, 3.0], "wanda x": [6.0, 5.0, 9.0], "wanda y": [3.0, 3.0, 3.0]}
    names = ("ours", "x", "y")
    contenders = {"wanda": [bench.Contender(name, ("/home/me/run", "{model}", "/opt/a.py"), "wanda") for name in names]}
    rows = bench.race(task, contenders, 3, lambda *_: None, tmp_path)
    said = bench.record("folder:llama@sha256:0", "folder:ids.jsonl@sha256:1", task, rows, [])
    table = bench.table(said)
    assert "| wanda | ours | 3.00 (2.00 to 4.00) | 0.50 | 3.00 (2.00 to 4.00) | 0.50 |" in table
    assert (
        "| wanda | x | 6.00 (5.00 to 9.00) | 1.00 |" in table and "| wanda | y | 3.00 (3.00 to 3.00) | 0.50 |" in table
    )
    assert "folder:llama to 50%, 8 calibration samples" in table and "3 rounds" in table
    assert rows[0]["command"] == "run '{model}' a.py"
    text = json.dumps(said)
    assert "/home/me" not in text and str(task.model) not in text and said["environment"]["cores"]


def test_without_a_peer_there_is_no_ratio(task, ran, tmp_path):
    rows = bench.race(task, {"wanda": [bench.ours("wanda")]}, 1, lambda *_: None, tmp_path)
    assert "| wanda | ours | 1.00 (1.00 to 1.00) |  | 1.00 (1.00 to 1.00) |  |  |" in bench.table(
        bench.record("it", "ids", task, rows, [])
    )


def test_growth_is_over_three_depths_and_three_numbers_of_samples(task, ran, monkeypatch, tmp_path):
    depths = []

    def run(name, command, log):
        folder, samples = command[4], int(command[command.index("--samples") + 1])
        depth = json.loads((Path(folder) / "config.json").read_text())["num_hidden_layers"]
        depths.append(depth)
        return measure.Run(3 + depth * samples / 4, 1.0, 2**30, 0.0)

    monkeypatch.setattr(measure, "run", run)
    grown = bench.scaling(task, [bench.ours("wanda")], 2, lambda *_: None)
    assert [(row["axis"], list(row["points"])) for row in grown] == [("blocks", [1, 2, 4]), ("samples", [2, 4, 8])]
    assert depths == [1, 2, 4] * 2 + [4] * 6
    assert [row["line"] for row in grown] == [
        pytest.approx({"intercept": 3, "slope": 2, "r2": 1}),
        pytest.approx({"intercept": 3, "slope": 1, "r2": 1}),
    ]
    rows = bench.race(task, {"wanda": [bench.ours("wanda")]}, 1, lambda *_: None, tmp_path)
    said = bench.record("it", "ids", task, rows, grown)
    assert "wanda over samples: 2: 5.0 s, 4: 7.0 s, 8: 11.0 s. Line: 3.0 s + 1 s each, R² 1.0000." in bench.table(said)


def test_growth_needs_three_sizes(task):
    few = bench.Task(task.model, task.calibration, 0.5, 2)
    with pytest.raises(Problem, match="at least 3 blocks and 4 samples"):
        bench.scaling(few, [bench.ours("wanda")], 1, lambda *_: None)


def test_the_command_races_ours_with_a_peer_and_writes_record_and_table(model, task, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    wrote = tmp_path / "peer.txt"
    peer = f"{sys.executable} -S -c \"import sys; open('{wrote}', 'a').write(' '.join(sys.argv[1:]) + '\\n')\""
    arguments = ["bench", "prune", model, "--calibration", task.calibration, "--methods", "wanda", "--repeats", 1]
    arguments += ["--against", f"nothing={peer} {{sparsity}} {{samples}} {{method}}", "--out", tmp_path / "it.json"]
    monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert not stopped.value.code, err
    assert wrote.read_text() == "0.5 8 wanda\n"
    said = json.loads((tmp_path / "it.json").read_text())
    assert [row["name"] for row in said["contenders"]] == ["ours", "nothing"]
    assert said["contenders"][0]["peak_bytes"]["median"] > 2**27 and said["scaling"] == []
    assert (tmp_path / "it.md").read_text() == bench.table(said) and "nothing" in out
    assert [row["agreement"] for row in said["contenders"]] == [None, None], "it wrote no weights"


def test_the_table_says_how_far_the_masks_agree(task, ran, tmp_path):
    contenders = {"wanda": [bench.ours("wanda"), bench.Contender("x", ("run",))]}
    rows = bench.race(task, contenders, 1, lambda *_: None, tmp_path)
    rows[0]["agreement"] = 0.99935
    assert "| 1.00 | 99.9350% |" in bench.table(bench.record("it", "ids", task, rows, []))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "wand"], "did you mean 'wanda'"),
        (["--methods", "wanda", "--against", "x"], "write NAME=COMMAND"),
        (["--methods", "wanda", "--calibration", "absent.jsonl"], "there is no file 'absent.jsonl'"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(model, task, tmp_path, monkeypatch, capsys, ran, arguments, words):
    given = ["bench", "prune", model, "--calibration", task.calibration, *arguments, "--out", tmp_path / "it.json"]
    monkeypatch.setattr(sys, "argv", ["harness", *map(str, given)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2 and words in capsys.readouterr().err
    assert not ran.calls and not (tmp_path / "it.json").exists()

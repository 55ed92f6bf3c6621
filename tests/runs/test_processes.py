"""Several processes: what they meet reaches the caller, and none of them outlives what it was begun for."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.problems import Problem
from harness.runs import processes
from harness.runs.job import Job, Progress
from harness.runs.processes import Processes

TUNING = Path(__file__).parents[1] / "tuning"


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """A function from what the processes shall do to the stage's progress."""
    monkeypatch.syspath_prepend(str(TUNING))
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")

    def begun(do, **options):
        for name in ("folder", "scratch"):
            (tmp_path / name).mkdir(exist_ok=True)
        job = Job({"do": do, **options}, {}, tmp_path / "folder", tmp_path / "scratch")
        return processes.run("several_stage", job, Processes(2))

    return begun


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "harness.runs.processes" in child.cmdline()]


def wait_for(*files: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not all(file.is_file() and file.read_text() for file in files):
        assert time.monotonic() < end, f"one of {files} is not there"
        time.sleep(0.1)


def test_a_problem_of_one_ends_all_and_is_the_callers(begin):
    with pytest.raises(Problem) as caught:
        list(begin("fail"))
    assert (caught.value.what, caught.value.where) == ("the second has a problem", "here")
    assert (caught.value.nearest, caught.value.hint) == (("there",), "mend it")
    assert "several_stage.py" in str(caught.value.__cause__) and not children()


def test_another_error_comes_as_it_is(begin):
    with pytest.raises(OSError, match="No space left") as caught:
        list(begin("raise"))
    assert caught.value.errno == 28 and caught.value.filename == "file" and not children()


def test_a_killed_process_is_a_problem_that_says_so(begin, tmp_path):
    with pytest.raises(Problem, match="process 1 of 2 was ended by SIGKILL") as caught:
        list(begin("die"))
    assert caught.value.where == str(tmp_path / "scratch" / "process-1.log") and not children()


def test_a_killed_process_is_told_and_not_that_another_lost_it(begin):
    with pytest.raises(Problem, match="process 1 of 2 was ended by SIGKILL") as caught:
        list(begin("lose"))
    assert "memory ran out" in caught.value.hint and not children()


def test_closing_the_iterator_ends_the_processes(begin):
    steps = begin("slow")
    assert next(steps) == Progress(1, 2)
    assert len(children()) == 2
    steps.close()
    assert not children()


def test_processes_end_with_their_parent(begin, tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(TUNING)!r})\n"
        "from pathlib import Path\nfrom harness.runs import processes\nfrom harness.runs.job import Job\n"
        f"here = Path({str(tmp_path)!r})\n"
        "job = Job({'do': 'slow'}, {}, here, here)\n"
        "for _ in processes.run('several_stage', job, processes.Processes(2)): print('began', flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "began\n"
    wait_for(*(tmp_path / f"pid-{rank}" for rank in (0, 1)))
    workers = [psutil.Process(int((tmp_path / f"pid-{rank}").read_text())) for rank in (0, 1)]
    parent.kill()
    parent.communicate()
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert len(gone) == 2 and not alive


def test_a_launched_process_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.check_alone()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(Problem, match="one of 4 processes"):
        processes.check_alone()


def test_only_training_is_computed_by_several():
    assert [Processes(2).compute(stage) for stage in ("prepare", "tune", "prune", "evaluate")] == [
        True,
        True,
        False,
        False,
    ]
    assert not Processes(1).compute("tune")


def test_an_unknown_way_is_refused():
    assert processes.team(2, "fsdp") == Processes(2, "fsdp")
    with pytest.raises(Problem, match="unknown way to train in parallel 'dpp'") as caught:
        processes.team(2, "dpp")
    assert caught.value.nearest == ("ddp",)


def test_one_process_shares_nothing_out():
    assert processes.team(1, "ddp") == processes.ALONE
    with pytest.raises(Problem, match="fsdp shares a model out over several processes, and there is one"):
        processes.team(1, "fsdp")


def test_a_named_gpu_is_not_shared_and_each_process_needs_one(monkeypatch):
    import torch

    from harness import device

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for name, count, said in (("cuda:1", 2, "cannot share cuda:1"), ("cuda", 4, "and there are 3")):
        monkeypatch.setenv("HARNESS_DEVICE", name)
        assert device.device().type == "cuda"
        with pytest.raises(Problem, match=said):
            processes._devices(count)
    assert processes._devices(2) == ["cuda:0", "cuda:1"]

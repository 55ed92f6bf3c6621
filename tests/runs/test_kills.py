from __future__ import annotations

import json
import signal

import pytest

RUN = """
import importlib.util, signal, sys
from pathlib import Path
from harness.runs import keys
from harness.runs.execute import StageDone, StageProgress, execute
from harness.runs.keys import Stage
from harness.runs.plan import PlannedCell, arrange
from harness.runs.store import Store
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
keys.STAGES, store = Path(sys.argv[1]), Store(sys.argv[2])
def load(name):
    spec = importlib.util.spec_from_file_location("fake_" + name, keys.STAGES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
tune = Stage("tune", {"name": "tune", "steps": 60, "pause": 0.005}, slug="tune")
judge = Stage("evaluate", {"name": "judge", "steps": 60, "pause": 0.005}, {"model": tune}, slug="judge")
plan = arrange([PlannedCell("cell", {"tune": tune, "evaluate/x": judge})], store)
for event in execute(plan, store, load_stage=load):
    if isinstance(event, StageProgress):
        print("StageProgress", event.progress.done, flush=True)
    elif isinstance(event, StageDone):
        print("StageDone", event.cached, flush=True)
"""


def _bytes(root):
    """The bytes of every result below a store, `done.json` without what differs from run to run.

    The mark of a killed run may outlast the next: it is removed when its lease is surely nobody's.
    """
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file() and "running" not in path.parts):
        content = path.read_bytes()
        if path.name == "done.json":
            content = {k: v for k, v in json.loads(content).items() if k not in ("seconds", "sha256", "environment")}
        found[str(path.relative_to(root))] = content
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_runs_end_with_the_bytes_of_an_undisturbed_one(fake, tmp_path, python, number):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert python(RUN, fake.folder, whole).wait() == 0
    expected, resumed = _bytes(whole), 0
    for steps in (1, 7, 13, 19, 30):
        process = python(RUN, fake.folder, killed, stderr=-3)
        first = process.stdout.readline().split()
        resumed += first[0] == "StageDone" or int(first[1]) > 1
        for _ in range(steps):
            process.stdout.readline()
        process.send_signal(number)
        process.communicate()
        assert process.returncode not in (0, 1), "it ended before it was killed"
    process = python(RUN, fake.folder, killed)
    lines = process.communicate()[0].splitlines()
    assert process.returncode == 0 and resumed == 4 and "StageDone True" in lines
    assert _bytes(killed) == expected


EVERYWHERE = """
import os, signal, sys
from pathlib import Path
from harness.runs import keys, lease
from harness.runs.execute import execute
from harness.runs.keys import Stage
from harness.runs.plan import PlannedCell, arrange
from harness.runs.store import Store
from harness.tracking import environment
lease.BEAT, keys.STAGES, environment.environment = 0.2, Path(sys.argv[1]), dict
sys.path.insert(0, sys.argv[1])
import tune
one = Stage("tune", {"name": "tune", "steps": 2}, slug="tune")
touching = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir", "os.scandir", "shutil.rmtree")

def attempt(root, last):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0
    def audit(event, _):
        nonlocal count
        if event in touching:
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
    sys.addaudithook(audit)
    store = Store(root)
    for _ in execute(arrange([PlannedCell("cell", {"tune": one})], store), store, load_stage=lambda _: tune, poll=0.05):
        pass
    os._exit(0 if store.open(one) else 1)

kill = 0
while attempt(f"{sys.argv[2]}/{kill}", kill):
    if ended := attempt(f"{sys.argv[2]}/{kill}", -1):
        sys.exit(f"after a kill at {kill} the next run ended with {ended}")
    kill += 1
print(kill)
"""


def test_a_kill_at_any_touch_of_the_disk_changes_no_byte(fake, tmp_path, python):
    process = python(EVERYWHERE, fake.folder, tmp_path / "killed", stderr=-2)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    results = [_bytes(root) for root in sorted((tmp_path / "killed").iterdir(), key=lambda path: int(path.name))]
    assert len(results) == int(said) + 1 > 40
    assert all(result == results[-1] for result in results)


NO_OP = (
    RUN
    + """
heavy = {"torch", "transformers", "datasets", "mlflow", "pandas", "matplotlib", "numpy", "griffe"}
print(*sorted(heavy & set(sys.modules)), "end")
"""
)


def test_a_second_run_imports_nothing_heavy(fake, tmp_path, python):
    root = tmp_path / "artifacts"
    assert python(RUN, fake.folder, root).wait() == 0
    (fake.folder / "tune.py").write_text("VERSION = 1\nraise ImportError\n")
    process = python(NO_OP, fake.folder, root)
    assert process.communicate()[0].split("\n")[:-1] == ["StageDone True", "StageDone True", "end"]

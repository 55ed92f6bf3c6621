from __future__ import annotations

import pytest

from harness.runs import code
from harness.runs.keys import Stage


def test_methods_that_options_name_count_with_what_they_import():
    options = {
        "solver": "sparsegpt:block=128,damping=0.01",
        "criterion": None,
        "pattern": "2:4",
        "allocation": "uniform",
    }
    found = code.files(Stage("prune", options))
    wanted = {
        "stages/prune.py",
        "pruning/solvers/sparsegpt.py",
        "pruning/patterns/nm.py",
        "pruning/allocation/uniform.py",
    }
    assert wanted | {"pruning/walk.py", "pruning/keep.py", "models/__init__.py"} <= found.keys()
    assert (
        not {"pruning/criteria/wanda.py", "pruning/patterns/unstructured.py", "rooms.py", "runs/job.py"} & found.keys()
    )


@pytest.mark.parametrize(
    ("loss", "methods"),
    [
        ("cross_entropy", {"cross_entropy"}),
        ("0.5*cross_entropy + 1e+2*squarehead:eps=1e-09", {"cross_entropy", "squarehead"}),
    ],
)
def test_a_sum_of_losses_names_each(loss, methods):
    found = code.files(Stage("tune", {"loss": loss}))
    assert {f"tuning/losses/{name}.py" for name in methods} <= found.keys()


def test_a_tiny_model_is_its_family():
    assert "models/mpt.py" in code.files(Stage("prepare", {"model": "tiny/mpt"}))
    assert "models/mpt.py" not in code.files(Stage("prepare", {"model": "tiny/t5"}))


def test_a_family_is_that_of_the_first_stage_and_where_unknown_any():
    dense = Stage("prepare", {"model": "tiny/mpt"})
    tuned = Stage("tune", {}, {"model": Stage("prune", {}, {"model": dense})})
    assert "models/mpt.py" in code.files(tuned) and "models/whisper.py" not in code.files(tuned)
    assert {"models/mpt.py", "models/whisper.py"} <= code.files(Stage("tune", {}, {"model": Stage("prune", {})})).keys()


def test_a_changed_source_has_another_hash(fake):
    before = code.files(fake.stage("tune"))
    with (fake.folder / "tune.py").open("a") as file:
        file.write("# changed\n")
    after = code.files(fake.stage("tune"))
    assert before.keys() == after.keys() and before != after

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness import models
from harness.runs.job import Job
from harness.spec.sections import Prepare
from harness.stages import prepare


def job(folder: Path, model: str, parents=None, **section) -> Job:
    options = Prepare.model_validate({"batch_size": 8, "steps": 3, "lr": 1e-3, "warmup": 1, **section})
    for name in ("result", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = {**options.model_dump(mode="json"), "model": model}
    return Job(options, parents or {}, folder / "result", folder / "scratch")


TASKS = {
    "tiny/t5": {"data": "cldr_pairs:size=500", "task": "translation"},
    "tiny/mpt": {"data": "arithmetic:size=50", "task": "reasoning"},
    "tiny/llama": {"data": "prose", "task": "language_modelling", "rows": 60},
    "tiny/whisper": {"data": "spoken", "task": "speech", "rows": 8, "batch_size": 2},
}


@pytest.mark.parametrize("model", TASKS)
def test_a_tiny_model_of_every_family_is_built_trained_and_written(tmp_path, model):
    given = job(tmp_path, model, **TASKS[model])
    seen = list(prepare.run(given))
    assert [(p.done, p.total, p.unit) for p in seen] == [(i, 3, "step") for i in (1, 2, 3)]
    curve = [json.loads(line) for line in (given.folder / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve] == [1, 2, 3]
    assert curve[0]["lr"] == 0 and curve[2]["loss"] < curve[0]["loss"]
    summary = json.loads((given.folder / "prepare.json").read_text())
    loaded = models.load(given.folder)
    assert summary["steps"] == 3 and summary["parameters"] == sum(p.numel() for p in loaded.parameters())
    assert models.load_processor(given.folder) is not None
    assert not (given.folder / "keep.safetensors").exists()


def test_the_same_seed_writes_the_same_bytes_and_a_broken_run_goes_on(tmp_path):
    section = {**TASKS["tiny/t5"], "rows": 40}
    for name in ("a", "b"):
        run = prepare.run(job(tmp_path / name, "tiny/t5", **section))
        if name == "b":
            next(run)
            run.close()
            run = prepare.run(job(tmp_path / name, "tiny/t5", **section))
            assert next(run).done == 2
        list(run)
    for file in ("model.safetensors", "tokenizer.json", "curve.jsonl", "config.json"):
        assert (tmp_path / "a/result" / file).read_bytes() == (tmp_path / "b/result" / file).read_bytes(), file


def test_a_model_that_is_there_is_fine_tuned_not_built(tmp_path):
    section = {**TASKS["tiny/t5"], "rows": 40}
    list(prepare.run(job(tmp_path / "base", "tiny/t5", **section)))
    base = tmp_path / "base/result"
    list(prepare.run(job(tmp_path / "tuned", str(base), {"model": base}, **section, schedule="constant")))
    before, after = (models.load(folder) for folder in (base, tmp_path / "tuned/result"))
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    near = [torch.allclose(a, b, atol=5e-3) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(near) and any(moved)

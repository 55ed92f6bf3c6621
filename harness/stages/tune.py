"""The sparse fine-tuning stage: trains the pruned model, towards the dense one if a loss asks for it; its zeros stay.

Writes the model as transformers reads it, its mask, `curve.jsonl` (one row a step) and `tune.json`. The mask is
verified in the written weights, not only in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import BoolTensor, nn

from harness import models
from harness.pruning import keep
from harness.runs.job import Job, Progress
from harness.stages._load import verified
from harness.tuning import session

VERSION = 1
FILE = "tune.json"


def run(job: Job) -> Iterator[Progress]:
    """Fine-tunes `job.parents["model"]` into `job.folder`, reporting after every step."""
    source = job.parents["model"]
    keeps = keep.load(source)
    model, processor = verified(source), models.load_processor(source)
    teacher = verified(job.parents["teacher"]) if "teacher" in job.parents else None
    features, collate = session.examples_for(session.rows_for(job.options), job.options, processor)
    before = zeros(model, keeps)
    curve, summary = yield from session.fit(
        model, features, collate, job.options, job.scratch, teacher=teacher, keeps=keeps
    )
    models.save(model, processor, job.folder)
    keep.save(job.folder, keeps)
    verified(job.folder)
    sparsity = {"mask": keep.sparsity(keeps), "before": before, "after": zeros(model, keeps)}
    session.write(job.folder, FILE, curve, {**summary, "sparsity": sparsity})


def zeros(model: nn.Module, keeps: Mapping[str, BoolTensor]) -> float:
    """Returns the fraction of weights that are exactly zero in the masked layers: at least the mask's sparsity."""
    weights = [model.get_submodule(name).weight for name in keeps]
    return 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)

"""The dense fine-tuning stage: it makes the teacher, and the weights that pruning starts from.

A `tiny/<family>` model is built here, its tokenizer trained on the rows, and trained from random weights. Writes the
model as transformers reads it, `curve.jsonl` (one row a step) and `prepare.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import memory, models, rooms
from harness.device import device
from harness.runs.job import Job, Progress
from harness.stages._examples import examples_for, rows_for
from harness.stages._load import dense
from harness.tuning import session

VERSION = 1
FILE = "prepare.json"


def run(job: Job) -> Iterator[Progress]:
    """Fine-tunes the model into `job.folder`, reporting after every step.

    Raises:
        Problem: The model is sparse, quantised or has an adapter beside it, which training all weights would not keep.
    """
    held = memory.held(device())
    rows = rows_for(job.options)
    model, processor = _model(job, rows)
    features, collate = examples_for(rows, job.options, processor)
    curve, summary, _ = yield from session.fit(model, features, collate, job.options, job.scratch, held=held)
    models.save(model, processor, job.folder)
    session.write(job.folder, FILE, curve, summary)


def _model(job: Job, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Returns model and processor: of the parent, or, where there is none, a tiny model of random weights."""
    if "model" in job.parents:
        return dense(job.parents["model"]), models.load_processor(job.parents["model"])
    family = job.options["model"].removeprefix("tiny/")
    texts = rooms.load("task", rooms.parse(job.options["task"]).name).texts
    said = (text for row in rows for text in texts(row))
    return rooms.load("model", family).tiny(said, seed=job.options["seed"])

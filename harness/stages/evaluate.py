"""The evaluation stage: predict every row, keep the predictions, score them.

`predictions.jsonl` grows by a line per sample in the scratch folder, so a killed run goes on after its last whole line
and writes the same bytes. Scores are computed from that file alone. To what the metric says of its protocol, each score
adds the task with the options it predicts with, the data, the batch size and the dtype.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness import models, rooms
from harness.data._rows import head
from harness.device import device
from harness.metrics import Score
from harness.problems import Problem
from harness.runs.job import Job, Progress
from harness.stages._load import complete
from harness.tasks._batches import Predictions

VERSION = 1
PREDICTIONS = "predictions.jsonl"
SCORES = "scores.json"


def run(job: Job) -> Iterator[Progress]:
    """Evaluates `job.parents["model"]` into `job.folder`, reporting after every sample."""
    options, source = job.options, job.parents["model"]
    model, processor = complete(source).to(device()), models.load_processor(source)
    lines = job.scratch / PREDICTIONS
    done = _whole_lines(lines)
    predictions = predict(options, model, processor, done)
    with lines.open("a", encoding="utf8") as file:
        for row in predictions:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            done += 1
            yield Progress(done, predictions.total, unit="sample")
    scores = judge(options, lines, str(model.dtype).removeprefix("torch."))
    shutil.copyfile(lines, job.folder / PREDICTIONS)
    text = json.dumps({name: asdict(score) for name, score in scores.items()}, indent=1, ensure_ascii=False)
    (job.folder / SCORES).write_text(text + "\n", encoding="utf8")


def predict(options: Mapping[str, Any], model: Any, processor: Any, start: int) -> Predictions:
    """Returns the predictions of an evaluation from row `start` on; a task is given what it names besides the rows."""
    task = rooms.parse(options["task"])
    needs = rooms.ROOMS["task"].method(task.name).needs
    read = rooms.bind("data", options["data"]) if options["data"] else None
    rows = head(read(options["split"]), options["limit"]) if read else None
    given: dict[str, Any] = {}
    if "limit" in needs:
        given["limit"] = options["limit"]
    if "shown" in needs:
        given["shown"] = head(read("train"), task.options["shots"]) if task.options.get("shots") else ()
    verb = rooms.bind("task", options["task"])
    return verb(model, processor, rows, start=start, batch_size=options["batch_size"], **given)


def judge(options: Mapping[str, Any], lines: Path, dtype: str) -> dict[str, Score]:
    """Scores a file of predictions; every score is a finite number with its whole protocol.

    Raises:
        Problem: A score is infinite or not a number.
    """
    with lines.open(encoding="utf8") as file:  # not splitlines, which also cuts at U+2028 inside a text
        rows = [json.loads(line) for line in file]
    scores = rooms.bind("metric", options["metric"])(rows)
    task = rooms.Choice(rooms.parse(options["task"]).name, rooms.bind("task", options["task"]).keywords)
    data = f" on {options['data']} {options['split']}" if options["data"] else ""
    cut = f", first {options['limit']}" if options["limit"] else ""
    setting = f"{task}{data}{cut}, batch {options['batch_size']}, {dtype}"
    for name, score in scores.items():
        if not math.isfinite(score.value):
            raise Problem(f"the score {name} is {score.value}", where=setting, hint=f"see {lines.name} for the rows")
    return {name: replace(score, protocol=f"{score.protocol}; {setting}") for name, score in scores.items()}


def _whole_lines(path: Path) -> int:
    """Counts the finished lines of a file and cuts off what a kill left of an unfinished one."""
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    return whole.count(b"\n")

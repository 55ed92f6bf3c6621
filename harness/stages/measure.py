"""The measuring stage: how fast an engine generates with a model's weights, beside the dense baseline.

Writes `measure.json`, a table of it in `measure.md`, and `scores.json`, which stands in records and reports as an
evaluation's scores do. A score's protocol names what is generated, the baseline, the processor and its threads, so that
times of two machines are never compared; the key holds processor and threads for the same reason (`runs.origins`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from harness import models, rooms
from harness.inference.left_out import left_out
from harness.inference.loading import form_of, loading
from harness.inference.measure import Setting, hardware, measure
from harness.inference.report import loaded, table
from harness.inference.weights import dense_weights
from harness.metrics import Score
from harness.problems import Problem
from harness.runs.job import Job, Progress

VERSION = 2
FILE = "measure.json"
TABLE = "measure.md"
SCORES = "scores.json"
LOWER = ("first_token_ms", "share_of_window", "bytes_on_disk")
"""Scores of which less is better."""
SPREADS = (
    *("speedup", "speedup_own", "speedup_torch", "total_speedup", "first_token_speedup", "tokens_per_second"),
    *("first_token_ms", "share_of_window"),
)


def run(job: Job) -> Iterator[Progress]:
    """Measures `job.parents["model"]` into `job.folder`, reporting after every generation."""
    options = job.options
    setting = Setting(**{field.name: options[field.name] for field in fields(Setting)})
    model = dense_weights(job.parents["model"])
    report = yield from measure(model, [options["engine"]], setting, options["against"])
    report["left_out"] = left_out(job.parents["model"])
    processor = models.load_processor(job.parents["model"])
    report["forms"] = loading(model, processor, form_of(options["engine"]), job.scratch)
    found = {name: asdict(score) for name, score in scores(report, options["engine"]).items()}
    shown = "\n".join([table(report), *([loaded(report["forms"])] if report["forms"] else [])])
    for name, text in ((FILE, _json(report)), (SCORES, _json(found)), (TABLE, shown)):
        (job.folder / name).write_text(text, encoding="utf8")


def scores(report: Mapping[str, Any], engine: str) -> dict[str, Score]:
    """Returns the scores of one engine; the first, its speed-up in tokens a second, is the headline.

    Raises:
        Problem: It failed.
    """
    own = report["engines"][str(rooms.resolve("engine", engine))]
    if why := own.get("failed"):
        raise Problem(f"this engine failed: {why}", where=engine)
    setting, rounds = report["setting"], report["setting"]["repeats"]
    turns = "rounds, the engine's in a process of its own" if own["alone"] else "interleaved rounds"
    given = f"{report['window']:g} s of noise" if report["window"] else f"prompt {setting['prompt']}"
    protocol = (
        f"batch {setting['batch']}, {given}, {setting['tokens']} tokens, greedy; over "
        f"{report['against']}; median of {rounds} {turns}; {hardware(report['machine'])}"
    )
    if left := report.get("left_out"):
        protocol += f"; weights alone, {' and '.join(left)} 8-bit inputs left out"
    found = {
        name: Score(own[name]["median"], own[name]["stderr"], rounds, protocol, name not in LOWER)
        for name in SPREADS
        if name in own
    }
    plain = {"same_choice": own["agreement"]["same_choice"], "share_of_bound": own.get("share_of_bound")}
    plain["bytes_on_disk"] = next((form["bytes_on_disk"] for form in report["forms"]), None)
    return found | {
        name: Score(value, None, rounds, protocol, name not in LOWER)
        for name, value in plain.items()
        if value is not None
    }


def _json(said: Any) -> str:
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"

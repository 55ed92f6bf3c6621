"""The measuring stage: how fast an engine generates with a model's weights, beside the dense baseline.

Writes `measure.json`, a table of it in `measure.md`, and `scores.json`, which stands in records and reports as an
evaluation's scores do. A score's protocol names what is generated, the baseline, the processor and its threads, so that
times of two machines are never compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from harness import rooms
from harness.inference.left_out import left_out
from harness.inference.measure import Setting, hardware, measure
from harness.inference.report import table
from harness.inference.swap import bare
from harness.metrics import Score
from harness.runs.job import Job, Progress
from harness.stages._load import verified

VERSION = 1
FILE = "measure.json"
TABLE = "measure.md"
SCORES = "scores.json"
LOWER = ("first_token_ms", "real_time_factor")
"""Scores of which less is better."""
SPREADS = ("speedup", "total_speedup", "first_token_speedup", "tokens_per_second", *LOWER)


def run(job: Job) -> Iterator[Progress]:
    """Measures `job.parents["model"]` into `job.folder`, reporting after every generation."""
    options = job.options
    setting = Setting(**{field.name: options[field.name] for field in fields(Setting)})
    model = bare(verified(job.parents["model"]))
    report = yield from measure(model, [options["engine"]], setting, options["against"])
    report["left_out"] = left_out(job.parents["model"])
    found = {name: asdict(score) for name, score in scores(report, options["engine"]).items()}
    for name, text in ((FILE, _json(report)), (SCORES, _json(found)), (TABLE, table(report))):
        (job.folder / name).write_text(text, encoding="utf8")


def scores(report: Mapping[str, Any], engine: str) -> dict[str, Score]:
    """Returns the scores of one engine; the first, its speed-up in tokens a second, is the headline."""
    own = report["engines"][str(rooms.resolve("engine", engine))]
    setting, rounds = report["setting"], report["setting"]["repeats"]
    turns = "rounds, the engine's in a process of its own" if own["alone"] else "interleaved rounds"
    protocol = (
        f"batch {setting['batch']}, prompt {setting['prompt']}, {setting['tokens']} tokens, greedy; over "
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
    return found | {
        name: Score(value, None, rounds, protocol, True) for name, value in plain.items() if value is not None
    }


def _json(said: Any) -> str:
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"

"""What MLflow is told of a run, from a cell's plan and record alone: tags, parameters, scores, points of curves.

`said` is a record, or as much of one as there is before the cell has run: `record.asked` and its stages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST_PARAM, LONGEST_TAG = 500, 5000
"""MLflow's limits in older servers; a longer value is cut, and stands whole in `record.json`."""


def cell_key(said: Mapping[str, Any]) -> str:
    """Returns what a cell's run is found by: 16 hexadecimal digits of the hash of the cell and its stages' keys."""
    keys = {role: stage["key"] for role, stage in said["stages"].items()}
    text = json.dumps([said["entry"], said["scale"], said["label"], said["seed"], keys], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tags(said: Mapping[str, Any]) -> dict[str, str]:
    """Returns what runs are filtered by; what a cell does not have is no tag."""
    stages, paper = said["stages"], said["paper"] or {}
    prune, tune = ((stages.get(name) or {"options": {}})["options"] for name in ("prune", "tune"))
    found = {
        **{name: said[name] for name in ("entry", "scale", "label", "model", "data", "task", "seed", "baseline")},
        **{"paper": paper.get("name"), "paper_id": paper.get("id"), "table": paper.get("table")},
        **{name: prune.get(name) for name in ("criterion", "solver", "pattern", "refiner", "allocation")},
        **{f"stage.{role}": stage["key"][:10] for role, stage in stages.items()},
        "sparsity": prune.get("sparsity", 0.0),
        "loss": said["axes"].get("tune.loss", tune.get("loss")),
        "kind": "cell",
        "cell": cell_key(said),
        "status": "running",
        "mlflow.source.name": "harness run",
        "mlflow.source.type": "LOCAL",
    }
    return {name: cut(value, LONGEST_TAG) for name, value in found.items() if value is not None}


def params(said: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every resolved option by its dotted name: prune.sparsity, evaluate.bleu.limit."""
    return {
        f"{role.replace('/', '.')}.{name}": value
        for role, stage in said["stages"].items()
        for name, value in {**stage["options"], **stage["handling"]}.items()
    }


def scores(said: Mapping[str, Any]) -> dict[str, float]:
    """Returns the final metrics: scores with their standard errors, sparsity, seconds."""
    found: dict[str, float] = {}
    for evaluation, of_evaluation in said["metrics"].items():
        for metric, score in of_evaluation.items():
            name = metric if metric == evaluation else f"{evaluation}/{metric}"
            found[name] = score["value"]
            if score["stderr"] is not None:
                found[f"{name}_stderr"] = score["stderr"]
    found |= {f"sparsity/{name}": value for name, value in said["sparsity"].items()}
    for role, stage in said["stages"].items():
        found |= {f"cost/{role}/{name}": value for name, value in stage.get("cost", {}).items()}
    return found | {f"seconds/{role}": stage["seconds"] for role, stage in said["stages"].items()}


def curves(said: Mapping[str, Any], begin: int, live: Mapping[str, int]) -> Iterator[tuple[str, float, int, int]]:
    """Yields the points of all curves that were not logged live, spread over the seconds of their stage."""
    at = float(begin)
    for role, stage in said["stages"].items():
        curve = said["curves"].get(role, {"step": []})
        steps = curve["step"]
        for name, values in curve.items():
            for place, (step, value) in enumerate(zip(steps, values, strict=True)):
                if name != "step" and value is not None and step < live.get(role, step + 1):
                    yield f"{role}/{name}", value, step, round(at + 1000 * stage["seconds"] * (place + 1) / len(steps))
        at += 1000 * stage["seconds"]


def cut(value: Any, length: int) -> str:
    """Returns a value as text of at most so many letters."""
    text = "none" if value is None else str(value)
    return text if len(text) <= length else text[: length - 3] + "..."

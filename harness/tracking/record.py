"""The record of one cell: everything that was asked, what came out, and where, as one JSON file that git keeps.

    <root>/<entry>/<scale>/<label>.seed<seed>.json          (dense.json, 0.5.one_shot.json: what is done once has no
    seed)

A record is made from the folders of the cell's stages alone, so that making it again gives the same bytes. It is the
truth: tables, plots and the MLflow mirror are made from records. Lists of numbers stand on one line each, so that a
diff shows what changed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.problems import Problem
from harness.runs import files, shapes
from harness.runs.plan import EVALUATE, MEASURE
from harness.runs.store import RETRY
from harness.tracking import curves
from harness.tracking.settings import settings

if TYPE_CHECKING:
    from harness.spec.entry import Entry
    from harness.spec.grid import Cell

SCHEMA = 2
KEYS = (
    *("schema", "entry", "title", "paper", "scale", "label", "axes", "baseline", "seed", "model", "data", "task"),
    *("settings", "metrics", "sparsity", "stages", "curves", "environment", "artifacts"),
)
"""The keys of a record, in their order."""
TRAINED = ("pretrain", "tune")
"""The stages that train pruned weights."""
SUMMARY = "tune.json"
"""What such a stage says of itself."""
COST = ("parameters", "trained_parameters", "held_memory_bytes", "peak_memory_bytes", "step_seconds")
"""What of that a record keeps as the stage's `cost`; besides, the sparsity that merging leaves (`merged`), and the
seconds of the gradients that a method starts from (`gradient_seconds`) and of a ramp's prunings (`pruning_seconds`)."""
_MAPPINGS = ("axes", "settings", "metrics", "sparsity", "stages", "curves", "environment", "artifacts")
_AGAIN = "restore it from git, or run its experiment again, which writes it anew from what is computed"


def build(entry: Entry, cell: Cell, folders: Mapping[str, Path], root: Path) -> dict[str, Any]:
    """Makes the record of a finished cell.

    Args:
        entry: The experiment at its scale.
        cell: What was asked.
        folders: The verified folders of its stages by role: prepare, prune, pretrain, tune, evaluate/<name>.
        root: What the paths of artifacts are written relative to.

    Raises:
        Problem: A number in one of the folders is not finite, or the header of its weights cannot be read.
    """
    done = {role: _json(folder / "done.json") for role, folder in folders.items()}
    environment = list(done.values())[-1]["environment"]
    record = {
        "schema": SCHEMA,
        **asked(entry, cell),
        "metrics": {
            role.removeprefix(EVALUATE): _json(folder / "scores.json")
            for role, folder in folders.items()
            if role.startswith(EVALUATE) or role == MEASURE
        },
        "sparsity": _sparsity(cell, folders),
        "stages": {role: _stage(said, environment) | _cost(role, folders[role]) for role, said in done.items()},
        "curves": {
            role: curves.thin(curves.read(folder / curves.FILE))
            for role, folder in folders.items()
            if (folder / curves.FILE).is_file()
        },
        "environment": environment,
        "artifacts": {role: folder.relative_to(root).as_posix() for role, folder in folders.items()},
    }
    _check(record, f"{cell.entry} {cell.label}, seed {cell.seed}")
    return record


def asked(entry: Entry, cell: Cell) -> dict[str, Any]:
    """Returns what a record says of a cell before it has run; data and task are those it was last trained on."""
    sections = cell.settings
    trained = next((sections[name] for name in ("tune", "pretrain", "prune", "prepare") if sections[name]), None)
    section = trained or next(iter(sections["evaluate"].values()), {"data": entry.data, "task": entry.task})
    paper = entry.paper.model_dump() if entry.paper else None
    return {
        "entry": cell.entry,
        "title": entry.title,
        "paper": paper,
        "scale": cell.scale,
        "label": cell.label,
        "axes": dict(cell.axes),
        "baseline": cell.baseline,
        "seed": cell.seed,
        "model": sections["model"],
        "data": section["data"],
        "task": section["task"],
        "settings": settings(cell),
    }


def write(record: Mapping[str, Any], root: Path) -> Path:
    """Writes a record to its place below `root`, whole or not at all; the same record gives the same bytes.

    Raises:
        Problem: A number is not finite, or the place is taken by a cell of another label.
    """
    path = place(record, root)
    _check(record, str(path))
    if (there := _label(path)) not in (None, record["label"]):
        raise Problem(f"the labels {there!r} and {record['label']!r} give one file name", where=str(path))
    files.replace(path, text(record))
    return path


def place(record: Mapping[str, Any], root: Path) -> Path:
    """Returns where a record lies below `root`."""
    slug = re.sub(r"[^A-Za-z0-9._+-]+", "-", record["label"].replace("/", "."))
    seed = "" if record["seed"] is None else f".seed{record['seed']}"
    return root / record["entry"] / record["scale"] / f"{slug}{seed}.json"


def read(path: Path) -> dict[str, Any]:
    """Reads one record.

    Raises:
        Problem: The file is no record, or one of a later schema.
    """
    record = _parse(path)
    if missing := [key for key in KEYS if key not in record]:
        raise Problem(f"this record is damaged: it lacks {', '.join(missing)}", where=str(path), hint=_AGAIN)
    if wrong := [key for key in _MAPPINGS if not isinstance(record[key], dict)]:
        raise Problem(
            f"this record is damaged: {', '.join(wrong)} should hold values by name", where=str(path), hint=_AGAIN
        )
    return record


def _parse(path: Path) -> dict[str, Any]:
    """Reads a record that may lack keys: one of an earlier time can be replaced though it cannot be used."""
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise Problem(f"this record is damaged: {error}", where=str(path), hint=_AGAIN) from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        said = record.get("schema") if isinstance(record, dict) else None
        raise Problem(f"this is no record of schema {SCHEMA} (it says {said!r})", where=str(path), hint=_AGAIN)
    return record


def _label(path: Path) -> str | None:
    """Returns the label of the record that is there; None where there is none, or one that cannot be read."""
    try:
        return _parse(path).get("label") if path.is_file() else None
    except Problem:
        return None


def read_all(root: Path, entry: str | None = None, scale: str | None = None) -> list[dict[str, Any]]:
    """Reads the records below `root`, sorted by path, of one entry and one scale where these are given.

    Raises:
        Problem: One of the files is damaged: which.
    """
    below = root / entry if entry else root
    pattern = f"{scale or '*'}/*.json"
    return [read(path) for path in sorted(below.glob(pattern if entry else f"**/{pattern}"))]


def readable(root: Path) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Returns the records below `root` that can be read, and what is wrong with the others."""
    found, damaged = [], []
    for path in sorted(root.glob("**/*.json")):
        try:
            found.append(read(path))
        except Problem as problem:
            damaged.append(problem)
    return found, damaged


def text(record: Mapping[str, Any]) -> str:
    """Returns a record as JSON: a key a line, a list of plain values on one line."""
    return "".join(_lines(record, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    inner = indent + " "
    if isinstance(value, Mapping) and value:
        opening, closing, items = "{", "}", [(f"{json.dumps(key)}: ", item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        opening, closing, items = "[", "]", [("", item) for item in value]
    else:
        yield json.dumps(value, allow_nan=False, ensure_ascii=False)
        return
    yield opening
    for number, (head, item) in enumerate(items):
        yield f"{',' if number else ''}\n{inner}{head}"
        yield from _lines(item, inner)
    yield f"\n{indent}{closing}"


def _sparsity(cell: Cell, folders: Mapping[str, Path]) -> dict[str, float]:
    """Returns fractions of zeros: asked of the pruned layers, found in them after each stage, and of all weights."""
    role = next((role for role in ("prune", *TRAINED) if role in folders), None)  # with a ramp the training prunes
    if role is None:
        return {"asked": 0.0}
    pruned = _json(folders[role] / "prune.json")
    zeros = sum(layer["zeros"] for layer in pruned["layers"].values())
    found = {"asked": cell.settings["prune"]["sparsity"], "after_prune": pruned["overall"]["reached"]}
    for trained in TRAINED:
        if trained in folders:
            found[f"after_{trained}"] = _json(folders[trained] / SUMMARY)["sparsity"]["after"]
    return {**found, "of_all_weights": zeros / _weights(folders[role])}


def _weights(folder: Path) -> int:
    """Counts the weights of a model from the headers of its files."""
    total = 0
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            total += sum(math.prod(entry["shape"]) for entry in shapes.header(path)[0].values())
        except (Problem, KeyError, TypeError, AttributeError) as error:
            what = f"{path.name} is damaged: its header cannot be read"
            raise Problem(what, where=str(folder), hint=RETRY) from error
    return total


def _stage(done: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record keeps of a stage; the environment only if it is not that of the record."""
    kept = {name: done[name] for name in ("key", "version", "options", "handling", "parents", "sources", "seconds")}
    return kept if done["environment"] == environment else {**kept, "environment": done["environment"]}


def _cost(role: str, folder: Path) -> dict[str, Any]:
    """Returns what a stage that trains pruned weights cost, as far as it says so."""
    if role not in TRAINED:
        return {}
    said = _json(folder / SUMMARY)
    cost = {name: said[name] for name in COST if name in said}
    if "merged" in said["sparsity"]:
        cost["merged"] = said["sparsity"]["merged"]
    if "gradient" in said:
        cost["gradient_seconds"] = said["gradient"]["seconds"]
    if "prunings" in said:
        cost["pruning_seconds"] = sum(pruning["seconds"] for pruning in said["prunings"])
    return {"cost": cost} if cost else {}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf8"))


def _check(value: Any, where: str, dotted: str = "") -> None:
    """Refuses a number that JSON cannot hold, naming its place in the record."""
    if isinstance(value, float) and not math.isfinite(value):
        hint = "the computation diverged; nothing was recorded"
        raise Problem(f"{dotted} is {value}: a record holds finite numbers only", where=where, hint=hint)
    if isinstance(value, Mapping | list | tuple):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check(item, where, f"{dotted}.{key}".lstrip("."))

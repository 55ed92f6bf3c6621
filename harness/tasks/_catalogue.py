"""What lm-eval's tasks read, from their YAML files and without importing lm-eval, so that planning can name the data.

lm-eval finds a task by parsing all of its 14,000 files, which takes seconds and imports torch. Here their `task:` lines
are read once and remembered for the installed version in the user's cache folder (`HARNESS_CACHE`); only the asked
tasks are parsed. Our own suites are the same kind of file, in `suites/`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from harness import remembered, rooms
from harness.problems import Problem, unknown
from harness.sources import Source, card_splits, dataset_source

SUITES = Path(__file__).parent / "suites"
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
GROUPS = {"mmlu": "mmlu/default/"}
"""Names that stand for all of lm-eval's tasks in a folder: MMLU's 57 subjects."""
_NAMED = re.compile(rb"""^["']?task["']?:[ \t]*["']?([^\s"'\[{#]+)["']?[ \t]*(?:#.*)?\r?$""", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One task as its file and the files it includes describe it; `!function` values are kept as text.

    Attributes:
        name: The task's name.
        path: Its YAML file.
        config: The merged content.
    """

    name: str
    path: Path
    config: Mapping[str, Any]


def entries(tasks: str) -> list[Entry]:
    """Returns the tasks of a list such as `arc_easy+piqa`, ours before lm-eval's of the same name.

    Raises:
        Problem: A task is unknown, given twice, or not judged by accuracy.
    """
    names = [name.strip() for name in tasks.split("+")]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Problem(f"the task {twice!r} is given twice", where=tasks)
    ours = {path.stem: path for path in SUITES.glob("*.yaml")}
    theirs = {} if ours.keys() >= set(names) else _index()
    names = [each for name in names for each in _members(name, theirs)]
    files = {**theirs, **ours}
    found = []
    for name in names:
        if name not in files:
            problem = unknown("zero-shot task", name, files)
            ones = f"a single task, not a group (but for {', '.join(GROUPS)})"
            hint = f"ours: {', '.join(sorted(ours))}; lm-eval's: {ones}"
            raise Problem(problem.what, nearest=problem.nearest, hint=hint)
        path = Path(files[name])
        found.append(_by_accuracy(Entry(name, path, _load(path))))
    return found


def _members(name: str, index: Mapping[str, str]) -> list[str]:
    """Returns the tasks that a group's name stands for; a task's own name otherwise."""
    if name not in GROUPS:
        return [name]
    return sorted(task for task, path in index.items() if f"/tasks/{GROUPS[name]}" in path)


def source(entry: Entry) -> Source:
    """Returns where a task's data come from: our data room, a mirror, or the hub.

    Our suites make their questions of the data themselves, so the revision also holds the sha256 of their files.

    Raises:
        Problem: They cannot be had here, or without the split that the task is judged on.
    """
    if entry.path.parent == SUITES:
        data, split = entry.config["dataset_kwargs"]["data"], entry.config["test_split"]
        drawn = rooms.bind("data", data, "source")((split,))
        files = hashlib.sha256(entry.path.read_bytes() + (SUITES / "choices.py").read_bytes()).hexdigest()
        return replace(drawn, revision=f"{drawn.revision}+sha256:{files}")
    revision = (entry.config.get("dataset_kwargs") or {}).get("revision") or "main"
    found = dataset_source(entry.config["dataset_path"], entry.config.get("dataset_name"), revision=revision)
    judged(entry, found)
    return found


def overrides(entry: Entry, source: Source) -> dict[str, Any]:
    """Returns the keys to change in a task's configuration so that it reads its data from their source.

    From the hub that is the commit; from a folder they are the path and the splits that are not there: lm-eval opens
    the training split when it builds a task, even to show no example.
    """
    if entry.path.parent == SUITES:
        return {}
    if source.path is None:
        return {"dataset_kwargs": {**(entry.config.get("dataset_kwargs") or {}), "revision": source.revision}}
    lacking = {key: None for key in SPLITS if entry.config.get(key) not in (None, *_there(entry, source))}
    return {"dataset_path": str(source.path), **lacking}


def judged(entry: Entry, source: Source) -> str:
    """Returns the split that a task is judged on: test, or validation where there is no test split.

    Raises:
        Problem: The data have neither.
    """
    config = {**entry.config, **overrides(entry, source)}
    split = config.get("test_split") or config.get("validation_split")
    if split is None:
        asked = ", ".join(str(entry.config[key]) for key in ("test_split", "validation_split") if entry.config.get(key))
        hint = f"there is: {', '.join(_there(entry, source))}"
        raise Problem(f"the task {entry.name!r} is judged on {asked}, not here", where=str(source.path), hint=hint)
    return split


def _there(entry: Entry, source: Source) -> Sequence[str]:
    """Returns the splits of a task's data by their card, or those the task names, where the card lists none."""
    cards = card_splits(source.path)
    config = entry.config.get("dataset_name")
    named = [entry.config[key] for key in SPLITS if entry.config.get(key)]
    return (cards[config] if config else next(iter(cards.values()))) if cards else named


def _by_accuracy(entry: Entry) -> Entry:
    config = entry.config
    metrics = [metric.get("metric") for metric in config.get("metric_list") or [{"metric": "acc"}]]
    kind = "Python" if "class" in config else config.get("output_type")
    if kind not in ("multiple_choice", "loglikelihood") or "acc" not in metrics:
        hint = "perplexity is the task language_modelling, GSM8K the task reasoning"
        raise Problem(
            f"the task {entry.name!r} is not judged by accuracy ({kind}: {', '.join(map(str, metrics))})", hint=hint
        )
    return entry


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML with lm-eval's `!function module.name` left as text."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def _load(path: Path) -> dict[str, Any]:
    config = yaml.load(path.read_bytes(), _Loader)
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for each in [included] if isinstance(included, str) else included:
        merged |= _load(path.parent / each)
    return {**merged, **config}


def _index() -> dict[str, str]:
    """Returns all of lm-eval's task names with their files, from the cache folder where they are remembered."""
    folder = f"{importlib.util.find_spec('lm_eval').submodule_search_locations[0]}/tasks"
    memory = f"lm-eval-{importlib.metadata.version('lm_eval')}.json"
    names = remembered.read(memory)
    if not names:
        names = _scan(Path(folder))
        remembered.write(memory, names)
    return {name: f"{folder}/{path}" for name, path in names.items()}


def _scan(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.glob("**/*.yaml"), key=Path.as_posix):  # the first of a name counts, as in lm-eval
        for name in _NAMED.findall(path.read_bytes()):
            found.setdefault(name.decode(), path.relative_to(folder).as_posix())
    return found

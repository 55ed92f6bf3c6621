"""Which models and metrics fit a task: what their files say of themselves in `TASKS`, read and not imported.

A model family and a metric name the tasks they serve. A metric always fits the tasks that name it as their `METRIC`,
and a task that no family names is open to all of them, so that a new task, too, is one file and no other edit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import rooms
from harness.problems import Problem, nearest, unknown
from harness.tuning.phases import phases

WIDTHS = ("hidden_size", "intermediate_size", "d_model", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim")
"""The keys of a `config.json` that hold how many inputs its linear layers have."""
TASK_KEYS = ("task", "search_task")
"""The keys of a section that hold a task."""
TINY = {"hidden_size": 128}
"""What the configs of all tiny models have in common: the narrowest layer, of which every other is a multiple."""


def wrong_metric(metric: str, task: str) -> Problem | None:
    """Returns the problem that a metric cannot score a task's predictions, with those that can; None if it can."""
    name = metric.partition(":")[0]
    if _scores(name, task):
        return None
    fitting = [each for each in rooms.ROOMS["metric"].names() if _scores(each, task)]
    what = f"metric {name!r} does not read what the task {task!r} predicts"
    return Problem(what, nearest=nearest(name, fitting), hint=f"for this task there is: {', '.join(fitting)}")


def _scores(metric: str, task: str) -> bool:
    own = rooms.ROOMS["task"].method(task).constants.get("METRIC")
    return metric == own or task in rooms.ROOMS["metric"].method(metric).constants.get("TASKS", ())


def family_of(config: Mapping[str, Any]) -> str:
    """Returns the family of a model by its `config.json`.

    Raises:
        Problem: No family knows its `model_type`.
    """
    room, kind = rooms.ROOMS["model"], str(config.get("model_type", ""))
    known: list[str] = []
    for name in room.names():
        types = room.method(name).constants.get("MODEL_TYPES", ())
        if kind in types:
            return name
        known += types
    raise unknown("model type", kind, known)


def wrong_family(family: str, task: str) -> Problem | None:
    """Returns the problem that a model family does not serve a task, with the families that do; None if it does."""
    room = rooms.ROOMS["model"]

    def serves(name: str) -> bool:
        return task in room.method(name).constants.get("TASKS", ())

    if serves(family):
        return None
    if not (serving := [name for name in room.names() if serves(name)]):
        return None
    hint = f"those that do: {', '.join(serving)}"
    if data := _readable(family):
        hint += f"; {family} models read the data {', '.join(data)}"
    return Problem(f"{family} models do not serve the task {task!r}", hint=hint)


def _readable(family: str) -> list[str]:
    """Returns the data sets that a task of a family reads, each with the options that it must be given."""
    tasks, data = rooms.ROOMS["task"], rooms.ROOMS["data"]
    served = rooms.ROOMS["model"].method(family).constants.get("TASKS", ())
    kinds = {tasks.method(name).constants["READS"] for name in served} - {None}
    found = [data.method(name) for name in data.names() if data.method(name).constants.get("KIND") in kinds]
    needed = [{name: "..." for name, each in one.options.items() if each.default == rooms.REQUIRED} for one in found]
    return [str(rooms.Choice(one.name, options)) for one, options in zip(found, needed, strict=True)]


def wrong_tiny(model: str, section: Mapping[str, Any]) -> Iterator[tuple[str, Problem]]:
    """Yields what a section asks of a tiny model that it cannot do, by the section's key; nothing of other models."""
    organisation, _, family = model.partition("/")
    if organisation != "tiny" or family not in rooms.ROOMS["model"].names():
        return
    for key in TASK_KEYS:
        if section.get(key) and (wrong := wrong_family(family, section[key].partition(":")[0])):
            yield key, wrong
    if "pattern" in section and (wrong := wrong_width(TINY, section["pattern"])):
        yield "pattern", wrong
    if "method" in section and (wrong := wrong_rank(TINY, section["method"])):
        yield "method", wrong


def wrong_model(name: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Problem]:
    """Returns why a model cannot do what a cell asks of it, by its `config.json`.

    Args:
        name: The model, as the entry names it.
        config: Its `config.json`.
        settings: The cell's settings.
    """
    try:
        family = family_of(config)
    except Problem as problem:
        return [Problem(f"model {name!r}: {problem.what}", nearest=problem.nearest, hint=problem.hint)]
    sections = [one for name, one in settings.items() if name not in ("model", "evaluate")]
    sections += settings["evaluate"].values()
    named = (section.get(key) for section in sections if section for key in TASK_KEYS)
    tasks = dict.fromkeys(task.partition(":")[0] for task in named if task)
    wrong = [wrong_family(family, task) for task in tasks]
    if settings["prune"]:
        wrong.append(wrong_width(config, settings["prune"]["pattern"]))
    if not (settings["prune"] or {}).get("skip"):  # else maybe only the wide layers are pruned, and so trained
        wrong += [wrong_rank(config, section["method"]) for section in sections if section and "method" in section]
    return [Problem(f"model {name!r}: {each.what}", hint=each.hint) for each in wrong if each]


def wrong_width(config: Mapping[str, Any], pattern: str) -> Problem | None:
    """Returns the problem that a pattern's groups do not divide the layers of a model, as far as its config tells."""
    choice = rooms.parse(pattern)
    constants = rooms.ROOMS["pattern"].method(choice.name).constants
    if "PERIOD" not in constants:
        return None
    period = choice.options[constants["PERIOD"]]
    widths = {key: config[key] for key in WIDTHS if isinstance(config.get(key), int)}
    odd = {key: width for key, width in widths.items() if width % period}
    if not odd:
        return None
    fitting = [str(m) for m in (2, 4, 8, 16, 32, 64, 128) if not any(width % m for width in widths.values())]
    said = " and ".join(f"{key} = {width}" for key, width in odd.items())
    what = f"the pattern {choice} has groups of {period} inputs, which do not divide {said}"
    return Problem(what, hint=f"groups that do: {', '.join(fitting)}" if fitting else None)


def wrong_rank(config: Mapping[str, Any], method: str) -> Problem | None:
    """Returns the problem that a low-rank method has a higher rank than the narrowest layer that a config tells of."""
    choice = rooms.parse(method)
    option = rooms.ROOMS["method"].method(choice.name).constants.get("RANK")
    widths = {key: config[key] for key in WIDTHS if isinstance(config.get(key), int)}
    heads, shared = (config.get(key) for key in ("num_attention_heads", "num_key_value_heads"))
    if heads and shared and "hidden_size" in widths:
        widths["keys and values"] = shared * (config.get("head_dim") or widths["hidden_size"] // heads)
    if option is None or not widths:
        return None
    key = min(widths, key=widths.get)
    if choice.options[option] <= widths[key]:
        return None
    what = f"no layer with {key} = {widths[key]} has {option} {choice.options[option]}"
    return Problem(what, hint=f"at most {widths[key]}")


def wrong_revival(method: str, pattern: str) -> Problem | None:
    """Returns the problem that a method revives pruned weights, which an N:M pattern has no place for."""
    choice, groups = rooms.parse(method), rooms.parse(pattern)
    constants = rooms.ROOMS["method"].method(choice.name).constants
    option, keeps = constants.get("REVIVES"), constants.get("KEEPS", True)
    if keeps and not (option and choice.options[option]):
        return None
    if "PERIOD" not in rooms.ROOMS["pattern"].method(groups.name).constants:
        return None
    what = f"{choice.name} revives pruned weights, which would break the pattern {groups}"
    return Problem(what, hint=f"write {choice.name if option else 'seft'}:{option or 'reactivate'}=false")


def wrong_ramp(section: Mapping[str, Any], prune: Mapping[str, Any]) -> Problem | None:
    """Returns why a `prune` section cannot be walked over a section's ramp while the model trains; None if it can."""
    choice, options = rooms.parse(section["ramp"]), rooms.parse(prune["pattern"]).options
    if {"n", "m"} <= options.keys() and choice.name != "one_shot":
        text = f"{choice.name} goes over several sparsities, and {options['n']}:{options['m']} has one"
        return Problem(text, hint="ramp: null, or ramp: one_shot; mixed_nm has a sparsity of its own")
    if rooms.parse(prune["ramp"]).name != "one_shot":
        return Problem("prune has a ramp too", hint="leave prune.ramp out: the pruning follows this one")
    if prune["dtype"] != "float32":
        return Problem(f"what trains is float32, and prune.dtype is {prune['dtype']}", hint="leave prune.dtype out")
    try:
        targets = rooms.bind("ramp", choice)(prune["sparsity"])
        if section["steps"]:
            phases(section["steps"], targets, section["last"])
    except Problem as problem:
        return problem
    return None


def config_at(folder: Path) -> Mapping[str, Any]:
    """Reads a folder's `config.json`.

    Raises:
        Problem: It is no mapping in JSON.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise Problem(f"this config cannot be read: {error}", where=str(path)) from error
    if not isinstance(config, dict):
        raise Problem("this config is no mapping", where=str(path))
    return config

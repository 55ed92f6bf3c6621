"""Which of a stage's options decide its result: only these enter its key.

Others are handed to the stage all the same (`Stage.handling`): how often to checkpoint, whether to recompute
activations (the same sums, for some parameters in another order), the calibration of methods that look at no data, the
held-out examples of an allocation that searches nothing. A task's options serve training and prediction, so each stage
keeps those of the function it calls: another beam size trains nothing anew.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any

from harness import rooms

HANDLING = ("checkpoint_every", "recompute")
TOLD_BY_PARENT = ("start",)
"""What only says which model a stage reads: its parent's key holds that."""
SINCE = {"tokens": None, "ramp": None, "restart": False, "last": None}
"""Options of training that came after its first results: at these values, what was done before, no key knows them.

A loss says the same of its own options in a constant of this name; there the values are the options' defaults.
"""
CALIBRATION = ("data", "task", "split", "rows", "samples", "batch_size", "seed")
SEARCH = ("search_data", "search_task", "search_split", "search_limit")
"""What is held out for an allocation that tries rates and judges them (`judge`)."""
WITHOUT_DATA = {
    *("weight", "weights", "layers", "layer", "part", "sparsity", "choose", "period", "keep"),
    "scores",  # the criterion's, which is looked at itself
    "judge",  # looks at what is held out for the search
}
"""What a pruning method can be given without calibration; the rest are statistics, gradients and losses."""


def split(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options that decide the result of a stage, and those that do not.

    Args:
        name: The stage: prepare, prune, pretrain, tune, quantize or evaluate.
        options: Its section, resolved.
    """
    idle = {"prune": _idle, "quantize": _idle_in_quantize}.get(name, lambda _: HANDLING)(options)
    idle = (*idle, *TOLD_BY_PARENT, *(key for key, before in SINCE.items() if options.get(key, ...) == before))
    decides = {key: value for key, value in options.items() if key not in idle}
    for task in ("task", "search_task"):
        if decides.get(task):
            decides[task] = _for_verb(options[task], "predict" if name == "evaluate" else "examples")
    if decides.get("loss"):
        terms = rooms.resolve_terms("loss", decides["loss"])
        decides["loss"] = " + ".join(str(rooms.Term(term.weight, _as_first(term.choice))) for term in terms)
    if "prune" in decides:
        decides["prune"] = split("prune", options["prune"])[0]
    return decides, {key: value for key, value in options.items() if key in idle}


def prunes(section: Mapping[str, Any]) -> bool:
    """Says whether a tune section prunes itself: over a ramp while it trains, or afterwards."""
    method = rooms.ROOMS["method"].method(rooms.parse(section["method"]).name)
    return section["ramp"] is not None or bool(method.constants.get("PRUNES"))


def begins_with_gradients(section: Mapping[str, Any]) -> bool:
    """Says whether the method of a tune section looks at gradients before its first step."""
    choice = rooms.resolve("method", section["method"])
    looks = rooms.ROOMS["method"].method(choice.name).constants.get("GRADIENT")
    return looks is not None and all(choice.options[option] == value for option, value in looks.items())


def calibrates(options: Mapping[str, Any]) -> bool:
    """Says whether any method of a prune section is given statistics, gradients or losses of calibration data."""
    return bool(_needs(options) - WITHOUT_DATA)


def calibrates_quantisation(options: Mapping[str, Any]) -> bool:
    """Says whether a quantize section looks at data: its rounding, the smoothing, or the range of the activations."""
    needs = set(rooms.ROOMS["rounding"].method(rooms.parse(options["rounding"]).name).needs)
    return bool(needs - WITHOUT_DATA - {"grid"}) or options["smooth"] is not None or options["activations"] == "static"


def is_judged(options: Mapping[str, Any]) -> bool:
    """Says whether the allocation of a prune section tries rates, each judged on held-out examples."""
    return "judge" in _needs(options)


def held_out(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where a search's examples come from, by the names that calibration has for it; what is null is shared."""
    data, task = options["search_data"] or options["data"], options.get("search_task") or options["task"]
    return {"data": data, "task": task, "split": options["search_split"], "rows": None}


def _idle(options: Mapping[str, Any]) -> tuple[str, ...]:
    if not is_judged(options):
        return SEARCH if calibrates(options) else (*CALIBRATION, *SEARCH)
    if calibrates(options):
        return ()
    shared = [own for own in ("data", "task") if not options.get(f"search_{own}")]
    return tuple(name for name in CALIBRATION if name not in ("batch_size", *shared))


def _idle_in_quantize(options: Mapping[str, Any]) -> tuple[str, ...]:
    return () if calibrates_quantisation(options) else CALIBRATION


def _needs(options: Mapping[str, Any]) -> set[str]:
    """Returns what the methods of a prune section are to be given, by the names of their positional arguments."""
    methods = [(kind, options[kind]) for kind in ("criterion", "solver", "refiner", "allocation") if options.get(kind)]
    return {need for kind, text in methods for need in rooms.ROOMS[kind].method(rooms.parse(text).name).needs}


def _as_first(loss: rooms.Choice) -> rooms.Choice:
    """Returns a loss without the options that came after its first results, where they do what was done before."""
    since = rooms.ROOMS["loss"].method(loss.name).constants.get("SINCE", {})
    return rooms.Choice(loss.name, {key: value for key, value in loss.options.items() if since.get(key, ...) != value})


@functools.cache
def _for_verb(task: str, verb: str) -> str:
    """Returns a task with the options that one of its functions takes."""
    choice = rooms.parse(task)
    source = rooms.ROOMS["task"].method(choice.name).path.read_text(encoding="utf8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == verb)
    takes = {argument.arg for function in functions for argument in function.args.kwonlyargs}
    return str(rooms.Choice(choice.name, {key: value for key, value in choice.options.items() if key in takes}))

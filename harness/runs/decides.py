"""Which of a stage's options decide its result: only these enter its key.

Others are handed to the stage all the same (`Stage.handling`): how often to checkpoint, the calibration of methods that
look at no data, the held-out examples of an allocation that searches nothing. A task's options serve training and
prediction, so each stage keeps those of the function it calls: another beam size trains nothing anew.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any

from harness import rooms

HANDLING = ("checkpoint_every",)
CALIBRATION = ("data", "task", "split", "rows", "samples", "batch_size", "seed")
SEARCH = ("search_data", "search_split", "search_limit")
"""What is held out for an allocation that tries rates and judges them (`judge`)."""
WITHOUT_DATA = {
    *("weight", "weights", "layers", "layer", "part", "sparsity", "choose", "period", "keep"),
    "scores",  # the criterion's, which is looked at itself
}
"""What a pruning method can be given without looking at any data; the rest are statistics, gradients and losses."""


def split(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options that decide the result of a stage, and those that do not.

    Args:
        name: The stage: prepare, prune, tune or evaluate.
        options: Its section, resolved.
    """
    idle = _idle(options) if name == "prune" else HANDLING
    decides = {key: value for key, value in options.items() if key not in idle}
    if "task" in decides:
        decides["task"] = _for_verb(options["task"], "predict" if name == "evaluate" else "examples")
    return decides, {key: value for key, value in options.items() if key in idle}


def looks_at_data(options: Mapping[str, Any]) -> bool:
    """Says whether any method of a prune section is given statistics, gradients or losses."""
    return bool(_needs(options) - WITHOUT_DATA)


def _idle(options: Mapping[str, Any]) -> tuple[str, ...]:
    needs = _needs(options)
    return (*(() if needs - WITHOUT_DATA else CALIBRATION), *(() if "judge" in needs else SEARCH))


def _needs(options: Mapping[str, Any]) -> set[str]:
    """Returns what the methods of a prune section are to be given, by the names of their positional arguments."""
    methods = [(kind, options[kind]) for kind in ("criterion", "solver", "refiner", "allocation") if options.get(kind)]
    return {need for kind, text in methods for need in rooms.ROOMS[kind].method(rooms.parse(text).name).needs}


@functools.cache
def _for_verb(task: str, verb: str) -> str:
    """Returns a task with the options that one of its functions takes."""
    choice = rooms.parse(task)
    source = rooms.ROOMS["task"].method(choice.name).path.read_text(encoding="utf8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == verb)
    takes = {argument.arg for function in functions for argument in function.args.kwonlyargs}
    return str(rooms.Choice(choice.name, {key: value for key, value in choice.options.items() if key in takes}))

"""Which of a stage's options decide its result: only these enter its key.

Others are handed to the stage all the same (`Stage.handling`): how often to checkpoint, the calibration of a method
that looks at no data. A task's options serve training and prediction, so each stage keeps those of the function it
calls: another beam size trains nothing anew.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any

from harness import rooms

HANDLING = ("checkpoint_every",)
CALIBRATION = ("data", "task", "split", "rows", "samples", "batch_size", "seed")
WITHOUT_DATA = {"weight", "choose", "sparsity", "period", "layers"}
"""What a pruning method can be given without looking at any data."""


def split(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options that decide the result of a stage, and those that do not.

    Args:
        name: The stage: prepare, prune, tune or evaluate.
        options: Its section, resolved.
    """
    idle = HANDLING
    if name == "prune" and not _looks_at_data(options):
        idle = CALIBRATION
    decides = {key: value for key, value in options.items() if key not in idle}
    if "task" in decides:
        decides["task"] = _for_verb(options["task"], "predict" if name == "evaluate" else "examples")
    return decides, {key: value for key, value in options.items() if key in idle}


def _looks_at_data(options: Mapping[str, Any]) -> bool:
    methods = [(kind, options[kind]) for kind in ("criterion", "solver", "allocation") if options[kind]]
    needs = {need for kind, text in methods for need in rooms.ROOMS[kind].method(rooms.parse(text).name).needs}
    return bool(needs - WITHOUT_DATA)


@functools.cache
def _for_verb(task: str, verb: str) -> str:
    """Returns a task with the options that one of its functions takes."""
    choice = rooms.parse(task)
    source = rooms.ROOMS["task"].method(choice.name).path.read_text(encoding="utf8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == verb)
    takes = {argument.arg for function in functions for argument in function.args.kwonlyargs}
    return str(rooms.Choice(choice.name, {key: value for key, value in choice.options.items() if key in takes}))

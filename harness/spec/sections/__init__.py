"""The sections of an experiment: what each stage may be told, with its defaults, checked against the rooms.

A choice (criterion, loss, task, ...) is written `name` or `name:option=value,...` and comes out with every option
written out, because a result's key is made of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from harness.problems import Problem, nearest
from harness.spec.sections.judge import Evaluation, Measure
from harness.spec.sections.prune import Prune
from harness.spec.sections.quantize import Quantize
from harness.spec.sections.shared import LARGEST_SEED, STRICT
from harness.spec.sections.training import LENGTHS, Prepare, Pretrain, Tune

__all__ = [
    "LARGEST_SEED",
    "SECTIONS",
    "STRICT",
    "Evaluation",
    "Measure",
    "Prepare",
    "Pretrain",
    "Prune",
    "Quantize",
    "Tune",
]

SETTINGS = ("model", "data", "task")
"""What the top of an entry gives every section."""
ALTERNATIVES = {
    **{key: tuple(other for other in LENGTHS if other != key) for key in LENGTHS},
    **{"criterion": ("solver",), "solver": ("criterion",)},
}
"""Keys of which a section has one: a later setting of the one replaces an earlier setting of the others."""

SECTIONS: dict[str, type[BaseModel]] = {
    "prepare": Prepare,
    "prune": Prune,
    "pretrain": Pretrain,
    "tune": Tune,
    "quantize": Quantize,
    "evaluate": Evaluation,
    "measure": Measure,
}
"""The sections by their name in an entry; `evaluate` holds any number of them, by the evaluation's name."""
SINGLE = tuple(name for name in SECTIONS if name != "evaluate")
"""The sections of which there is one, in the order of their stages; each may be left out."""


def lay(section: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a section with changes laid over it; what a change is the alternative of gives way to it."""
    given_way = {other for key, value in changes.items() if value is not None for other in ALTERNATIVES.get(key, ())}
    given_way -= changes.keys()
    return {key: value for key, value in section.items() if key not in given_way} | changes


def is_setting(dotted: str, evaluations: Iterable[str]) -> bool:
    """Says whether a name is that of a setting in an entry with these evaluations."""
    head, _, field = dotted.partition(".")
    if head == "evaluate":
        name, _, field = field.rpartition(".")
        return name in evaluations and field in Evaluation.model_fields
    return dotted in (*SETTINGS, *SINGLE) or (head in SINGLE and field in SECTIONS[head].model_fields)


def unknown_setting(dotted: str, evaluations: Iterable[str], more: Iterable[str] = ()) -> Problem | None:
    """Returns the problem with the name of a setting, or None where it is one.

    Args:
        dotted: `model`, `tune`, `tune.lr`, `evaluate.bleu.limit`.
        evaluations: The names of the entry's evaluations.
        more: Further names that count as settings here.
    """
    if is_setting(dotted, evaluations) or dotted in more:
        return None
    known = [*SETTINGS, *more, *SINGLE]
    known += [f"{section}.{field}" for section in SINGLE for field in SECTIONS[section].model_fields]
    known += [f"evaluate.{name}.{field}" for name in evaluations for field in Evaluation.model_fields]
    hint = "a setting is written section.key, as in prune.sparsity or evaluate.bleu.limit"
    return Problem(f"unknown setting {dotted!r}", nearest=nearest(dotted, known), hint=hint)


def wrong_setting(dotted: str, value: Any, evaluations: Iterable[str]) -> Problem | None:
    """Returns what is wrong with a setting: its name, or a section that is given as anything but null or its keys."""
    if dotted in SECTIONS and value is not None:
        return Problem(f"{dotted} is a section: it is set key by key, or to null, not to {value!r}")
    return unknown_setting(dotted, evaluations)

"""The settings of a cell: the top level and the scale, its axes' points, the cases that match it, then `--set`.

A section is checked once for each distinct combination of the labels that touch it, so a thousand cells cost little.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from harness import rooms
from harness.problems import Problem
from harness.spec.axes import Axis
from harness.spec.cases import Matched
from harness.spec.choices import check_model
from harness.spec.faults import problems_of
from harness.spec.fits import wrong_tiny
from harness.spec.sections import SECTIONS, SETTINGS, SINGLE, lay

if TYPE_CHECKING:
    from harness.spec.entry import Entry

Labels = tuple[str, ...]
_READS = {section: {section, *SETTINGS} for section in SECTIONS} | {"top": set(SETTINGS)}


class Settings:
    """Resolves sections under a combination of labels, each distinct one once, and collects what is wrong."""

    def __init__(self, entry: Entry, axes: list[Axis], cases: list[Matched]) -> None:
        self.entry, self.axes, self.cases = entry, axes, cases
        self.problems: list[Problem] = []
        resolve, resolve_terms = functools.cache(rooms.resolve), functools.cache(rooms.resolve_terms)
        self.context = {"resolve": resolve, "resolve_terms": resolve_terms}
        self.relevant = {name: self.axes_touching(reads) for name, reads in _READS.items()}
        self.cache: dict[tuple, Any] = {}

    def of(self, labels: Labels) -> dict[str, Any]:
        """Returns `model`, the sections (None where left out) and `evaluate` under these labels."""
        settings = {"model": self.once("top", labels, self.top)["model"]}
        settings |= {name: self.once(name, labels, self.section) for name in SINGLE}
        return settings | {"evaluate": self.once("evaluate", labels, self.evaluate)}

    def axes_touching(self, sections: set[str]) -> list[int]:
        """Returns which axes (by position) change anything in these sections, through their points or through cases."""
        touch = {axis.name for axis in self.axes if any(_head(name) in sections for name in axis.settings)}
        for case in self.cases:
            if any(_head(name) in sections for name in case.settings):
                touch |= case.when.keys()
        return [i for i, axis in enumerate(self.axes) if axis.name in touch]

    def once(self, name: str, labels: Labels, make: Callable[[str, Labels], Any]) -> Any:
        """Returns `make(name, labels)`, made once for all combinations that agree where it matters."""
        key = (name, *(labels[i] for i in self.relevant[name]))
        if key not in self.cache:
            self.cache[key] = make(name, labels)
        return self.cache[key]

    def layers(self, labels: Labels) -> list[Mapping[str, tuple[Any, str]]]:
        """Returns the settings that axes and cases make, in the order in which they are laid."""
        points = [axis.points[label].settings for axis, label in zip(self.axes, labels, strict=True)]
        here = dict(zip((axis.name for axis in self.axes), labels, strict=True))
        return [*points, *(c.settings for c in self.cases if all(here[a] in good for a, good in c.when.items()))]

    def top(self, _: str, labels: Labels) -> dict[str, Any]:
        """Returns model, data and task."""
        values = {name: getattr(self.entry, name) for name in SETTINGS}
        for layer in self.layers(labels):
            values |= {name: layer[name][0] for name in SETTINGS if name in layer}
        try:
            check_model(values["model"])
        except PydanticCustomError as error:
            said = (error.context or {})["problem"]
            where = self.where("model", labels)
            self.problems.append(Problem(f"model: {said.what}", where=where, nearest=said.nearest, hint=said.hint))
        return values

    def section(self, name: str, labels: Labels) -> dict[str, Any] | None:
        """Returns one of the sections that there is one of, resolved, or None where it is left out."""
        raw = getattr(self.entry, name)
        for layer in self.layers(labels):
            if name in layer:
                raw = layer[name][0]
            changes = {key.partition(".")[2]: value for key, (value, _) in layer.items() if key.startswith(f"{name}.")}
            raw = lay(raw or {}, changes) if changes else raw
        return None if raw is None else self.resolved(name, name, raw, labels)

    def evaluate(self, _: str, labels: Labels) -> dict[str, dict[str, Any]]:
        """Returns the evaluations by name, resolved."""
        raw = {name: dict(self.entry.evaluate.get(name) or {}) for name in self.entry.evaluations}
        for layer in self.layers(labels):
            for key, (value, _) in layer.items():
                if _head(key) == "evaluate":
                    _, name, field = key.split(".", 2)
                    raw[name][field] = value
        return {name: self.resolved("evaluate", f"evaluate.{name}", one, labels) for name, one in raw.items()}

    def resolved(self, section: str, dotted: str, raw: dict[str, Any], labels: Labels) -> dict[str, Any]:
        """Fills in the entry's data and task, checks, and writes every default out."""
        top = self.once("top", labels, self.top)
        raw = {key: value for key, value in raw.items() if value is not None or key not in ("data", "task")}
        inherited = ({"data", "task"} & SECTIONS[section].model_fields.keys()) - raw.keys()
        if "task" in inherited:
            raw = {"task": top["task"]} | raw
        if "data" in inherited and (section != "evaluate" or not _reads_nothing(raw["task"])):
            raw = {"data": top["data"]} | raw
        where, stands = functools.partial(self.where, labels=labels), functools.partial(_stands, inherited)
        try:
            found = SECTIONS[section].model_validate(raw, context=self.context).model_dump(mode="json")
        except ValidationError as error:
            self.problems += problems_of(error, raw, SECTIONS[section], where, dotted, stands)
            return {}
        for field, wrong in wrong_tiny(top["model"], found):
            key = stands(f"{dotted}.{field}")
            self.problems.append(Problem(f"{key}: {wrong.what}: {top['model']}", where=where(key), hint=wrong.hint))
        return found

    def where(self, dotted: str, labels: Labels) -> str:
        """Returns the place that a setting's value under these labels comes from."""
        field = dotted.rpartition(".")[2]
        for layer in reversed(self.layers(labels)):
            if dotted in layer:
                return self.entry.where(layer[dotted][1])
        if "." in dotted and field in SETTINGS and not self.entry.has(dotted):
            return self.where(field, labels)
        return self.entry.where(dotted)


def _stands(inherited: set[str], dotted: str, whole: bool = False) -> str:
    """Returns the key at which a section's wrong value is told: what it inherits, at the entry's own key.

    Args:
        inherited: Which of data and task the section takes from the entry.
        dotted: The key in the section.
        whole: Whether it is wrong only beside the other keys: data that do not suit the section's own task.
    """
    section, _, field = dotted.rpartition(".")
    if whole and field == "data" and inherited == {"data"}:
        return f"{section}.task"
    return field if field in inherited else dotted


def _head(setting: str) -> str:
    return setting.partition(".")[0]


def _reads_nothing(task: Any) -> bool:
    room = rooms.ROOMS["task"]
    name = str(task).partition(":")[0].strip()
    return name in room.names() and room.method(name).constants.get("READS", name) is None

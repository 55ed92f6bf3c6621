"""Settings that follow from the values of axes: `{when: {prune.sparsity: [0.7, 0.8]}, set: {tune.epochs: 4}}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.problems import Problem, nearest
from harness.spec.axes import Axis, settings_of
from harness.spec.sections import wrong_setting

if TYPE_CHECKING:
    from harness.spec.entry import Entry


@dataclass(frozen=True)
class Matched:
    """A case on this grid: the labels it asks of axes, and for each setting its value and the path where it stands."""

    when: Mapping[str, frozenset[str]]
    settings: Mapping[str, tuple[Any, str]]


def matched_cases(entry: Entry, axes: list[Axis]) -> tuple[list[Matched], list[Problem]]:
    """Returns the cases that can match on these axes, in order, and what is wrong with any.

    A case written for the top level's grid may name values that a scale has left out; it then matches nothing. A name
    that neither grid has is a problem.
    """
    own = {axis.name: axis for axis in axes}
    top = {axis.name: axis for axis in entry.top.axes[0]}
    matched, problems = [], []
    for i, case in enumerate(entry.cases):
        when: dict[str, frozenset[str]] = {}
        for name, values in case.when.items():
            path = f"cases.{i}.when.{name}"
            values = values if isinstance(values, list) else [values]
            problems += _unknown(name, values, own, top, path, entry)
            if not values:
                what = f"{path}: no value of {name!r} is named, so the case never holds"
                problems.append(Problem(what, where=entry.where(path), hint=f"{name}: [0.5, 0.75], or leave it out"))
            labels = (own[name].label(value) for value in values) if name in own else ()
            when[name] = frozenset(label for label in labels if label)
        flat = settings_of(case.set)
        for name, one in flat.items():
            path = f"cases.{i}.set.{name}"
            if wrong := wrong_setting(name, one, entry.evaluations):
                what = f"{path}: {wrong.what}"
                problems.append(Problem(what, where=entry.where(path), nearest=wrong.nearest, hint=wrong.hint))
            elif all(when.values()) and (axis := _decided(name, one, axes, when)):
                what = f"{path}: {name} follows from the axis {axis.name!r}"
                problems.append(Problem(what, where=entry.where(path), hint=f"write it at grid.{axis.name}"))
        if all(when.values()):
            matched.append(Matched(when, {name: (value, f"cases.{i}.set.{name}") for name, value in flat.items()}))
    return matched, problems


def _decided(name: str, value: Any, axes: list[Axis], when: Mapping[str, frozenset[str]]) -> Axis | None:
    return next((axis for axis in axes if axis.decides(name, value, when.get(axis.name))), None)


def _unknown(
    name: str, values: list, own: Mapping[str, Axis], top: Mapping[str, Axis], path: str, entry: Entry
) -> list[Problem]:
    where = entry.where(path)
    known = list(own | top)
    if name not in known:
        hint = f"axes: {', '.join(known) or 'none'}"
        return [Problem(f"{path}: the grid has no axis {name!r}", where=where, nearest=nearest(name, known), hint=hint)]
    grids = [grid[name] for grid in (own, top) if name in grid]
    labels = list(dict.fromkeys(label for axis in grids for label in axis.points))
    return [
        Problem(
            f"{path}: the axis {name!r} has no value {value!r}",
            where=where,
            nearest=nearest(str(value), labels),
            hint=f"its values: {', '.join(labels)}",
        )
        for value in values
        if all(axis.label(value) is None for axis in grids)
    ]

"""The axes of a grid: each a name and its points, a point a label and the settings it stands for.

An axis is a setting by its dotted name with a list of values or a mapping of label to value, or a free name with a
mapping of label to several settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.problems import Problem
from harness.spec.sections import ALTERNATIVES, is_setting, unknown_setting, wrong_setting

if TYPE_CHECKING:
    from harness.spec.entry import Entry

RESERVED = ("dense", "one_shot", "pretrained", "tuned", "pruned", "quantized")
LONGEST = 100  # characters of a label


@dataclass(frozen=True)
class Point:
    """One point: its value as written, and for each setting its value and the dotted path of where it stands."""

    value: Any
    settings: Mapping[str, tuple[Any, str]]


@dataclass(frozen=True)
class Axis:
    """One axis of the grid with its points by label, in order."""

    name: str
    points: Mapping[str, Point]

    @property
    def settings(self) -> frozenset[str]:
        """The settings that any of its points makes."""
        return frozenset(name for point in self.points.values() for name in point.settings)

    @property
    def numeric(self) -> bool:
        """Whether every value is a number, so that values can be ordered and compared."""
        return all(isinstance(p.value, int | float) and not isinstance(p.value, bool) for p in self.points.values())

    def decides(self, name: str, value: Any, labels: Iterable[str] | None = None) -> bool:
        """Says whether any of its points, or of those with these labels, makes a setting or the alternative to it."""
        section, _, key = name.rpartition(".")
        others = [f"{section}.{each}" for each in ALTERNATIVES.get(key, ())] if value is not None else []
        made = [self.points[label].settings for label in (self.points if labels is None else labels)]
        return any(name in one or any(one.get(other, (None,))[0] is not None for other in others) for one in made)

    def label(self, value: Any) -> str | None:
        """Returns the label of a point given by its label or by its value, or None."""
        if label_of(value) in self.points:
            return label_of(value)
        points = self.points.items()
        return next((k for k, p in points if type(p.value) is type(value) and p.value == value), None)


def label_of(value: Any) -> str:
    """Returns the label of a value: 0.5 -> "0.5", true -> "true", null -> "none", a text itself."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings_of(tree: Any) -> dict[str, Any]:
    """Flattens nested settings: `{tune: {lr: 1e-3}}` and `{tune.lr: 1e-3}` are the same."""
    flat: dict[str, Any] = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": v for inner, v in settings_of(value).items()})
        else:
            flat[key] = value
    return flat


def axes_of(entry: Entry) -> tuple[list[Axis], list[Problem]]:
    """Returns an entry's axes, and what is wrong with those that are left out."""
    axes, problems = [], []
    for name, points in entry.grid.items():
        try:
            axis = _axis(name, points, entry)
            _check_apart(axis, axes, entry)
            axes.append(axis)
        except Problem as problem:
            problems.append(problem)
    return axes, problems


def _axis(name: str, points: list | dict, entry: Entry) -> Axis:
    path = f"grid.{name}"
    where = entry.where(path)
    free = not is_setting(name, entry.evaluations)
    if free and (isinstance(points, list) or "." in name):
        wrong = unknown_setting(name, entry.evaluations)
        hint = "an axis is a setting (prune.sparsity: [0.5, 0.75]) or a new word with {label: {setting: value}}"
        raise Problem(f"{path}: {wrong.what}", where=where, nearest=wrong.nearest, hint=hint)
    if not points:
        raise Problem(f"{path} has no values", where=where, hint="give it values, or null to remove it")
    read: dict[str, Point] = {}
    files: dict[str, str] = {}
    pairs = enumerate(points) if isinstance(points, list) else points.items()
    for key, value in pairs:
        here = f"{path}.{key}"
        label = label_of(value) if isinstance(points, list) else key
        _check_label(label, files, here, entry)
        files[_file_name(label)] = label
        read[label] = _point(value, _free(value, here, entry) if free else {here: (name, value)}, entry)
    return Axis(name, read)


def _check_apart(axis: Axis, others: Iterable[Axis], entry: Entry) -> None:
    for name, (value, path) in (pair for point in axis.points.values() for pair in point.settings.items()):
        if other := next((other for other in others if other.decides(name, value)), None):
            what = f"{path}: {name} follows from the axis {other.name!r} already"
            raise Problem(what, where=entry.where(path), hint="let one axis decide it")


def _check_label(label: str, taken: Mapping[str, str], path: str, entry: Entry) -> None:
    """Checks a label beside those before it, which `taken` has by their names as files."""
    where, same = entry.where(path), taken.get(_file_name(label))
    if label == same:
        raise Problem(f"{path}: the label {label!r} stands twice", where=where, hint="give every value once")
    if label in RESERVED:
        raise Problem(f"{path}: the label {label!r} is taken", where=where, hint=f"reserved: {', '.join(RESERVED)}")
    if "/" in label or len(label) > LONGEST or not label.isprintable() or not re.search("[A-Za-z0-9]", label):
        hint = "labels are joined with '/' and name files; give a short one: {label: value}"
        raise Problem(f"{path}: {label!r} cannot be a label", where=where, hint=hint)
    if same is not None:
        hint = "only letters, digits and ._+- are kept there; give another: {label: value}"
        raise Problem(f"{path}: the labels {same!r} and {label!r} name the same file", where=where, hint=hint)


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", label)


def _free(value: Any, path: str, entry: Entry) -> dict[str, tuple[str, Any]]:
    """Returns the settings of a free axis's point by the path where each stands."""
    if not isinstance(value, dict | None):
        raise Problem(f"{path} should be a mapping of setting to value, not {value!r}", where=entry.where(path))
    return {f"{path}.{name}": (name, one) for name, one in settings_of(value).items()}


def _point(value: Any, settings: Mapping[str, tuple[str, Any]], entry: Entry) -> Point:
    for path, (name, one) in settings.items():
        if wrong := wrong_setting(name, one, entry.evaluations):
            where = entry.where(path)
            raise Problem(f"{path}: {wrong.what}", where=where, nearest=wrong.nearest, hint=wrong.hint)
    return Point(value, {name: (one, path) for path, (name, one) in settings.items()})

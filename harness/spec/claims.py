"""The paper's orderings as statements that a report can judge.

    claim     = side op side [ "at" condition { "and" condition } ]        op = > < >= <= ~
    side      = axis labels joined with "/" | "dense" | "one_shot" | labels + "/one_shot"; so for "pretrained"
    condition = axis op value                                              op = > < >= <= =

`A > B` reads "A is better than B" whatever the metric, so for WER it means a lower one; `A ~ B`: equal within noise.
A side stands for every cell that has its labels; the two sides are paired where their other labels agree.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.problems import Problem, nearest
from harness.spec.axes import Axis
from harness.spec.yaml_lines import value as read_value

if TYPE_CHECKING:
    from harness.spec.grid import Cell

BASELINES = ("dense", "one_shot", "pretrained")
_CLAIM = re.compile(r"(?P<left>\S.*?)\s+(?P<op>>=|<=|>|<|~)\s+(?P<right>\S.*?)(?:\s+at\s+(?P<conditions>.*))?")
_CONDITION = re.compile(r"(?P<axis>[^\s<>=]+)\s*(?P<op>>=|<=|>|<|=)\s*(?P<value>\S.*)")
_COMPARE = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_HINT = "write: squarehead > cross_entropy at prune.sparsity >= 0.7"


@dataclass(frozen=True)
class Side:
    """One side of a claim: the labels it asks for, (axis, label) each, and the baseline if it is one."""

    text: str
    labels: tuple[tuple[str, str], ...]
    baseline: str | None

    def means(self, cell: Cell) -> bool:
        """Says whether a cell is of this side: the same baseline or none, and the labels that it asks for."""
        return cell.baseline == self.baseline and all(cell.axes.get(axis) == label for axis, label in self.labels)


@dataclass(frozen=True)
class Condition:
    """Where a claim holds: the axis's value (or label, for `=`) stands in this relation to `value`."""

    axis: str
    op: str
    value: float | str


@dataclass(frozen=True)
class Claim:
    """An ordering of two sides under conditions that all hold."""

    text: str
    left: Side
    op: str
    right: Side
    conditions: tuple[Condition, ...]


def parse(text: str, axes: Sequence[Axis], baselines: Sequence[str] = BASELINES, where: str | None = None) -> Claim:
    """Reads a claim about the cells of a grid.

    Raises:
        Problem: It is no claim, or names a label, axis or value that the grid does not have.
    """
    match = _CLAIM.fullmatch(text.strip())
    if match is None:
        raise Problem(f"claim {text!r} cannot be read", where=where, hint=_HINT)
    said = f"claim {text!r}"
    left, right = (_side(match[name], axes, baselines, said, where) for name in ("left", "right"))
    if (left.labels, left.baseline) == (right.labels, right.baseline):
        raise Problem(f"{said} compares a cell with itself", where=where)
    parts = re.split(r"\s+and\s+", match["conditions"]) if match["conditions"] is not None else ()
    return Claim(text, left, match["op"], right, tuple(_condition(part, axes, said, where) for part in parts))


def holds(condition: Condition, label: str, value: Any) -> bool:
    """Says whether an axis's point, its label and value, meets a condition."""
    return label == condition.value if condition.op == "=" else _COMPARE[condition.op](value, condition.value)


def check(claim: Claim, axes: Sequence[Axis], cells: Iterable[Cell], where: str | None = None) -> None:
    """Refuses a claim that says nothing of any cell.

    Raises:
        Problem: A side is no cell's, or no value of an axis meets the conditions on it, or a side's own label does not.
    """
    cells = {cell.label: cell for cell in cells}
    known: set[str] = set()
    for side in (claim.left, claim.right):
        meant = [cell for cell in cells.values() if side.means(cell)]
        if not meant:
            hint = "a baseline is called by the labels that matter to it, as in 0.6/one_shot"
            what = f"claim {claim.text!r}: no cell is {side.text!r}"
            raise Problem(what, where=where, nearest=nearest(side.text, cells), hint=hint)
        known.update(*(cell.axes for cell in meant))
    for axis in axes:
        if conditions := [one for one in claim.conditions if one.axis == axis.name]:
            _check_conditions(claim, axis, conditions, axis.name in known, where)


def _check_conditions(
    claim: Claim, axis: Axis, conditions: Sequence[Condition], known: bool, where: str | None
) -> None:
    never = f"claim {claim.text!r} never holds"
    if not known:
        what = f"{never}: neither side has the axis {axis.name}"
        raise Problem(what, where=where, hint="leave the condition out")
    met = [label for label, p in axis.points.items() if all(holds(one, label, p.value) for one in conditions)]
    if not met:
        hint = f"its values: {', '.join(axis.points)}"
        raise Problem(f"{never}: no value of {axis.name} is so", where=where, hint=hint)
    for side in (claim.left, claim.right):
        label = dict(side.labels).get(axis.name, met[0])
        if label not in met:
            what = f"{never}: {side.text!r} is at {axis.name} = {label}"
            raise Problem(what, where=where, hint="leave out the condition, or the label")


def _side(text: str, axes: Sequence[Axis], baselines: Sequence[str], said: str, where: str | None) -> Side:
    *labels, last = text.split("/")
    baseline = last if last in baselines else None
    labels = labels if baseline else [*labels, last]
    found: dict[str, str] = {}
    for label in labels:
        holding = [axis.name for axis in axes if label in axis.points and axis.name not in found]
        if not holding:
            known = [*baselines, *(known for axis in axes for known in axis.points)]
            hint = f"labels: {', '.join(known)}"
            raise Problem(f"{said}: no label {label!r}", where=where, nearest=nearest(label, known), hint=hint)
        if len(holding) > 1 and len(labels) < len(axes):
            hint = f"it is one of {' and '.join(holding)}; give the axes' labels distinct names"
            raise Problem(f"{said}: label {label!r} is not clear", where=where, hint=hint)
        found[holding[0]] = label
    return Side(text, tuple(found.items()), baseline)


def _condition(text: str, axes: Sequence[Axis], said: str, where: str | None) -> Condition:
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise Problem(f"{said}: the condition {text!r} cannot be read", where=where, hint=_HINT)
    names = [axis.name for axis in axes]
    axis = next((axis for axis in axes if axis.name == match["axis"]), None)
    if axis is None:
        hint = f"axes: {', '.join(names)}"
        close = nearest(match["axis"], names)
        raise Problem(f"{said}: no axis {match['axis']!r}", where=where, nearest=close, hint=hint)
    value = read_value(match["value"], where or said)
    if match["op"] == "=":
        label = axis.label(value)
        if label is None:
            hint = f"its values: {', '.join(axis.points)}"
            close = nearest(match["value"], axis.points)
            raise Problem(f"{said}: {axis.name} has no value {value!r}", where=where, nearest=close, hint=hint)
        return Condition(axis.name, "=", label)
    if not axis.numeric or isinstance(value, bool) or not isinstance(value, int | float):
        hint = "only numbers are compared; a label is given with ="
        raise Problem(f"{said}: {axis.name} {match['op']} {match['value']} compares no numbers", where=where, hint=hint)
    return Condition(axis.name, match["op"], value)

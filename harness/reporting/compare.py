"""Ours beside the paper's: records and reference cells as one tidy table, a row a cell and metric, blanks included.

    mean over seeds;  s.e. = sqrt(sum (x - mean)^2 / (n - 1) / n);  gap = mean - paper

Every cell of the grid has its row whether it was run or not, and so has every number of the paper. A number that could
not be read stays a blank that says so. Scores of unlike protocols (another tokeniser, window, split) are refused,
because their difference says nothing of the methods.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.problems import Problem
from harness.runs.decides import HANDLING
from harness.runs.plan import MEASURE
from harness.tracking.record import TRAINED
from harness.tracking.settings import differences

if TYPE_CHECKING:
    from harness.spec.entry import Entry
    from harness.spec.grid import Cell
    from harness.spec.reference import Reference

DENSE, ONE_SHOT = "dense", "one_shot"
NOT_RUN, OTHER_SCALE, NOT_GIVEN = "not run", "not at this scale", "not given in what could be read"
OUTDATED = "run with other settings"
ROW_AXES = ("prune.sparsity", "prune.pattern")
"""The axes that run down a table and along a plot, the first of which the grid has two values; else its first axis."""
COLUMNS = (
    *("label", "baseline", "row", "x", "arm", "evaluation", "metric", "mean", "stderr", "n", "expected", "sampling"),
    *("error", "protocol", "higher_is_better", "status", "paper", "spread", "gap", "read"),
)
SAID = 4
"""How many differences from other settings are named."""
Record = Mapping[str, Any]
Column = tuple[str, str]
"""An evaluation's name and one of its metrics."""


@dataclass(frozen=True)
class Comparison:
    """One entry at one scale, ours beside the paper's.

    Attributes:
        entry: Its name; likewise title, scale, model and data.
        paper: `id`, `name` and `table` of the paper; None where the entry stands in none.
        paper_model: The model of the entry's top level.
        unlike: Why our levels cannot be compared with the paper's; None where they can, and where there is no paper.
        axis: The axis that runs down the table; "" for an entry without a grid.
        units: Each column that the paper has numbers of, and their unit; the first is the one it is about.
        frame: A row a cell and metric. `row` is the label on `axis` and `x` its value, if a number; `arm` the labels on
            the other axes; `stderr` is over `n` seeds (NaN below two) of `expected`, `sampling` over the rows of the
            test set, and `error` the first of them that any cell of the column has; `status` says why a mean is missing
            or partial; `paper` and its `spread` are in our metric's unit, and `read` is where they stand.
        costs: What the last training of each cell cost, by label: the means over seeds of what a record keeps as its
            stage's `cost`, of its `sparsity`, and `added_memory_bytes`, the peak without what was held before.
        environments: Each machine and set of versions that the records come from, and how many do.
        facts: What the paper says that is of no cell: what, its value with the unit, where it was read.
        outdated: What was run with other settings than the entry now states and is passed over: by what differs, the
            labels of the cells.
    """

    entry: str
    title: str
    scale: str
    model: str
    data: str
    paper: Mapping[str, str | None] | None
    paper_model: str
    unlike: str | None
    axis: str
    units: Mapping[Column, str]
    frame: pd.DataFrame
    costs: Mapping[str, Mapping[str, float]]
    environments: tuple[tuple[Mapping[str, Any], int], ...]
    facts: tuple[tuple[str, str, str], ...]
    outdated: Mapping[str, tuple[str, ...]]

    def columns(self) -> list[Column]:
        """Returns every evaluation and metric, in the order of the entry."""
        return list(dict.fromkeys(zip(self.frame["evaluation"], self.frame["metric"], strict=True)))

    def headlines(self) -> list[Column]:
        """Returns the first metric of every evaluation, and the one the paper's numbers are of."""
        first: dict[str, str] = {}
        for evaluation, metric in self.columns():
            first.setdefault(evaluation, metric)
        return [column for column in self.columns() if column in first.items() or column in self.units]

    def select(self, evaluation: str, metric: str) -> pd.DataFrame:
        """Returns the rows of one metric, a row a cell."""
        return self.frame[(self.frame["evaluation"] == evaluation) & (self.frame["metric"] == metric)]

    @property
    def seeds_are_repeated(self) -> bool:
        """Whether any error is over seeds; otherwise all are over the rows of the test set."""
        return bool((self.frame["n"] > 1).any())


def compare(entry: Entry, records: Iterable[Record], *, mix: bool = False) -> Comparison:
    """Sets the records of one entry at one scale beside the paper's numbers.

    Args:
        entry: The experiment, read at the scale of the records.
        records: Records; those of other entries and scales, of cells that the grid no longer has, and those made with
            other settings than the entry now states are passed over (the last are said in `status` and `outdated`).
        mix: Accept scores of unlike protocols in one column; each row says its own.

    Raises:
        Problem: The scores of one column follow unlike protocols: which, and whose.
    """
    from harness.spec.grid import cells

    own, top = cells(entry), cells(entry.top)
    axis = next((name for name in ROW_AXES if len(entry.grid.get(name, ())) > 1), next(iter(entry.grid), ""))
    expected = _by_label(own)
    theirs = {label: (cell, 0) for label, (cell, _) in _by_label(top).items() if _stands(entry, label, expected)}
    known = _in_order(expected | theirs, axis)
    mine, outdated = _current(entry, own, records)
    gone = {label for labels in outdated.values() for label in labels} - {r["label"] for r in mine}
    if not mix:
        _refuse_unlike(mine)
    columns = _columns(mine, own[0])
    references = _references(entry, columns)
    rows = [
        _row(cell, axis, column)
        | _ours(mine, label, seeds, column, OUTDATED if label in gone else NOT_RUN)
        | _theirs(references.get(column), label)
        for column in columns
        for label, (cell, seeds) in known.items()
    ]
    return Comparison(
        entry=entry.name,
        title=entry.title,
        scale=entry.scale,
        model=entry.model,
        data=entry.data or "",
        paper=entry.paper.model_dump() if entry.paper else None,
        paper_model=entry.top.model,
        unlike=_unlike(own[0], top[0]) if entry.paper else None,
        axis=axis,
        units={column: reference.unit for column, reference in references.items()},
        frame=_frame(rows),
        costs={label: cost for label in known if (cost := _cost(mine, label))},
        environments=_environments(mine),
        facts=tuple(entry.reference.rows()) if entry.reference else (),
        outdated=outdated,
    )


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error over repetitions; NaN where there are none, or one."""
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _current(
    entry: Entry, cells: Iterable[Cell], records: Iterable[Record]
) -> tuple[list[Record], dict[str, tuple[str, ...]]]:
    """Returns the records of what the cells ask now; of those of something else, their labels by what differs."""
    known = {(cell.label, cell.seed): cell for cell in cells}
    current, outdated = [], {}
    for record in records:
        cell = known.get((record["label"], record["seed"]))
        if cell is None or (record["entry"], record["scale"]) != (entry.name, entry.scale):
            continue
        if other := differences(record, cell):
            said, more = other[:SAID], len(other) - SAID
            why = "; ".join([*said, f"and {more} more"] if more > 0 else said)
            outdated.setdefault(why, {})[record["label"]] = None
        else:
            current.append(record)
    return current, {why: tuple(labels) for why, labels in outdated.items()}


def _by_label(cells: Iterable[Cell]) -> dict[str, tuple[Cell, int]]:
    """Returns the first cell of each label and how many seeds it has."""
    found: dict[str, tuple[Cell, int]] = {}
    for cell in cells:
        found[cell.label] = (found.get(cell.label, (cell, 0))[0], found.get(cell.label, (cell, 0))[1] + 1)
    return found


def _in_order(known: Mapping[str, tuple[Cell, int]], axis: str) -> dict[str, tuple[Cell, int]]:
    """Puts cells in the order of their sparsity, the dense ones first; as they are where it is no number."""
    values = {label: cell.values.get(axis, -math.inf) for label, (cell, _) in known.items()}
    numeric = all(isinstance(value, int | float) for value in values.values())
    return dict(sorted(known.items(), key=lambda item: values[item[0]]) if numeric else known.items())


def _stands(entry: Entry, label: str, expected: Mapping[str, Any]) -> bool:
    """Says whether the paper has a number for a cell that this scale does not have."""
    every = entry.reference.every if entry.reference else ()
    given = any(label in one.cells and one.cells[label].value is not None for one in every)
    return given and label not in expected


def _columns(records: Sequence[Record], cell: Cell) -> list[Column]:
    """Returns evaluations and their metrics as the records have them; the headline alone where nothing was run."""
    columns: list[Column] = []
    first = {name: settings["metric"].partition(":")[0] for name, settings in cell.settings["evaluate"].items()}
    first |= {MEASURE: "speedup"} if cell.settings["measure"] else {}
    for evaluation, headline in first.items():
        names = dict.fromkeys(name for record in records for name in record["metrics"].get(evaluation, {}))
        columns += [(evaluation, name) for name in names or (headline,)]
    return columns


def _references(entry: Entry, columns: Sequence[Column]) -> dict[Column, Reference]:
    """Returns the paper's numbers by the column they are of: `evaluation.metric`, or an evaluation's headline.

    Those of an evaluation that this scale does not have, or of a further metric before any run, stand nowhere.

    Raises:
        Problem: The records have the evaluation that the paper's table is about, but no such metric of it.
    """
    every = [one for one in entry.reference.every if one.cells] if entry.reference else []
    found = {_column_of(one, columns): one for one in every}
    if every and _column_of(every[0], columns) is None:
        evaluation = every[0].metric.partition(".")[0]
        if names := [f"{e}.{m}" for e, m in columns if e == evaluation]:
            what = f"the paper's numbers are of {every[0].metric!r}, which the records do not have"
            raise Problem(what, where=entry.where("reference.metric"), hint=f"they have: {', '.join(names)}")
    return {column: one for column, one in found.items() if column is not None}


def _column_of(reference: Reference, columns: Sequence[Column]) -> Column | None:
    evaluation, _, metric = reference.metric.partition(".")
    return next((column for column in columns if column[0] == evaluation and metric in ("", column[1])), None)


def _row(cell: Cell, axis: str, column: Column) -> dict[str, Any]:
    """Returns where a cell stands: in which row of which arm."""
    others = [label for name, label in cell.axes.items() if name != axis]
    inside = axis in cell.axes
    x = cell.values.get(axis)
    return {
        "label": cell.label,
        "baseline": cell.baseline,
        "row": cell.axes[axis] if inside else cell.baseline or cell.label,
        "x": float(x) if isinstance(x, int | float) and not isinstance(x, bool) else math.nan,
        "arm": "/".join([*others, ONE_SHOT] if inside and cell.baseline == ONE_SHOT else others),
        "evaluation": column[0],
        "metric": column[1],
    }


def _ours(records: Sequence[Record], label: str, seeds: int, column: Column, absent: str) -> dict[str, Any]:
    evaluation, metric = column
    scores = [r["metrics"].get(evaluation, {}).get(metric) for r in records if r["label"] == label]
    scores = [score for score in scores if score is not None]
    mean, stderr = mean_and_error([score["value"] for score in scores])
    missing = absent if seeds else OTHER_SCALE
    return {
        "mean": mean,
        "stderr": stderr,
        "n": len(scores),
        "expected": seeds,
        "sampling": mean_and_error([s["stderr"] for s in scores if s["stderr"] is not None])[0],
        "protocol": " | ".join(sorted({score["protocol"] for score in scores})),
        "higher_is_better": scores[0]["higher_is_better"] if scores else None,
        "status": missing if not scores else f"{len(scores)} of {seeds} seeds" if len(scores) < seeds else "",
    }


def _theirs(reference: Reference | None, label: str) -> dict[str, Any]:
    """Returns the paper's number for a cell; `read` says where it stands, or that it is not given."""
    if reference is None:
        return {"paper": math.nan, "spread": math.nan, "read": ""}
    given = reference.cells.get(label)
    if given is None or given.value is None:
        return {"paper": math.nan, "spread": math.nan, "read": reference.read_at(label) if given else NOT_GIVEN}
    spread = math.nan if given.plus_minus is None else given.plus_minus * reference.factor
    return {"paper": given.value * reference.factor, "spread": spread, "read": reference.read_at(label)}


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Makes the table, gaps and errors filled in."""
    frame = pd.DataFrame(rows)
    frame["gap"] = frame["mean"] - frame["paper"]
    repeated = (frame["n"] > 1).any()
    frame["error"] = frame["stderr"] if repeated else frame["sampling"]
    frame["baseline"] = frame["baseline"].astype(object).where(frame["baseline"].notna(), None)
    return frame[list(COLUMNS)]


def _cost(records: Iterable[Record], label: str) -> dict[str, float]:
    """Returns the means of what the records of one cell say of its last training; empty where they say nothing."""
    found: dict[str, list[float]] = {}
    for record in (each for each in records if each["label"] == label):
        stage = next((record["stages"][role] for role in reversed(TRAINED) if role in record["stages"]), {})
        if "cost" not in stage:
            continue
        cost = {**record["sparsity"], **stage["cost"]}
        if {"peak_memory_bytes", "held_memory_bytes"} <= cost.keys():
            cost["added_memory_bytes"] = cost["peak_memory_bytes"] - cost["held_memory_bytes"]
        for name, value in cost.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}


def _environments(records: Sequence[Record]) -> tuple[tuple[Mapping[str, Any], int], ...]:
    found: list[Mapping[str, Any]] = []
    for record in records:
        if record["environment"] not in found:
            found.append(record["environment"])
    return tuple((one, sum(record["environment"] == one for record in records)) for one in found)


def _unlike(own: Cell, top: Cell) -> str | None:
    """Returns what is run here instead of what the paper ran, the model and the data first, or None."""
    ours, theirs = _flat(own.settings), _flat(top.settings)
    changed = sorted(
        (n for n in ours if n in theirs and ours[n] != theirs[n]), key=lambda n: (n != "model", "data" not in n)
    )
    said = [f"{'' if n == 'model' else f'{n} '}{ours[n]} instead of {theirs[n]}" for n in changed[:SAID]]
    more = len(changed) - len(said)
    return "; ".join([*said, f"and {more} more settings"] if more else said) or None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted name, without those that change no result."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
        found |= {} if name in HANDLING else inner
    return found


def _refuse_unlike(records: Sequence[Record]) -> None:
    found: dict[Column, dict[str, str]] = {}
    for column, protocol, label in _protocols(records):
        found.setdefault(column, {}).setdefault(protocol, label)
    for (evaluation, metric), protocols in found.items():
        if len(protocols) > 1:
            shown = "; ".join(f"{label}: {protocol}" for protocol, label in protocols.items())
            raise Problem(
                f"unlike protocols in one column: {shown}",
                where=f"{records[0]['entry']} {records[0]['scale']}, {evaluation}.{metric}",
                hint="run the cells again under one protocol; their scores cannot be compared",
            )


def _protocols(records: Sequence[Record]) -> Iterator[tuple[Column, str, str]]:
    for record in records:
        for evaluation, scores in record["metrics"].items():
            for metric, score in scores.items():
                yield (evaluation, metric), score["protocol"], record["label"]

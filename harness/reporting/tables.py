"""Tables: sparsity down, arms across, the paper's number and the gap beside ours, in Markdown and LaTeX.

A cell says "not run", "not at this scale" or "not given" rather than nothing; it is empty only where there can be no
such cell. The notes under a table say what its errors are, the protocol, where the paper's numbers were read, and
whether the levels can be compared at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.reporting.compare import DENSE, ONE_SHOT, OUTDATED, Column, Comparison
from harness.runs import files
from harness.runs.plan import MEASURE

UNTUNED = "no tuning"


@dataclass(frozen=True)
class Table:
    """A table of texts, to be rendered: title, header, rows as long as the header, notes a sentence each."""

    title: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def tables(comparison: Comparison) -> list[Table]:
    """Returns a table for every headline metric, of all metrics if there are more, of costs and of facts if known."""
    found = [matrix(comparison, column) for column in comparison.headlines()]
    found += [every_metric(comparison)] if len(comparison.columns()) > len(found) else []
    found += [cost(comparison)] if comparison.costs else []
    return found + ([facts(comparison)] if comparison.facts else [])


def matrix(comparison: Comparison, column: Column) -> Table:
    """Returns one metric, sparsity down and arms across; an arm that the paper has numbers of has them beside it."""
    rows = comparison.select(*column)
    rows = rows.assign(column=[_column_of(row, set(rows["arm"])) for row in rows.itertuples()])
    header, body = [_heading(comparison.axis)], [[row_label(comparison, row)] for row in dict.fromkeys(rows["row"])]
    for arm in dict.fromkeys(rows["column"]):
        cells = {row.row: row for row in rows[rows["column"] == arm].itertuples()}
        given = any(not math.isnan(cell.paper) for cell in cells.values())
        header += [arm_label(arm), *(["paper", "gap"] if given else [])]
        for line, row in zip(body, dict.fromkeys(rows["row"]), strict=True):
            line += _cell(cells.get(row), _usual(rows), given)
    name = column_label(column)
    ours = (_direction(rows), _errors(comparison, rows), *_outdated(comparison), *_protocols(rows))
    notes = (*ours, *_paper(comparison, column, rows))
    return Table(f"{name}, {comparison.title}", tuple(header), tuple(map(tuple, body)), tuple(filter(None, notes)))


def every_metric(comparison: Comparison) -> Table:
    """Returns all metrics of all evaluations, a row a cell that was run."""
    columns = comparison.columns()
    of = {(row.label, row.evaluation, row.metric): row for row in comparison.frame.itertuples()}
    body = []
    for label in dict.fromkeys(comparison.frame["label"]):
        cells = [of[label, *column] for column in columns]
        if any(cell.n for cell in cells):
            body.append((label, *(number(cell.mean, cell.error) if cell.n else cell.status for cell in cells)))
    header = ("cell", *map(column_label, columns))
    return Table(f"Every metric, {comparison.title}", header, tuple(body), (_errors(comparison, comparison.frame),))


ZEROS = {"asked": "zeros asked", "after_prune": "after pruning", "merged": "after merging", "after_tune": "in the end"}
TIMES = {"step_seconds": "s a step", "gradient_seconds": "gradient pass s", "pruning_seconds": "prunings s"}


def cost(comparison: Comparison) -> Table:
    """Returns what training each cell cost, a row a cell: zeros, trained parameters, memory, time.

    What a result of before these were measured does not say stays empty, as does what its method has not.
    """
    body = []
    for label, said in comparison.costs.items():
        zeros = [f"{100 * said[name]:.4g}%" if name in said else "" for name in ZEROS]
        share = f"{said['trained_parameters']:,.0f} ({100 * said['trained_parameters'] / said['parameters']:.2g}%)"
        memory = f"{said['added_memory_bytes'] / 2**20:,.0f}" if "added_memory_bytes" in said else ""
        times = [number(said[name]) if name in said else "" for name in TIMES]
        body.append((label, *zeros, share, memory, *times))
    header = ("cell", *ZEROS.values(), "trained parameters", "added MiB", *TIMES.values())
    notes = (
        "Of the last training: zeros in the pruned layers; the most memory of its steps, on the GPU or in the process, "
        "less what was held before its model was loaded; the median step; once, the gradients that the method starts "
        "from, and all prunings of a ramp. Empty where a result does not say it.",
        "Measured where each cell ran, beside whatever else that machine did.",
    )
    return Table(f"Cost, {comparison.title}", header, tuple(body), notes)


def facts(comparison: Comparison) -> Table:
    """Returns what the paper says that is of no cell, a row a fact."""
    notes = ("Nothing here is measured: it is what the paper or its authors say that stands beside no cell.",)
    return Table(f"Facts, {comparison.title}", ("the paper also says", "value", "read"), comparison.facts, notes)


def markdown(comparison: Comparison) -> str:
    """Returns all tables of a comparison as one Markdown document."""
    parts = [f"# {comparison.title}", "  \n".join(filter(None, (heading(comparison), warning(comparison))))]
    for table in tables(comparison):
        lines = [table.header, ("---", *("---:" for _ in table.header[1:])), *table.body]
        grid = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts += [f"## {table.title.split(', ')[0]}", grid, "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(comparison: Comparison) -> str:
    """Returns all tables of a comparison as LaTeX `table` environments; they need no package."""
    return "\n".join(_latex(table, comparison) for table in tables(comparison))


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes `<folder>/<entry>.<scale>.md` and `.tex`; returns the two paths."""
    paths = []
    for ending, text in (("md", markdown(comparison)), ("tex", latex(comparison))):
        path = folder / f"{comparison.entry}.{comparison.scale}.{ending}"
        files.replace(path, text)
        paths.append(path)
    return paths


def number(value: float, error: float = math.nan, sign: str = "") -> str:
    """Returns a number as tables show it, `12.34 ± 0.56`; from a thousand on without decimals."""
    text = f"{value:{sign},.{0 if abs(value) >= 1000 else 2}f}".replace("-", "−")
    return text if math.isnan(error) else f"{text} ± {number(error)}"


def heading(comparison: Comparison) -> str:
    """Returns the line that says what was run, and which paper it stands beside."""
    data = f", data `{comparison.data}`" if comparison.data else ""
    paper = comparison.paper or {}
    place = ", ".join(filter(None, (paper.get("id"), paper.get("table"))))
    place = f"; paper: {paper['name']} ({place})" if paper else ""
    return f"`{comparison.entry}` at scale `{comparison.scale}`: model `{comparison.model}`{data}{place}."


def warning(comparison: Comparison) -> str:
    """Returns the line that says that levels cannot be compared with the paper's; empty where they can."""
    if comparison.unlike is None or not comparison.units:
        return ""
    return f"**Not the paper's setting ({comparison.unlike}): compare orderings with the paper, not levels.**"


def row_label(comparison: Comparison, row: str) -> str:
    """Returns a row's label as shown: a sparsity in percent."""
    values = comparison.frame.loc[comparison.frame["row"] == row, "x"]
    if comparison.axis != "prune.sparsity" or values.isna().any():
        return row.replace("_", "-") if row in (DENSE, ONE_SHOT) else row
    return f"{100 * values.iloc[0]:.4g}%"


def arm_label(arm: str) -> str:
    """Returns an arm's name as shown; that of the untuned cells is in words."""
    return UNTUNED if arm == ONE_SHOT else arm.replace(f"/{ONE_SHOT}", f", {UNTUNED}")


def column_label(column: Column) -> str:
    """Returns a metric's name, with its evaluation's where that is another."""
    evaluation, metric = column
    return metric if evaluation == metric else f"{evaluation} {metric}"


def _column_of(row, arms: set[str]) -> str:
    """Returns the column a cell stands in: the dense model stands with the untuned ones, as the one of no sparsity."""
    if row.baseline != DENSE:
        return row.arm
    untuned = "/".join(filter(None, (row.arm, ONE_SHOT)))
    return untuned if untuned in arms else row.arm or DENSE


def _heading(axis: str) -> str:
    return axis.rpartition(".")[2] or "cell"


def _usual(rows: pd.DataFrame) -> int:
    """Returns the number of seeds that most cells of the grid have; others say theirs."""
    counts = rows.loc[(rows["n"] > 0) & rows["baseline"].isna(), "n"]
    return int(counts.mode().iloc[0]) if len(counts) else 1


def _cell(cell, usual: int, given: bool) -> list[str]:
    """Returns ours, and where the arm has numbers of the paper, theirs and the gap."""
    if cell is None:
        return ["", "", ""] if given else [""]
    several = f" (n={cell.n})" if cell.n != usual and (cell.n < cell.expected or cell.baseline is None) else ""
    ours = number(cell.mean, cell.error) + several if cell.n else cell.status
    if not given:
        return [ours]
    if math.isnan(cell.paper):
        return [ours, "not given", ""]
    return [ours, number(cell.paper, cell.spread), number(cell.gap, sign="+") if cell.n else ""]


def _direction(rows: pd.DataFrame) -> str:
    known = rows["higher_is_better"].dropna()
    return "" if known.empty else "Higher is better." if known.iloc[0] else "Lower is better."


def _errors(comparison: Comparison, rows: pd.DataFrame) -> str:
    """Says what the numbers after ± are."""
    if rows["n"].max() == 0:
        return "Nothing was run yet."
    if comparison.seeds_are_repeated:
        once = " What is not tuned is computed once." if (rows["baseline"].notna() & (rows["n"] == 1)).any() else ""
        return f"Mean ± standard error over seeds, n = {_usual(rows)} unless given in brackets.{once}"
    if rows["error"].notna().any():
        measured = rows["evaluation"] == MEASURE
        over = "rounds of the measuring" if measured.all() else "rows of the test set"
        over += " (of the measuring, its rounds)" if measured.any() and not measured.all() else ""
        return f"One seed; ± is the standard error over the {over}, not over seeds."
    return "One seed, without an error."


def _protocols(rows: pd.DataFrame) -> list[str]:
    return [f"Protocol: {protocol}." for protocol in dict.fromkeys(rows["protocol"]) if protocol]


def _outdated(comparison: Comparison) -> list[str]:
    return [f"Left out, {OUTDATED}: {why} ({', '.join(labels)})." for why, labels in comparison.outdated.items()]


def _paper(comparison: Comparison, column: Column, rows: pd.DataFrame) -> list[str]:
    """Says where each of the paper's numbers was read, and for which cells there is none."""
    if comparison.paper and not comparison.units:
        return ["No number of the paper belongs beside these."]
    if column not in comparison.units:
        return []
    given, unit = rows[rows["paper"].notna()], comparison.units[column]
    unit = f" ({unit})" if unit else ""
    places = [f"{row.label} {number(row.paper)} ({row.read})" for row in given.itertuples()]
    known = f"The paper's numbers{unit}, and where they were read: {'; '.join(places)}. Gap = ours − the paper's."
    blanks = rows[rows["paper"].isna()].groupby("read", sort=False)
    unknown = [f"No number of the paper for {_names(rows, blank)}: {read}." for read, blank in blanks]
    return [known, *unknown] if places else unknown


def _names(rows: pd.DataFrame, some: pd.DataFrame) -> str:
    """Returns the labels of some cells; an arm that is among them as a whole goes by its name."""
    whole = [arm for arm, cells in some.groupby("arm", sort=False) if len(cells) == (rows["arm"] == arm).sum() > 1]
    rest = some.loc[~some["arm"].isin(whole), "label"]
    return ", ".join([*(f"{arm_label(arm)} (all)" for arm in whole), *rest])


def _latex(table: Table, comparison: Comparison) -> str:
    lines = [" & ".join(map(escape, line)) + r" \\" for line in (table.header, *table.body)]
    said = " ".join(filter(None, (heading(comparison), warning(comparison)))).replace("**", "").replace("`", "")
    caption = " ".join(map(escape, (f"{table.title}.", said, *table.notes)))
    name = table.title.split(",")[0].replace(" ", "-").lower()
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\hline",
            lines[0],
            r"\hline",
            *lines[1:],
            r"\hline",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{comparison.entry.replace('/', '-')}-{comparison.scale}-{name}}}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$"},
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"<": "$<$", ">": "$>$", "|": "$|$"},
}


def escape(text: str) -> str:
    """Returns a text as LaTeX shows it."""
    return "".join(_LATEX.get(character, character) for character in text)

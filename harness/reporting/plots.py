"""Plots: a metric over sparsity, one line an arm, error bars, the dense model as a horizontal line.

The paper's numbers are hollow markers in the colour of their arm. Where ours are not on the paper's model and data,
their levels say nothing about ours, and they get a panel of their own with its own scale. The colours are Okabe and
Ito's, which people with any kind of colour blindness tell apart; every arm has its own marker too. The bytes of a PNG
depend on the numbers alone (Agg, fixed resolution, no date and no version inside).
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.reporting.compare import DENSE, ONE_SHOT, Column, Comparison
from harness.reporting.tables import column_label, row_label
from harness.runs import files
from harness.runs.plan import MEASURE

MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")
CROWDED = 60
"""Letters below the x axis from which on its labels are turned."""
WIDE = 8.0
"""A metric whose largest value is at least this many times its smallest is drawn on a logarithmic scale."""


_HOLLOW = {"markerfacecolor": "none", "markeredgewidth": 1.6, "markersize": 9}


@dataclass(frozen=True)
class Ink:
    """The colour of the background, and those of what is drawn on it: text, the untuned arm, the grid, the arms."""

    paper: str
    text: str
    muted: str
    faint: str
    arms: tuple[str, ...]


LIGHT = Ink(
    *("#ffffff", "#1f2328", "#6e7781", "#e1e5ea"),
    arms=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
DARK = Ink(
    *("#161b22", "#e6edf3", "#9aa4af", "#30363d"),
    arms=("#56B4E9", "#E69F00", "#1FBF92", "#CC79A7", "#F0E442", "#E8743B"),
)


def draw(comparison: Comparison, column: Column, ink: Ink = LIGHT) -> Figure:
    """Draws one metric of one evaluation.

    Returns:
        A figure of one panel, or of two where ours and the paper's numbers are there but not comparable in level.
    """
    rows = comparison.select(*column)
    panels = _panels(comparison, rows)
    apart = len(panels) > 1
    with matplotlib.rc_context(_style(ink)):
        figure = Figure(figsize=(11 if apart else 8, 4.3), dpi=144, layout="constrained")
        FigureCanvasAgg(figure)
        every = figure.subplots(1, len(panels), squeeze=False, width_ratios=[3, 2] if apart else None)[0]
        for axes, (values, title) in zip(every, panels, strict=True):
            _panel(axes, rows, values, comparison, ink)
            axes.set_title(title, loc="left")
        every[0].set_ylabel(_metric(column, rows))
        figure.suptitle(textwrap.fill(comparison.title, 100 if apart else 72), x=0.01, ha="left")
        legend = figure.legend(handles=_legend(rows, ink), loc="outside right center", frameon=False)
        if rows["error"].notna().any():
            once = "rounds" if column[0] == MEASURE else "test rows"
            over = "seeds" if comparison.seeds_are_repeated else once
            legend.set_title(f"bars: s.e. over {over}", {"size": 8.5})
    return figure


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes a PNG of every headline metric, `<folder>/<entry>.<scale>.<metric>.png`; returns the paths."""
    paths = []
    for column in comparison.headlines():
        name = column_label(column).replace(" ", ".").replace("/", "-")
        path = folder / f"{comparison.entry}.{comparison.scale}.{name}.png"
        files.replace(path, png(draw(comparison, column)))
        paths.append(path)
    return paths


def png(figure: Figure) -> bytes:
    """Returns a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _style(ink: Ink) -> dict[str, Any]:
    text = ("axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color", "text.color")
    return {
        **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), ink.paper),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), ink.faint),
        **dict.fromkeys(text, ink.text),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left"), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size", "ytick.minor.size"), 0),
        **dict.fromkeys(("font.size", "axes.titlesize", "legend.fontsize"), 9.5),
        "axes.labelsize": 10,
        "figure.titlesize": 11.5,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "figure.titleweight": "bold",
        "font.family": "DejaVu Sans",
        "lines.linewidth": 1.8,
        "lines.markersize": 6,
    }


def _panels(comparison: Comparison, rows: pd.DataFrame) -> list[tuple[tuple[str, ...], str]]:
    """Returns the columns and the title of each panel: the paper's levels apart where ours cannot be compared."""
    ours, papers = f"scale {comparison.scale}: {comparison.model}", "the paper's, on its own scale"
    if comparison.unlike is None or rows["paper"].isna().all():
        return [(("mean", "paper"), ours)]
    apart = [(("paper",), f"{papers}: {comparison.paper_model}")]
    return [(("mean",), ours), *apart] if rows["mean"].notna().any() else apart


def _metric(column: Column, rows: pd.DataFrame) -> str:
    known = rows["higher_is_better"].dropna()
    better = "" if known.empty else " (higher is better)" if known.iloc[0] else " (lower is better)"
    return column_label(column) + better


def _arms(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows.loc[rows["baseline"] != DENSE, "arm"]))


def _look(arm: str, arms: Sequence[str], ink: Ink) -> dict[str, Any]:
    """Returns an arm's colour, marker and line: the same in every panel; dashes for what was not tuned."""
    if arm == ONE_SHOT:
        return {"color": ink.muted, "marker": "X", "linestyle": (0, (3, 2))}
    number = [name for name in arms if name != ONE_SHOT].index(arm)
    line = (0, (3, 2)) if arm.endswith(f"/{ONE_SHOT}") else "-"
    return {"color": ink.arms[number % len(ink.arms)], "marker": MARKERS[number % len(MARKERS)], "linestyle": line}


def _ordered(rows: pd.DataFrame) -> bool:
    """Says whether the x axis is one of numbers."""
    return bool(rows.loc[rows["baseline"] != DENSE, "x"].notna().all())


def _places(rows: pd.DataFrame) -> dict[str, float]:
    """Returns where each row label stands on the x axis: at its value in percent, or one after the other."""
    pruned = rows[rows["baseline"] != DENSE].drop_duplicates("row")
    if _ordered(rows):
        return dict(zip(pruned["row"], 100 * pruned["x"], strict=True))
    return {row: float(place) for place, row in enumerate(pruned["row"])}


def _shifts(arms: int, places: Mapping[str, float]) -> list[float]:
    """Returns how far each arm stands beside its place, so that equal values of two arms are both seen."""
    ordered = sorted(places.values())
    apart = min((b - a for a, b in itertools.pairwise(ordered)), default=1.0) * min(0.04, 0.5 / max(arms, 1))
    return [(arm - (arms - 1) / 2) * apart for arm in range(arms)]


def _panel(axes: Axes, rows: pd.DataFrame, values: Sequence[str], comparison: Comparison, ink: Ink) -> None:
    arms, places = _arms(rows), _places(rows)
    unordered = {} if _ordered(rows) else {"linestyle": "none"}  # a line between two methods would say nothing
    shifts = _shifts(len(arms), places)
    for arm, shift in zip(arms, shifts, strict=True):
        points = rows[(rows["arm"] == arm) & (rows["baseline"] != DENSE)]
        for value in values:
            beside = {row: place + shift for row, place in places.items()}
            _line(axes, points, value, beside, _look(arm, arms, ink) | unordered, alone=len(values) == 1)
    for dense in rows[rows["baseline"] == DENSE].itertuples():
        color = _look(dense.arm, arms, ink)["color"] if _several_dense(rows) else ink.text
        for value in values:
            _level(axes, dense, value, color)
    _axis(axes, rows, values, places, comparison, beside=max(shifts, default=0.0))
    _scale(axes, rows[list(values)].to_numpy().ravel())


def _line(axes: Axes, points: pd.DataFrame, value: str, places: Mapping[str, float], look: dict, alone: bool) -> None:
    """Draws an arm: ours as a line with error bars, broken where a cell was not run; the paper's as hollow markers."""
    points = points[points["expected"] > 0] if value == "mean" else points
    if points[value].isna().all():
        return
    x = points["row"].map(places)
    if value == "mean":
        axes.errorbar(x, points["mean"], yerr=points["error"], capsize=4.5, elinewidth=1.4, zorder=3, **look)
    else:
        hollow = look | _HOLLOW | {"linestyle": ":" if alone else "none"}
        axes.errorbar(x, points["paper"], yerr=points["spread"], capsize=6, elinewidth=1.2, zorder=4, **hollow)


def _several_dense(rows: pd.DataFrame) -> bool:
    """Says whether each arm has a dense model of its own, whose line then has the arm's colour."""
    dense = set(rows.loc[rows["baseline"] == DENSE, "arm"])
    return len(dense) > 1 and dense <= set(_arms(rows))


def _level(axes: Axes, dense: Any, value: str, color: str) -> None:
    """Draws the dense model as a horizontal line, ours with its error as a band, the paper's dotted."""
    level = getattr(dense, value)
    if math.isnan(level):
        return
    axes.axhline(level, color=color, linewidth=1.2, linestyle="-" if value == "mean" else ":", zorder=2)
    if value == "mean" and not math.isnan(dense.error):
        axes.axhspan(level - dense.error, level + dense.error, color=color, alpha=0.08, linewidth=0, zorder=1)


def _axis(
    axes: Axes,
    rows: pd.DataFrame,
    values: Sequence[str],
    places: Mapping[str, float],
    comparison: Comparison,
    beside: float,
) -> None:
    """Labels the x axis with exactly the values that have a point, and lets all arms beside them be seen."""
    pruned = rows[rows["baseline"] != DENSE]
    there = set(pruned.loc[pruned[list(values)].notna().any(axis=1), "row"])
    percent = comparison.axis == "prune.sparsity" and pruned["x"].notna().all()
    labels = {row: row_label(comparison, row).removesuffix("%") if percent else row for row in places if row in there}
    axes.set_xticks([places[row] for row in labels], list(labels.values()))
    if sum(map(len, labels.values())) > CROWDED:
        axes.tick_params(axis="x", rotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("sparsity (%)" if percent else comparison.axis.rpartition(".")[2])
    if places:
        room = (0.06 * (max(places.values()) - min(places.values())) or 1.0) + beside
        axes.set_xlim(min(places.values()) - room, max(places.values()) + room)
    axes.margins(y=0.1)


def _scale(axes: Axes, values: Any) -> None:
    """Makes a wide range of positive values logarithmic, with plain numbers at its ticks."""
    known = [value for value in values if not math.isnan(value)]
    if not known or min(known) <= 0 or max(known) < WIDE * min(known):
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(rows: pd.DataFrame, ink: Ink) -> list[Line2D]:
    """Returns a handle for every arm that is drawn, the dense model, and the paper's hollow markers."""
    arms = _arms(rows)
    drawn = rows[rows["mean"].notna() | rows["paper"].notna()]
    seen = [arm for arm in arms if (drawn["arm"] == arm).any()]
    handles = [Line2D([], [], label=arm.replace(ONE_SHOT, "one-shot"), **_look(arm, arms, ink)) for arm in seen]
    dense = drawn[drawn["baseline"] == DENSE]
    color, own = (ink.muted, " (its arm's colour)") if _several_dense(rows) else (ink.text, "")
    if dense["mean"].notna().any():
        handles.append(Line2D([], [], color=color, linewidth=1.2, label=f"dense{own}"))
    if dense["paper"].notna().any():
        handles.append(Line2D([], [], color=color, linewidth=1.2, linestyle=":", label="dense, the paper's"))
    if drawn.loc[drawn["baseline"] != DENSE, "paper"].notna().any():
        hollow = {"marker": "o", "linestyle": "none", "label": "hollow: the paper's"}
        handles.append(Line2D([], [], color=ink.muted, **hollow, **_HOLLOW))
    return handles

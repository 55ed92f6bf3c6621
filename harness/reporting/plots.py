"""Plots: a metric over sparsity, one line an arm, with error bars over seeds, the dense model as a horizontal line.

The paper's points are hollow markers in the colour of their arm. Where the run is not on the paper's model and data, their
levels say nothing about ours: the paper's points then get a panel of their own beside ours, on its own scale. The colours are
Okabe and Ito's, which people with any kind of colour blindness can tell apart, and every arm has its own marker too. The
bytes of a PNG depend on the numbers alone (Agg, fixed resolution, no date and no version inside).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.reporting.compare import ONE_SHOT, Comparison

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
WIDE_RANGE = 8.0
"""A metric whose largest value is more than this many times its smallest is drawn on a logarithmic scale."""


@dataclass(frozen=True)
class Ink:
    """The colours of the paper and of what is written on it."""

    paper: str
    text: str
    faint: str


LIGHT = Ink(paper="#ffffff", text="#1f2328", faint="#d8dee4")
DARK = Ink(paper="#15191f", text="#e6e9ed", faint="#343b44")


def draw(comparison: Comparison, evaluation: str, metric: str, ink: Ink = LIGHT) -> Figure:
    """Draws one metric of one evaluation.

    Returns:
        The figure: one panel, or two where the paper's numbers are there but not comparable in level.
    """
    rows = comparison.select(evaluation, metric)
    arms = _arms(rows)
    apart = comparison.unlike is not None and rows["paper"].notna().any()
    with matplotlib.rc_context(_style(ink)):
        figure = Figure(figsize=(9.6 if apart else 7.2, 4.2), dpi=150, layout="constrained")
        panels = figure.subplots(1, 2 if apart else 1, squeeze=False, width_ratios=[3, 2] if apart else [1])[0]
        for panel, columns in zip(panels, (["mean"], ["paper"]) if apart else (["mean", "paper"],), strict=True):
            _panel(panel, rows, arms, columns, comparison, ink)
        up = rows["higher_is_better"].dropna()
        better = "" if up.empty else (" (higher is better)" if up.iloc[0] else " (lower is better)")
        panels[0].set_ylabel(f"{comparison.name(evaluation, metric)}{better}")
        if apart:
            panels[0].set_title(f"ours: {comparison.model}", loc="left")
            panels[1].set_title("the paper's numbers, its own scale", loc="left")
        figure.suptitle(f"{comparison.title} · scale {comparison.scale}", x=0.01, ha="left", weight="bold")
        figure.legend(handles=_legend(rows, arms, ink), loc="outside right upper", frameon=False)
    return figure


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes a PNG for every evaluation's headline as `<folder>/<entry>.<scale>.<evaluation>.png`; returns the paths."""
    paths = []
    for evaluation, metric in comparison.headlines():
        path = folder / f"{comparison.entry}.{comparison.scale}.{evaluation}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(draw(comparison, evaluation, metric)))
        paths.append(path)
    return paths


def png(figure: Figure) -> bytes:
    """Returns the figure as a PNG; the same figure gives the same bytes."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

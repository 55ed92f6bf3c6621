"""One self-contained HTML page of tables and plots: it needs no server and no network, and follows light and dark.

Plots lie in the page as PNG data, in two inks of which the browser shows one. The same records give the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from harness.reporting import plots
from harness.reporting.compare import NOT_RUN, OTHER_SCALE, OUTDATED, Column, Comparison
from harness.reporting.tables import Table, every_metric, facts, heading, matrix, warning
from harness.runs import files

STYLE = Path(__file__).with_suffix(".css")
PIXELS = 84
"""How wide an inch of a plot is shown, so that all plots have letters of one size."""
BLANKS = (NOT_RUN, OTHER_SCALE, OUTDATED, "not given")
THEIRS = ("paper", "gap")


def write(comparisons: Sequence[Comparison], folder: Path) -> Path:
    """Writes the page of some comparisons into a folder; returns its path.

    It is called after the entry, or after the paper that all entries stand in, and after the scale:
    `squarehead.tiny.html`.
    """
    path = folder / f"{_name(comparisons)}.html"
    files.replace(path, render(comparisons))
    return path


def render(comparisons: Sequence[Comparison]) -> str:
    """Returns the page, a section a comparison."""
    title = escape(_title(comparisons))
    names = {f"{one.entry}.{one.scale}".replace("/", "."): one for one in comparisons}
    links = "".join(f'<a href="#{name}">{escape(one.title)} ({one.scale})</a>' for name, one in names.items())
    sections = "".join(_section(name, one) for name, one in names.items())
    count = sum(number for one in comparisons for _, number in one.environments)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE.read_text(encoding="utf8")}</style>
</head>
<body>
<header><h1>{title}</h1>{f"<nav>{links}</nav>" if len(names) > 1 else ""}</header>
<main>{sections}</main>
<footer>Made by <code>harness report</code> from {count} records in <code>results/records</code>.</footer>
</body>
</html>
"""


def _name(comparisons: Sequence[Comparison]) -> str:
    entries, scales = ({getattr(one, name) for one in comparisons} for name in ("entry", "scale"))
    papers = {entry.partition("/")[0] for entry in entries}
    name = min(entries) if len(entries) == 1 else min(papers) if len(papers) == 1 else "all"
    return ".".join([name.replace("/", "."), *(scales if len(scales) == 1 else ())])


def _title(comparisons: Sequence[Comparison]) -> str:
    papers = {f"{one.paper['name']} ({one.paper['id']})" if one.paper else "" for one in comparisons}
    return comparisons[0].title if len(comparisons) == 1 else min(papers) if len(papers) == 1 else "All experiments"


def _section(name: str, comparison: Comparison) -> str:
    caution = f'<p class="warning">{_text(warning(comparison))}</p>' if warning(comparison) else ""
    headlines = comparison.headlines()
    rest = every_metric(comparison) if len(comparison.columns()) > len(headlines) else None
    return f"""
<section id="{name}">
<h2>{escape(comparison.title)}</h2>
<p class="lead">{_text(heading(comparison))}</p>{caution}
{"".join(_metric(comparison, column) for column in headlines)}
{_details("Every metric", _table(rest)) if rest else ""}
{_details("What the paper also says", _table(facts(comparison))) if comparison.facts else ""}
{_details("Where it was computed", _environments(comparison)) if comparison.environments else ""}
</section>"""


def _metric(comparison: Comparison, column: Column) -> str:
    table = matrix(comparison, column)
    name = escape(table.title.partition(",")[0])
    figures = [plots.draw(comparison, column, ink) for ink in (plots.LIGHT, plots.DARK)]
    light, dark = (_data(plots.png(figure)) for figure in figures)
    width = round(PIXELS * figures[0].get_figwidth())
    picture = (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" width="{width}" alt="{name} over {escape(comparison.axis or "cells")}"></picture>'
    )
    return f"<h3>{name}</h3>\n{picture}\n{_table(table)}"


def _table(table: Table) -> str:
    head = "".join(f'<th{_kind(text, text)} scope="col">{escape(text)}</th>' for text in table.header)
    lines = (
        "".join(f"<td{_kind(text, name)}>{escape(text)}</td>" for text, name in zip(line, table.header, strict=True))
        for line in table.body
    )
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    grid = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{grid}</div>\n<ul class="notes">{notes}</ul>'


def _kind(text: str, column: str) -> str:
    """Returns how a table's cell is shown: a blank in italics, the paper's numbers lighter."""
    kinds = [name for name, holds in (("theirs", column in THEIRS), ("blank", text in BLANKS)) if holds]
    return f' class="{" ".join(kinds)}"' if kinds else ""


def _environments(comparison: Comparison) -> str:
    """Returns each machine and set of versions that the records come from."""
    parts = []
    for environment, count in comparison.environments:
        facts = {"records": str(count), **_facts(environment)}
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
        parts.append(f"<dl>{rows}</dl>")
    return "".join(parts)


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    git = environment["git"]
    return {
        "machine": f"{environment['cpu']}, {environment['cores']} cores, {environment['memory_gib']} GiB",
        "system": environment["platform"],
        "GPU": environment.get("gpu") or "none",
        "Python": environment["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        "code": f"{git['sha'][:12]}{', with changes' if git['dirty'] else ''}" if git else "not under git",
    }


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{summary}</summary>{inside}</details>"


def _text(text: str) -> str:
    """Returns a line that has `code` and nothing else of Markdown, the warning's bold marks aside, as HTML."""
    parts = escape(text.replace("**", "")).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

"""What the command line prints: the registry, an experiment, a plan, the state of the store, a diagnosis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from harness import output
from harness.problems import Problem
from harness.rooms import REQUIRED, Room
from harness.runs.processes import ALONE, Processes

if TYPE_CHECKING:
    from harness.doctor import Finding
    from harness.runs.plan import Plan
    from harness.runs.store import Store
    from harness.spec.entry import Entry

console = output.console()


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def experiments(root: Path) -> None:
    """Prints every entry with its paper, scales and title."""
    from harness.spec import listing

    table = _table("experiment", "paper", "scales", "title")
    for name in listing.names(root):
        try:
            line = listing.headline(listing.path_of(name, root))
            table.add_row(name, line.paper or "", " ".join(line.scales), line.title)
        except Problem as problem:
            table.add_row(name, "", "", f"cannot be read: {str(problem).splitlines()[0]}")
    console.print(table)


def methods(room: Room) -> None:
    """Prints the methods of a room with their options and help."""
    table = _table(room.kind, "options", "what it is")
    for name in room.names():
        method = room.method(name)
        options = (f"{o.name}" if o.default is REQUIRED else f"{o.name}={o.default}" for o in method.options.values())
        table.add_row(name, ", ".join(options), method.summary)
    console.print(table)
    console.print(f"\nA new one is a new file in harness/{room.folder}/.", style="dim")


def experiment(entry: Entry) -> None:
    """Prints one experiment: settings with their meaning, grid, the paper's numbers, claims."""
    from harness.spec.grid import cells
    from harness.spec.sections import SECTIONS

    console.print(f"[bold]{entry.name}[/]  {entry.title}  (scale {entry.scale})", markup=True)
    if entry.paper:
        console.print(f"{entry.paper.name}, {entry.paper.id}, {entry.paper.table or 'in no table of it'}")
    found = cells(entry)
    first = next((cell for cell in found if cell.baseline is None), found[0])
    for name, section in SECTIONS.items():
        parts = first.settings[name] or {}
        for label, values in parts.items() if name == "evaluate" else ((name, parts),):
            if values:
                heading = f"evaluate.{label}" if name == "evaluate" else name
                _section(heading, values, {key: field.description or "" for key, field in section.model_fields.items()})
    table = _table("cell", "seeds", "paper", "read", title=f"\n{len(found)} cells")
    reference = entry.reference
    for label, count in Counter(cell.label for cell in found).items():
        given = reference.cells.get(label) if reference else None
        value = "" if given is None else "blank" if given.value is None else f"{given.value:g}{reference.unit}"
        table.add_row(label, str(count), value, reference.read_at(label) if given else "")
    console.print(table)
    if rows := reference.rows() if reference else ():
        table = _table("the paper also says", "value", "read", title="")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for claim in entry.claims:
        console.print(f"claim: {claim}", markup=False)


def _section(name: str, values: Mapping[str, Any], meanings: Mapping[str, str]) -> None:
    table = _table(name, "value", "meaning", title="")
    for key, value in values.items():
        table.add_row(key, "" if value is None else str(value), meanings.get(key, ""))
    console.print(table)


def plan(planned: Plan, team: Processes = ALONE) -> None:
    """Prints what a run would compute and what is there already; of several processes, what each of them needs."""
    from harness.runs import estimates

    takes = {stage: estimates.of_stage(stage, team) for stage in planned.lacking}
    rows = [("stage", "state", "cells", "it takes, on this machine" if any(takes.values()) else "")]
    for stage, state in planned.states.items():
        rows.append((stage.folder, state, str(len(planned.needing(stage))), str(takes.get(stage) or "")))
    _print_quickly(rows)
    console.print("\n" + planned.summary(), markup=False)


def _print_quickly(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under one another: rich would take longer to lay out two thousand than planning them takes."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    console.file.write("\n".join(lines) + "\n")


def pruned(report: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> None:
    """Prints what a pruning reached and took, block by block, and how to use its folder."""
    from harness.rooms import ROOMS
    from harness.spec.fits import family_of
    from harness.tracking.progress import clock

    table = _table("block", "layers", "asked", "reached", "time", "peak memory")
    layers = report["layers"]
    for name, block in report["blocks"].items():
        rows = [row for layer, row in layers.items() if layer.startswith(f"{name}.")]
        asked = sum(row["asked"] * row["size"] for row in rows) / (sum(row["size"] for row in rows) or 1)
        reached = "dense" if not rows else f"{block['reached']:.2%}"
        cost = clock(block["seconds"]), memory(block["peak_memory_bytes"])
        table.add_row(name, str(len(rows)), f"{asked:.2%}" if rows else "", reached, *cost)
    overall, before, blocks = report["overall"], report.get("before"), [*report["blocks"].values()]
    if before and before["seconds"] >= 0.05:  # what is shown as 0.1 s; reports of earlier versions have none
        table.add_row("before", "", "", "", clock(before["seconds"]), memory(before["peak_memory_bytes"]))
        blocks.append(before)
    cost = clock(sum(b["seconds"] for b in blocks)), memory(max(b["peak_memory_bytes"] for b in blocks))
    table.add_row("all", str(len(layers)), f"{overall['asked']:.2%}", f"{overall['reached']:.2%}", *cost, style="bold")
    console.print(table)
    auto = ROOMS["model"].method(family_of(config)).constants["MODEL"]
    console.print(f"\nwritten       {folder}", markup=False, soft_wrap=True)
    console.print(f"transformers  {auto}.from_pretrained({str(folder)!r})", markup=False, soft_wrap=True)
    console.print(f"harness       model: {folder}", markup=False, soft_wrap=True)
    console.print("mask          keep.safetensors, one bit a weight; every layer's figures are in prune.json")


def memory(size: float) -> str:
    """Returns an amount of memory as people read it: 3.1 GiB, 240 MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def status(planned: Plan, store: Store) -> None:
    """Prints the state of every stage, what changed in its source since, and the errors that were kept."""
    from harness.runs.store import FINISHED

    rows = [("stage", "state", "note")]
    for stage, state in planned.states.items():
        note = ""
        if state in FINISHED and (changed := store.stale(stage)):
            note = f"stale? changed since: {', '.join(changed)}"
        elif state == "failed":
            note = (store.error(stage) or "").partition("\n")[0]
        elif state == "running":
            note = store.holder(stage) or ""
        rows.append((stage.folder, state, note))
    _print_quickly(rows)
    console.print("\n" + planned.summary(), markup=False)


def weights(found: Mapping[Path, int]) -> None:
    """Prints the results whose weights may be freed, with their bytes."""
    if found:
        _print_quickly([("result", "weights"), *((str(folder), memory(size)) for folder, size in found.items())])
    given = f"\n{len(found)} result{'s' if len(found) != 1 else ''}, {memory(sum(found.values()))}"
    console.print(given if found else "there are no weights that nothing has still to read")


def findings(found: Iterable[Finding]) -> None:
    """Prints a diagnosis."""
    marks = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}
    table = _table("what", "here", "detail")
    for finding in found:
        table.add_row(finding.what, marks[finding.ok], finding.detail)
    console.print(table)

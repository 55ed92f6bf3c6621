"""The record of `harness bench tune` and its table: what each lane takes, and what papers promise of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.bench.tune import REFERENCE, TAUGHT, TEACHER, ratio

MIB = 2**20
SAVED, BEYOND, SECONDS = "bytes saved for backward", "peak beyond weights, masks and states", "step time"
TARGETS = (
    (SAVED, "lors", ("peft",), 1.05),
    (SAVED, "lors", ("naive",), 0.7),
    (SECONDS, "lors", ("peft",), 1.15),
    (BEYOND, "seft", ("peft",), 1.0),
    (SECONDS, TAUGHT, ("masked", TEACHER), 1.05),
    (SECONDS, "masked", ("dense",), 1.05),
)
"""What is measured, of which lane, to the sum of which others, and the most that it should be."""


def table(said: Mapping[str, Any]) -> str:
    """Returns a record as Markdown."""
    machine = said["environment"]
    lines = [
        f"One step of fine-tuning on a sequence of {said['tokens']} tokens, {said['sparsity']:.0%} zeros, rank "
        f"{said['rank']}, float32. {machine['cpu']}, {said['threads']} of {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB."
    ]
    for workload in said["workloads"]:
        rows = workload["lanes"]
        lines += [
            "",
            f"{workload['model'].partition('@')[0]}, {len(rows[0]['runs'])} interleaved rounds: median (smallest to "
            f"largest), and that of each round's ratio to {REFERENCE}.",
            "",
            "| lane | seconds | ratio | TFLOP | saved MiB | ratio | peak MiB | ratio |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(f"| {' | '.join(cells)} |" for cells in _cells(rows)),
            "",
            "| target | at most | measured | |",
            "| --- | ---: | ---: | --- |",
            *(f"| {' | '.join(cells)} |" for cells in _targets(rows)),
        ]
    return "\n".join(lines) + "\n"


def _cells(rows: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    reference = next(row for row in rows if row["name"] == REFERENCE)
    for row in rows:
        cells = [row["name"], _spread(row["seconds"]), _spread(ratio(rows, row["name"], [REFERENCE]))]
        cells.append(f"{row['flops'] / 1e12:.3f}")
        for key in ("saved_bytes", "peak_bytes"):
            cells += [f"{row[key] / MIB:.1f}", f"{row[key] / reference[key]:.3f}"]
        yield cells


def _targets(rows: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    by_name = {row["name"]: row for row in rows}
    for what, name, others, most in TARGETS:
        if {name, *others} <= by_name.keys():
            if what == SECONDS:
                found = ratio(rows, name, others)
                value, shown = found["median"], _spread(found)
            else:
                value = _bytes(by_name[name], what) / sum(_bytes(by_name[other], what) for other in others)
                shown = f"{value:.3f}"
            yield [f"{what}: {name} / ({' + '.join(others)})", f"{most}", shown, "met" if value <= most else "missed"]


def _bytes(row: Mapping[str, Any], what: str) -> int:
    return row["saved_bytes"] if what == SAVED else row["peak_bytes"] - row["held_bytes"]


def _spread(found: Mapping[str, float]) -> str:
    return f"{found['median']:.3f} ({found['min']:.3f} to {found['max']:.3f})"


def write(said: Mapping[str, Any], path: Path) -> list[Path]:
    """Writes a record and, beside it, its table in Markdown; returns both."""
    from harness.runs import files

    shown = path.with_suffix(".md")
    files.replace(path, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    files.replace(shown, table(said))
    return [path, shown]

"""The record of `harness bench tune` and its table: what each lane takes, and what papers promise of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.bench import measure

REFERENCE = "lora"
TAUGHT, TEACHER = "squarehead", "teacher forward"
GRADIENT, DIRECTIONS = "lors start: a gradient", "lors start: directions"
MIB = 2**20
SAVED, PEAK, SECONDS = "bytes saved for backward", "peak memory", "step time"
INDICES = "its index arrays"
"""Stands among others for the bytes of the lane's own positions."""
TARGETS = (
    (SAVED, "lors", ("peft",), 1.05),
    (SAVED, "lors", ("naive",), 0.7),
    (SECONDS, "lors", ("peft",), 1.15),
    (PEAK, "seft", ("peft", INDICES), 1.0),
    (SECONDS, TAUGHT, ("masked", TEACHER), 1.05),
    (SECONDS, "masked", ("dense",), 1.05),
)
"""What is measured, of which lane, to the sum of which others, and the most that it should be."""


def table(said: Mapping[str, Any]) -> str:
    """Returns a record as Markdown."""
    machine = said["environment"]
    how = f"{said['precision']}, blocks compiled" if said["compiled"] else said["precision"]
    lines = [
        f"One step of fine-tuning on a sequence of {said['tokens']} tokens, {said['sparsity']:.0%} zeros, rank "
        f"{said['rank']}, {how}. {', '.join(filter(None, (machine['gpu'], machine['cpu'])))}, {said['threads']} of "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB."
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
        if {name, *others} - {INDICES} <= by_name.keys():
            if what == SECONDS:
                found = ratio(rows, name, others)
                value, shown = found["median"], _spread(found)
            else:
                key = "saved_bytes" if what == SAVED else "peak_bytes"
                own = {**{other: row[key] for other, row in by_name.items()}, INDICES: by_name[name]["index_bytes"]}
                value = own[name] / sum(own[other] for other in others)
                shown = f"{value:.3f}"
            yield [f"{what}: {name} / ({' + '.join(others)})", f"{most}", shown, "met" if value <= most else "missed"]


def _spread(found: Mapping[str, float]) -> str:
    return f"{found['median']:.3f} ({found['min']:.3f} to {found['max']:.3f})"


def ratio(rows: Sequence[Mapping[str, Any]], name: str, to: Sequence[str]) -> dict[str, float]:
    """Returns the spread, over the rounds, of a lane's seconds to the sum of others'."""
    by_name = {row["name"]: row["runs"] for row in rows}
    others = [sum(each) for each in zip(*(by_name[other] for other in to), strict=True)]
    return measure.spread([a / b for a, b in zip(by_name[name], others, strict=True)])

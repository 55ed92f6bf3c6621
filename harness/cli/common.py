"""What the commands share: how problems are printed, and where results go."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from harness.problems import Problem

Together = Annotated[int, typer.Option(min=1, help="Processes that train together, each with its GPU.")]
Laid = Annotated[str, typer.Option(help="ddp: each process holds the model; fsdp: they share it out.")]
Results = Annotated[Path | None, typer.Option(envvar="HARNESS_RESULTS", help="Where results go; results/ by default.")]


def print_problems(problems: Iterable[Problem]) -> None:
    """Prints problems to the error output, one after another."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


def results_folder(results: Path | None) -> Path:
    """Returns the results folder: the one given, or that beside the experiments."""
    from harness.spec import listing

    return results or listing.folder().parent / "results"

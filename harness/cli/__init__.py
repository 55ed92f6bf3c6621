"""The command line: experiments (`harness run`, `report` ...), one model (`prune`, `tune` ...), benchmarks (`bench`).

Only arguments live here. What is heavy is imported inside the command that needs it, so that the commands
which only read the registry answer at once.
"""

from __future__ import annotations

import sys

import typer

from harness import output
from harness.cli import bench, experiments, one_model
from harness.cli.common import print_problems
from harness.problems import Problem
from harness.runs import disk

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sparse fine-tuning of language models: run the papers' tables, add your own, browse the results.",
)
app.add_typer(experiments.app)
app.add_typer(one_model.app)
app.add_typer(bench.app, name="bench")

INTERRUPTED = 130
"""The status that typer makes of Ctrl-C."""


def main() -> None:
    """Runs the command line; a person's mistake ends with its message and status 2, never with a traceback."""
    output.speak_plainly()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except Problem as problem:
        print_problems([problem])
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            print("\nInterrupted. What is done is kept; the same command goes on from there.", file=sys.stderr)
        raise
    except OSError as error:
        if output.lost():
            if not isinstance(error, BrokenPipeError):
                print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
            sys.exit(1)
        if error.errno not in disk.REFUSED:
            raise
        print_problems([Problem(error.strerror, where=error.filename, hint=disk.ELSEWHERE)])
        sys.exit(2)

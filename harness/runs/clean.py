"""What of a store may go: the weights that nothing has still to read.

Records, tables and the texts of results stay; what a later experiment reads again is computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from harness.problems import Problem
from harness.runs import freeing
from harness.runs.keys import Stage
from harness.runs.plan import Plan
from harness.runs.store import FINISHED, Store


def idle(plan: Plan, store: Store, among: Iterable[Stage]) -> dict[Path, int]:
    """Returns the finished results whose readers are finished too: the bytes of weights that each holds.

    Args:
        plan: All that may read them.
        store: Where results lie.
        among: The stages whose results are meant.
    """
    found = {}
    for stage in among:
        readers = plan.readers(stage)
        if plan.states[stage] in FINISHED and all(plan.states[reader] in FINISHED for reader in readers):
            with contextlib.suppress(OSError):  # somebody removed it meanwhile
                found[store.folder(stage)] = sum(freeing.held(store.folder(stage)).values())
    return {folder: size for folder, size in found.items() if size}


def free(folders: Iterable[Path]) -> list[Problem]:
    """Frees the weights of results; returns what went wrong with some of them."""
    trouble = []
    for folder in folders:
        try:
            freeing.free(folder)
        except Problem as problem:
            trouble.append(problem)
        except OSError as error:
            trouble.append(Problem(f"these weights cannot be freed: {error}", where=str(folder)))
    return trouble


def remove(paths: Iterable[Path]) -> list[Problem]:
    """Removes files; returns what went wrong with some of them."""
    trouble = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            trouble.append(Problem(f"this file cannot be removed: {error.strerror}", where=str(path)))
    return trouble

"""What of a store may go: weights that nothing has still to read, and results and work that no entry asks for.

Records, tables and the texts of results stay; what is asked for again later is computed again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.runs import files, freeing, lease
from harness.runs.plan import Plan
from harness.runs.store import FINISHED, Store
from harness.runs.work import DONE, place


def idle(plan: Plan, store: Store) -> dict[Path, int]:
    """Returns the finished results whose readers in the plan are finished too: the bytes that freeing each gives."""
    found = {}
    for stage, state in plan.states.items():
        if state in FINISHED and all(plan.states[reader] in FINISHED for reader in plan.readers(stage)):
            found[store.folder(stage)] = freeing.size(store.folder(stage))
    return {folder: size for folder, size in found.items() if size}


def others(plan: Plan, store: Store) -> dict[Path, int]:
    """Returns the results of no stage of the plan, and such work that nobody is at: the bytes that each gives."""
    asked = {path for stage in plan.stages for path in (store.folder(stage), place(store.folder(stage)))}
    found = {}
    for folder in sorted(store.root.glob("*/*/")):
        if folder in asked:
            continue
        if (folder / DONE).is_file():
            found[folder] = freeing.size(folder)
        elif not lease.holder(folder):
            found[folder] = _size(folder)
    return {folder: size for folder, size in found.items() if size}


def remove(folder: Path) -> int:
    """Frees a finished result, or removes work that nobody is at; returns the bytes.

    Raises:
        OSError: It cannot be written.
        Problem: The weights of a result are damaged.
    """
    if (folder / DONE).is_file():
        return freeing.free(folder)
    size = _size(folder)
    if (held := lease.take(folder)) is None:
        return 0
    try:
        shutil.rmtree(folder)
    finally:
        held.release()
    return size


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files.inside(folder))

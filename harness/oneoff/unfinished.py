"""What a stopped fine-tuning leaves beside its folder: checkpoints, for the same command to go on from.

They lie in `.<name>.<its hash>.unfinished/scratch`, with the `settings.json` that they follow from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.problems import Problem
from harness.runs import files, lease

if TYPE_CHECKING:
    from rich.console import Console

SETTINGS = "settings.json"
SHOWN = 40
"""Characters of a folder's name in that of its work beside it: the whole may be as long as a name can be."""


def begin(folder: Path, settings: Mapping[str, Any], console: Console) -> tuple[Path, lease.Lease]:
    """Returns the folder of the work on `folder`, and the lease of it; what work of other settings left is removed.

    Args:
        folder: What the work will become.
        settings: All that the result follows from, as JSON.
        console: Is told whether it goes on or begins afresh, where something was left.

    Raises:
        Problem: Another process is at work on it.
    """
    digest = hashlib.sha256(folder.name.encode()).hexdigest()[:8]
    work = folder.parent / f".{folder.name[:SHOWN]}.{digest}.unfinished"
    work.mkdir(exist_ok=True)
    held = lease.take(work)
    if held is None:
        hint = "wait for it, or give another folder with --out"
        raise Problem("another command is at work on this folder", where=str(folder), hint=hint)
    text, said = json.dumps(settings, indent=1, sort_keys=True) + "\n", work / SETTINGS
    same = said.is_file() and said.read_text(encoding="utf8") == text
    if kept(work):
        told = f"goes on from {kept(work)}" if same else f"begins afresh: what {work} kept was of other settings"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    if not same:
        shutil.rmtree(work / "scratch", ignore_errors=True)
    files.replace(said, text)
    return work, held


def remove(work: Path, held: lease.Lease) -> None:
    """Removes some work and gives its lease back; the folder stays where another command has begun in it by then."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(SETTINGS):  # a kill may have left one half written
            path.unlink(missing_ok=True)
    held.release()
    with contextlib.suppress(OSError):
        work.rmdir()


def kept(work: Path) -> Path | None:
    """Returns the newest checkpoint in the folder of some work; None where there is none."""
    return max((work / "scratch").glob("step-*.pt"), default=None)

"""A stage in the making: the folder it fills, the scratch it resumes from, and the step that makes it a result."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.problems import Problem
from harness.runs import files, lease
from harness.runs.keys import Stage, canonical

DONE = "done.json"
ERROR = "error.txt"
PARTIAL = ".partial"


class Work:
    """A stage that this process is computing: an empty `folder` to fill, the `scratch` of its earlier attempts."""

    def __init__(self, stage: Stage, final: Path, held: lease.Lease):
        self.stage, self._final, self._lease = stage, final, held
        self.folder, self.scratch = place(final) / "result", place(final) / "scratch"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.scratch.mkdir(exist_ok=True)

    def finish(self, seconds: float, code: Mapping[str, str]) -> Path:
        """Makes the folder the stage's result.

        Args:
            seconds: How long it took since its last start.
            code: The source files it ran, and their hashes (`code.files`, from before it ran).

        Raises:
            Problem: Another process took the stage over.
            RuntimeError: The stage wrote nothing.
        """
        from harness.tracking.environment import environment

        if not (written := files.describe(self.folder)):
            raise RuntimeError(f"{self.stage} wrote nothing")
        done = {
            **self.stage.identity(),
            "key": self.stage.key,
            "handling": dict(self.stage.handling),
            "files": written,
            "code": dict(code),
            "seconds": round(seconds, 3),
            "environment": environment(),
        }
        text = json.dumps({**done, "sha256": signature(done)}, indent=1)
        (self.folder / DONE).write_text(text + "\n", encoding="utf8")
        files.sync(self.folder)
        if not self._lease.held():  # this machine gave no sign of life for too long
            raise Problem("another process took this stage over", where=str(self._final), hint="run again to see it")
        before = place(self._final) / "freed"
        if self._final.is_dir():  # its weights were freed, and are wanted again
            self._final.rename(before)
        try:
            self.folder.rename(self._final)
        except OSError:
            if before.is_dir():
                before.rename(self._final)
            raise
        files.sync_folder(self._final.parent)
        self._lease.release()
        shutil.rmtree(place(self._final), ignore_errors=True)
        return self._final

    def fail(self, text: str) -> Path | None:
        """Keeps an error beside the scratch and gives the stage back; what was half written is removed.

        Returns:
            The file with the error; None when the stage is no longer ours to write to.
        """
        path = place(self._final) / ERROR
        try:
            if not self._lease.held():
                return None
            path.write_text(text + "\n", encoding="utf8")
        finally:
            self.release()
        return path

    def release(self) -> None:
        """Gives the stage back: interrupted, to go on later from its scratch. What was half written is removed."""
        if self._lease.held():
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lease.release()

    def size(self) -> int:
        """Returns the bytes written so far, checkpoints included."""
        return sum(path.stat().st_size for path in files.inside(place(self._final)))


def place(folder: Path) -> Path:
    """Returns where the result that will lie in `folder` is made."""
    return folder.with_name(folder.name + PARTIAL)


def signature(done: Mapping[str, Any]) -> str:
    """Returns the sha256 of what `done.json` says, which it says too."""
    return hashlib.sha256(canonical(done).encode()).hexdigest()

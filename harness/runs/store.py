"""The store of results: one folder a stage, whole or absent, each file known by its sha256.

    <root>/<stage>/<slug>-<key>/            the result, with done.json: what made it, sha256 and size of every file,
                                            and `freed` where its weights were freed
    <root>/<stage>/<slug>-<key>.partial/    the work: result/  scratch/ (checkpoints)  lease-1.json  error.txt

A result is written into `result/`, described by `done.json`, brought to the disk and only then renamed into place. A
kill at any moment leaves the work with its checkpoints, never half a result.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from harness.problems import Problem
from harness.runs import code, files, freeing, lease, shapes
from harness.runs.keys import Stage
from harness.runs.work import DONE, ERROR, PARTIAL, Work, place, signature

State = Literal["cached", "freed", "running", "interrupted", "failed", "damaged", "missing"]
FINISHED: tuple[State, ...] = ("cached", "freed")
"""The states of a result that is whole, with its weights or without."""
COMPUTED: tuple[State, ...] = ("missing", "interrupted")
"""The states of what a run computes."""
TEXTS = (".json", ".jsonl")
TRACE = "\n\nTraceback (most recent call last)"
RETRY = "run again with --retry to compute it anew"


class Store:
    """The results below one folder. It remembers which files it has verified, by path, size and time."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self._verified: set[tuple[Path, int, int]] = set()

    def folder(self, stage: Stage) -> Path:
        """Returns where the result of a stage lies, or will."""
        return self.root / stage.folder

    def state(self, stage: Stage) -> State:
        """Returns how a stage stands, from names and sizes alone; `open` looks at every byte."""
        folder = self.folder(stage)
        work = place(folder)
        if folder.is_dir():
            if _damage(folder, stage):
                return "damaged"
            return "cached" if not freeing.is_freed(folder) else "running" if lease.holder(work) else "freed"
        if not work.is_dir():
            return "missing"
        if lease.holder(work):
            return "running"
        return "failed" if (work / ERROR).is_file() else "interrupted"

    def open(self, stage: Stage, every_byte: bool = True) -> Path:
        """Returns the folder of a finished stage after verifying every file in it.

        Args:
            stage: The stage.
            every_byte: Whether large weights are hashed too; by their size alone otherwise, which a record needs.

        Raises:
            Problem: The stage is not there, or a file is missing or is not what was written: which one. Or every byte
                is asked for, and its weights were freed.
        """
        folder = self.folder(stage)
        if not folder.is_dir():
            raise Problem("there is no such result", where=str(folder), hint="run the experiment that makes it")
        if damage := _damage(folder, stage):
            raise Problem(damage, where=str(folder), hint=RETRY)
        if every_byte and freeing.is_freed(folder):
            raise freeing.problem(folder)
        done = self.done(stage)
        if done.pop("sha256", None) != signature(done):
            raise Problem(f"{DONE} is damaged: it is not what was written", where=str(folder), hint=RETRY)
        if freeing.is_freed(folder):
            _check_headers(folder, done["files"])
        for name, said in done["files"].items():
            if every_byte or name.endswith(TEXTS) or said["size"] <= freeing.LARGE:
                self._verify(folder, name, said["sha256"])
        if place(folder).is_dir() and not freeing.is_freed(folder):  # a kill after the rename left it
            shutil.rmtree(place(folder), ignore_errors=True)
        return folder

    def _verify(self, folder: Path, name: str, sha256: str) -> None:
        path = folder / name
        stat = path.stat()
        if (known := (path, stat.st_size, stat.st_mtime_ns)) in self._verified:
            return
        if files.sha256(path) != sha256:
            raise Problem(
                f"{name} is damaged: its bytes are not those that were written", where=str(folder), hint=RETRY
            )
        self._verified.add(known)

    def done(self, stage: Stage) -> dict[str, Any]:
        """Returns what `done.json` says of a finished stage: what made it, its files, seconds, environment."""
        return json.loads((self.folder(stage) / DONE).read_text(encoding="utf8"))

    def error(self, stage: Stage) -> str | None:
        """Returns why a stage failed, without the traceback that `log` may hold; None if it did not."""
        path = self.log(stage)
        return path and path.read_text(encoding="utf8").partition(TRACE)[0].strip()

    def log(self, stage: Stage) -> Path | None:
        """Returns the file with a failed stage's error, and the traceback of one that was not expected."""
        path = place(self.folder(stage)) / ERROR
        return path if path.is_file() else None

    def holder(self, stage: Stage) -> str | None:
        """Returns who is computing a stage just now."""
        return lease.holder(place(self.folder(stage)))

    @contextlib.contextmanager
    def running(self) -> Iterator[Path | None]:
        """Says to `busy`, for as long as this lasts, that somebody may read any result.

        Yields:
            What says so; None where nothing can be written, which the first stage will tell.
        """
        mark = self.root / "running" / f"{secrets.token_hex(4)}{PARTIAL}"
        try:
            for left in mark.parent.glob(f"*{PARTIAL}"):
                if not lease.holder(left):  # its process was killed
                    shutil.rmtree(left)
            mark.mkdir(parents=True)
            held = lease.take(mark)
        except OSError:
            yield None
            return
        try:
            yield mark
        finally:
            held.release()
            shutil.rmtree(mark, ignore_errors=True)
            with contextlib.suppress(OSError):  # another's mark lies there
                mark.parent.rmdir()

    def busy(self, mark: Path | None = None) -> str | None:
        """Returns who is computing anything just now, but for whose `mark` this is; None where nobody is."""
        work = (folder for folder in sorted(self.root.glob(f"*/*{PARTIAL}")) if folder != mark)
        return next(filter(None, map(lease.holder, work)), None)

    def stale(self, stage: Stage) -> tuple[str, ...]:
        """Returns the source files of a finished stage that changed since; its VERSION says whether that matters."""
        then, now = self.done(stage)["code"], code.files(stage)
        return tuple(sorted(name for name in then | now if then.get(name) != now.get(name)))

    def clear(self, stage: Stage) -> None:
        """Removes a damaged result, or the error of a failed stage, so that it is computed again.

        A failed stage keeps its scratch: it goes on from its last good checkpoint.
        """
        if self.state(stage) == "damaged":
            self.discard(stage)
        (place(self.folder(stage)) / ERROR).unlink(missing_ok=True)

    def discard(self, stage: Stage) -> None:
        """Removes a result whatever its state; `open` found what `state` cannot see."""
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            shutil.rmtree(self.folder(stage))

    def begin(self, stage: Stage) -> Work | None:
        """Takes a stage to compute it, or returns None when it is done, has failed, or another process is at it.

        A result whose weights were freed stays until it is computed again.

        Raises:
            OSError: The store cannot be written.
        """
        folder = self.folder(stage)
        work = place(folder)
        work.mkdir(parents=True, exist_ok=True)
        try:
            held = lease.take(work)
        except FileNotFoundError:  # another process finished it just now and removed the folder
            return None
        if held is None:
            return None
        if (folder.is_dir() and not freeing.is_freed(folder)) or (work / ERROR).is_file():
            held.release()
            return None
        try:
            return Work(stage, folder, held)
        except OSError:
            held.release()
            raise


def _damage(folder: Path, stage: Stage) -> str | None:
    """Returns what is wrong with a result as far as names and sizes tell, or None."""
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf8"))
        if done["key"] != stage.key:
            return f"{DONE} is of another stage"
        if missing := sorted({"seconds", "code", "environment"} - done.keys()):
            return f"{DONE} is damaged: it lacks {', '.join(missing)}"
        freed = freeing.is_freed(folder)
        for name, said in done["files"].items():
            size = (folder / name).stat().st_size
            if size != said["size"] and not (freed and freeing.takes(name, said["size"])):
                return f"{name} is damaged: it has {size} bytes of {said['size']}"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except (ValueError, TypeError, KeyError, UnicodeDecodeError):
        return f"{DONE} is damaged: it cannot be read"
    return None


def _check_headers(folder: Path, said: Mapping[str, Any]) -> None:
    """Makes sure that what is left of freed weights can be read; `said` is of all files of the result."""
    for name, about in said.items():
        if freeing.takes(name, about["size"]):
            try:
                shapes.header(folder / name)
            except Problem as problem:
                what = f"{name} is damaged: its header cannot be read"
                raise Problem(what, where=str(folder), hint=RETRY) from problem

"""Which source files a stage runs, and their hashes: how `status` knows that a result is perhaps stale.

The files are the stage's module, the methods its options name (solver, loss, metric, ...), and all that these import
from the packages of methods, followed statically. What only carries a run (runs, spec, tracking, reporting, the top
level) is left out: it decides when and where, not what.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from harness import rooms
from harness.runs import keys
from harness.runs.keys import Stage

CARRIES = ("runs", "spec", "tracking", "reporting")


def files(stage: Stage) -> dict[str, str]:
    """Returns the sha256 (first 16 digits) of every source file the stage runs, by path inside `harness`."""
    found: set[Path] = set()
    todo = [keys.STAGES / f"{stage.name}.py", *_methods(stage)]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo.extend(_imports(path, path.stat().st_mtime_ns))
    return {_name(path): _sha(path, path.stat().st_mtime_ns) for path in sorted(found)}


def _name(path: Path) -> str:
    inside = path.is_relative_to(rooms.PACKAGE)
    return path.relative_to(rooms.PACKAGE if inside else keys.STAGES.parent).as_posix()


def _methods(stage: Stage) -> list[Path]:
    """Returns the files of the methods that the stage's options name: `loss: 0.5*kl + squarehead` names two."""
    found = []
    for options in (stage.options, stage.options.get("prune", {})):  # a training that prunes has that section inside
        for kind, room in rooms.ROOMS.items():
            if kind != "model" and isinstance(text := options.get(kind), str):
                names = [rooms.parse(term.rpartition("*")[2]).name for term in rooms.terms(text)]
                found += [room.path / f"{name}.py" for name in names if name in room.names()]
    return found + _families(stage)


def _families(stage: Stage) -> list[Path]:
    """Returns the file of the model's family; those of all families where the plan does not say which it is."""
    while "model" not in stage.options and "model" in stage.parents:
        stage = stage.parents["model"]
    room, (kind, _, name) = rooms.ROOMS["model"], stage.options.get("model", "").partition("/")
    return [room.path / f"{family}.py" for family in room.names() if kind != "tiny" or family == name]


@functools.cache
def _imports(path: Path, mtime: int) -> tuple[Path, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(file for name in found if (file := _module(name)))


def _module(dotted: str) -> Path | None:
    """Returns the file of a module in a package of methods, None for any other."""
    parts = dotted.split(".")
    if parts[0] != "harness" or len(parts) < 2 or parts[1] in CARRIES:
        return None
    path = rooms.PACKAGE.joinpath(*parts[1:])
    if len(parts) > 2 and path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


@functools.cache
def _sha(path: Path, mtime: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

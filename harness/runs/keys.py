"""Names for results: a stage's key is the hash of everything that decides what it computes.

    key = sha256(canonical JSON of [name, VERSION, options, parents' keys, identities of the sources])

Options come with every default written out, so that a changed default is another key (open_lth leaves defaults out, and
old results silently change their meaning). Code is not hashed: a stage's VERSION is bumped by hand, and `code.py` tells
when a source changed since. VERSION is read from the text of `harness/stages/<name>.py`, without importing it.

Bump a stage's VERSION when the same options now give other results: a mended computation, or a new option whose default
is not what was done before. A new option whose default keeps results as they were needs no bump: records made without
it go on counting (`tracking.settings`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.problems import unknown

if TYPE_CHECKING:
    from harness.sources import Source

MODELS = ("model", "teacher")
"""The roles of models among what a stage reads."""
STAGES = Path(__file__).resolve().parents[1] / "stages"


@dataclass(frozen=True, eq=False)
class Stage:
    """One computation, known by its key: two stages with the same key are equal and share a folder.

    Attributes:
        name: A module of `harness.stages`: prepare, prune, pretrain, tune, quantize, evaluate.
        options: All that decides the result besides parents and sources: JSON values, defaults written out.
        parents: The stages whose folders it reads, by role ("model", "teacher").
        sources: Models and data from outside that it reads, by role ("model", "teacher", "data", "data/<task>",
            "search"); packages that score it, and the machine and kernels that are timed.
        handling: Options that change no byte of the result (how often to checkpoint); not hashed.
        slug: The readable part of its folder's name; follows from the hashed content and is not hashed itself.
    """

    name: str
    options: Mapping[str, Any]
    parents: Mapping[str, Stage] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    handling: Mapping[str, Any] = field(default_factory=dict)
    slug: str = ""

    @functools.cached_property
    def key(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.identity()).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """Returns what is hashed; `done.json` keeps it."""
        return {
            "stage": self.name,
            "version": version(self.name),
            "options": self.options,
            "parents": {role: parent.key for role, parent in self.parents.items()},
            "sources": {role: source.identity for role, source in self.sources.items()},
        }

    @property
    def models(self) -> dict[str, Source]:
        """Those of the sources that are models."""
        return {role: source for role, source in self.sources.items() if role in MODELS}

    @functools.cached_property
    def folder(self) -> str:
        """Where its result lies below the store: `prune/t5.sparsegpt.s75-8c2f3a90bd`."""
        return f"{self.name}/{self.slug}-{self.key[:10]}".replace("/-", "/")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return self.folder


def canonical(value: Any) -> str:
    """Returns the one JSON text of a value: keys sorted, 1.0 written 1 and 1e-3 written 0.001, tuples as lists.

    Raises:
        ValueError: A number is not finite.
        TypeError: Something has no place in JSON.
    """
    return json.dumps(_plain(value, "value"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: a key needs finite numbers")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict | Mapping):
        if odd := next((key for key in value if not isinstance(key, str)), None):
            raise TypeError(f"{where} has the key {odd!r}, which is no text")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}, which has no canonical form")


def version(name: str) -> int:
    """Returns a stage's hand-bumped VERSION, read from its source.

    Raises:
        Problem: There is no such stage.
        ValueError: Its module has no `VERSION = <whole number>`.
    """
    path = STAGES / f"{name}.py"
    try:
        return _version(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise unknown("stage", name, (p.stem for p in STAGES.glob("[!_]*.py"))) from None


@functools.cache
def _version(path: Path, mtime: int) -> int:
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["VERSION"]:
            found = ast.literal_eval(node.value)
            if type(found) is int:
                return found
    raise ValueError(f"{path} has no line VERSION = <whole number>")

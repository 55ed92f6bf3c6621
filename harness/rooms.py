"""A folder as a registry: a file is a method, its keyword-only arguments are its options, its docstring is its help.

Names, options, defaults and help are read from the source with `griffe`, so that listing, checking and planning import
no method and, above all, no torch. A method's module is imported when it is used. Methods are written `name` or
`name:option=value,option=value` everywhere: in YAML, on the command line, in records.

Positional arguments are what the method needs to be given: a criterion `score(weight, norm)` asks for the input
statistic `norm`, a loss `loss(student, batch)` for no teacher.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.problems import Problem, nearest, unknown
from harness.ranges import RANGES

PACKAGE = Path(__file__).parent
REQUIRED = "<required>"
"""The default of an option that has none."""


@dataclass(frozen=True)
class Option:
    """One option of a method: a keyword-only argument, its default (or `REQUIRED`), its annotation as written."""

    name: str
    default: Any
    annotation: str


@dataclass(frozen=True)
class Method:
    """What the source of one file says of its method, without importing it."""

    kind: str
    name: str
    summary: str
    needs: tuple[str, ...]
    options: Mapping[str, Option]
    constants: Mapping[str, Any]
    path: Path
    line: int
    verbs: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A method by name with its options; after `resolve` the options are complete and in the order of the signature."""

    name: str
    options: Mapping[str, Any]

    def __str__(self) -> str:
        options = ",".join(f"{name}={_write(value)}" for name, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True)
class Term:
    """One weighted term of a sum such as `0.5*cross_entropy + squarehead`."""

    weight: float
    choice: Choice

    def __str__(self) -> str:
        return str(self.choice) if self.weight == 1 else f"{self.weight!r}*{self.choice}"


@dataclass(frozen=True)
class Room:
    """A folder of methods of one kind; `verbs` are the functions that a file may define, the first one always."""

    kind: str
    folder: str
    verbs: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The folder of this room's files."""
        return PACKAGE / self.folder

    def names(self) -> tuple[str, ...]:
        """Returns the names of all methods here: one per file that does not begin with an underscore."""
        found = (path.stem for path in self.path.glob("*.py") if path.is_file())
        return tuple(sorted(name for name in found if not name.startswith("_")))

    def method(self, name: str, where: str | None = None) -> Method:
        """Reads one method from its source.

        Raises:
            Problem: There is no such file, or it does not define this room's first verb.
        """
        path = _file(PACKAGE, self.folder, name)
        if name.isidentifier() and not name.startswith("_"):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                return _read(self, name, path, os.stat(path).st_mtime_ns)
        raise unknown(self.kind, name, self.names(), where)


METHOD = ("prepare", "project", "adapt", "merge", "state", "evolve", "allot", "budget")
"""The verbs of a tuning method, most of them optional (`tuning/methods/__init__.py`)."""
ROOMS: dict[str, Room] = {
    room.kind: room
    for room in (
        Room("model", "models", ("blocks",)),
        Room("data", "data", ("rows",)),
        Room("task", "tasks", ("predict", "examples")),
        Room("metric", "metrics", ("score",)),
        Room("criterion", "pruning/criteria", ("score",)),
        Room("pattern", "pruning/patterns", ("choose", "fit")),
        Room("allocation", "pruning/allocation", ("allocate",)),
        Room("solver", "pruning/solvers", ("solve",)),
        Room("refiner", "pruning/refiners", ("refine",)),
        Room("ramp", "pruning/ramps", ("targets",)),
        Room("rounding", "quantization/rounding", ("round",)),
        Room("method", "tuning/methods", METHOD),
        Room("loss", "tuning/losses", ("loss",)),
        Room("schedule", "tuning/schedules", ("factor",)),
        Room("format", "inference/formats", ("pack", "unpack", "sizes")),
        Room("engine", "inference/engines", ("prepare", "available", "exact")),
    )
}


@functools.cache
def _file(package: Path, folder: str, name: str) -> str:
    """Returns the file of a method; a text, because a plan looks one up some ten thousand times."""
    return str(package / folder / f"{name}.py")


@functools.cache
def _read(room: Room, name: str, file: str, changed: int) -> Method:
    import griffe

    path = Path(file)
    try:
        module = griffe.visit(name, filepath=path, code=path.read_text(encoding="utf8"))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:  # ValueError: a null byte
        where = f"{path}:{error.lineno}" if isinstance(error, SyntaxError) else str(path)
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise Problem(f"{room.kind} {name!r} is no Python: {said}", where=where) from error
    functions = [module.members[verb] for verb in room.verbs if verb in module.members]
    if not functions or functions[0].name != room.verbs[0]:
        hint = f"every file here defines it; what is no {room.kind} has a name that begins with _"
        raise Problem(f"{room.kind} {name!r} defines no function {room.verbs[0]!r}", where=str(path), hint=hint)
    options: dict[str, Option] = {}
    for function in functions:
        for p in function.parameters:
            if p.kind is griffe.ParameterKind.keyword_only:
                found = Option(p.name, _literal(p.default, path), str(p.annotation or ""))
                first = options.setdefault(p.name, found)
                for what in ("default", "annotation"):
                    if getattr(first, what) != getattr(found, what):
                        said = f"option {p.name!r} has two {what}s: {getattr(first, what)} and {getattr(found, what)}"
                        raise Problem(said, where=f"{path}:{function.lineno}", hint="give every function the same")
    positional = [p.name for p in functions[0].parameters if p.kind is not griffe.ParameterKind.keyword_only]
    doc = next((d.value.strip() for d in (functions[0].docstring, module.docstring) if d), "")
    constants = {
        key: _literal(str(member.value), path)
        for key, member in module.members.items()
        if key.isupper() and not member.is_alias and member.is_attribute and _is_literal(member.value)
    }
    summary = doc.partition("\n")[0]
    verbs = tuple(function.name for function in functions)
    return Method(room.kind, name, summary, tuple(positional), options, constants, path, functions[0].lineno, verbs)


def _is_literal(value: Any) -> bool:
    try:
        ast.literal_eval(str(value))
    except (ValueError, SyntaxError):
        return False
    return value is not None


def _literal(text: Any, path: Path) -> Any:
    if text is None:
        return REQUIRED
    try:
        return ast.literal_eval(str(text))
    except (ValueError, SyntaxError):
        raise Problem(
            f"default {str(text)!r} is not a literal, so it cannot be read without importing", where=str(path)
        ) from None


PLAIN = {"int", "float", "str", "bool", "None"}
"""The types that an option's text is checked against, besides the names of `ranges` and `Literal[...]`."""
_NAMED = {"true": True, "false": False, "none": None}


def _parse(text: str) -> Any:
    """Reads an option's value: a number, true, false, none, or the bare text itself."""
    if text.lower() in _NAMED:
        return _NAMED[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _write(value: Any) -> str:
    return next((text for text, named in _NAMED.items() if value is named), None) or str(value)


def parse(text: str, where: str | None = None) -> Choice:
    """Reads `name` or `name:option=value,option=value`; `2:4` is short for `nm:n=2,m=4`. Nothing is looked up."""
    text = text.strip()
    if pair := re.fullmatch(r"(\d+):(\d+)", text):
        return Choice("nm", {"n": int(pair[1]), "m": int(pair[2])})
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        option, equals, value = part.partition("=")
        if not equals or not option.strip():
            raise Problem(f"cannot read {part!r} in {text!r}", where=where, hint="write name:option=value,option=value")
        if option.strip() in options:
            what = f"option {option.strip()!r} is given twice in {text!r}"
            raise Problem(what, where=where, hint="keep one of them")
        options[option.strip()] = _parse(value.strip())
    return Choice(name.strip(), options)


def resolve(kind: str, text: str | Choice, where: str | None = None) -> Choice:
    """Checks a choice against its room and returns it with every option written out.

    Args:
        kind: A key of `ROOMS`.
        text: The choice, `name` or `name:option=value,...`.
        where: The place of the text, for the error.

    Raises:
        Problem: The name or an option is unknown, a required option is missing, or a value has the wrong type.
    """
    given = parse(text, where) if isinstance(text, str) else text
    method = ROOMS[kind].method(given.name, where)
    for option in given.options:
        if option not in method.options:
            others = _with_option(kind, option, given.options[option])
            raise Problem(
                f"{kind} {given.name!r} has no option {option!r}",
                where=where,
                nearest=nearest(option, method.options),
                hint=f"its options: {', '.join(method.options) or 'none'}" + (others and f"; others have it: {others}"),
            )
    complete = {}
    for option in method.options.values():
        value = given.options.get(option.name, option.default)
        if value is REQUIRED:
            hint = f"write {given.name}:{option.name}=..."
            raise Problem(f"{kind} {given.name!r} needs the option {option.name!r}", where=where, hint=hint)
        complete[option.name] = _typed(kind, given.name, option, value, where)
    return Choice(given.name, complete)


def _with_option(kind: str, option: str, value: Any) -> str:
    """Returns the choices of the rooms beside this one that have an option, as they would be written; at most three."""
    found = []
    for room in ROOMS.values():
        if Path(room.folder).parent == Path(ROOMS[kind].folder).parent:
            for name in room.names():
                with contextlib.suppress(Problem):  # a file that cannot be read has its own error where it is chosen
                    if option in room.method(name).options:
                        found.append(f"{room.kind} {Choice(name, {option: value})}")
    return ", ".join(found[:3])


def _typed(kind: str, name: str, option: Option, value: Any, where: str | None) -> Any:
    """Checks a value against the option's annotation, where that is made of plain types; makes a float of an int."""
    wrong = f"{kind} {name!r}: option {option.name}={_write(value)}"
    if literals := re.fullmatch(r"Literal\[(.*)\]", option.annotation):
        allowed = ast.literal_eval(f"({literals[1]},)")
        value = _write(value) if _write(value) in allowed else value
        if value not in allowed:
            close = nearest(str(value), map(str, allowed))
            raise Problem(wrong, where=where, nearest=close, hint="it may be: " + ", ".join(map(str, allowed)))
        return value
    parts = {part.strip() for part in option.annotation.split("|")}
    ranges = {str(RANGES[part][1]): RANGES[part][1] for part in parts & RANGES.keys()}
    types = {RANGES[part][0] if part in RANGES else part for part in parts}
    if not types <= PLAIN:
        return value
    if type(value).__name__.removesuffix("Type") not in types:
        if "float" in types and type(value) is int:
            value = _float(value)
        elif "str" in types and value is not None:
            value = _write(value)
        else:
            raise Problem(f"{wrong} should be {_either(types)}", where=where)
    if isinstance(value, float) and not math.isfinite(value):
        raise Problem(f"{wrong} should be a finite number", where=where)
    if ranges and isinstance(value, int | float) and not any(value in each for each in ranges.values()):
        raise Problem(f"{wrong} should be {_either(ranges.keys() | types & {'None'})}", where=where)
    return value


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _either(names: Iterable[str]) -> str:
    """Returns names as a choice, `a or b or none`."""
    return " or ".join([*sorted(set(names) - {"None"}), *(["none"] if "None" in names else [])])


def load(kind: str, name: str) -> ModuleType:
    """Imports a method's module."""
    room = ROOMS[kind]
    room.method(name)
    return importlib.import_module("harness." + room.folder.replace("/", ".") + "." + name)


def bind(kind: str, choice: str | Choice, verb: str | None = None) -> functools.partial:
    """Returns a method's function (`verb`, by default the room's first) with its options filled in."""
    choice = resolve(kind, choice)
    function = getattr(load(kind, choice.name), verb or ROOMS[kind].verbs[0])
    takes = inspect.signature(function).parameters
    return functools.partial(function, **{name: value for name, value in choice.options.items() if name in takes})


SMALLEST_WEIGHT = 1e-9
"""Below it a term of a sum weighs nothing: against any other, and against the accuracy of float32."""


def terms(text: str) -> list[str]:
    """Returns the terms of a sum as they are written; the plus of `1e+2` joins none."""
    return [part.strip() for part in re.split(r"\+(?!\d)", text)]


def resolve_terms(kind: str, text: str, where: str | None = None) -> tuple[Term, ...]:
    """Reads a weighted sum of choices, `0.5*cross_entropy + squarehead:eps=1e-9`, each resolved.

    Raises:
        Problem: A weight is no number from 0 on, all of them are 0, a term stands twice, or a choice is wrong.
    """
    found: list[Term] = []
    for part in terms(text):
        weight, star, choice = part.rpartition("*")
        value = _parse(weight.strip()) if star else 1
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise Problem(
                f"{weight.strip()!r} in {text!r} is no weight of a term", where=where, hint="write 0.5*name + name"
            )
        found.append(Term(float(value), resolve(kind, choice, where)))
    names = [term.choice.name for term in found]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise Problem(f"{kind} {twice!r} stands twice in {text!r}", where=where, hint="give it once, with its weight")
    if max(term.weight for term in found) < SMALLEST_WEIGHT:
        raise Problem(f"every term of {text!r} weighs nothing", where=where, hint="give one a weight such as 1 or 0.5")
    return tuple(found)

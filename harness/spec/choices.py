"""Choices as pydantic types: text that names methods of the rooms, resolved so that every option is written out.

The rooms are read statically; no method is imported. A problem found here is wrapped, so that pydantic goes on and all
problems of a section are reported together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from harness import rooms
from harness.problems import Problem, unknown


def fault(problem: Problem, key: str = "") -> PydanticCustomError:
    """Wraps a problem for pydantic; `key` is the field it belongs to, where a whole section is looked at."""
    return PydanticCustomError("problem", "{problem}", {"problem": problem, "key": key})


def _choice(kind: str, text: str, info: ValidationInfo) -> str:
    resolve: Callable = (info.context or {}).get("resolve", rooms.resolve)
    try:
        choice = resolve(kind, text)
    except Problem as problem:
        raise fault(problem) from problem
    if idle := _idle(kind, choice):
        raise fault(idle)
    return str(choice)


def _idle(kind: str, choice: rooms.Choice) -> Problem | None:
    """Returns the problem that nothing looks at an option beside the others that are given (`ONLY_WITH`)."""
    method = rooms.ROOMS[kind].method(choice.name)
    for option, others in method.constants.get("ONLY_WITH", {}).items():
        for other, value in others.items():
            if choice.options[option] != method.options[option].default and choice.options[other] != value:
                asked, found = (rooms.Choice(choice.name, {other: each}) for each in (value, choice.options[other]))
                return Problem(f"{found} does not look at {option}", hint=f"leave {option} out, or write {asked}")
    return None


def _terms(text: str, info: ValidationInfo) -> str:
    resolve: Callable = (info.context or {}).get("resolve_terms", rooms.resolve_terms)
    try:
        return " + ".join(str(term) for term in resolve("loss", text))
    except Problem as problem:
        raise fault(problem) from problem


def one_of(kind: str) -> AfterValidator:
    """Returns the check that a text is a choice from one room."""
    return AfterValidator(partial(_choice, kind))


def check_model(name: str) -> str:
    """Returns the name of a model unchanged, or raises the fault that it is none; looks for no weights."""
    organisation, slash, rest = name.partition("/")
    if organisation == "tiny" and slash and rest not in rooms.ROOMS["model"].names():
        raise fault(unknown("tiny model", name, (f"tiny/{family}" for family in rooms.ROOMS["model"].names())))
    if not name.strip() or name != name.strip() or "\n" in name:
        raise fault(Problem(f"{name!r} is no model", hint="write org/name, org/name@revision, a folder or tiny/family"))
    return name


Model = Annotated[str, AfterValidator(check_model)]
Data = Annotated[str, one_of("data")]
Task = Annotated[str, one_of("task")]
Loss = Annotated[str, AfterValidator(_terms)]


def constant(kind: str, text: str, name: str) -> Any:
    """Returns what a choice's source says of itself: the `KIND` of data, what a task `READS`, its `METRIC`."""
    method = rooms.ROOMS[kind].method(text.partition(":")[0])
    if name not in method.constants:
        raise fault(Problem(f"{kind} {method.name!r} does not say its {name}, in {method.path}"), kind)
    return method.constants[name]


def agree(data: str | None, task: str, *, trains: bool) -> None:
    """Refuses data of another kind than the task reads, and training on a task that has no examples."""
    reads = constant("task", task, "READS")
    kind = constant("data", data, "KIND") if data else None
    name = task.partition(":")[0]
    if reads is None and trains:
        hint = "of the tasks with examples there is: " + ", ".join(_training_tasks())
        text = f"task {name!r} only evaluates: it has no examples to learn or calibrate from"
        raise fault(Problem(text, hint=hint), "task")
    if reads is None and data:
        raise fault(Problem(f"task {name!r} brings its own data", hint="leave data out"), "data")
    if reads != kind:
        room = rooms.ROOMS["data"]
        fitting = [n for n in room.names() if room.method(n).constants.get("KIND") == reads]
        said = f"{data.partition(':')[0]!r} is {kind}" if data else "none is given"
        hint = f"of that kind there is: {', '.join(fitting)}"
        raise fault(Problem(f"task {name!r} reads {reads} data, but {said}", hint=hint), "data")


def _training_tasks() -> list[str]:
    room = rooms.ROOMS["task"]
    return [name for name in room.names() if room.method(name).constants.get("READS")]


def needs_teacher(loss: str) -> bool:
    """Says whether a term of the loss looks at a teacher; one of weight 0 looks at nothing."""
    terms = rooms.resolve_terms("loss", loss)
    return any(term.weight and "teacher" in rooms.ROOMS["loss"].method(term.choice.name).needs for term in terms)

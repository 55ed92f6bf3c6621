"""From pydantic's errors to problems: file and line, the dotted key, the nearest valid name, what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from harness.problems import Problem, nearest

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""What pydantic calls the bounds of a number, and what `ranges` does."""


def problems_of(
    error: ValidationError,
    data: Any,
    model: type[BaseModel],
    where: Callable[[str], str],
    prefix: str = "",
    stands: Callable[[str, bool], str] = lambda dotted, whole: dotted,
) -> list[Problem]:
    """Translates every error of a validation.

    Args:
        error: What pydantic raised.
        data: The data it looked at.
        model: The model it should fit.
        where: Returns the place of a dotted key.
        prefix: The dotted key of `data` itself.
        stands: Returns the key to tell of a dotted key, also given whether the section is wrong as a whole.
    """
    found: dict[str, Problem] = {}
    for one in error.errors(include_url=False):
        parts = _path(one["loc"], data)
        context = one.get("ctx", {})
        whole = one["type"] == "problem" and bool(context["key"])
        parts = (*parts, context["key"]) if whole else parts
        dotted = stands(".".join(filter(None, (prefix, *map(str, parts)))), whole)
        found[f"{dotted} {one['type'] == 'problem'}"] = _problem(one, dotted, parts, model, where)
    return list(found.values())


def _path(loc: tuple, data: Any) -> tuple:
    """Drops from an error's place what pydantic adds for the members of a union."""
    kept: list = []
    for part in loc:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and part in range(len(data))):
            data = data[part]
        elif not isinstance(data, dict) or part != loc[-1]:
            continue
        kept.append(part)
    return tuple(kept)


def _problem(one: Any, dotted: str, parts: tuple, model: type[BaseModel], where: Callable[[str], str]) -> Problem:
    place = where(dotted)
    if one["type"] == "problem":
        inner = one["ctx"]["problem"]
        what = f"{dotted}: {inner.what}" if dotted else inner.what
        return Problem(what, where=place, nearest=inner.nearest, hint=inner.hint)
    if one["type"] == "missing":
        what = f"{dotted} has too few items" if isinstance(one["loc"][-1], int) else f"{dotted} is missing"
        return Problem(what, where=place)
    if one["type"] == "extra_forbidden":
        fields = list(_model_at(model, parts[:-1]).model_fields)
        close = nearest(str(parts[-1]), fields)
        return Problem(f"unknown key {dotted!r}", where=place, nearest=close, hint=f"it may be: {', '.join(fields)}")
    said = one["msg"].replace("Input should", "should")
    said = said.replace("valid tuple", "list").replace("valid dictionary", "mapping")
    if bound := next((key for key in _BOUNDS if key in one.get("ctx", {})), None):
        said = f"should be {_BOUNDS[bound]} {one['ctx'][bound]:g}"
    return Problem(f"{dotted}: {said}, not {one['input']!r}", where=place)


def _model_at(model: type[BaseModel], parts: tuple) -> type[BaseModel]:
    """Returns the model that a path inside `model` leads to."""
    for part in parts:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = next(_models(field.annotation), model)
    return model


def _models(annotation: Any):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)

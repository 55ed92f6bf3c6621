"""What was asked of a cell, as its record keeps it, and whether its experiment asks the same today.

A record states every setting, defaults written out. The harness may have gained settings since, so the record is read
by the rules of today (`spec.sections`) before it is compared: a setting that it lacks, and an option that one of its
choices lacks, counts as today's default. What it does state must be the same: another value, another default or a
setting that is gone is a difference.

That a new option's default changes no result is the promise of who adds it; where it does change results, the stage's
VERSION is bumped, and a record that another VERSION made differs too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness import rooms
from harness.problems import Problem
from harness.runs.decides import HANDLING
from harness.runs.keys import version

if TYPE_CHECKING:
    from harness.spec.grid import Cell

PREVIOUS = "previous"
"""Under which key stand, in a chain, the settings of the cell whose trained weights this one is pruned from."""


def settings(cell: Cell) -> dict[str, Any]:
    """Returns all that was asked of a cell, in a chain also of the cells before it, ready for JSON.

    How often to checkpoint changes no result and is left out.
    """
    asked = {name: _without_handling(section) for name, section in cell.settings.items()}
    return asked | ({PREVIOUS: settings(cell.previous)} if cell.previous else {})


def agrees(record: Mapping[str, Any], cell: Cell) -> bool:
    """Says whether a record is of what is asked of a cell today."""
    return not differences(record, cell)


def differences(record: Mapping[str, Any], cell: Cell) -> list[str]:
    """Returns in what a record's settings differ from those of a cell today: "prune.samples 64, now 128"."""
    return [*_between(record["settings"], settings(cell)), *_other_versions(record["stages"])]


def _without_handling(section: Any) -> Any:
    if not isinstance(section, Mapping):
        return section
    return {name: value for name, value in section.items() if name not in HANDLING}


def _between(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the differences of two cells' settings."""
    from harness.spec.sections import SECTIONS

    for name in {**now, **then}:
        before, after, dotted = then.get(name), now.get(name), prefix + name
        if name == PREVIOUS and before and after:
            yield from _between(before, after, f"{PREVIOUS}.")
        elif name == "evaluate" and isinstance(before, Mapping):
            for each in {**after, **before}:
                yield from _of_section("evaluate", f"{dotted}.{each}", before.get(each), after.get(each))
        elif name in SECTIONS:
            yield from _of_section(name, dotted, before, after)
        elif before != after:
            yield _said(dotted, before, after)


def _of_section(kind: str, dotted: str, then: Any, now: Mapping[str, Any] | None) -> Iterator[str]:
    """Yields the differences of a section: what is recorded is completed by the rules of today, then compared."""
    from pydantic import ValidationError

    from harness.spec.faults import problems_of
    from harness.spec.sections import SECTIONS

    if then is None or now is None:
        if then is not now:
            yield _said(dotted, then, now)
        return
    try:
        then = _without_handling(SECTIONS[kind].model_validate(then).model_dump(mode="json"))
    except ValidationError as error:
        for problem in problems_of(error, then, SECTIONS[kind], lambda _: "", dotted):
            yield f"{problem.what} today"
        return
    for name, value in now.items():
        if then[name] != value:
            yield _said(f"{dotted}.{name}", then[name], value)


def _other_versions(stages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields the stages whose VERSION was another when the record was made."""
    found = {role.partition("/")[0]: stage.get("version") for role, stage in stages.items()}
    for name, then in found.items():
        if then != (now := version(name)):
            yield f"version {then} of {name}, now {now}"


def _said(dotted: str, then: Any, now: Any) -> str:
    """Returns a difference in words; of two choices of one method only the options that differ."""
    if isinstance(then, str) and isinstance(now, str) and (options := _options(then, now)):
        then, now = options
    before, after = ("none" if one is None else "given" if isinstance(one, Mapping) else one for one in (then, now))
    return f"{dotted} {before}, now {after}"


def _options(then: str, now: str) -> tuple[str, str] | None:
    """Returns the options in which two choices of one method differ; None for any other texts."""
    try:
        before, after = rooms.parse(then), rooms.parse(now)
    except Problem:
        return None
    if before.name != after.name or "+" in then + now:
        return None
    other = [name for name in after.options if before.options.get(name) != after.options[name]]
    return tuple(",".join(f"{name}={one.options.get(name)}" for name in other) for one in (before, after))

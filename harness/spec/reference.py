"""The paper's numbers beside the cells that must meet them, each with the place where it was read.

A number that could not be read stays an explicit blank: `value: null` with what was looked through in `read`. What the
paper says of no cell (its hardware's seconds, a method that is not here) stands in `facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any

from pydantic import BaseModel, Field, field_validator, model_validator

from harness.problems import Problem, nearest
from harness.spec.choices import fault
from harness.spec.sections import STRICT


class PaperCell(BaseModel):
    """The paper's number for one cell, or that there is none to be had."""

    model_config = STRICT

    value: float | None = Field(description="The number as printed, in the reference's unit; null for one not found.")
    read: str | None = Field(None, description="Where it was read, or looked for; by default the reference's own.")
    plus_minus: float | None = Field(None, ge=0, description="The paper's spread, as printed.")


class Fact(BaseModel):
    """Something that a paper or its authors say and that is of no cell: shown beside the cells, compared with none."""

    model_config = STRICT

    name: str = Field(min_length=1, description="What is said, as in 'SPP, checkpointed: peak memory'.")
    value: float | str | None = Field(description="The number, or the word; null for one not found.")
    unit: str = Field("", description="The number's unit.")
    read: str | None = Field(None, description="Where it was read, or looked for; by default the reference's own.")

    @property
    def shown(self) -> str:
        """The value with its unit, or that there is none."""
        number = f"{self.value:.10g}" if isinstance(self.value, float) else self.value
        return "not found" if number is None else f"{number}{'' if self.unit in ('', '%', 'x') else ' '}{self.unit}"


class Reference(BaseModel):
    """The paper's numbers for one metric, by the label of our cell, and what it says of no cell."""

    model_config = STRICT

    metric: str = Field(description="The evaluation (or evaluation.score) that the numbers are to be compared with.")
    unit: str = Field("", description="The unit of the numbers as printed, such as %.")
    factor: float = Field(1.0, gt=0, description="A printed number times this stands in our metric's unit.")
    read: str | None = Field(None, description="The place where numbers without a `read` of their own were read.")
    cells: dict[str, PaperCell] = Field({}, description="The numbers by cell label, as in 0.6/squarehead.")
    also: Annotated[tuple[Reference, ...], Field(strict=False)] = Field(
        (), description="The paper's numbers for further metrics, each a reference of its own; blanks may be left out."
    )
    facts: Annotated[tuple[Fact, ...], Field(strict=False)] = Field(
        (), description="What the paper or its authors say that is of no cell."
    )

    @field_validator("cells", mode="before")
    @classmethod
    def _bare_numbers(cls, cells: Any) -> Any:
        """A bare number (or null) is short for a cell whose place is the reference's."""
        if not isinstance(cells, dict):
            return cells
        return {k: {"value": v} if isinstance(v, int | float | None) else v for k, v in cells.items()}

    @model_validator(mode="after")
    def _each_was_read(self) -> Reference:
        said = {f"cells.{label}": cell for label, cell in self.cells.items()}
        said |= {f"facts.{i}": fact for i, fact in enumerate(self.facts)}
        if not said:
            raise fault(Problem("it says nothing", hint="give cells, facts, or both"))
        for place, one in said.items():
            if not (one.read or self.read):
                hint = "say where: read: 'Table 3'; for a blank: read: 'not found'"
                raise fault(Problem("the place where this was read is missing", hint=hint), place)
        return self

    @property
    def every(self) -> tuple[Reference, ...]:
        """The reference itself and those for further metrics."""
        return (self, *self.also)

    def read_at(self, label: str) -> str:
        """Returns the place where a cell's number was read."""
        return self.cells[label].read or self.read or ""

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns each fact of every reference as texts: what is said, its value with the unit, where it was read."""
        return [(fact.name, fact.shown, fact.read or one.read or "") for one in self.every for fact in one.facts]


def check(
    reference: Reference, labels: Iterable[str], metrics: Iterable[str], where: Callable[[str], str]
) -> list[Problem]:
    """Returns what is wrong with the names in a reference.

    Args:
        reference: The paper's numbers.
        labels: The labels of all cells there are.
        metrics: The names of the entry's evaluations and their metrics.
        where: Returns the place of a dotted key.
    """
    labels, metrics = dict.fromkeys(labels), sorted(set(metrics))
    places = ["reference", *(f"reference.also.{i}" for i in range(len(reference.also)))]
    pairs = zip(reference.every, places, strict=True)
    return [problem for one, place in pairs for problem in _wrong(one, place, labels, metrics, where)]


def _wrong(
    reference: Reference, place: str, labels: Collection[str], metrics: list[str], where: Callable[[str], str]
) -> list[Problem]:
    problems = [
        Problem(
            f"{place}.cells: no cell is called {label!r}",
            where=where(f"{place}.cells.{label}"),
            nearest=nearest(label, labels),
            hint="a cell is called by its labels in the order of the grid, as in 0.6/squarehead, dense, 0.6/one_shot",
        )
        for label in reference.cells
        if label not in labels
    ]
    name = reference.metric.partition(".")[0]
    if name not in metrics:
        what = f"{place}.metric: no evaluation is called {name!r}"
        hint = f"there is: {', '.join(metrics)}"
        problems.append(Problem(what, where=where(f"{place}.metric"), nearest=nearest(name, metrics), hint=hint))
    return problems

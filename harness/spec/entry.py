"""An experiment: one YAML file at one scale, checked, with the place of everything it says.

read(name, scale)   the entry, or the first problem          check(name)   every problem of every scale
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator

from harness.problems import Problem
from harness.spec import claims as orderings
from harness.spec import grid, listing, merge, yaml_lines
from harness.spec import reference as references
from harness.spec.axes import Axis, axes_of
from harness.spec.choices import fault
from harness.spec.claims import Claim
from harness.spec.faults import problems_of
from harness.spec.sections import LARGEST_SEED, SECTIONS, STRICT


class Paper(BaseModel):
    """The paper that an entry reproduces."""

    model_config = STRICT

    id: str = Field(description="Where it is published: arXiv:2310.06927.")
    name: str = Field(description="The short name of its method.")
    table: str | None = Field(None, description="The table or figure that the entry reproduces; null for none.")


class Case(BaseModel):
    """Settings that follow from the values of axes."""

    model_config = STRICT

    when: dict[str, Any] = Field(min_length=1, description="Axis to its values or labels; all must hold.")
    set: dict[str, Any] = Field(min_length=1, description="Setting by dotted name to its value.")


class Entry(BaseModel):
    """One experiment at one scale. Sections are parts here; a cell of the grid completes them."""

    model_config = STRICT

    title: str = Field(description="What is shown, in a line.")
    paper: Paper | None = Field(None, description="The paper that it stands in; null for none.")
    model: str = Field(description="org/name, org/name@revision, a folder, or tiny/family.")
    data: str | None = Field(None, description="The data set.")
    task: str = Field(description="How rows become examples, and how the model is judged on them.")
    prepare: dict[str, Any] | None = Field(None, description="The dense fine-tuning; null to take the model as it is.")
    prune: dict[str, Any] | None = Field(None, description="The pruning.")
    pretrain: dict[str, Any] | None = Field(None, description="Sparse pretraining before tune; null for none.")
    tune: dict[str, Any] | None = Field(None, description="The sparse fine-tuning; null for pruning only.")
    quantize: dict[str, Any] | None = Field(None, description="The quantisation of the result; null for none.")
    evaluate: dict[str, dict[str, Any] | None] = Field(
        {}, description="Evaluations by name; by default the task's own, and none in an entry that measures."
    )
    measure: dict[str, Any] | None = Field(None, description="How fast the result generates; null for not measured.")
    grid: dict[str, list | dict[str, Any]] = Field({}, description="The axes, in the order of the cells' labels.")
    cases: Annotated[tuple[Case, ...], Field(strict=False)] = Field((), description="Settings that follow from values.")
    chain: str | None = Field(None, description="The axis along which a cell starts from the trained one before it.")
    baselines: Annotated[tuple[Literal["dense", "one_shot", "pretrained"], ...], Field(strict=False)] = Field(
        ("dense", "one_shot"),
        description="dense: not pruned. one_shot: pruned, not trained. pretrained: not tuned on the task.",
    )
    seeds: Annotated[tuple[int, ...] | None, Field(strict=False)] = Field(
        None, description="One repetition each: the seed of tune; where nothing is tuned, of pretrain, else of prune."
    )
    reference: references.Reference | None = Field(None, description="The paper's numbers.")
    claims: Annotated[tuple[str, ...], Field(strict=False)] = Field((), description="The paper's orderings.")

    _name: str = PrivateAttr("")
    _scale: str = PrivateAttr("")
    _merged: merge.Merged = PrivateAttr()
    _top: Entry | None = PrivateAttr(None)

    @field_validator("evaluate")
    @classmethod
    def _named(cls, evaluate: dict[str, Any]) -> dict[str, Any]:
        for name in evaluate:
            if name in SECTIONS:
                raise fault(Problem(f"{name!r} cannot name an evaluation: it is a section"), name)
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
                hint = "letters, digits and _.- after a letter"
                raise fault(Problem(f"{name!r} cannot name an evaluation", hint=hint), name)
        return evaluate

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is None:
            return None
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) > LARGEST_SEED:
            text = f"seeds are one or more distinct whole numbers from 0 to {LARGEST_SEED}, unlike {list(seeds)}"
            raise fault(Problem(text))
        return seeds

    @property
    def name(self) -> str:
        """The entry's name: its path below the experiments folder."""
        return self._name

    @property
    def scale(self) -> str:
        """The scale it was read at."""
        return self._scale

    @property
    def top(self) -> Entry:
        """The entry at its own top level, without a scale's or the command line's changes."""
        return self._top or self

    @property
    def evaluations(self) -> tuple[str, ...]:
        """The names of its evaluations."""
        own = () if self.measure is not None else (self.task.partition(":")[0],)
        return tuple(self.evaluate) or own

    @property
    def judged(self) -> tuple[str, ...]:
        """What it has scores of: its evaluations, and the measuring."""
        return (*self.evaluations, *(("measure",) if self.measure is not None else ()))

    @functools.cached_property
    def axes(self) -> tuple[list[Axis], list[Problem]]:
        """The axes of its grid, and what is wrong with those that are left out."""
        return axes_of(self)

    @functools.cached_property
    def expanded(self) -> tuple[list[grid.Cell], list[Problem]]:
        """Its cells, and everything that is wrong with them."""
        return grid.expand(self)

    def where(self, dotted: str) -> str:
        """Returns the place, `file:line` or `--set ...`, of a dotted key or of the nearest thing around it."""
        return self._merged.where(dotted)

    def has(self, dotted: str) -> bool:
        """Says whether the file, its scale or the command line states this key itself."""
        return dotted in self._merged.places


def scales(name: str, root: Path | None = None) -> tuple[str, ...]:
    """Returns an entry's scales, the one of its top level first."""
    return listing.headline(listing.path_of(name, root)).scales


def read(name: str, scale: str | None = None, root: Path | None = None, set: Iterable[str] = ()) -> Entry:
    """Reads an entry.

    Args:
        name: Its path below the experiments folder, `squarehead/t5-wmt14`.
        scale: One of its scales; by default its top level.
        root: The experiments folder; found by default.
        set: `name=value` texts that override settings.

    Raises:
        Problem: The first of what is wrong with it, its cells, references and claims included.
    """
    document = yaml_lines.load(listing.path_of(name, root))
    return _sound(name, document, scale, tuple(set), _top(document))


def read_each(name: str, scale: str | None = None, root: Path | None = None) -> list[Entry]:
    """Reads an entry at every scale, the one of its top level first, or at one of them alone, where it has that.

    Raises:
        Problem: As `read`.
    """
    document = yaml_lines.load(listing.path_of(name, root))
    top, asked = _top(document), [each for each in listing.scales_of(document.data) if scale in (None, each)]
    return [_sound(name, document, each, (), top) for each in asked]


def _sound(
    name: str, document: yaml_lines.Document, scale: str | None, set: tuple[str, ...], top: Entry | list[Problem]
) -> Entry:
    """Returns an entry at a scale, or raises the first of what is wrong with it."""
    entry, problems = _at(name, document, scale, set, top)
    if entry is None or problems:
        first, *others = problems
        all_of_them = "" if set else f": harness check {name}"  # which knows nothing of --set
        more = f"and {len(others)} more{all_of_them}" if others else None
        hint = "\n  ".join(filter(None, (first.hint, more))) or None
        raise Problem(first.what, where=first.where, nearest=first.nearest, hint=hint)
    return entry


def check(name: str, root: Path | None = None) -> list[Problem]:
    """Returns every problem of an entry over all its scales; an empty list for a good one."""
    path = listing.path_of(name, root)
    try:
        document = yaml_lines.load(path)
    except Problem as problem:
        return [problem]
    top, known = _top(document), listing.scales_of(document.data)
    return _each_once(problem for scale in known for problem in _at(name, document, scale, (), top)[1])


def _each_once(problems: Iterable[Problem]) -> list[Problem]:
    """Returns problems by what they say: of those that stand at several places, the first with the other places."""
    places: dict[str, dict[str, Problem]] = {}
    for problem in problems:
        places.setdefault(problem.what, {}).setdefault(problem.where, problem)
    found = []
    for first, *others in (list(each.values()) for each in places.values()):
        also = f"also at {', '.join(other.where for other in others)}" if others else None
        hint = "\n  ".join(filter(None, (first.hint, also))) or None
        found.append(Problem(first.what, where=first.where, nearest=first.nearest, hint=hint))
    return found


def claims(entry: Entry) -> list[Claim]:
    """Returns an entry's claims, without those about cells that only its top level has."""
    return _claims(entry)[0]


def _at(
    name: str, document: yaml_lines.Document, scale: str | None, set: Iterable[str], top: Entry | list[Problem]
) -> tuple[Entry | None, list[Problem]]:
    """Returns an entry at a scale (None for its top level) and what is wrong with it; `top` is what `_top` returned."""
    first = listing.scales_of(document.data)[0]
    try:
        merged = merge.override(merge.at_scale(document, scale or first), set)
        own = isinstance(top, Entry) and scale in (None, first) and merged == top._merged
        entry, problems = (top, []) if own else _validated(merged)
    except Problem as problem:
        return None, [problem]
    if entry is None or not isinstance(top, Entry):
        return None, problems or top
    entry._name, entry._scale, entry._top = name, scale or first, top
    return entry, entry.expanded[1] or [*_wrong_references(entry), *_claims(entry)[1]]


def _top(document: yaml_lines.Document) -> Entry | list[Problem]:
    """Returns an entry at its own top level, or what is wrong with it."""
    try:
        entry, problems = _validated(merge.at_scale(document, listing.scales_of(document.data)[0]))
    except Problem as problem:
        return [problem]
    return entry or problems


def _validated(merged: merge.Merged) -> tuple[Entry | None, list[Problem]]:
    try:
        entry = Entry.model_validate(merged.data)
    except ValidationError as error:
        return None, problems_of(error, merged.data, Entry, merged.where)
    entry._merged = merged
    return entry, []


def _wrong_references(entry: Entry) -> list[Problem]:
    if entry.reference is None:
        return []
    both = {id(one): one for one in (entry, entry.top)}.values()
    labels = [cell.label for one in both for cell in one.expanded[0]]
    judged = [name for one in both for name in one.judged]
    return references.check(entry.reference, dict.fromkeys(labels), judged, entry.where)


def _claims(entry: Entry) -> tuple[list[Claim], list[Problem]]:
    read = [_claim_reader(one) for one in {id(e): e for e in (entry, entry.top)}.values()]
    found, problems = [], []
    for i, text in enumerate(entry.claims):
        where = entry.where(f"claims.{i}")
        try:
            found.append(read[0](text, where))
        except Problem as problem:
            try:
                read[-1](text, where)
            except Problem:
                problems.append(problem)
    return found, problems


def _claim_reader(entry: Entry) -> Callable[[str, str], Claim]:
    """Returns the function that reads a claim, given its place, about the cells of an entry at its scale."""
    axes, cells = entry.axes[0], entry.expanded[0]

    def read(text: str, where: str) -> Claim:
        claim = orderings.parse(text, axes, entry.baselines, where)
        orderings.check(claim, axes, cells, where)
        return claim

    return read

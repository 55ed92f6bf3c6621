"""The section `prune`: what is pruned, how, and what it is calibrated on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from harness import rooms
from harness.problems import Problem
from harness.spec.choices import Data, Task, agree, fault, one_of
from harness.spec.sections.shared import LARGEST_SEED, STRICT, TASK, Count

LEAST = 1e-4
"""The lowest sparsity above 0, and the lowest share of weights that stays."""


class Prune(BaseModel):
    """The pruning: a criterion (which weights matter) or a solver (mask and weights together), and its calibration."""

    model_config = STRICT

    start: Literal["dense", "base"] = Field(
        "dense",
        description="What is pruned: dense, what prepare made; base, the model as it came, prepare making the teacher.",
    )
    data: Data = Field(description="Calibration data; the entry's own by default.")
    task: Task = Field(description=TASK)
    split: str = Field("train", description="The split that calibrates.")
    rows: Count | None = Field(None, description="Only the first so many rows of the split; null for all.")
    criterion: Annotated[str, one_of("criterion")] | None = Field(None, description="Which weights matter, by score.")
    solver: Annotated[str, one_of("solver")] | None = Field(None, description="Mask and weights together.")
    pattern: Annotated[str, one_of("pattern")] = Field(
        "unstructured", validate_default=True, description="What shape the zeros take; 2:4 keeps 2 of 4."
    )
    sparsity: float | None = Field(
        None, validate_default=True, description="Fraction of zeros, at least 0 and below 1; an N:M pattern gives it."
    )
    refiner: Annotated[str, one_of("refiner")] | None = Field(None, description="Swaps pruned weights for kept ones.")
    allocation: Annotated[str, one_of("allocation")] = Field(
        "uniform", validate_default=True, description="How the sparsity is spread over the layers."
    )
    ramp: Annotated[str, one_of("ramp")] = Field(
        "one_shot", validate_default=True, description="Over which sparsities it goes, a walk for each."
    )
    skip: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Layers that stay dense, by globs of their names; the sparsity is that of the others."
    )
    samples: Count = Field(128, description="Calibration examples.")
    batch_size: Count = Field(4, description="Calibration examples per forward pass.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seeds the choice of the calibration examples.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="The weights' type from here on.")
    search_data: Data | None = Field(None, description="What a searching allocation is judged on; null: the data.")
    search_task: Task | None = Field(None, description="How the search's rows become examples; null: the task.")
    search_split: str = Field(
        "validation", description="The split that a search is judged on; on test it tunes what is reported."
    )
    search_limit: Count | None = Field(None, description="Only the first so many of its examples; null for all.")

    @field_validator("pattern")
    @classmethod
    def _keeps_some(cls, pattern: str) -> str:
        options = rooms.parse(pattern).options
        if {"n", "m"} <= options.keys() and not 1 <= options["n"] <= options["m"]:
            text = f"{options['n']}:{options['m']} cannot be: N:M keeps N of M weights, so 1 <= N <= M"
            raise fault(Problem(text, hint="2:4 keeps 2 of 4"))
        return pattern

    @field_validator("sparsity")
    @classmethod
    def _in_range(cls, sparsity: float | None, info: ValidationInfo) -> float | None:
        if sparsity is not None and not 0 <= sparsity < 1:
            hint = f"for {sparsity:g}% write {sparsity / 100:g}" if 1 < sparsity < 100 else None
            raise fault(Problem(f"sparsity is at least 0 and below 1, not {sparsity}", hint=hint))
        if sparsity and not LEAST <= sparsity <= 1 - LEAST:
            text = f"a sparsity of {sparsity:g} leaves hardly a weight to prune or to keep"
            raise fault(Problem(text, hint=f"from {LEAST:g} to {1 - LEAST:g}, or 0"))
        if "pattern" not in info.data:
            return sparsity
        options = rooms.parse(info.data["pattern"]).options
        given = 1 - options["n"] / options["m"] if {"n", "m"} <= options.keys() else None
        if given is None and sparsity is None:
            raise fault(Problem("it is missing", hint="for example sparsity: 0.5"))
        if given is not None and sparsity is not None and abs(given - sparsity) > 1e-6:
            text = f"{options['n']}:{options['m']} keeps {options['n']} of {options['m']}: its sparsity is {given:g}"
            raise fault(Problem(f"{text}, not {sparsity:g}", hint="leave sparsity out"))
        return sparsity if given is None else given

    @model_validator(mode="after")
    def _consistent(self) -> Prune:
        if (self.criterion is None) == (self.solver is None):
            raise fault(Problem("give exactly one of criterion and solver", hint="for example solver: sparsegpt"))
        agree(self.data, self.task, trains=True)
        self._search_agrees()
        self._fits_together()
        return self

    def _search_agrees(self) -> None:
        try:
            agree(self.search_data or self.data, self.search_task or self.task, trains=True)
        except PydanticCustomError as error:
            raise fault(error.context["problem"], f"search_{error.context['key']}") from error

    def _fits_together(self) -> None:
        """Refuses methods that cannot go together, whatever the model."""
        pattern, allocation, ramp = (rooms.parse(text) for text in (self.pattern, self.allocation, self.ramp))
        fixes = {"n", "m"} <= pattern.options.keys()
        if fixes and allocation.name != "uniform":
            text = f"{allocation.name} gives every layer its own sparsity, and {_short(pattern)} fixes it"
            hint = f"mixed_nm:m={pattern.options['m']} has another N in every layer"
            raise fault(Problem(text, hint=hint), "allocation")
        if fixes and ramp.name != "one_shot":
            raise fault(Problem(f"{ramp.name} goes over several sparsities, and {_short(pattern)} has one"), "ramp")
        if "scores" in rooms.ROOMS["allocation"].method(allocation.name).needs and self.solver:
            text = f"{allocation.name} compares the scores of a criterion, and a solver has none"
            raise fault(Problem(text, hint="write criterion: in place of solver:"), "allocation")
        if self.refiner:
            self._can_be_refined(pattern.name)
        try:
            rooms.bind("ramp", ramp)(self.sparsity)
        except Problem as problem:
            raise fault(problem, "ramp") from problem

    def _can_be_refined(self, pattern: str) -> None:
        name = rooms.parse(self.refiner).name
        keeps = rooms.ROOMS["refiner"].method(name).constants["PATTERNS"]
        if self.solver:
            text = f"{name} edits the mask of a criterion; {rooms.parse(self.solver).name} has changed the weights too"
            raise fault(Problem(text, hint="criterion: sparsegpt is the mask of SparseGPT alone"), "refiner")
        if pattern not in keeps:
            text = f"{name} breaks the pattern {pattern}"
            raise fault(Problem(text, hint="it keeps: " + ", ".join(keeps)), "refiner")


def _short(pattern: rooms.Choice) -> str:
    return f"{pattern.options['n']}:{pattern.options['m']}"

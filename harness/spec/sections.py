"""The sections of an experiment: what each stage may be told, with its defaults, checked against the rooms.

A choice (criterion, loss, task, ...) is written `name` or `name:option=value,...` and comes out with every option
written out, because a result's key is made of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from harness import rooms
from harness.problems import Problem, nearest
from harness.spec.choices import Data, Loss, Task, agree, constant, fault, needs_teacher, one_of
from harness.spec.fits import wrong_metric

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
SETTINGS = ("model", "data", "task")
"""What the top of an entry gives every section."""
LARGEST_SEED = 2**32 - 1  # what every generator takes
LEAST = 1e-4
"""The lowest sparsity above 0, and the lowest share of weights that stays."""
ALTERNATIVES = {"steps": "epochs", "epochs": "steps", "criterion": "solver", "solver": "criterion"}
"""Keys of which a section has one: a later setting of the one replaces an earlier setting of the other."""

_DATA = "The data set; the entry's own by default or where null."
_TASK = "How rows become examples; the entry's own by default or where null."


class Training(BaseModel):
    """What the dense and the sparse fine-tuning share; one of steps and epochs."""

    model_config = STRICT

    data: Data = Field(description=_DATA)
    task: Task = Field(description=_TASK)
    split: str = Field("train", description="The split that is trained on.")
    rows: int | None = Field(None, ge=1, description="Only the first so many rows of the split; null for all.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps.")
    epochs: float | None = Field(None, ge=1e-4, le=1e6, description="Passes over the rows.")
    lr: float = Field(ge=1e-12, le=10, description="Peak learning rate.")
    warmup: int | float = Field(0, ge=0, description="Steps of linear warm-up, or a fraction of all steps below 1.")
    schedule: Annotated[str, one_of("schedule")] = Field(
        "linear", validate_default=True, description="What the learning rate does after the warm-up."
    )
    batch_size: int = Field(16, ge=1, description="Examples per optimiser step.")
    accumulation: int = Field(1, ge=1, description="Micro-batches that a step's examples are split into.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    betas: Annotated[tuple[float, float], Field(strict=False)] = Field((0.9, 0.999), description="AdamW's betas.")
    clip: float | None = Field(None, ge=1e-9, description="Largest norm of the gradient; null for no clipping.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of the forward pass.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seeds the order of the data and dropout.")
    checkpoint_every: int = Field(
        100, ge=1, description="Steps between the checkpoints that a killed run resumes from."
    )

    @field_validator("warmup")
    @classmethod
    def _steps_or_fraction(cls, warmup: int | float) -> int | float:
        if isinstance(warmup, float) and warmup >= 1:
            raise fault(Problem(f"{warmup} is no fraction below 1", hint="write whole steps without a point"))
        return warmup

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise fault(Problem(f"each beta is at least 0 and below 1, not {list(betas)}"))
        return betas

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise fault(Problem("give exactly one of steps and epochs", hint="set the other one to null"))
        if self.batch_size % self.accumulation:
            text = f"a batch of {self.batch_size} does not divide into {self.accumulation} micro-batches"
            fitting = [str(n) for n in range(1, self.batch_size + 1) if self.batch_size % n == 0]
            raise fault(Problem(text, hint=f"it divides into {', '.join(fitting)}"), "accumulation")
        if self.steps and isinstance(self.warmup, int) and self.warmup > self.steps:
            text = f"{self.warmup} steps of warm-up are more than the {self.steps} steps"
            raise fault(Problem(text, hint="below 1 it is a fraction of the steps: 0.1"), "warmup")
        if self.steps == 1 and round(self.warmup):
            raise fault(Problem("a single step that warms up has the rate 0", hint="leave warmup out"), "warmup")
        agree(self.data, self.task, trains=True)
        return self


class Prepare(Training):
    """The dense fine-tuning: it makes the teacher, and the weights that are pruned."""

    loss: Loss = Field("cross_entropy", validate_default=True, description="The loss, a sum of weighted terms.")

    @field_validator("loss")
    @classmethod
    def _without_teacher(cls, loss: str) -> str:
        if needs_teacher(loss):
            raise fault(Problem(f"{loss!r} needs a teacher, and the dense model is made here without one"))
        return loss


class Tune(Training):
    """The sparse fine-tuning: the pruned weights stay zero."""

    method: Annotated[str, one_of("method")] = Field(
        "masked", validate_default=True, description="What is trained, and how the zeros are held."
    )
    loss: Loss = Field(description="The loss: a sum of weighted terms, '0.5*cross_entropy + squarehead:eps=1e-9'.")
    teacher: Literal["dense"] | None = Field(
        "dense", validate_default=True, description="The teacher: dense, the model before pruning; null for none."
    )

    @field_validator("teacher")
    @classmethod
    def _where_needed(cls, teacher: str | None, info: ValidationInfo) -> str | None:
        """Leaves the teacher out where no term looks at it, so that nothing depends on it."""
        needed = needs_teacher(info.data["loss"]) if "loss" in info.data else teacher is not None
        if needed and teacher is None:
            raise fault(Problem(f"loss {info.data['loss']!r} needs one", hint="write teacher: dense, or drop the term"))
        return teacher if needed else None


class Prune(BaseModel):
    """The pruning: a criterion (which weights matter) or a solver (mask and weights together), and its calibration."""

    model_config = STRICT

    data: Data = Field(description="Calibration data; the entry's own by default.")
    task: Task = Field(description=_TASK)
    split: str = Field("train", description="The split that calibrates.")
    rows: int | None = Field(None, ge=1, description="Only the first so many rows of the split; null for all.")
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
    samples: int = Field(128, ge=1, description="Calibration examples.")
    batch_size: int = Field(8, ge=1, description="Calibration examples per forward pass.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seeds the choice of the calibration examples.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="The weights' type from here on.")
    search_data: Data | None = Field(None, description="What a searching allocation is judged on; null: the data.")
    search_task: Task | None = Field(None, description="How the search's rows become examples; null: the task.")
    search_split: str = Field(
        "validation", description="The split that a search is judged on; on test it tunes what is reported."
    )
    search_limit: int | None = Field(None, ge=1, description="Only the first so many of its examples; null for all.")

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


class Evaluation(BaseModel):
    """One named evaluation: a task on a data set, judged by a metric."""

    model_config = STRICT

    data: Data | None = Field(None, description=_DATA)
    task: Task = Field(description="The task; the entry's own by default.")
    split: str = Field("test", description="The split that is judged.")
    metric: Annotated[str, one_of("metric")] | None = Field(
        None, validate_default=True, description="The metric; the task's own by default."
    )
    limit: int | None = Field(None, ge=1, description="Only the first so many rows; null for all.")
    batch_size: int = Field(16, ge=1, description="Rows per forward pass.")

    @field_validator("metric", mode="before")
    @classmethod
    def _of_the_task(cls, metric: Any, info: ValidationInfo) -> Any:
        return constant("task", info.data["task"], "METRIC") if metric is None and "task" in info.data else metric

    @field_validator("metric")
    @classmethod
    def _reads_the_task(cls, metric: str | None, info: ValidationInfo) -> str | None:
        if metric and "task" in info.data and (wrong := wrong_metric(metric, info.data["task"].partition(":")[0])):
            raise fault(wrong)
        return metric

    @model_validator(mode="after")
    def _consistent(self) -> Evaluation:
        agree(self.data, self.task, trains=False)
        return self


SECTIONS: dict[str, type[BaseModel]] = {"prepare": Prepare, "prune": Prune, "tune": Tune, "evaluate": Evaluation}
"""The sections by their name in an entry; `evaluate` holds any number of them, by the evaluation's name."""


def lay(section: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a section with changes laid over it; what a change is the alternative of gives way to it."""
    given_way = {ALTERNATIVES.get(key) for key, value in changes.items() if value is not None} - changes.keys()
    return {key: value for key, value in section.items() if key not in given_way} | changes


def unknown_setting(dotted: str, evaluations: Iterable[str], more: Iterable[str] = ()) -> Problem | None:
    """Returns the problem with the name of a setting, or None where it is one.

    Args:
        dotted: `model`, `tune`, `tune.lr`, `evaluate.bleu.limit`.
        evaluations: The names of the entry's evaluations.
        more: Further names that count as settings here.
    """
    known = [*SETTINGS, *more, "prepare", "prune", "tune"]
    known += [f"{section}.{field}" for section in known[-3:] for field in SECTIONS[section].model_fields]
    known += [f"evaluate.{name}.{field}" for name in evaluations for field in Evaluation.model_fields]
    if dotted in known:
        return None
    hint = "a setting is written section.key, as in prune.sparsity or evaluate.bleu.limit"
    return Problem(f"unknown setting {dotted!r}", nearest=nearest(dotted, known), hint=hint)


def wrong_setting(dotted: str, value: Any, evaluations: Iterable[str]) -> Problem | None:
    """Returns what is wrong with a setting: its name, or a section that is given as anything but null or its keys."""
    if dotted in SECTIONS and value is not None:
        return Problem(f"{dotted} is a section: it is set key by key, or to null, not to {value!r}")
    return unknown_setting(dotted, evaluations)

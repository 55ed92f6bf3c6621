"""The sections that train: `prepare` (dense), `pretrain` and `tune` (sparse)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from harness import rooms
from harness.problems import Problem
from harness.spec.choices import Data, Loss, Task, agree, fault, needs_teacher, one_of
from harness.spec.sections.shared import DATA, LARGEST_SEED, STRICT, TASK, Count

LENGTHS = ("steps", "epochs", "tokens")
MOST_PARTS = 1000
"""Micro-batches up to which those that divide a batch are named."""


class Training(BaseModel):
    """What the dense and the sparse fine-tuning share; one of steps, epochs and tokens."""

    model_config = STRICT

    data: Data = Field(description=DATA)
    task: Task = Field(description=TASK)
    split: str = Field("train", description="The split that is trained on.")
    rows: Count | None = Field(None, description="Only the first so many rows of the split; null for all.")
    steps: Count | None = Field(None, description="Optimiser steps.")
    epochs: float | None = Field(None, ge=1e-4, le=1e6, description="Passes over the rows.")
    tokens: Count | None = Field(None, description="Tokens to train on, of text in windows of one length.")
    lr: float = Field(ge=1e-12, le=10, description="Peak learning rate.")
    warmup: int | float = Field(0, ge=0, description="Steps of linear warm-up, or a fraction of all steps below 1.")
    schedule: Annotated[str, one_of("schedule")] = Field(
        "linear", validate_default=True, description="What the learning rate does after the warm-up."
    )
    batch_size: Count = Field(16, description="Examples per optimiser step.")
    accumulation: Count = Field(1, description="Micro-batches that a step's examples are split into.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    betas: Annotated[tuple[float, float], Field(strict=False)] = Field((0.9, 0.999), description="AdamW's betas.")
    clip: float | None = Field(None, ge=1e-9, description="Largest norm of the gradient; null for no clipping.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Arithmetic of the forward pass.")
    recompute: bool = Field(False, description="Compute activations again in the backward pass: less memory, slower.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seeds the order of the data and dropout.")
    checkpoint_every: Count = Field(100, description="Steps between the checkpoints that a killed run resumes from.")

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
        if sum(length is not None for length in (self.steps, self.epochs, self.tokens)) != 1:
            raise fault(Problem("give exactly one of steps, epochs and tokens", hint="set the others to null"))
        if self.batch_size % self.accumulation:
            text = f"a batch of {self.batch_size} does not divide into {self.accumulation} micro-batches"
            fitting = [str(n) for n in range(1, min(self.batch_size, MOST_PARTS) + 1) if self.batch_size % n == 0]
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
    ramp: Annotated[str, one_of("ramp")] | None = Field(
        None, description="Prunes the dense model over these sparsities while it is tuned; null: it is pruned before."
    )
    restart: bool = Field(False, description="With a ramp: optimiser and schedule begin anew after every pruning.")
    last: float | None = Field(
        None, ge=1e-4, le=1, description="With a ramp: the share of the steps that follow its last pruning."
    )

    @field_validator("teacher")
    @classmethod
    def _where_needed(cls, teacher: str | None, info: ValidationInfo) -> str | None:
        """Leaves the teacher out where no term looks at it, so that nothing depends on it."""
        needed = needs_teacher(info.data["loss"]) if "loss" in info.data else teacher is not None
        if needed and teacher is None:
            raise fault(Problem(f"loss {info.data['loss']!r} needs one", hint="write teacher: dense, or drop the term"))
        return teacher if needed else None

    @model_validator(mode="after")
    def _can_be_pruned_meanwhile(self) -> Tune:
        name = rooms.parse(self.method).name
        method = rooms.ROOMS["method"].method(name)
        if self.ramp is None:
            if given := next((key for key in ("restart", "last") if getattr(self, key)), None):
                raise fault(Problem("it goes with a ramp, and there is none", hint="ramp: cubic"), given)
            options = rooms.resolve("method", self.method).options
            for option in method.constants.get("RAMPS", ()):
                if options[option] != method.options[option].default:
                    text = f"{name} looks at {option} after a pruning of a ramp, and there is none"
                    raise fault(Problem(text, hint=f"leave {option} out, or ramp: cubic"), "method")
        elif "evolve" in method.verbs:
            raise fault(Problem(f"{name} moves its own zeros: a ramp would be in its way", hint="ramp: null"), "ramp")
        elif method.constants.get("PRUNES") or method.constants.get("MERGES") is False:
            text = f"merged, what {name} trains is dense, so nothing can be pruned on the way"
            raise fault(Problem(text, hint="ramp: null, or a method whose result is sparse: losa, masked"), "ramp")
        return self


class Pretrain(Tune):
    """Sparse pretraining: the pruned model goes on learning from general text before it is fine-tuned on a task."""

    loss: Loss = Field("cross_entropy", validate_default=True, description="The loss, a sum of weighted terms.")

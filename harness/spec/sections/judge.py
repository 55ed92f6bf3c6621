"""The sections that judge a model: `evaluate`, by tasks and metrics, and `measure`, by time."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from harness.inference.baseline import baseline
from harness.spec.choices import Data, Task, agree, constant, fault, one_of
from harness.spec.fits import wrong_metric
from harness.spec.sections.shared import DATA, LARGEST_SEED, STRICT, Count


class Evaluation(BaseModel):
    """One named evaluation: a task on a data set, judged by a metric."""

    model_config = STRICT

    data: Data | None = Field(None, description=DATA)
    task: Task = Field(description="The task; the entry's own by default.")
    split: str = Field("test", description="The split that is judged.")
    metric: Annotated[str, one_of("metric")] | None = Field(
        None, validate_default=True, description="The metric; the task's own by default."
    )
    limit: Count | None = Field(None, description="Only the first so many rows; null for all.")
    batch_size: Count = Field(16, description="Rows per forward pass.")

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


class Measure(BaseModel):
    """The measuring: how fast an engine generates with the result, beside a dense one."""

    model_config = STRICT

    engine: Annotated[str, one_of("engine")] = Field(
        "packed", validate_default=True, description="What runs the model."
    )
    against: Annotated[str, one_of("engine")] | None = Field(
        None,
        validate_default=True,
        description="What speed-ups are over, with the same weights; dense float32, for a GPU's engine bfloat16.",
    )
    batch: Count = Field(1, description="Rows at once.")
    prompt: Count = Field(128, description="Tokens read before the first is generated; speech fills its window.")
    tokens: int = Field(32, ge=2, description="Tokens generated.")
    repeats: Count = Field(7, description="Rounds, in which both engines take their turn.")
    warmup: int = Field(1, ge=0, description="Rounds before them that do not count.")
    threads: Count | None = Field(None, description="Threads of the CPU; null for as many as torch takes.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Draws the prompt.")

    @field_validator("against", mode="before")
    @classmethod
    def _of_the_engine(cls, against: Any, info: ValidationInfo) -> Any:
        return baseline([info.data["engine"]]) if against is None and "engine" in info.data else against

"""The section `quantize`: how weights and activations are rounded after pruning and tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from harness.spec.choices import Data, Task, agree, one_of
from harness.spec.sections.shared import LARGEST_SEED, STRICT, TASK, Count


class Quantize(BaseModel):
    """The quantisation of the pruned and tuned model: its weights, and the inputs of its layers while it runs."""

    model_config = STRICT

    rounding: Annotated[str, one_of("rounding")] = Field(
        "rtn", validate_default=True, description="Which value of the grid each weight takes; zeros stay zero."
    )
    bits: int = Field(8, ge=2, le=8, description="Bits of a weight.")
    group: Count | None = Field(None, description="Inputs that share a scale; null: a row has one.")
    symmetric: bool = Field(True, description="Whether the values of a weight lie evenly about 0.")
    activations: Literal["none", "dynamic", "static"] = Field(
        "none", description="Inputs in 8 bits: dynamic, by token; static, by the range that calibration saw."
    )
    smooth: float | None = Field(
        None, ge=0, le=1, description="SmoothQuant's migration strength, 0.5 in its paper; null for none."
    )
    embeddings: bool = Field(False, description="Whether the input embedding is rounded too: 8 bits, weights only.")
    skip: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Layers that stay as they are, by globs of their names."
    )
    data: Data = Field(description="Calibration data; the entry's own by default.")
    task: Task = Field(description=TASK)
    split: str = Field("train", description="The split that calibrates.")
    rows: Count | None = Field(None, description="Only the first so many rows of the split; null for all.")
    samples: Count = Field(128, description="Calibration examples.")
    batch_size: Count = Field(4, description="Calibration examples per forward pass.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seeds the choice of the calibration examples.")

    @model_validator(mode="after")
    def _consistent(self) -> Quantize:
        agree(self.data, self.task, trains=True)
        return self

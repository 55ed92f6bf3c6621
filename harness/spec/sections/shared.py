"""What the sections share: how strictly they are read, and how their common keys are described."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
LARGEST_SEED = 2**32 - 1  # what every generator takes
LARGEST = 2**53 - 1  # what every reader of JSON holds exactly; beyond 2**63 Python itself cannot count steps
Count = Annotated[int, Field(ge=1, le=LARGEST)]
DATA = "The data set; the entry's own by default or where null."
TASK = "How rows become examples; the entry's own by default or where null."

"""What the sections share: how strictly they are read, and how their common keys are described."""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
LARGEST_SEED = 2**32 - 1  # what every generator takes
DATA = "The data set; the entry's own by default or where null."
TASK = "How rows become examples; the entry's own by default or where null."

"""What a stage is given and what it reports: the two types between `runs` and `stages`.

A stage module holds `VERSION = 1`, bumped by hand when the same options give other results (`keys`), and `run(job)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from harness.sources import Source


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `total` units, with the values measured since the last report."""

    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    unit: str = "step"


@dataclass(frozen=True)
class Job:
    """One stage to compute.

    Attributes:
        options: The stage's resolved options, defaults written out: the section of the entry as JSON values.
        parents: By role ("model", "teacher"): the verified folder of the stage it comes from, or, where the entry
            prepares nothing, the source of the model itself. `harness.models.load` takes either.
        folder: An empty folder; all that is in it at the end is the result.
        scratch: A folder that survives a kill, for checkpoints; it is removed when the stage is done.
    """

    options: Mapping[str, Any]
    parents: Mapping[str, Path | Source]
    folder: Path
    scratch: Path


class StageModule(Protocol):
    """A module of `harness.stages`."""

    VERSION: int

    def run(self, job: Job) -> Iterator[Progress]:
        """Computes the stage into `job.folder`, reporting as it goes."""

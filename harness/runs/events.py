"""What `execute` tells while it carries out a plan; progress bars and MLflow only listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.runs.job import Progress
from harness.runs.keys import Stage

if TYPE_CHECKING:
    from harness.spec.grid import Cell


@dataclass(frozen=True)
class StageStarted:
    """A stage begins, or goes on from its checkpoint; `cells` need it."""

    stage: Stage
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class StageProgress:
    """A stage reports."""

    stage: Stage
    progress: Progress


@dataclass(frozen=True)
class StageDone:
    """A stage's result lies in `folder`; it took `seconds` to compute, now or (`cached`) earlier."""

    stage: Stage
    folder: Path
    seconds: float
    cached: bool


@dataclass(frozen=True)
class StageFailed:
    """A stage failed, now or `earlier`, and with it `cells`. `log` holds the traceback of an unexpected error."""

    stage: Stage
    message: str
    cells: tuple[Cell, ...]
    log: Path | None = None
    earlier: bool = False


@dataclass(frozen=True)
class StageWaiting:
    """A stage is computed by somebody else (`holder`); it is looked at again when nothing else is left to do."""

    stage: Stage
    holder: str


@dataclass(frozen=True)
class WeightsFreed:
    """The weights of a finished stage were freed, so many bytes; `trouble` is why they could not be."""

    stage: Stage
    size: int
    trouble: str | None


@dataclass(frozen=True)
class CellDone:
    """All stages of a cell are done; `folders` by role: prepare, prune, pretrain, tune, evaluate/<name>."""

    cell: Cell
    folders: Mapping[str, Path]


@dataclass(frozen=True)
class CellFailed:
    """A cell cannot be completed, because of `stage`."""

    cell: Cell
    stage: Stage
    message: str


Event = StageStarted | StageProgress | StageDone | StageFailed | StageWaiting | WeightsFreed | CellDone | CellFailed

"""What stages will take, about: seconds and peak memory, without torch and without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.runs.estimates import pruning, training
from harness.runs.processes import ALONE, TRAINS, Processes

if TYPE_CHECKING:
    from harness.runs.estimates.figures import Estimate
    from harness.runs.keys import Stage


def of_stage(stage: Stage, processes: Processes = ALONE) -> Estimate | None:
    """Estimates a stage; None for one that starts from a model that is made here, or that is no work of this kind.

    Args:
        stage: Pruning or training.
        processes: In how many processes training stages are computed.
    """
    if stage.name not in ("prune", *TRAINS):
        return None
    parent: Any = stage
    while parent.parents:
        parent = parent.parents["model"]
    if "model" not in parent.sources:
        return None
    options, source = {**stage.handling, **stage.options}, parent.sources["model"]
    if stage.name == "prune":
        return pruning.estimate(options, source)
    return training.estimate(options, source, processes)

"""The pruning stage: calibrate, walk the blocks, prune every linear, write model, mask and `prune.json`.

The mask is always chosen from scratch, as in SquareHead's released code (arXiv:2310.06927). Where the model was pruned
before (a chain of growing sparsities), the share of its zeros that came back to life is written down: SparseGPT's
compensation revives some.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from harness import models, rooms
from harness.device import device
from harness.memory import freed_kept
from harness.pruning import keep
from harness.runs.job import Job, Progress
from harness.stages._load import changeable, verify_written
from harness.stages._pruner import pruner

VERSION = 1
FILE = "prune.json"


def run(job: Job) -> Iterator[Progress]:
    """Prunes `job.parents["model"]` into `job.folder`, reporting after every block."""
    options, source = job.options, job.parents["model"]
    model, processor = changeable(source, options["dtype"]).to(device()), models.load_processor(source)
    pruned = pruner(options, model, processor)
    targets, blocks = rooms.bind("ramp", options["ramp"])(options["sparsity"]), len(pruned.blocks)
    with freed_kept() as give_back:
        for turn, target in enumerate(targets):
            for progress in pruned.turn(target, turn * blocks, len(targets) * blocks):
                yield progress
                give_back()
    models.save(model.cpu(), processor, job.folder)
    keep.save(job.folder, pruned.keeps)
    verify_written(job.folder, pruned.keeps)
    text = json.dumps(pruned.report(**_revived(source, model)), indent=1)
    (job.folder / FILE).write_text(text + "\n", encoding="utf8")


def _revived(source: Any, model: nn.Module) -> dict[str, float]:
    """Returns the share of the weights pruned by the model's earlier mask, if it had one, that are not zero now."""
    if not isinstance(source, Path) or not (source / keep.FILE).is_file():
        return {}
    before = keep.load(source)
    alive = sum(int(model.get_submodule(name).weight[~mask].count_nonzero()) for name, mask in before.items())
    return {"revived": alive / max(sum(int((~mask).sum()) for mask in before.values()), 1)}

"""The pruning stage: calibrate, walk the blocks, prune every linear, write model, mask and `prune.json`.

The mask is always chosen from scratch, as in SquareHead's released code (arXiv:2310.06927). Where the model was pruned
before (a chain of growing sparsities), the share of its zeros that came back to life is written down: SparseGPT's
compensation revives some.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import models, rooms
from harness.device import device
from harness.problems import Problem
from harness.pruning import keep
from harness.pruning.recipe import prune, recipe
from harness.pruning.walk import walk
from harness.runs.decides import CALIBRATION
from harness.runs.job import Job, Progress
from harness.stages._load import verified
from harness.tasks._lengths import fitting
from harness.tuning import session

VERSION = 1
FILE = "prune.json"


def run(job: Job) -> Iterator[Progress]:
    """Prunes `job.parents["model"]` into `job.folder`, reporting after every block."""
    options, source = job.options, job.parents["model"]
    model, processor = verified(source).to(device()), models.load_processor(source)
    kind = "solver" if options["solver"] else "criterion"
    how = recipe(kind, options[kind], options["pattern"])
    blocks = models.blocks(model)
    shapes = {linear.name: tuple(linear.module.weight.shape) for block in blocks for linear in block.linears}
    asked = rooms.bind("allocation", options["allocation"])(shapes, options["sparsity"])
    batches = calibration(options, model, processor) if how.needs else ()
    keeps, layers = {}, {}
    with contextlib.closing(walk(model, batches, how.needs)) as steps:
        for done, (block, inputs) in enumerate(steps, 1):
            for linear in block.linears:
                mask, row = prune(linear, inputs.get(linear.name, {}), asked[linear.name], how)
                keeps[linear.name], layers[linear.name] = mask.cpu(), row
            yield Progress(done, len(blocks), {"sparsity": keep.sparsity(keeps)}, "block")
    models.save(model.cpu(), processor, job.folder)
    keep.save(job.folder, keeps)
    verified(job.folder)
    report = {
        "method": {name: options[name] for name in (kind, "pattern", "allocation")},
        "calibration": {name: options[name] for name in CALIBRATION} if batches else None,
        "overall": {"asked": options["sparsity"], "reached": keep.sparsity(keeps), **_revived(source, model)},
        "process_peak_memory_bytes": _process_peak_memory(),
        "layers": layers,
    }
    (job.folder / FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")


def calibration(options: Mapping[str, Any], model: nn.Module, processor: Any) -> list[dict[str, Tensor]]:
    """Returns the calibration batches: `samples` different training examples, drawn by the seed.

    Raises:
        Problem: The split has fewer examples, or one has more labels than the model reads.
    """
    rows = session.rows_for(options)
    features, collate = session.examples_for(rows, options, processor)
    features = fitting(features, model)
    samples, size = options["samples"], options["batch_size"]
    if len(features) < samples:
        raise Problem(
            f"{samples} calibration samples are asked for, and {options['data']} has {len(features)} examples",
            where="prune.samples",
            hint=f"in the split {options['split']!r}; ask for fewer",
        )
    drawn = random.Random(options["seed"]).sample(range(len(features)), samples)
    return [collate([features[i] for i in drawn[at : at + size]]) for at in range(0, samples, size)]


def _revived(source: Any, model: nn.Module) -> dict[str, float]:
    """Returns the share of the weights pruned by the model's earlier mask, if it had one, that are not zero now."""
    if not isinstance(source, Path) or not (source / keep.FILE).is_file():
        return {}
    before = keep.load(source)
    alive = sum(int(model.get_submodule(name).weight[~mask].count_nonzero()) for name, mask in before.items())
    return {"revived": alive / max(sum(int((~mask).sum()) for mask in before.values()), 1)}


def _process_peak_memory() -> int:
    """Returns the largest memory of this process so far, in bytes: on the CUDA device, or in all on the CPU.

    Stages that the same process ran before count too: it bounds what this stage needed from above.
    """
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated(device())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

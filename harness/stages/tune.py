"""The sparse fine-tuning stage: trains the pruned model, towards the dense one if a loss asks for it; its zeros stay.

With a `ramp` the model comes dense and is pruned here, between phases of training. A method that `PRUNES` makes the
model dense, which is pruned again afterwards. One that does not merge leaves the sparse model as it was, with
`adapter/` beside it as peft reads it.

Writes the model as transformers reads it, its mask, `curve.jsonl` (one row a step) and `tune.json`; where it prunes,
also `prune.json`, of the last pruning. The mask is verified in the written weights, not only in memory.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import BoolTensor, nn

from harness import memory, models, rooms
from harness.device import device
from harness.problems import Problem
from harness.pruning import keep
from harness.runs import files
from harness.runs.job import Job, Progress
from harness.runs.processes import parallel
from harness.sources import Source, snapshot
from harness.stages import prune
from harness.stages._examples import examples_for, rows_for
from harness.stages._load import ADAPTER, changeable, verified, verify_written
from harness.stages._pruner import Pruner, pruner
from harness.tuning import adapter, attach, session
from harness.tuning.phases import Ramp

VERSION = 1
FILE = "tune.json"


def run(job: Job) -> Iterator[Progress]:
    """Fine-tunes `job.parents["model"]` into `job.folder`, reporting after every step."""
    held = memory.held(device())
    options, source = job.options, job.parents["model"]
    constants = rooms.ROOMS["method"].method(rooms.parse(options["method"]).name).constants
    model, processor = changeable(source), models.load_processor(source)
    teacher = verified(job.parents["teacher"]) if "teacher" in job.parents else None
    features, collate = examples_for(rows_for(options), options, processor)
    pruned = pruner(options["prune"], model.to(device()), processor) if "prune" in options else None
    ramp = _ramp(pruned, options["ramp"], job.scratch / prune.FILE) if options["ramp"] else None
    keeps = None if ramp else keep.load(_folder(job.parents.get("mask", source)))
    layers = [name for names in ramp.blocks for name in names] if ramp else list(keeps)
    said = {"asked": _asked(options, source), "before": zeros(model, layers)}
    end = attach.merge
    if constants.get("MERGES") is False:
        end = partial(_leave, model=model, method=options["method"], folder=job.folder / ADAPTER, said=said)
    before = keeps
    curve, summary, keeps = yield from session.fit(
        model, features, collate, options, job.scratch, teacher=teacher, keeps=keeps, ramp=ramp, end=end, held=held
    )
    if before:
        _check_size(before, keeps, options["method"])
    said.setdefault("merged", zeros(model, layers))
    if constants.get("PRUNES"):
        model.to(device())
        for target in rooms.bind("ramp", options["prune"]["ramp"])(options["prune"]["sparsity"]):
            yield from pruned.turn(target)
        keeps = pruned.keeps
    models.save(model.cpu(), processor, job.folder)
    keep.save(job.folder, keeps)
    verify_written(job.folder, keeps)
    if pruned:
        text = (job.scratch / prune.FILE).read_text(encoding="utf8") if ramp else _text(pruned)
        (job.folder / prune.FILE).write_text(text, encoding="utf8")
    sparsity = {**said, "mask": keep.sparsity(keeps), "after": zeros(model, layers)}
    session.write(job.folder, FILE, curve, {**summary, "sparsity": sparsity})


def zeros(model: nn.Module, layers: Iterable[str]) -> float:
    """Returns the fraction of weights that are exactly zero in these layers: at least the mask's sparsity."""
    weights = [model.get_submodule(name).weight for name in layers]
    return 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def _asked(options: Mapping[str, Any], source: Path | Source) -> float | None:
    """Returns the sparsity that the pruning was asked for; None where the model's folder does not say.

    Raises:
        Problem: The file that should say it is damaged.
    """
    if "prune" in options:
        return options["prune"]["sparsity"]
    folder = _folder(source)
    for file, part in ((prune.FILE, "overall"), (FILE, "sparsity")):
        if folder is not None and (folder / file).is_file():
            try:
                return json.loads((folder / file).read_text(encoding="utf8"))[part]["asked"]
            except (ValueError, KeyError, TypeError) as error:
                hint = "copy the file again, or remove it"
                raise Problem(f"this report has no {part}.asked", where=str(folder / file), hint=hint) from error
    return None


def _check_size(before: Mapping[str, BoolTensor], after: Mapping[str, BoolTensor], method: str) -> None:
    """Makes sure that no layer has more weights than it was given, or than the method's own budget, if it has one."""
    grows = "budget" in rooms.ROOMS["method"].method(rooms.parse(method).name).verbs
    most = rooms.bind("method", method, "budget") if grows else torch.sum
    for name, mask in after.items():
        given, found = int(most(before[name])), int(mask.sum())
        if found > given:
            raise Problem(f"tuning left {found} weights in its mask, which may have {given}", where=name)


def _folder(source: Path | Source) -> Path | None:
    return snapshot(source) if isinstance(source, Source) else source


def _ramp(pruned: Pruner, choice: str, told: Path) -> Ramp:
    """Returns the prunings of a ramp, by the pruner's section; `told` is their report, for a resumed run to go on."""
    targets = rooms.bind("ramp", choice)(pruned.options["sparsity"])
    blocks = [[linear.name for linear in block.linears] for block in pruned.blocks]

    def to(target: float, before: Mapping[str, BoolTensor]) -> Generator[Progress, None, dict[str, BoolTensor]]:
        earlier = json.loads(told.read_text(encoding="utf8"))["trials"] if told.is_file() else []
        pruned.trials[:] = [trial for trial in earlier if trial["sparsity"] < target]
        with contextlib.closing(pruned.turn(target)) as turn:
            for progress in turn:
                if progress.done:  # a block, whose weights are whole as long as the walk is at it; no trial
                    pruned.stay_pruned({name: before[name] for name in blocks[progress.done - 1]})
                yield progress
        files.replace(told, _text(pruned))
        return pruned.keeps

    if parallel() == "fsdp" and pruned.how.gradients:
        name = pruned.how.gradients[0]
        text = f"a ramp that prunes by {name} takes gradients of the whole model, which FSDP shares out"
        hint = "train with --parallel ddp, or prune by wanda or sparsegpt"
        raise Problem(text, where="tune.ramp", hint=hint)
    return Ramp(targets, to, blocks, pruned.batches)


def _text(pruned: Pruner) -> str:
    return json.dumps(pruned.report(), indent=1) + "\n"


def _leave(attached: attach.Attached, model: nn.Module, method: str, folder: Path, said: dict[str, Any]) -> None:
    """Writes what was trained beside the model, which stays as it was; says what sparsity merging would leave."""
    with attach.merged(attached):
        said["merged"] = zeros(model, attached.layers)
    adapter.save(model, attached, method, folder)
    attach.leave(attached)

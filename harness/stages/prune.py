"""The pruning stage: calibrate, walk the blocks, prune every linear, write model, mask and `prune.json`.

The mask is always chosen from scratch, as in SquareHead's released code (arXiv:2310.06927). Where the model was pruned
before (a chain of growing sparsities), the share of its zeros that came back to life is written down: SparseGPT's
compensation revives some.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness import models, rooms
from harness.data._rows import Rows
from harness.device import device
from harness.problems import Problem
from harness.pruning import keep
from harness.pruning.gradients import gradients
from harness.pruning.handing import handing
from harness.pruning.recipe import recipe
from harness.pruning.survey import survey
from harness.pruning.whole import Setup, prune_model, trial, without
from harness.runs.decides import CALIBRATION, SEARCH, calibrates, held_out, is_judged
from harness.runs.job import Job, Progress
from harness.stages._load import verified
from harness.tasks._lengths import fitting
from harness.tuning import session

VERSION = 1
FILE = "prune.json"
METHOD = ("criterion", "solver", "pattern", "refiner", "allocation", "ramp", "skip")


def run(job: Job) -> Iterator[Progress]:
    """Prunes `job.parents["model"]` into `job.folder`, reporting after every block."""
    options, source = job.options, job.parents["model"]
    model, processor = verified(source, options["dtype"]).to(device()), models.load_processor(source)
    kind = "solver" if options["solver"] else "criterion"
    how = recipe(kind, options[kind], options["pattern"], options["refiner"])
    blocks = without(models.blocks(model), options["skip"])
    batches = calibration(options, model, processor) if calibrates(options) else []
    judged = held_out_batches(options, model, processor) if is_judged(options) else []
    targets = rooms.bind("ramp", options["ramp"])(options["sparsity"])
    keeps, rows, spent, trials = {}, {}, {}, []
    for turn, target in enumerate(targets):
        slopes = {name: gradients(model, batches, name, blocks) for name in how.gradients}
        setup = Setup(model, blocks, batches, how, slopes)
        at, end = turn * len(blocks), len(targets) * len(blocks)
        rates = yield from _rates(options, setup, target, judged, trials, Progress(at, end, unit="block"))
        for done, block in enumerate(prune_model(setup, rates), at + 1):
            keeps.update(block.keeps)
            rows.update(block.rows)
            spent[block.name] = block.account()
            yield Progress(done, end, {"sparsity": _reached(rows)}, "block")
    models.save(model.cpu(), processor, job.folder)
    keep.save(job.folder, keeps)
    keep.verify_written(job.folder, keeps)
    report = {
        "method": {name: options[name] for name in METHOD if options[name]},
        "calibration": {name: options[name] for name in CALIBRATION} if batches else None,
        "search": {name: options[name] for name in SEARCH} if judged else None,
        "overall": {"asked": options["sparsity"], "reached": _reached(rows), **_revived(source, model)},
        "trials": trials,
        "blocks": spent,
        "layers": rows,
    }
    (job.folder / FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")


def _reached(rows: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the fraction of zeros in the layers pruned so far."""
    zeros, size = (sum(row[key] for row in rows.values()) for key in ("zeros", "size"))
    return zeros / max(size, 1)


def _rates(
    options: Mapping[str, Any],
    setup: Setup,
    target: float,
    judged: Sequence[Mapping[str, Tensor]],
    trials: list[dict[str, Any]],
    here: Progress,
) -> Generator[Progress, None, dict[str, float]]:
    """Returns the rate of each layer as the pattern can have it; reports, and writes into `trials`, every trial."""
    needs = rooms.ROOMS["allocation"].method(rooms.parse(options["allocation"]).name).needs[2:]

    def allocate(hand: Callable[[Progress], None]) -> dict[str, float]:
        def judge(rates: Mapping[str, float]) -> float:
            fitted = setup.recipe.fit(rates, setup.layers, target)
            loss = trial(setup, fitted, judged)
            trials.append({"sparsity": target, "loss": loss, "rates": fitted})
            hand(replace(here, values={"trial": len(trials), "loss": loss}))
            return loss

        told = survey(needs, setup, judge)
        return rooms.bind("allocation", options["allocation"])(setup.layers, target, **told)

    rates = yield from handing(allocate)
    return setup.recipe.fit(rates, setup.layers, target)


def held_out_batches(options: Mapping[str, Any], model: nn.Module, processor: Any) -> list[dict[str, Tensor]]:
    """Returns the batches that a search is judged on: the first `search_limit` examples of the search split.

    Raises:
        Problem: There is no example, or one has more labels than the model reads.
    """
    read = held_out(options)
    try:
        features, collate = session.examples_for(session.rows_for(read), read, processor)
    except Problem as problem:
        where = problem.where or "prune.search_data"
        raise Problem(problem.what, where=where, nearest=problem.nearest, hint=problem.hint) from problem
    features = fitting(features, model)
    most, size = min(options["search_limit"] or len(features), len(features)), options["batch_size"]
    if not most:
        raise Problem(
            f"there is nothing to judge a search on: {read['task']} makes no example of {read['data']}",
            where="prune.search_data",
            hint=f"in the split {read['split']!r}; give other search_data, or a search_task that takes shorter texts",
        )
    return [collate([features[i] for i in range(at, min(at + size, most))]) for at in range(0, most, size)]


def calibration(options: Mapping[str, Any], model: nn.Module, processor: Any) -> list[dict[str, Tensor]]:
    """Returns the calibration batches: `samples` different training examples, drawn by the seed.

    Raises:
        Problem: The split has fewer examples, or one has more labels than the model reads.
    """
    rows = session.rows_for(options)
    features, collate = session.examples_for(rows, options, processor)
    drawn = fitting(_drawn(features, options), model)
    samples, size = options["samples"], options["batch_size"]
    return [collate([drawn[i] for i in range(at, min(at + size, samples))]) for at in range(0, samples, size)]


def _drawn(features: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
    """Returns the examples that the seed draws; a task that knows how draws without making all of them."""
    samples, seed = options["samples"], options["seed"]
    if hasattr(features, "draw"):
        return features.draw(samples, seed)
    if len(features) < samples:
        raise Problem(
            f"{samples} calibration samples are asked for, and {options['data']} has {len(features)} examples",
            where="prune.samples",
            hint=f"in the split {options['split']!r}; ask for fewer",
        )
    places = random.Random(seed).sample(range(len(features)), samples)
    return Rows(range(samples), lambda at: features[places[at]])


def _revived(source: Any, model: nn.Module) -> dict[str, float]:
    """Returns the share of the weights pruned by the model's earlier mask, if it had one, that are not zero now."""
    if not isinstance(source, Path) or not (source / keep.FILE).is_file():
        return {}
    before = keep.load(source)
    alive = sum(int(model.get_submodule(name).weight[~mask].count_nonzero()) for name, mask in before.items())
    return {"revived": alive / max(sum(int((~mask).sum()) for mask in before.values()), 1)}
